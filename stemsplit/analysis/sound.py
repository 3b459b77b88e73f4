"""Analysis of a recording: length, levels, stereo image, bandwidth, tempo and key.

It works block by block; memory hardly grows with the length of the file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stemsplit.analysis.beats import Beats, find_beats
from stemsplit.analysis.frames import RATE, Frames, Onsets
from stemsplit.audio.loudness import Loudness, Peaks
from stemsplit.audio.reader import Block, resample
from stemsplit.files.scratch import librosa_caches

KEYS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
# fmt: off
PROFILES = {
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}
# fmt: on
"""The weight of each degree: C. Krumhansl, "Cognitive foundations of musical pitch", 1990."""
CUT_DB = 18.0
"""A frequency is a cut-off if the level above it is lower by at least this much."""
SAME = 1e-7
"""Relative to the energy: channels that differ by less are equal except for rounding."""


@dataclass(frozen=True)
class Analysis:
    """The properties of a sound."""

    seconds: float
    sample_rate: int
    channels: int
    peak: float
    """The largest absolute sample; full scale is 1."""
    true_peak: float
    """The largest absolute value between samples."""
    lufs: float | None
    """Integrated loudness; None for silence."""
    energy: float
    """The sum of all squared samples."""
    image: str
    """mono, dual mono (both channels the same) or stereo."""
    cutoff_hz: float | None
    """The cut-off frequency of a lossy encoder, if one is found."""
    bpm: float | None
    bpm_confidence: float
    """From 0 to 1: the autocorrelation of the onsets at a lag of one beat."""
    beats: tuple[float, ...]
    """In seconds."""
    key: str | None
    key_confidence: float
    """From 0 to 1: how much better this key's profile fits than the second best."""


def analyse(blocks: Iterable[Block], sample_rate: int, channels: int, *, music: bool = True) -> Analysis:
    """Analyse a sound in blocks `(channel, time)`; tempo and key only if it is `music`."""
    peaks, loudness = Peaks(sample_rate, channels), Loudness(sample_rate, channels)
    band, notes = _Band(sample_rate), _Music()
    frames, energy, apart = 0, 0.0, 0.0

    def mono() -> Iterable[Block]:
        nonlocal frames, energy, apart
        for block in blocks:
            frames += block.shape[-1]
            energy += float(np.square(block, dtype=np.float64).sum())
            apart += float(np.square(block[0] - block[-1], dtype=np.float64).sum())
            peaks.add(block)
            loudness.add(block)
            middle = block.mean(axis=0, keepdims=True)
            band.add(middle)
            yield middle

    for middle in resample(mono(), sample_rate, RATE, 1):
        if music:
            notes.add(middle[0])
    peaks.add(np.zeros((channels, 0), np.float32), last=True)
    beats = notes.rhythm() if music else None
    key, key_sure = notes.key()
    return Analysis(
        seconds=frames / sample_rate,
        sample_rate=sample_rate,
        channels=channels,
        peak=peaks.sample,
        true_peak=peaks.true,
        lufs=loudness.lufs,
        energy=energy,
        image="mono" if channels == 1 else "dual mono" if apart <= SAME * energy else "stereo",
        cutoff_hz=band.cutoff_hz(),
        bpm=beats.bpm if beats else None,
        bpm_confidence=beats.confidence if beats else 0.0,
        beats=tuple(beats.times_seconds.tolist()) if beats else (),
        key=key,
        key_confidence=key_sure,
    )


class _Band:
    """The mean spectrum of a sound, and its cut-off frequency."""

    N_FFT = 4096

    def __init__(self, sample_rate: int) -> None:
        self._hz = np.fft.rfftfreq(self.N_FFT, 1 / sample_rate)
        self._power = np.zeros(len(self._hz))
        self._frames = Frames(self.N_FFT, self.N_FFT)

    def add(self, middle: Block) -> None:
        frames = self._frames.cut(middle[0])
        self._power += (np.abs(np.fft.rfft(frames * np.hanning(self.N_FFT))) ** 2).sum(axis=0)

    def cutoff_hz(self) -> float | None:
        """Return the cut-off frequency, if the spectrum ends abruptly."""
        if not self._power.any():
            return None
        level = 10 * np.log10(np.maximum(self._power, self._power.max() * 1e-14))
        around = round(800 / self._hz[1])
        edges = np.arange(np.searchsorted(self._hz, 3000), len(self._hz) - around)
        sums = np.concatenate([[0], np.cumsum(level)])
        below = (sums[edges] - sums[edges - around]) / around
        above = (sums[edges + around] - sums[edges]) / around
        drop = below - above
        if not drop.size or drop.max() < CUT_DB:
            return None
        edge = int(edges[drop.argmax()])
        rises = level[edge + around :].max(initial=-np.inf) > below[drop.argmax()] - CUT_DB / 2
        return None if rises else float(self._hz[edge])


class _Music:
    """The onsets and the pitch classes of a sound at `frames.RATE`."""

    CHROMA_N_FFT = 8192

    def __init__(self) -> None:
        self._onsets = Onsets()
        self._long = Frames(self.CHROMA_N_FFT, self.CHROMA_N_FFT // 2)
        self._chroma = np.zeros(12)

    def add(self, samples: NDArray[np.float32]) -> None:
        librosa_caches()
        import librosa

        self._onsets.add(samples)
        long = self._long.cut(samples)
        if len(long):
            power = np.abs(np.fft.rfft(long * np.hanning(self.CHROMA_N_FFT)))
            chroma = librosa.filters.chroma(sr=RATE, n_fft=self.CHROMA_N_FFT)
            self._chroma += (power @ chroma.T).sum(axis=0)

    def rhythm(self) -> Beats | None:
        """Return the beats."""
        return find_beats(self._onsets.envelopes())

    def key(self) -> tuple[str | None, float]:
        """Return the key whose profile is most like the sound's pitch classes, and the confidence."""
        if not self._chroma.any() or np.ptp(self._chroma) == 0:
            return None, 0.0
        fits = {
            f"{KEYS[tonic]} {mode}": float(np.corrcoef(np.roll(profile, tonic), self._chroma)[0, 1])
            for mode, profile in PROFILES.items()
            for tonic in range(12)
        }
        best, second = sorted(fits, key=lambda name: -fits[name])[:2]
        return best, max(0.0, min(1.0, 5 * (fits[best] - fits[second])))
