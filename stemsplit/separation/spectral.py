"""Separation of each frame's spectrum independently, without a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stemsplit.dsp.stft import Spectra, Stft
from stemsplit.separation.separator import Samples, Spec


@dataclass(frozen=True)
class SpectralSeparator:
    """Divides the mixture's spectrum among the stems, independently for each frame.

    `share` maps the mixture's spectra `(channel, frame, bin)` to stem spectra `(stem, channel, frame, bin)`,
    which sum to the mixture's.
    """

    stems: tuple[str, ...]
    sample_rate: int
    stft: Stft
    share: Callable[[Spectra], Spectra]
    how: str = ""
    frames: int = 0
    """Approximate number of frames to separate at a time. 0: any."""

    @property
    def spec(self) -> Spec:
        """The context is the part of a frame that extends beyond the ends of a segment."""
        hop_length = self.stft.hop_length
        return Spec(
            stems=self.stems,
            sample_rate=self.sample_rate,
            context=self.stft.n_fft - hop_length,
            stride=hop_length,
            segment=self.frames * hop_length,
            how=self.how,
        )

    def separate(self, window: Samples) -> Samples:
        """Return stems `(stem, channel, time)` of the segment in the middle of a window."""
        context = self.spec.context
        segment = window[:, context : window.shape[-1] - context]
        shares = self.share(self.stft.transform(window))[:-1]
        stems = np.empty((len(self.stems), *segment.shape), np.float32)
        for stem, spectrum in zip(stems, shares, strict=False):
            stem[:] = self.stft.inverse(spectrum)[:, context : context + segment.shape[-1]]
        # The stems sum to the mixture, so the last one needs no inverse transform.
        stems[-1] = segment - stems[:-1].sum(axis=0)
        return stems
