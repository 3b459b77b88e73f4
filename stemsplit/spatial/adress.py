"""ADRess: azimuth discrimination and resynthesis.

D. Barry, B. Lawlor, E. Coyle: "Sound source separation: azimuth discrimination and resynthesis", 7th
International Conference on Digital Audio Effects (DAFx), 2004.

Mixing model: sources panned by gains alone, x_c(t) = sum_s a_cs s(t) for the channels c.
A source that is g times as loud left as right cancels in L - g R: the bins where that difference is least
are the source's. Limits: reverberation and delays between the channels smear positions, two sources at one
position are one, and where sources overlap in a bin, it goes to the position of their sum.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stemsplit.separator import Samples, SpectralSeparator
from stemsplit.spatial import names, peaks, spectra
from stemsplit.stft import Spectra, Stft

RESOLUTION = 100
"""Gains from 0 to 1 that are tried on each side: the paper's beta."""
SMOOTHING_DEGREES = 1.0
APART_DEGREES = 4.0
_POSITIONS = 2 * RESOLUTION + 1


@dataclass(frozen=True)
class Adress:
    """Finds `sources` positions in a mixture, and gives each bin to the nearest.

    Left to the paper's listener, the positions are here the highest peaks of the azimugram: the energy that
    each null takes away, over positions. The paper's azimuth subspaces reach halfway to the next position, so
    that the stems add up; its estimate of a bin, the depth of the null, would leave a rest.
    """

    sources: int = 4
    n_fft: int = 4096
    hop_length: int = 1024

    @property
    def stems(self) -> tuple[str, ...]:
        """Their names, from left to right."""
        return names(self.sources)

    def fit(self, mixture: Iterable[Samples], sample_rate: int) -> SpectralSeparator:
        """Return a separator for a mixture in blocks `(channel, time)`.

        Raises:
            StemsplitError: it is mono or silent, or has fewer positions than `sources`.
        """
        stft = Stft(self.n_fft, self.hop_length)
        azimugram = np.zeros(_POSITIONS)
        for spectrum in spectra(mixture, stft):
            index, depth = nulls(spectrum)
            azimugram += np.bincount(index.ravel(), np.square(depth).ravel(), _POSITIONS)
        found = angles()[peaks(*self._summits(azimugram))]
        borders = (found[1:] + found[:-1]) / 2

        def share(spectrum: Spectra) -> Spectra:
            nearest = np.searchsorted(borders, angles()[nulls(spectrum)[0]])
            masks = nearest == np.arange(self.sources)[:, None, None]
            stems: Spectra = masks[:, None] * spectrum
            return stems

        where = ", ".join(f"{angle:.0f}" for angle in found)
        return SpectralSeparator(self.stems, sample_rate, stft, share, f"positions at {where} degrees")

    def _summits(self, azimugram: NDArray[np.float64]) -> tuple[NDArray[np.float64], int, int]:
        """Return the curve whose peaks are wanted, how many of them, and how far apart, in steps of gain."""
        step = 90 / _POSITIONS
        width = max(1, round(SMOOTHING_DEGREES / step))
        kernel = np.hanning(2 * width + 3)[1:-1]
        return (
            np.convolve(azimugram, kernel / kernel.sum(), "same"),
            self.sources,
            round(APART_DEGREES / step),
        )


def nulls(spectrum: Spectra) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return, for each bin, which of the positions cancels it best, and how deep that null is.

    The frequency-azimuth planes |R(k) - g L(k)| and |L(k) - g R(k)| need not be computed: the square of the
    first is |R|^2 - 2 g Re(L conj R) + g^2 |L|^2, a parabola, least at g = Re(L conj R) / |L|^2, and greatest
    at one of the ends. The depth is the greatest less the least.

    Shapes: spectrum `(channel, frame, bin)`; both results `(frame, bin)`; the positions are `angles()`.
    """
    left, right = spectrum
    powers = np.stack([np.abs(left) ** 2, np.abs(right) ** 2])
    both = (left * right.conj()).real
    loud, soft = powers.max(axis=0), powers.min(axis=0)
    # The softer channel is g times the louder: of the two planes that with the lower null.
    steps = np.clip(np.rint(RESOLUTION * both / np.maximum(loud, np.float32(1e-20))), 0, RESOLUTION)
    gain = steps / np.float32(RESOLUTION)
    least = np.maximum(soft - 2 * gain * both + np.square(gain) * loud, 0)
    greatest = np.maximum(soft, soft - 2 * both + loud)
    side = np.where(powers[0] >= powers[1], -1, 1)
    index = RESOLUTION + side * (RESOLUTION - steps.astype(np.intp))
    depth: NDArray[np.float32] = np.sqrt(greatest) - np.sqrt(least)
    return index, depth


def angles() -> NDArray[np.float64]:
    """Return the angle of each position, in degrees, from left to right."""
    right_half = 45 - np.degrees(np.arctan(np.arange(RESOLUTION, -1, -1) / RESOLUTION))
    return np.concatenate([-right_half[:0:-1], right_half])
