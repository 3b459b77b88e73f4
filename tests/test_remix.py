"""`stemsplit remix`: named changes and no others, peaks that fit, and the song's own tags."""

from __future__ import annotations

import json

import mutagen
import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

import stemsplit
from stemsplit.audio.loudness import Peaks
from stemsplit.audio.reader import Signal
from stemsplit.audio.writer import Encoding, Writer
from stemsplit.cli import app

pytestmark = pytest.mark.slow

RATE = 44_100
STEMS = ("vocals", "drums", "bass", "other")


def run(*words: str):
    return CliRunner().invoke(app, ["remix", *words])


def level_db(signal: np.ndarray, reference: np.ndarray) -> float:
    return float(10 * np.log10(np.sum(signal**2) / np.sum(reference**2)))


@pytest.fixture
def folder(tmp_path, monkeypatch) -> np.ndarray:
    """A folder `song` with four stems, which are also returned as `(stem, channel, time)`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "song").mkdir()
    stems = 0.1 * np.random.default_rng(0).standard_normal((4, 2, 2 * RATE))
    for name, stem in zip(STEMS, stems, strict=True):
        soundfile.write(f"song/{name}.wav", stem.T, RATE, "FLOAT")
    return stems


def test_the_named_stem_changes_by_the_named_level_and_no_other_does(folder):
    result = run("song", "vocals=-6dB", "drums=mute", "-o", "mix.wav", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["gain_db"] == 0
    mix, rate = soundfile.read("mix.wav")
    left_over = mix.T - folder[2] - folder[3]
    assert rate == RATE
    assert level_db(left_over, folder[0]) == pytest.approx(-6, abs=0.001)
    assert soundfile.info("mix.wav").subtype == "FLOAT", "as deep as the stems"


@pytest.mark.parametrize(
    ("preset", "heard"),
    [("karaoke", (1, 2, 3)), ("instrumental", (1, 2, 3)), ("acapella", (0,)), ("drumless", (0, 2, 3))],
)
def test_presets(folder, preset, heard):
    result = run("song", preset)
    assert result.stdout == f"song-{preset}.wav\n"
    mix, _ = soundfile.read(f"song-{preset}.wav")
    np.testing.assert_allclose(mix.T, folder[list(heard)].sum(axis=0), atol=1e-6)


def test_practice_leaves_a_guide(folder):
    assert run("song", "practice:bass").stdout == "song-practice-bass.wav\n"
    mix, _ = soundfile.read("song-practice-bass.wav")
    assert level_db(mix.T - folder[[0, 1, 3]].sum(axis=0), folder[2]) == pytest.approx(-18, abs=0.01)


def test_a_remix_too_loud_is_softer_as_a_whole(folder):
    result = run("song", "vocals=+20dB", "-o", "loud.wav", "--depth", "16", "--json")
    told = json.loads(result.stdout)
    assert told["gain_db"] < -6
    assert "the balance is unchanged" in result.stderr
    mix, _ = soundfile.read("loud.wav")
    wanted = 10 * folder[0] + folder[1:].sum(axis=0)
    np.testing.assert_allclose(mix.T, 10 ** (told["gain_db"] / 20) * wanted, atol=1e-4)
    peaks = Peaks(RATE, 2)
    peaks.add(mix.T.astype(np.float32), last=True)
    assert peaks.true == pytest.approx(told["true_peak"], abs=1e-3)
    assert peaks.true <= 1.001


def test_a_loud_song_is_left_as_it_is(folder):
    for name, stem in zip(STEMS, folder, strict=True):
        soundfile.write(f"song/{name}.wav", 4 * stem.T, RATE, "FLOAT")
    result = run("song", "vocals=0dB", "-o", "same.wav", "--json")
    assert json.loads(result.stdout)["gain_db"] == 0
    np.testing.assert_allclose(soundfile.read("same.wav")[0].T, 4 * folder.sum(axis=0), atol=1e-5)


def test_a_song_is_split_on_the_way(folder):
    song = folder.sum(axis=0)[:, :RATE].astype(np.float32)
    with Writer("a song.flac", Signal(RATE, 2), Encoding("24")) as writer:
        writer.write(song)
    tagged = mutagen.File("a song.flac")
    tagged["title"], tagged["artist"] = "Old", "Somebody"
    tagged.save()
    assert run("a song.flac", "bass=0dB").stdout == "a song-remix.flac\n"
    same, _ = soundfile.read("a song-remix.flac")
    assert level_db(same.T - song, song) < -100
    tags = mutagen.File("a song-remix.flac")
    assert (tags["title"], tags["artist"]) == (["Old (remix)"], ["Somebody"])
    assert run("a song.flac", "karaoke").exit_code == 0
    karaoke, _ = soundfile.read("a song-karaoke.flac")
    decoded = soundfile.read("a song.flac")[0].T
    vocals = stemsplit.split(decoded, RATE)["vocals"]
    np.testing.assert_allclose(karaoke.T, decoded - vocals, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("song", "loud"), "choose one of karaoke"),
        (("song", "piano=mute"), "choose from vocals"),
        (("nothing.wav", "karaoke"), "nothing.wav"),
        (("empty", "karaoke"), "No stems"),
        (("song", "karaoke", "-o", "there.wav"), "--force"),
        (("song", "karaoke", "-o", "song.xyz"), "xyz"),
    ],
)
def test_what_cannot_be_done_is_refused(folder, tmp_path, words, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "there.wav").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    result = run(*words)
    assert result.exit_code == (2 if "loud" in words or "piano=mute" in words else 1)
    assert result.stderr.startswith("error: ")
    assert said in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_presets_and_words_go_together(folder):
    assert run("song", "Karaoke", "drums=-6dB", "-o", "mix.wav").exit_code == 0
    mix, _ = soundfile.read("mix.wav")
    assert level_db(mix.T - folder[2] - folder[3], folder[1]) == pytest.approx(-6, abs=0.001)


@pytest.mark.parametrize("out", ["song/mix.wav", "song/vocals.wav"])
def test_a_remix_becomes_no_stem(folder, tmp_path, out):
    before = (tmp_path / "song" / "vocals.wav").read_bytes()
    result = run("song", "karaoke", "-o", out, "--force")
    assert result.exit_code == 1
    assert "one of the stems" in result.stderr
    assert (tmp_path / "song" / "vocals.wav").read_bytes() == before
    assert len(list((tmp_path / "song").iterdir())) == 4


def test_a_song_does_not_replace_itself(folder):
    soundfile.write("a.wav", folder.sum(axis=0).T, RATE)
    result = run("a.wav", "karaoke", "-o", "a.wav", "--force")
    assert result.exit_code == 1
    assert "overwrite the song itself" in result.stderr
