from __future__ import annotations

import tracemalloc
from dataclasses import fields

import numpy as np
import pytest

from stemsplit.audio.reader import Signal
from stemsplit.audio.writer import Encoding, Writer
from stemsplit.datasets.songs import Song, find_songs
from stemsplit.dsp.stft import Stft
from stemsplit.errors import DecodeError, UnknownStem
from stemsplit.training.augment import Augmentation
from stemsplit.training.sampler import Batch, MixtureSampler, map_songs, splits
from tests.conftest import NOISES, SAMPLE_RATE

STEMS = NOISES
BINS = 513
HZ = np.arange(BINS) * SAMPLE_RATE / 2048


class Arrays:
    """Examples as arrays."""

    def __init__(self, *args, **options):
        self.examples = MixtureSampler(*args, **options)

    def __call__(self, number):
        batch = self.examples(number)
        return Batch(*(getattr(batch, field.name).numpy() for field in fields(batch)))


def examples(noise_songs, size=2, frames=40, seed=0, **options):
    return Arrays(noise_songs, Stft(), BINS, frames, size, seed, Augmentation(**options))


@pytest.mark.slow
def test_a_batch_depends_on_its_number_and_seed_alone(noise_songs):
    options = {"drop": 0.2, "polarity": 0.5, "equalise_db": 3, "pitch": 2, "stretch": 0.2, "noise_db": -20}
    made = examples(noise_songs, **options)
    other = made(4)
    first, again = made(3), examples(noise_songs, **options)(3)
    for field in ("mixture", "stems", "known"):
        np.testing.assert_array_equal(getattr(first, field), getattr(again, field))
    assert np.abs(first.mixture - other.mixture).max() > 0
    assert np.abs(first.mixture - examples(noise_songs, seed=1, **options)(3).mixture).max() > 0


@pytest.mark.parametrize("across", [0.0, 1.0])
def test_a_mixture_is_made_of_its_stems(noise_songs, across):
    batch = examples(noise_songs, across=across)(0)
    assert batch.mixture.shape == (2, 2, 40, BINS)
    assert batch.stems.shape == (2, 2, 2, 40, BINS)
    assert batch.known.all()
    high, low = batch.stems[:, 0], batch.stems[:, 1]
    np.testing.assert_allclose(batch.mixture[..., HZ > 3500], high[..., HZ > 3500], atol=1e-4)
    np.testing.assert_allclose(batch.mixture[..., HZ < 2000], low[..., HZ < 2000], atol=1e-4)


def test_the_parts_of_changed_songs_add_up(noise_songs):
    batch = examples(noise_songs, pitch=2, stretch=0.2, equalise_db=3)(0)
    np.testing.assert_allclose(batch.stems.sum(axis=1), batch.mixture, atol=1e-6)


def test_without_augmentation_an_example_is_a_piece_of_a_song(noise_songs):
    stft, frames = Stft(), 8
    song = Song("ramp", noise_songs[0].parts[..., : stft.samples(frames)], (True, True))  # one place to cut
    made = Arrays([song], stft, BINS, frames, 3, augmentation=Augmentation.none())(0)
    expected = stft.transform(song.parts)[..., :BINS]
    for example in range(3):
        np.testing.assert_allclose(made.stems[example], expected[:2], atol=1e-6)
        np.testing.assert_allclose(made.mixture[example], expected.sum(axis=0), atol=1e-6)


def test_a_song_shorter_than_an_example_ends_in_silence(noise_songs):
    short = Song("short", noise_songs[0].parts[..., :4096], (True, True))
    batch = examples([short], frames=40)(0)
    heard = np.abs(batch.mixture).max(axis=(0, 1, 3)) > 0
    np.testing.assert_array_equal(heard, np.arange(40) * 512 < 4096)


