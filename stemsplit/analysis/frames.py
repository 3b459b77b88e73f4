"""Features of a sound at 22,050 Hz, computed block by block: onset strength and pitch spectra."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RATE = 22_050
"""Sample rate in Hz from which features are computed."""
HOP = 256
"""Hop length of onset frames: 11.6 ms."""


class Frames:
    """Cuts a sound into overlapping frames `(frame, n_fft)`, block by block."""

    def __init__(self, n_fft: int, hop_length: int) -> None:
        self._n_fft, self._hop_length = n_fft, hop_length
        self._held = np.zeros(0, np.float32)

    def cut(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the frames that a block `(time,)` completes."""
        held = np.concatenate([self._held, block])
        count = max(0, (len(held) - self._n_fft) // self._hop_length + 1)
        self._held = held[count * self._hop_length :]
        if not count:
            return np.zeros((0, self._n_fft), np.float32)
        return np.lib.stride_tricks.sliding_window_view(held, self._n_fft)[:: self._hop_length][:count]


class Onsets:
    """Onset strength: the rise in level from frame to frame, in three frequency ranges.

    With `of_drums`, only rises that most bands share count, as in drum hits.
    """

    N_FFT = 1024
    FLOOR = 1e-3
    BANDS = 36
    EDGES_HZ = (0.0, 180.0, 2500.0, RATE / 2)
    """Kick drum and bass; snare drum, and most of the other instruments; cymbals."""

    def __init__(self, *, of_drums: bool = False) -> None:
        self._of_drums = of_drums
        self._frames = Frames(self.N_FFT, HOP)
        self._window = np.hanning(self.N_FFT).astype(np.float32)
        self._filters, centres = _bands(self.N_FFT, self.BANDS)
        self._ranges = np.searchsorted(centres, self.EDGES_HZ[:-1])
        self._last: NDArray[np.float64] | None = None
        self._rises: list[NDArray[np.float64]] = []

    def add(self, samples: NDArray[np.float32]) -> None:
        """Append samples `(time,)`."""
        frames = self._frames.cut(samples)
        if not len(frames):
            return
        power = np.abs(np.fft.rfft(frames * self._window)) ** 2
        level = np.log10(np.maximum(power @ self._filters, self.FLOOR))
        before = level[:1] if self._last is None else self._last
        rises = np.maximum(np.diff(np.concatenate([before, level]), axis=0), 0)
        if self._of_drums:
            rises = self._common(rises)
        self._rises.append(np.add.reduceat(rises, self._ranges, axis=1) / self.BANDS)
        self._last = level[-1:]

    def _common(self, rises: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return for each band the mean of two medians: over its range, and over all bands."""
        medians = [
            np.broadcast_to(np.median(part, axis=1, keepdims=True), part.shape)
            for part in np.split(rises, self._ranges[1:], axis=1)
        ]
        common: NDArray[np.float64] = (np.hstack(medians) + np.median(rises, axis=1, keepdims=True)) / 2
        return common

    def envelopes(self) -> NDArray[np.float64]:
        """Return the onset strength `(frame, range)`."""
        return np.concatenate([*self._rises, np.zeros((0, len(self._ranges)))])

    @classmethod
    def seconds(cls, frames: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the onset times in seconds for frame numbers."""
        # An onset appears in a frame as soon as it reaches into the window.
        return (frames * HOP + 0.75 * cls.N_FFT) / RATE


class Pitches:
    """The spectrum of a sound in thirds of a semitone, from E1 to E7."""

    N_FFT, HOP = 8192, 2048
    LOWEST, SEMITONES = 28, 72
    """Lowest MIDI note, and number of semitones."""

    def __init__(self) -> None:
        self._frames = Frames(self.N_FFT, self.HOP)
        self._window = np.hanning(self.N_FFT).astype(np.float32)
        self._filters = _pitch_filters(self.N_FFT, self.LOWEST, 3 * self.SEMITONES)
        self._spectra: list[NDArray[np.float32]] = []

    def add(self, samples: NDArray[np.float32]) -> None:
        """Append samples `(time,)`."""
        frames = self._frames.cut(samples)
        if len(frames):
            magnitudes = np.abs(np.fft.rfft(frames * self._window))
            self._spectra.append((magnitudes @ self._filters).astype(np.float32))

    def spectra(self) -> NDArray[np.float32]:
        """Return the magnitudes `(frame, third of a semitone)`."""
        return np.concatenate([*self._spectra, np.zeros((0, 3 * self.SEMITONES), np.float32)])

    @classmethod
    def seconds(cls, frames: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the center times in seconds for frame numbers."""
        return (frames * cls.HOP + cls.N_FFT / 2) / RATE


def _pitch_filters(n_fft: int, lowest: int, count: int) -> NDArray[np.float32]:
    """Return triangular filters `(bin, third of a semitone)`, at least as wide as a bin."""
    hz = np.fft.rfftfreq(n_fft, 1 / RATE)[:, None]
    centres = 440 * 2 ** ((lowest + (np.arange(count) - 1) / 3 - 69) / 12)
    width = np.maximum(centres * (2 ** (1 / 36) - 1), RATE / n_fft)
    return np.maximum(0, 1 - np.abs(hz - centres) / width).astype(np.float32)


def _bands(n_fft: int, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return triangular mel filters `(bin, band)`, and the bands' centers in Hz."""
    mels = np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), count + 2)
    corners = 700 * (10 ** (mels / 2595) - 1)
    hz = np.fft.rfftfreq(n_fft, 1 / RATE)[:, None]
    width = max(RATE / n_fft, 1.0)  # the lowest bands are narrower than a bin
    up = (hz - corners[:-2]) / np.maximum(np.diff(corners)[:-1], width)
    down = (corners[2:] - hz) / np.maximum(np.diff(corners)[1:], width)
    filters = np.maximum(0, np.minimum(up, down))
    return filters / np.maximum(filters.sum(axis=0), 1e-9), corners[1:-1]
