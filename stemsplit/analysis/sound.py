"""Analysis of a recording: length, levels, stereo image, bandwidth and music.

It works block by block; memory hardly grows with the length of the file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stemsplit.analysis.frames import Frames
from stemsplit.analysis.music import Music, MusicAnalyser
from stemsplit.audio.loudness import Loudness, Peaks
from stemsplit.audio.reader import Block

CUT_DB = 18.0
"""Minimum drop in level above a cutoff frequency."""
SAME = 1e-7
"""Relative energy of the difference, below which channels are equal except for rounding."""


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
    """The cutoff frequency of a lossy encoder, if one is found."""
    music: Music | None
    """None if it was not requested."""


def analyse(blocks: Iterable[Block], sample_rate: int, channels: int, *, music: bool = True) -> Analysis:
    """Analyze a sound in blocks `(channel, time)`; `music` adds beats, key, chords and sections."""
    peaks, loudness, band = Peaks(sample_rate, channels), Loudness(sample_rate, channels), _Band(sample_rate)
    analyser = MusicAnalyser(["mixture"], sample_rate) if music else None
    frames, energy, apart = 0, 0.0, 0.0
    for block in blocks:
        frames += block.shape[-1]
        energy += float(np.square(block, dtype=np.float64).sum())
        apart += float(np.square(block[0] - block[-1], dtype=np.float64).sum())
        peaks.add(block)
        loudness.add(block)
        band.add(block.mean(axis=0, keepdims=True))
        if analyser:
            analyser.add(block[np.newaxis])
    peaks.finish()
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
        music=analyser.finish() if analyser else None,
    )


class _Band:
    """The mean spectrum of a sound, and its cutoff frequency."""

    N_FFT = 4096

    def __init__(self, sample_rate: int) -> None:
        self._hz = np.fft.rfftfreq(self.N_FFT, 1 / sample_rate)
        self._power = np.zeros(len(self._hz))
        self._frames = Frames(self.N_FFT, self.N_FFT)

    def add(self, middle: Block) -> None:
        frames = self._frames.cut(middle[0])
        self._power += (np.abs(np.fft.rfft(frames * np.hanning(self.N_FFT))) ** 2).sum(axis=0)

    def cutoff_hz(self) -> float | None:
        """Return the cutoff frequency, if the spectrum ends abruptly."""
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
