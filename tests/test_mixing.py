"""Stems found in a folder, and put together again."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from stemsplit.audio import stem_folder
from stemsplit.errors import DecodeError, StemsplitError, UsageError
from stemsplit.remix.mixer import Channel, Mixer, parse

RATE = 44_100
STEMS = ("vocals", "drums", "bass", "other")


@pytest.fixture
def sound() -> np.ndarray:
    """`(stem, channel, time)`"""
    return (0.1 * np.random.default_rng(0).standard_normal((4, 2, 5000))).astype(np.float32)


def mixed(sound: np.ndarray, text: str, pieces: int = 7) -> np.ndarray:
    mixer = Mixer(parse(text, STEMS), STEMS, RATE)
    return np.concatenate([mixer.mix(block) for block in np.array_split(sound, pieces, axis=-1)], axis=-1)


def test_words_say_what_happens_to_a_stem():
    channels = parse(
        "vocals=-6dB,pan:-30 drums=+3 other=mute bass=solo,width:50%,delay:20ms vocals=delay:1", STEMS
    )
    assert channels == {
        "vocals": Channel(gain_db=-6, pan=-30, delay_ms=1),
        "drums": Channel(gain_db=3),
        "bass": Channel(solo=True, width=50, delay_ms=20),
        "other": Channel(mute=True),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("loud", "choose one of karaoke"),
        ("vocals", "choose one of"),
        ("vocals=", "choose one of"),
        ("piano=mute", "choose from vocals, drums"),
        ("practice:piano", "choose from vocals, drums"),
        ("vocals=upside-down", "write `vocals=-6dB"),
        ("vocals=pan:101", "from -100 to 100"),
        ("vocals=90", "from -120 to 40"),
        ("vocals=nan", "write"),
    ],
)
def test_what_is_no_remix_is_refused(text, said):
    with pytest.raises(UsageError) as caught:
        parse(text, STEMS)
    assert said in caught.value.hint
    assert caught.value.exit_status == 2


def test_nothing_done_is_the_sum(sound):
    np.testing.assert_array_equal(mixed(sound, ""), sound.sum(axis=0))


@pytest.mark.parametrize(
    ("text", "gains"),
    [
        ("vocals=-6dB other=+2.5dB", (10 ** (-6 / 20), 1, 1, 10 ** (2.5 / 20))),
        ("karaoke", (0, 1, 1, 1)),
        ("instrumental", (0, 1, 1, 1)),
        ("acapella", (1, 0, 0, 0)),
        ("drumless", (1, 0, 1, 1)),
        ("practice:bass", (1, 1, 10 ** (-18 / 20), 1)),
        ("bass=solo drums=solo bass=mute", (0, 1, 0, 0)),
    ],
)
def test_gains_are_those_named(sound, text, gains):
    expected = np.einsum("s,sct->ct", np.array(gains), sound)
    np.testing.assert_allclose(mixed(sound, text), expected, atol=1e-6)


def test_pan_width_and_delay(sound):
    alone = sound[:1]
    left = mixed(sound, "vocals=solo,pan:-100")
    np.testing.assert_allclose(left, [np.sqrt(2) * alone[0, 0], 0 * alone[0, 1]], atol=1e-6)
    narrow = mixed(sound, "vocals=solo,width:0")
    np.testing.assert_allclose(narrow, np.repeat(alone.mean(axis=1), 2, axis=0), atol=1e-6)
    wide = mixed(sound, "vocals=solo,width:200")
    np.testing.assert_allclose(wide[0] - wide[1], 2 * (alone[0, 0] - alone[0, 1]), atol=1e-6)
    for pieces in (1, 7, 4999):
        later = mixed(sound, "vocals=solo,delay:20ms", pieces)
        np.testing.assert_array_equal(later, np.pad(alone[0], ((0, 0), (882, 0)))[:, :5000])


def test_a_mono_track_cannot_be_panned(sound):
    with pytest.raises(StemsplitError, match="cannot be panned or widened"):
        mixed(sound[:, :1], "vocals=pan:20")


@pytest.fixture
def folder(tmp_path, sound):
    home = tmp_path / "my song"
    home.mkdir()
    for name, stem in zip(STEMS, sound, strict=True):
        soundfile.write(home / f"{name}.wav", stem.T, RATE, "FLOAT")
    return home


def test_stems_in_a_folder_come_in_step(folder, sound):
    soundfile.write(folder / "bass.wav", sound[2, :, :4000].T, RATE, "FLOAT")
    (folder / "notes.txt").write_text("no sound")
    found = stem_folder.find(folder)
    assert (found.name, list(found.stems), found.sample_rate) == ("my song", list(STEMS), RATE)
    assert (found.channels, found.frames, found.mixture) == (2, 5000, None)
    sound[2, :, 4000:] = 0
    np.testing.assert_array_equal(np.concatenate(list(found.blocks()), axis=-1), sound)
    mix = np.concatenate(list(found.mix()), axis=-1)
    np.testing.assert_allclose(mix, sound.sum(axis=0), atol=1e-6)


def test_blocks_of_any_length_come_in_step():
    sounds = [np.arange(10, dtype=np.float32)[None], np.arange(7, dtype=np.float32)[None]]
    blocks = [np.split(sounds[0], [1, 2, 9], axis=1), np.split(sounds[1], [4], axis=1)]
    both = np.concatenate(list(stem_folder.in_step(blocks)), axis=-1)
    np.testing.assert_array_equal(both[0], sounds[0])
    np.testing.assert_array_equal(both[1], np.pad(sounds[1], ((0, 0), (0, 3))))


def test_a_mixture_beside_the_stems_is_no_stem(folder, sound):
    soundfile.write(folder / "mixture.wav", sound[0].T, RATE, "FLOAT")
    found = stem_folder.find(folder)
    assert found.mixture == folder / "mixture.wav"
    np.testing.assert_array_equal(np.concatenate(list(found.mix()), axis=-1), sound[0])
    assert "mixture" not in found.stems


def test_what_is_no_set_of_stems_is_refused(folder, tmp_path, sound):
    with pytest.raises(DecodeError, match="No folder"):
        stem_folder.find(tmp_path / "nothing")
    with pytest.raises(DecodeError, match="No stems in"):
        stem_folder.find(tmp_path)
    soundfile.write(folder / "piano.wav", sound[0].T, 48_000)
    with pytest.raises(DecodeError, match="differ in sample rate"):
        stem_folder.find(folder)


def test_one_stem_twice_is_refused(folder, sound):
    soundfile.write(folder / "vocals.flac", sound[0].T, RATE)
    with pytest.raises(DecodeError, match="are the same stem"):
        stem_folder.find(folder)
