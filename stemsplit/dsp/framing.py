"""The STFT of third-party networks, over one segment that is padded at both ends."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.fft
from numpy.lib.stride_tricks import sliding_window_view

from stemsplit.dsp.stft import Floats, Spectra

PADDINGS = ("centered", "demucs")


@dataclass(frozen=True)
class Framing:
    """A Hann-windowed STFT of a whole segment, with reflection padding at both ends.

    With `centered` padding, frame k is centered on sample k * hop_length, from the first sample to the last,
    as in `torch.stft`. With `demucs` padding, centers are half a hop later, and there is one frame per hop
    (Rouard, Massa, Defossez 2023; `HTDemucs._spec` in the authors' code).
    """

    n_fft: int
    hop_length: int
    bins: int
    """Number of bins that the network uses, from 0 Hz up; higher bins are zero in its stems."""
    padding: str = "centered"
    normalized: bool = False
    """Whether spectra are divided by the square root of `n_fft`, as in `torch.stft`."""

    def __post_init__(self) -> None:
        if not 16 <= self.n_fft <= 1 << 15 or self.n_fft % 2:
            raise ValueError(f"n_fft={self.n_fft} must be even, and from 16 to 32768")
        if not 0 < self.hop_length <= self.n_fft // 2:
            raise ValueError(f"hop_length={self.hop_length} must be from 1 to half of n_fft={self.n_fft}")
        if not 0 < self.bins <= self.n_fft // 2 + 1:
            raise ValueError(f"bins={self.bins} must be from 1 to {self.n_fft // 2 + 1}")
        if self.padding not in PADDINGS:
            raise ValueError(f"padding={self.padding!r} must be one of {', '.join(PADDINGS)}")
        if self.padding == "demucs" and self.n_fft != 4 * self.hop_length:
            raise ValueError("demucs padding is for an n_fft of 4 * hop_length")

    def frames(self, length: int) -> int:
        """Return the number of frames of a segment of `length` samples."""
        if self.padding == "demucs":
            return math.ceil(length / self.hop_length)
        return length // self.hop_length + 1

    @cached_property
    def _window(self) -> Floats:
        phase = 2 * np.pi * np.arange(self.n_fft) / self.n_fft
        return (0.5 - 0.5 * np.cos(phase)).astype(np.float32)

    @property
    def _scale(self) -> float:
        return self.n_fft**-0.5 if self.normalized else 1.0

    @property
    def _lead(self) -> int:
        """Number of samples by which the first frame starts before the segment."""
        return self.n_fft // 2 - (self.hop_length // 2 if self.padding == "demucs" else 0)

    def _covered(self, frames: int) -> int:
        return (frames - 1) * self.hop_length + self.n_fft

    def transform(self, segment: Floats) -> Spectra:
        """Return the spectra `(channel, bin, frame)` of a segment `(channel, time)`."""
        length = segment.shape[-1]
        tail = self._covered(self.frames(length)) - self._lead - length
        padded = np.pad(segment, ((0, 0), (self._lead, max(0, tail))), mode="reflect")
        frames = sliding_window_view(padded, self.n_fft, axis=-1)[:, :: self.hop_length]
        spectra: Spectra = scipy.fft.rfft(frames * (self._window * np.float32(self._scale)))[..., : self.bins]
        return np.ascontiguousarray(spectra.swapaxes(1, 2))

    def inverse(self, spectra: Spectra, length: int) -> Floats:
        """Return the least-squares inverse `(..., time)` of spectra `(..., bin, frame)`."""
        missing = self.n_fft // 2 + 1 - spectra.shape[-2]
        full = np.pad(spectra, [*[(0, 0)] * (spectra.ndim - 2), (0, missing), (0, 0)])
        frames = scipy.fft.irfft(full.swapaxes(-1, -2), self.n_fft) * (self._window / np.float32(self._scale))
        count = frames.shape[-2]
        signal = np.zeros((*frames.shape[:-2], self._covered(count)), np.float32)
        weight = np.zeros(signal.shape[-1], np.float32)
        for index in range(count):
            span = slice(index * self.hop_length, index * self.hop_length + self.n_fft)
            signal[..., span] += frames[..., index, :]
            weight[span] += self._window**2
        inside = slice(self._lead, self._lead + length)
        if self.padding == "demucs":  # frames beyond the ends count as zeros
            weight[inside] = (self._window**2).sum() / self.hop_length
        return np.divide(signal[..., inside], weight[inside], dtype=np.float32)
