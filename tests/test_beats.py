"""Beats: grids, Audacity labels, and those found in clicks."""

from __future__ import annotations

import numpy as np
import pytest

from stemsplit.analysis import labels
from stemsplit.analysis.beats import Beats, track_beats
from stemsplit.errors import DecodeError

RATE = 22_050


def clicks(times: np.ndarray, seconds: float) -> np.ndarray:
    """Bursts of noise `(time,)` at some times, over a very quiet noise."""
    rng = np.random.default_rng(0)
    sound = 1e-4 * rng.standard_normal(round(seconds * RATE))
    burst = 0.5 * np.exp(-np.arange(1000) / 100) * rng.standard_normal(1000)
    for time in times:
        start = round(time * RATE)
        sound[start : start + 1000] += burst[: len(sound) - start]
    return sound.astype(np.float32)


def worst(found: np.ndarray, true: np.ndarray) -> float:
    """The largest distance of a beat found to the nearest true one."""
    return float(np.abs(found[:, None] - true).min(axis=1).max())


@pytest.mark.parametrize(("bpm", "first", "seconds"), [(120, 0.0, 10.0), (97, 0.31, 33.3), (60, 2.0, 1.0)])
def test_an_even_grid(bpm, first, seconds):
    beats = Beats.from_bpm(bpm, first, seconds, beats_per_bar=4)
    assert np.all(beats.times_seconds < seconds)
    assert len(beats.times_seconds) == sum(first + n * 60 / bpm < seconds - 1e-9 for n in range(999))
    assert beats.times_seconds[:1].tolist() in ([], [first])
    assert np.diff(beats.times_seconds) == pytest.approx(60 / bpm)
    assert np.flatnonzero(beats.downbeats).tolist() == list(range(0, len(beats.times_seconds), 4))


@pytest.mark.parametrize("bpm", [0, -1, np.inf, np.nan])
def test_a_grid_needs_a_tempo(bpm):
    with pytest.raises(ValueError, match="must be above 0"):
        Beats.from_bpm(bpm)


@pytest.mark.slow
@pytest.mark.parametrize("bpm", [66.6, 97, 128, 150])
def test_the_beats_of_even_clicks_within_5_ms(bpm):
    true = np.arange(0.5, 29.5, 60 / bpm)
    beats = track_beats(clicks(true, 30), RATE)
    assert beats.bpm == pytest.approx(bpm, abs=0.05)
    assert worst(beats.times_seconds, true) < 0.005
    assert worst(true, beats.times_seconds) < 0.005
    assert beats.confidence > 0.6


@pytest.mark.slow
def test_the_beats_follow_a_tempo_that_drifts():
    periods = 60 / np.linspace(100, 112, 80)
    true = 0.7 + np.cumsum(periods)
    beats = track_beats(clicks(true, true[-1] + 1), RATE)
    assert worst(beats.times_seconds, true) < 0.015
    assert worst(true, beats.times_seconds) < 0.015
    tempi = 60 / np.diff(beats.times_seconds)
    assert (tempi[:5].mean(), tempi[-5:].mean()) == (
        pytest.approx(100.4, abs=1),
        pytest.approx(111.6, abs=1),
    )


def test_no_beats_without_onsets():
    assert track_beats(np.zeros(5 * RATE, np.float32), RATE) is None
    assert track_beats(np.zeros(0, np.float32), RATE) is None
    assert track_beats(clicks(np.array([0.1]), 0.3), RATE) is None


@pytest.mark.parametrize("per_bar", [3, 4, None])
def test_beats_survive_a_file_of_labels(tmp_path, per_bar):
    path = tmp_path / "beats.txt"
    beats = Beats(0.25 + 0.5 * np.arange(11), per_bar, 2 if per_bar else 0, 120.0, 0.8)
    beats.write(path)
    again = Beats.read(path)
    assert again.times_seconds == pytest.approx(beats.times_seconds)
    assert (again.beats_per_bar, again.first_downbeat) == (per_bar, beats.first_downbeat)
    assert again.bpm == pytest.approx(120)
    assert (
        path.read_text(encoding="utf-8").splitlines()[2] == f"1.250000\t1.250000\t{1 if per_bar else 'beat'}"
    )


def test_labels_as_audacity_writes_them(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_bytes(b"\xef\xbb\xbf0.5\t0.5\tverse 1\r\n\\\t100.0\t200.0\r\n1,5\t2\tx\r\n")
    with pytest.raises(DecodeError, match="see line 3"):
        labels.read(path)
    path.write_bytes(b"\xef\xbb\xbf0.5\t0.75\tverse 1\r\n\\\t100.0\t200.0\r\n\r\n2\t2\t\r\n")
    assert labels.read(path) == [labels.Label(0.5, 0.75, "verse 1"), labels.Label(2, 2, "")]


@pytest.mark.parametrize("content", [b"RIFF\xff\xfe", b"-1\t0\tx", b"2\t1\tx", b"nan\tnan\tx"])
def test_what_is_not_a_file_of_labels(tmp_path, content):
    (tmp_path / "x.txt").write_bytes(content)
    with pytest.raises(DecodeError, match=r"is not a file of labels: see line 1"):
        labels.read(tmp_path / "x.txt")
    with pytest.raises(DecodeError, match="Cannot read"):
        labels.read(tmp_path / "none.txt")


def test_one_beat_is_not_a_grid(tmp_path):
    (tmp_path / "x.txt").write_text("1\t1\t1\n")
    with pytest.raises(DecodeError, match="fewer than two beats"):
        Beats.read(tmp_path / "x.txt")
