"""Separation of a segment by a network whose inputs and outputs are waveforms, spectra or magnitudes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stemsplit.dsp.framing import Framing
from stemsplit.dsp.stft import Spectra
from stemsplit.separation.segments import CHANNELS
from stemsplit.separation.separator import Samples

INPUTS = ("waveform", "spectrum", "magnitude")
OUTPUTS = ("waveform", "spectrum", "magnitude", "mask")


@dataclass(frozen=True)
class GraphNetwork:
    """A graph whose input is one segment as `waveform`, `spectrum`, `magnitude`, or several of these.

    Shapes, after a batch axis of length 1: waveform `(channel, time)`, magnitude `(channel, bin, frame)`,
    spectrum `(2 * channel, bin, frame)` with each channel's real part followed by its imaginary part. With
    several stems, outputs also have a stem axis. An output is a `waveform`, a `spectrum`, a `magnitude`,
    which gets the mixture's phase, or a `mask`, which multiplies the mixture's spectrum. The stems are the
    sum of all outputs, times `gain`.
    """

    graph: Callable[[Sequence[Samples]], list[Samples]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    stems: int
    framing: Framing | None = None
    gain: float = 1.0

    def __call__(self, segment: Samples) -> Samples:
        """Return stems `(stem, channel, time)` of a segment `(channel, time)`."""
        spectra = self.framing.transform(segment) if self.framing else None
        found = self.graph([_input(kind, segment, spectra) for kind in self.inputs])
        stems = np.zeros((self.stems, *segment.shape), np.float32)
        for kind, array in zip(self.outputs, found, strict=True):
            if kind == "waveform":
                stems += array.reshape(stems.shape)
            else:
                assert self.framing
                assert spectra is not None
                stems += self.framing.inverse(self._spectra(kind, array, spectra), segment.shape[-1])
        stems *= np.float32(self.gain)
        return stems

    def _spectra(self, kind: str, array: Samples, mixture: Spectra) -> Spectra:
        """Return the spectra `(stem, channel, bin, frame)` that an output represents."""
        if kind == "spectrum":
            parts = array.reshape(self.stems, CHANNELS, 2, *mixture.shape[1:])
            spectra: Spectra = parts[:, :, 0] + np.complex64(1j) * parts[:, :, 1]
            return spectra
        magnitudes = array.reshape(self.stems, -1, *mixture.shape[1:])  # shared, or one per channel
        if kind == "mask":
            masked: Spectra = magnitudes * mixture
            return masked
        phased: Spectra = magnitudes * np.exp(np.complex64(1j) * np.angle(mixture))
        return phased


def _input(kind: str, segment: Samples, spectra: Spectra | None) -> Samples:
    if kind == "waveform":
        return segment[None]
    assert spectra is not None
    if kind == "magnitude":
        return np.abs(spectra)[None]
    parts = np.stack([spectra.real, spectra.imag], axis=1)
    return np.ascontiguousarray(parts.reshape(1, -1, *spectra.shape[1:]))
