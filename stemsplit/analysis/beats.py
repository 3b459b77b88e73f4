"""Beat tracking: the beats of a recording, their tempo, and the bars.

The method is dynamic programming over beat times and beat periods, as in D. Ellis, "Beat tracking by dynamic
programming", 2007, with a tempo that may change from beat to beat, as in F. Krebs, S. Böck and G. Widmer,
"An efficient state-space model for joint tempo and meter tracking", 2015.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stemsplit.analysis import labels
from stemsplit.analysis.frames import HOP, RATE, Onsets
from stemsplit.errors import DecodeError

SLOWEST_BPM, FASTEST_BPM = 45.0, 220.0
USUAL_BPM, OCTAVES = 110.0, 0.8
"""Center of the tempo prior, and its standard deviation in octaves."""
RANGES = (1.0, 1.0, 0.5)
"""Weights of the frequency ranges of `Onsets` in the tempo estimate."""
MULTIPLES = {0.5: -0.25, 1.0: 1.0, 2.0: 0.7, 4.0: 0.5}
"""Weights of the autocorrelation at multiples of the beat period."""
DRIFT = 0.12
"""Maximum relative deviation of a beat period from the estimate."""
FASTEST_DOUBLED_BPM = 190.0
SUPPORT = 0.25
"""Weight of the onsets of all instruments, added to drum onsets of weight 1."""
LEAST_STRUCK = 0.3
"""Drums determine the tempo if more than this fraction of the seconds has drum onsets."""
FEWEST = 4
"""Minimum number of beats."""
STEADY_SECONDS = 0.015
"""An even grid replaces the beats if most deviate from it by less than this."""


@dataclass(frozen=True, eq=False)
class Beats:
    """The beats of a recording, in order."""

    times_seconds: NDArray[np.float64]
    beats_per_bar: int | None
    """None if it is not known."""
    first_downbeat: int
    """The index of the first beat that begins a bar; 0 if bars are not known."""
    bpm: float
    confidence: float
    """Autocorrelation of the onsets at the beat period, from 0 to 1; 1 for beats given by the user."""

    @classmethod
    def from_bpm(
        cls,
        bpm: float,
        first_beat_seconds: float = 0.0,
        duration_seconds: float = 0.0,
        beats_per_bar: int | None = None,
    ) -> Beats:
        """Return an even grid from the first beat, which begins a bar, to the end of the recording.

        Raises:
            ValueError: the tempo is not above 0.
        """
        if not 0 < bpm < np.inf:
            raise ValueError(f"bpm={bpm} must be above 0")
        period = 60 / bpm
        count = max(0, int(np.ceil((duration_seconds - first_beat_seconds) / period - 1e-9)))
        times = first_beat_seconds + period * np.arange(count, dtype=np.float64)
        return cls(times, beats_per_bar, 0, bpm, 1.0)

    @classmethod
    def read(cls, path: Path) -> Beats:
        """Return the beats in an Audacity label file; a label `1` begins a bar.

        Raises:
            DecodeError: it cannot be read, is not such a file, or has fewer than two beats.
        """
        found = labels.read(path)
        times = np.array(sorted({label.start for label in found}))
        if len(times) < 2:
            raise DecodeError(f"`{path}` has fewer than two beats", "write one label per beat")
        downbeats = [index for index, label in enumerate(sorted(found)) if label.text == "1"]
        distances = set(np.diff(downbeats).tolist())
        bar = distances.pop() if len(distances) == 1 else None
        bpm = 60 / float(np.median(np.diff(times)))
        return cls(times, bar, downbeats[0] if bar else 0, bpm, 1.0)

    def write(self, path: Path, *, force: bool = True) -> None:
        """Write the beats as Audacity labels, numbered within their bars if these are known.

        Raises:
            OutputExists: the file already exists, and `force` is not given.
            EncodeError: it cannot be written.
        """
        times = self.times_seconds.tolist()
        numbers = [self.number(index) or "beat" for index in range(len(times))]
        labels.write(
            path,
            [labels.Label(time, time, str(number)) for time, number in zip(times, numbers, strict=True)],
            force=force,
        )

    def number(self, index: int) -> int | None:
        """Return the number of a beat in its bar, from 1; None if bars are not known."""
        return (index - self.first_downbeat) % self.beats_per_bar + 1 if self.beats_per_bar else None

    @property
    def downbeats(self) -> NDArray[np.bool_]:
        """Whether each beat begins a bar; all False if bars are not known."""
        found = np.zeros(len(self.times_seconds), np.bool_)
        if self.beats_per_bar:
            found[self.first_downbeat % self.beats_per_bar :: self.beats_per_bar] = True
        return found


def track_beats(mono: NDArray[np.float32], sample_rate: int) -> Beats | None:
    """Return the beats of samples `(time,)`; None if there are none, as in silence or very short sound."""
    from stemsplit.audio.reader import resample

    onsets = Onsets()
    for block in resample([mono[np.newaxis]], sample_rate, RATE, 1):
        onsets.add(block[0])
    return find_beats(onsets.envelopes())


def find_beats(envelopes: NDArray[np.float64], every: NDArray[np.float64] | None = None) -> Beats | None:
    """Return the beats for onset envelopes `(frame, range)` of the drums, see `Onsets`.

    `every` has the envelopes of all instruments, which help where the drums rest. For a mixture, use
    `Onsets(of_drums=True)` for the drums.
    """
    every = envelopes if every is None else every
    strength = every.sum(axis=1)
    if len(strength) < 2 * _lag(SLOWEST_BPM) or not strength.any():
        return None
    steady = envelopes if _share_struck(envelopes) > LEAST_STRUCK else every
    onsets = _even(steady.sum(axis=1)) + SUPPORT * _even(strength)
    frames = _trim(_path(onsets, _period(steady)), strength)
    if len(frames) < FEWEST:
        return None
    times = _smooth(Onsets.seconds(_between(onsets, frames)))
    bpm = 60 * (len(times) - 1) / float(times[-1] - times[0])
    return Beats(times, None, 0, bpm, _alike(_even(steady.sum(axis=1)), frames))


def _share_struck(envelopes: NDArray[np.float64]) -> float:
    """Return the fraction of the seconds that have onsets."""
    strength = envelopes.sum(axis=1)
    seconds = np.array_split(strength, max(1, len(strength) * HOP // RATE))
    return float(np.mean([second.max(initial=0) > 0.1 * strength.max() for second in seconds]))


def _lag(bpm: float) -> int:
    return round(60 * RATE / HOP / bpm)


def _running_mean(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    sums = np.cumsum(np.pad(values, (width // 2 + 1, width - width // 2 - 1), mode="edge"))
    return (sums[width:] - sums[:-width])[: len(values)] / width


def _even(strength: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return onset strength above its local mean, normalized by the local level."""
    second = round(RATE / HOP)
    smooth = np.convolve(strength, [0.25, 0.5, 0.25], "same")
    above = np.maximum(0, smooth - _running_mean(smooth, second))
    power = _running_mean(above**2, min(len(above), 8 * second))
    even: NDArray[np.float64] = above / np.sqrt(power + 0.05 * power.mean() + 1e-20)
    return even


