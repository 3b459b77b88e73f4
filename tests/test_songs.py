from __future__ import annotations

import numpy as np
import pytest

from stemsplit import evaluation, songs
from stemsplit.errors import DecodeError
from stemsplit.writer import Writer
from tests.conftest import SAMPLE_RATE, STEMS, mask_separator


def write(path, samples):
    with Writer(path, sample_rate=SAMPLE_RATE, channels=len(samples), depth="32f") as writer:
        writer.write(samples.astype(np.float32))


@pytest.fixture
def sounds():
    """One second of a different noise each; `(channel, time)`."""
    rng = np.random.default_rng(440)
    return {name: 0.1 * rng.standard_normal((2, SAMPLE_RATE)) for name in (*STEMS, "piano")}


@pytest.fixture
def folder(tmp_path, sounds):
    song = tmp_path / "test" / "song"
    song.mkdir(parents=True)
    for name in STEMS:
        write(song / f"{name}.wav", sounds[name])
    return tmp_path


def test_a_song_is_the_sum_of_its_files(folder, sounds):
    (path,) = songs.song_folders(folder, "test", STEMS)
    write(path / "mixture.wav", 0 * sounds["bass"])  # not a part of it
    song = songs.load_song(path, STEMS, SAMPLE_RATE)
    assert song.known == (True,) * 4
    np.testing.assert_allclose(song.parts[2], sounds["bass"], atol=1e-6)
    np.testing.assert_allclose(song.mixture, sum(sounds[name] for name in STEMS), atol=1e-6)


def test_a_file_of_several_stems_makes_them_unknown(folder, sounds):
    (path,) = songs.song_folders(folder, "test", STEMS)
    (path / "bass.wav").unlink()
    (path / "other.wav").rename(path / "other_and_bass.wav")
    (path / "drums.wav").unlink()
    write(path / "piano.wav", sounds["piano"][:1])
    song = songs.load_song(path, STEMS, SAMPLE_RATE)
    assert song.known == (True, True, False, False)
    assert not song.parts[1:4].any()  # no drums: silent, and known to be
    np.testing.assert_allclose(song.parts[4], sounds["other"] + sounds["piano"][:1], atol=1e-6)


def test_a_folder_without_songs_or_stems_is_named(tmp_path):
    with pytest.raises(DecodeError, match="No songs"):
        songs.song_folders(tmp_path, "test", STEMS)
    with pytest.raises(DecodeError, match="No stems"):
        songs.load_song(tmp_path, STEMS, SAMPLE_RATE)


def test_oracles_beat_what_they_must(folder):
    (path,) = songs.song_folders(folder, "test", STEMS)
    song = songs.load_song(path, STEMS, SAMPLE_RATE)
    oracles = evaluation.oracles(mask_separator(), 0.5)

    def median_sdr(estimates):
        scores = evaluation.score_stems(song, estimates, STEMS)
        return np.median([scores[stem]["sdr_db"] for stem in STEMS])

    mixture = median_sdr(evaluation.unprocessed(song))
    assert mixture == pytest.approx(-10 * np.log10(3), abs=0.1)  # three other noises, as loud
    assert median_sdr(oracles["ideal ratio"](song)) > median_sdr(oracles["ideal binary"](song)) > mixture + 3
    assert median_sdr(song.parts[:4]) == np.inf


def test_masks_are_scored_against_the_binary_mask(folder):
    (path,) = songs.song_folders(folder, "test", STEMS)
    song = songs.load_song(path, STEMS, SAMPLE_RATE)
    scores = evaluation.score_masks(song, mask_separator(), 0.5)
    assert list(scores) == list(STEMS)
    for stem in STEMS:  # networks that no one trained
        assert scores[stem]["balanced_accuracy"] == pytest.approx(0.5, abs=0.1)
        assert scores[stem]["base_rate"] > 0.5


def test_medians_are_over_the_songs_that_have_the_stem():
    each = [{"bass": {"sdr_db": 1.0}}, {"bass": {"sdr_db": 5.0}, "drums": {"sdr_db": 2.0}}]
    assert evaluation.summarise(each, np.median) == {"bass": {"sdr_db": 3.0}, "drums": {"sdr_db": 2.0}}
