"""Short-time Fourier transform with exact frame arithmetic, in float32.

Frame k covers the samples [k * hop_length, k * hop_length + n_fft); there is no centering or padding. Callers
add context to a signal, so that a segment cut on the hop grid has exactly the same frames as the whole file.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.fft  # at least four times as fast as numpy for many short frames
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Spectra = NDArray[np.complex64]


@dataclass(frozen=True)
class Stft:
    """A Hann-windowed STFT; `n_fft` is 4 or more times `hop_length`, and a multiple of it.

    Spectra are scaled so that a full-scale sine has a magnitude of one in its bin, for any `n_fft`.
    """

    n_fft: int = 2048
    hop_length: int = 512

    def __post_init__(self) -> None:
        if self.hop_length < 1 or self.n_fft % self.hop_length or self.n_fft < 4 * self.hop_length:
            raise ValueError(f"n_fft={self.n_fft} must be 4 or more times hop_length={self.hop_length}")

    @property
    def bins(self) -> int:
        """Number of bins from 0 Hz to the Nyquist frequency."""
        return self.n_fft // 2 + 1

    def frames(self, samples: int) -> int:
        """Number of whole frames in `samples` samples."""
        return max(0, (samples - self.n_fft) // self.hop_length + 1)

    def samples(self, frames: int) -> int:
        """Number of samples that `frames` frames cover."""
        return (frames - 1) * self.hop_length + self.n_fft if frames > 0 else 0

    @cached_property
    def _window(self) -> Floats:
        # Computed here, because scipy.signal takes a second to import.
        phase = 2 * np.pi * np.arange(self.n_fft) / self.n_fft
        return (0.5 - 0.5 * np.cos(phase)).astype(np.float32)

    @cached_property
    def _analysis(self) -> Floats:
        analysis: Floats = self._window * np.float32(2 / self._window.sum())
        return analysis

    @cached_property
    def _synthesis(self) -> Floats:
        # Squared Hann windows spaced hop_length apart sum to the constant sum(w ** 2) / hop_length.
        gain = float(np.sum(self._analysis * self._window)) / self.hop_length
        return np.divide(self._window, gain, dtype=np.float32)

    def transform(self, signal: Floats) -> Spectra:
        """Return the spectra `(..., frame, bin)` of every whole frame in `signal` `(..., time)`."""
        if signal.shape[-1] < self.n_fft:
            return np.zeros((*signal.shape[:-1], 0, self.bins), np.complex64)
        frames = sliding_window_view(signal, self.n_fft, axis=-1)[..., :: self.hop_length, :]
        spectra: Spectra = scipy.fft.rfft(frames * self._analysis)
        return spectra

    def inverse(self, spectra: Spectra) -> Floats:
        """Return the overlap-added signal `(..., time)` of spectra `(..., frame, bin)`.

        Equals the transformed signal wherever n_fft / hop_length frames overlap: the first and the last
        n_fft - hop_length samples fade in and out.
        """
        frames: Floats = scipy.fft.irfft(spectra, self.n_fft)
        frames *= self._synthesis
        *lead, count, _ = frames.shape
        parts = self.n_fft // self.hop_length
        frames = frames.reshape(*lead, count, parts, self.hop_length)
        signal = np.zeros((*lead, count + parts - 1, self.hop_length), np.float32)
        for part in range(parts):
            signal[..., part : part + count, :] += frames[..., part, :]
        return signal.reshape(*lead, -1)[..., : self.samples(count)]