def _correlation(onsets: NDArray[np.float64], lags: int) -> NDArray[np.float64]:
    """Return the autocorrelation up to a lag, averaged over windows of 12 s because the tempo may drift."""
    length = min(len(onsets), round(12 * RATE / HOP))
    stretches = np.lib.stride_tricks.sliding_window_view(onsets, length)[:: max(1, length // 2)]
    centred = stretches - stretches.mean(axis=1, keepdims=True)
    spectrum = np.abs(np.fft.rfft(centred, 2 * length)) ** 2
    found = np.fft.irfft(spectrum).mean(axis=0)[:length]
    found = found / (length - np.arange(length)) * length / max(found[0], 1e-20)
    return np.pad(found, (0, max(0, lags + 1 - length)))[: lags + 1]


def _period(envelopes: NDArray[np.float64]) -> float:
    """Return the most likely beat period in frames.

    Kick and snare drum repeat after one, two and four beats, but less after half a beat: repetition at half a
    period counts against it. But a kick drum that repeats as much at half the best period is on every beat,
    so the period is halved.
    """
    lags = np.arange(_lag(FASTEST_BPM), _lag(SLOWEST_BPM) + 1)
    found = [_correlation(_even(strength), 4 * int(lags[-1]) + 1) for strength in envelopes.T]
    near = [np.maximum(each, np.maximum(np.roll(each, 1), np.roll(each, -1))) for each in found]
    score = sum(
        weight * share * each[np.rint(multiple * lags).astype(int)]
        for weight, each in zip(RANGES, near, strict=True)
        for multiple, share in MULTIPLES.items()
    )
    octaves = np.log2(60 * RATE / HOP / lags / USUAL_BPM)
    best = float(lags[np.argmax(np.maximum(score, 1e-9) * np.exp(-0.5 * (octaves / OCTAVES) ** 2))])
    half, kick = round(best / 2), near[0]
    return best / 2 if kick[half] >= kick[round(best)] > 0 and half >= _lag(FASTEST_DOUBLED_BPM) else best


def _path(onsets: NDArray[np.float64], period: float) -> NDArray[np.int64]:
    """Return the beat frames that maximize onset strength minus a penalty for period changes."""
    distances = np.arange(int(period * (1 - DRIFT)), int(period * (1 + DRIFT)) + 2)
    longest, count = int(distances[-1]), len(distances)
    # A change by one frame is free, because most periods are not whole numbers of frames.
    change = np.maximum(0, np.abs(distances[:, None] - distances) - 1.0) ** 2 + 0.02 * np.abs(
        distances[:, None] - period
    )
    best = np.zeros((longest, count))  # scores of the last frames, per distance to the next beat
    came = np.zeros((len(onsets), count), np.uint8)
    columns = np.arange(count)
    last: list[NDArray[np.float64]] = []
    for frame, onset in enumerate(onsets):
        score = best[(frame - distances) % longest, columns] + onset if frame else np.full(count, onset)
        paths = score - change
        came[frame] = paths.argmax(axis=1)
        best[frame % longest] = paths[columns, came[frame]]
        if frame >= len(onsets) - longest:
            last.append(score)
    return _back(np.array(last), came, distances)


def _back(
    last: NDArray[np.float64], came: NDArray[np.uint8], distances: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Backtrack from the best final score, and return the beat frames."""
    row, column = np.unravel_index(int(last.argmax()), last.shape)
    frame, found = len(came) - len(last) + int(row), []
    while frame >= 0:
        found.append(frame)
        frame -= int(distances[column])
        if frame >= 0:
            column = came[frame, column]
    return np.array(found[::-1], np.int64)


def _trim(frames: NDArray[np.int64], strength: NDArray[np.float64]) -> NDArray[np.int64]:
    """Remove the beats before the first onset and after the last one."""
    around = np.clip(frames[:, None] + np.arange(-3, 4), 0, len(strength) - 1)
    at = strength[around].max(axis=1)
    if not at.any():
        return frames[:0]
    loud = np.flatnonzero(at > 0.2 * np.median(at[at > 0]))
    return frames[loud[0] : loud[-1] + 1]


def _between(onsets: NDArray[np.float64], frames: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return fractional beat frames, by parabolic interpolation of the onset peaks."""
    inner = np.clip(frames, 2, len(onsets) - 3)
    inner = inner + onsets[inner[:, None] + np.arange(-1, 2)].argmax(axis=1) - 1
    before, at, after = onsets[inner - 1], onsets[inner], onsets[inner + 1]
    bend = before - 2 * at + after
    shift = 0.5 * (before - after) / np.where(bend < 0, bend, -1.0)
    peaks = (bend < 0) & (np.abs(shift) <= 1)
    found: NDArray[np.float64] = np.where(peaks, inner + shift, frames)
    return found


def _smooth(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return beats on an even grid if they are close to one, otherwise with a smoothed tempo."""
    index = np.arange(len(times))
    kept = np.ones(len(times), np.bool_)
    for _ in range(3):
        line = np.polyval(np.polyfit(index[kept], times[kept], 1), index)
        away = np.abs(times - line)
        kept = away <= max(2 * STEADY_SECONDS, float(np.median(away)))
    if np.quantile(away, 0.75) < STEADY_SECONDS and np.quantile(away, 0.9) < 2 * STEADY_SECONDS:
        return line.astype(np.float64)
    smooth: NDArray[np.float64] = times.copy()
    for beat in index:
        near = index[max(0, beat - 4) : beat + 5]
        weights = (1 - (np.abs(near - beat) / 6) ** 3) ** 1.5
        smooth[beat] = np.polyval(np.polyfit(near, times[near], 1, w=weights), beat)
    return smooth


def _alike(onsets: NDArray[np.float64], frames: NDArray[np.int64]) -> float:
    """Return the autocorrelation of the onsets near the median beat period, from 0 to 1."""
    lag = round(float(np.median(np.diff(frames))))
    found = _correlation(onsets, lag + 1)[max(1, lag - 1) :]
    return float(np.clip(found.max(), 0, 1))