@pytest.mark.slow
def test_stems_come_from_as_many_songs_as_asked_for(noise_songs):
    # In each song both stems have the same level, in one of them 40 dB below that in the other.
    loud, quiet = noise_songs[0], Song("quiet", noise_songs[1].parts * np.float32(0.01), (True, True))

    def differing(across):
        batch = examples([loud, quiet], size=200, frames=2, across=across, gain_db=0, gain_within_db=0)(0)
        high, low = np.sqrt(np.square(np.abs(batch.stems)).sum(axis=-1).mean(axis=(-1, -2))).T
        return np.mean(np.abs(np.log10(high / low)) > 1)

    assert differing(0.0) == 0
    assert differing(1.0) == pytest.approx(0.5, abs=0.1)  # the other half come from one song by chance
    assert differing(0.5) == pytest.approx(0.25, abs=0.1)


@pytest.mark.slow
def test_left_and_right_change_places_in_all_stems_of_a_song_or_in_none(noise_songs):
    left = Song("left", noise_songs[0].parts * np.array([1, 0], np.float32)[:, None], (True, True))

    def swapped(**options):
        """Whether each stem is on the right, `(example, stem)`."""
        spectra = examples([left], size=100, frames=2, width=0.0, **options)(0).stems
        return np.abs(spectra[:, :, 1]).max(axis=(-1, -2)) > 0

    high, low = swapped(across=0.0).T
    np.testing.assert_array_equal(high, low)
    assert 0.3 < high.mean() < 0.7
    assert (np.not_equal(*swapped(across=1.0).T)).any()
    assert not swapped(swap=0.0).any()
    assert swapped(swap=1.0).all()


@pytest.mark.slow
def test_the_stereo_image_changes_in_all_stems_alike(noise_songs):
    batch = examples(noise_songs, size=60, frames=2, width=1.0)(0)
    np.testing.assert_allclose(batch.stems.sum(axis=1), batch.mixture, atol=1e-6)
    left, right = np.moveaxis(batch.mixture, 1, 0)
    mono = (left == right).all(axis=(1, 2))
    assert 0.2 < mono.mean() < 0.6
    assert (batch.stems[mono, :, 0] == batch.stems[mono, :, 1]).all()
    untouched = examples(noise_songs, size=60, frames=2, width=0.0)(0)
    assert not (untouched.mixture[:, 0] == untouched.mixture[:, 1]).all(axis=(1, 2)).any()


@pytest.mark.slow
def test_what_no_one_could_tell_apart_is_never_a_target(noise_songs):
    joined = Song("joined", noise_songs[0].parts[[0, 2, 1]], (True, False))
    for number in range(20):
        batch = examples([joined, noise_songs[1]], across=0.5)(number)
        silent_low = np.abs(batch.stems[:, 1]).max(axis=(1, 2, 3)) == 0
        np.testing.assert_array_equal(silent_low & batch.known[:, 1], False)


@pytest.mark.slow
@pytest.mark.parametrize("across", [0.0, 1.0])
def test_the_first_stem_sounds_as_often_as_asked_for(noise_songs, across):
    high, low, rest = noise_songs[0].parts
    halved = high * (np.arange(high.shape[-1]) < high.shape[-1] // 2)
    song = Song("a pause", np.stack([halved, low, rest]), (True, True))

    def sounding(voiced):
        batch = examples([song], size=100, frames=2, across=across, voiced=voiced)(0)
        return np.mean(np.abs(batch.stems[:, 0]).max(axis=(1, 2, 3)) > 0)

    assert 0.3 < sounding(0.0) < 0.7
    assert sounding(1.0) == 1


def test_waveforms_are_what_spectra_are_made_of(noise_songs):
    options = {"across": 0.0, "pitch": 2.0, "polarity": 0.5, "noise_db": -20.0}
    batch = Arrays(noise_songs, None, 0, 5000, 4, augmentation=Augmentation(**options))(3)
    assert batch.mixture.shape == (4, 2, 5000)
    assert batch.stems.shape == (4, 2, 2, 5000)
    assert batch.stems.dtype == np.float32
    noise = batch.mixture - batch.stems.sum(axis=1)
    assert 0.001 < np.abs(noise).max() / np.abs(batch.mixture).max() < 0.5
    plain = Arrays(noise_songs, None, 0, 5000, 4, augmentation=Augmentation.none())(3)
    np.testing.assert_allclose(plain.mixture, plain.stems.sum(axis=1), atol=1e-6)
    whole = np.concatenate([song.parts[0, 0] for song in noise_songs])
    for each in plain.stems[:, 0, 0]:
        starts = np.flatnonzero(np.abs(whole[:-4999] - each[0]) < 1e-6)
        assert any(np.abs(whole[start:][:5000] - each).max() < 1e-6 for start in starts)


def write_song(path, parts):
    path.mkdir(parents=True)
    for name, part in parts.items():
        with Writer(path / f"{name}.wav", Signal(SAMPLE_RATE, len(part)), Encoding("32f")) as writer:
            writer.write(part)


@pytest.fixture
def data(tmp_path, noise_songs):
    """A song of stems and a piano, none as long as another."""
    high, low, _ = noise_songs[0].parts
    write_song(tmp_path / "data" / "train" / "song", {"high": high, "low": low[:, :9000], "piano": high[:1]})
    return str(tmp_path / "data")


def decoded(data, cache, **options):
    return map_songs(find_songs([data], "train", STEMS), sample_rate=SAMPLE_RATE, cache=cache, **options)


def test_a_mapped_song_is_the_song(data, tmp_path):
    done = []
    (mapped,) = decoded(data, tmp_path / "cache", progress=lambda *counts: done.append(counts))
    (source,) = find_songs([data], "train", STEMS)
    loaded = source.load(SAMPLE_RATE)
    assert (mapped.name, mapped.known, done) == ("song", (True, True), [(1, 1)])
    assert isinstance(mapped.parts, np.memmap)
    np.testing.assert_array_equal(mapped.parts, loaded.parts.astype(np.float16))


def test_a_song_is_decoded_once_and_leaves_one_file(data, tmp_path, monkeypatch):
    decoded(data, tmp_path / "cache")
    monkeypatch.setattr("stemsplit.datasets.songs.Sound.decode", None)
    decoded(data, tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_an_interrupted_song_leaves_nothing(data, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("numpy.fromfile", interrupt)
        with pytest.raises(KeyboardInterrupt):
            decoded(data, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
    assert decoded(data, tmp_path / "cache")


@pytest.mark.slow
def test_one_stem_at_a_time_is_in_memory(tmp_path):
    second = np.ones((2, SAMPLE_RATE), np.float32)
    names = [f"stem{number}" for number in range(12)]
    write_song(tmp_path / "data" / "train" / "song", dict.fromkeys(names, np.tile(second, 20)))
    tracemalloc.start()
    sources = find_songs([str(tmp_path / "data")], "train", names)
    map_songs(sources, sample_rate=SAMPLE_RATE, cache=tmp_path / "cache")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    stem = 20 * second.nbytes
    assert (
        peak < 5 * stem
    )  # its blocks, their sum, and their halves; all twelve would be more than twice that


def test_a_stem_that_no_song_has_alone_is_named(tmp_path):
    write_song(tmp_path / "train" / "song", {"high_and_low": np.ones((1, 9), np.float32)})
    write_song(tmp_path / "valid" / "song", {"low": np.ones((1, 9), np.float32)})
    with pytest.raises(
        UnknownStem, match="No training song has low as a separate stem; there is high and low"
    ):
        splits([str(tmp_path)], ["low"])


def test_songs_are_kept_to_validate_on_where_none_were_set_aside(tmp_path):
    for number in range(12):
        write_song(tmp_path / "train" / f"song {number:02}", {"low": np.ones((1, 9), np.float32)})
    kept = splits([str(tmp_path)], ["low"])
    assert [song.name for song in kept["valid"]] == ["song 00", "song 10"]
    assert len(kept["train"]) == 10
    write_song(tmp_path / "valid" / "another", {"low": np.ones((1, 9), np.float32)})
    kept = splits([str(tmp_path)], ["low"])
    assert ([song.name for song in kept["valid"]], len(kept["train"])) == (["another"], 12)


def test_one_song_is_not_enough(tmp_path):
    write_song(tmp_path / "train" / "song", {"low": np.ones((1, 9), np.float32)})
    with pytest.raises(DecodeError, match="only one song"):
        splits([str(tmp_path)], ["low"])
