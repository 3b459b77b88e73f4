"""ADRess: azimuth discrimination and resynthesis.

D. Barry, B. Lawlor, E. Coyle: "Sound source separation: azimuth discrimination and resynthesis", 7th
International Conference on Digital Audio Effects (DAFx), 2004.

Mixing model: sources are panned by gains only, x_c(t) = sum_s a_cs s(t) for the channels c. A source that is
g times as loud on the left as on the right cancels in L - g R; the bins where this difference is smallest
belong to the source. Limits: reverberation and delays between the channels smear positions, two sources at
one position count as one, and a bin where sources overlap goes to the position of their sum.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stemsplit.dsp.stft import Spectra, Stft
from stemsplit.separation.separator import Samples
from stemsplit.separation.spectral import SpectralSeparator
from stemsplit.spatial import APART_DEGREES, names
from stemsplit.spatial.positions import FAINTEST, WIDTH_DEGREES, enough, peaks, spectra

RESOLUTION = 100
"""Number of gain steps from 0 to 1 on each side: the paper's beta."""
OPPOSITE = np.float32(0.05)
"""Channels are out of phase in a bin if -Re(L conj R) exceeds this share of the louder one's power.

Other sources that overlap one at the far left or right usually cause less."""
SMOOTHING_DEGREES = 1.0
_POSITIONS = 2 * RESOLUTION + 1
_STEP_DEGREES = 90 / _POSITIONS


@dataclass(frozen=True)
class Adress:
    """Finds `sources` positions in a mixture, or uses given ones, and assigns each bin to the nearest.

    The positions are the highest peaks of the azimugram: the energy removed by a null, as a function of its
    position. The paper's azimuth subspaces extend halfway to the next position, and stems get whole bins, so
    that they sum to the mixture. The paper's estimate of a bin, the depth of the null, would leave a
    residual. With user-defined `azimuths` in degrees, subspaces extend at most `width` to either side; the
    last stem gets all other bins.
    """

    sources: int = 4
    azimuths: tuple[float, ...] = ()
    width: float = WIDTH_DEGREES
    n_fft: int = 4096
    hop_length: int = 1024

    @property
    def stems(self) -> tuple[str, ...]:
        """The names of the stems, from left to right."""
        return names(self.sources, self.azimuths)

    def fit(self, mixture: Iterable[Samples], sample_rate: int) -> SpectralSeparator:
        """Return a separator for a mixture in blocks `(channel, time)`.

        Raises:
            StemsplitError: it is mono or silent, or has fewer positions than `sources`.
        """
        stft = Stft(self.n_fft, self.hop_length)
        heights = np.zeros(_POSITIONS)
        for spectrum in spectra(mixture, stft):
            heights += azimugram(spectrum)
        found, width = np.array(self.azimuths), self.width
        if not self.azimuths:
            found, width = summits(heights, self.sources), np.inf
            enough(len(found), self.sources)
        borders = (found[1:] + found[:-1]) / 2
        owner = np.searchsorted(borders, angles())
        owner[np.abs(angles() - found[owner]) > width] = len(found)

        def share(spectrum: Spectra) -> Spectra:
            masks = owner[nulls(spectrum)[0]] == np.arange(len(self.stems))[:, None, None]
            stems: Spectra = masks[:, None] * spectrum
            return stems

        where = ", ".join(f"{angle:.0f}" for angle in found)
        return SpectralSeparator(self.stems, sample_rate, stft, share, f"positions at {where} degrees")


def azimugram(spectrum: Spectra) -> NDArray[np.float64]:
    """Return the energy that a null at each position removes, over `angles()`.

    Shapes: spectrum `(channel, frame, bin)`.
    """
    index, depth = nulls(spectrum)
    return np.bincount(index.ravel(), np.square(depth).ravel(), _POSITIONS).astype(np.float64)


def summits(heights: NDArray[np.float64], most: int, faintest: float = FAINTEST) -> NDArray[np.float64]:
    """Return the angles of the highest peaks of an azimugram, at most `most`, from left to right."""
    return angles()[peaks(smoothed(heights), most, round(APART_DEGREES / _STEP_DEGREES), faintest)]


def smoothed(heights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a smoothed azimugram."""
    kernel = np.hanning(2 * max(1, round(SMOOTHING_DEGREES / _STEP_DEGREES)) + 3)[1:-1]
    return np.convolve(heights, kernel / kernel.sum(), "same")


def nulls(spectrum: Spectra) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return, for each bin, the position whose null cancels it best, and the depth of that null.

    The frequency-azimuth planes |R(k) - g L(k)| and |L(k) - g R(k)| need not be computed: the square of the
    first is |R|^2 - 2 g Re(L conj R) + g^2 |L|^2, a parabola with its minimum at g = Re(L conj R) / |L|^2 and
    its maximum at one of the ends. The depth is the maximum minus the minimum, or zero if the channels are
    out of phase: such a bin has no position, and would otherwise add energy at one side.

    Shapes: spectrum `(channel, frame, bin)`; both results `(frame, bin)`; the positions are `angles()`.
    """
    left, right = spectrum
    powers = np.stack([np.abs(left) ** 2, np.abs(right) ** 2])
    both = (left * right.conj()).real
    loud, soft = powers.max(axis=0), powers.min(axis=0)
    # The quieter channel is g times the louder one; this selects the plane with the lower null.
    steps = np.clip(np.rint(RESOLUTION * both / np.maximum(loud, np.float32(1e-20))), 0, RESOLUTION)
    gain = steps / np.float32(RESOLUTION)
    least = np.maximum(soft - 2 * gain * both + np.square(gain) * loud, 0)
    greatest = np.maximum(soft, soft - 2 * both + loud)
    side = np.where(powers[0] >= powers[1], -1, 1)
    index = RESOLUTION + side * (RESOLUTION - steps.astype(np.intp))
    depth = np.sqrt(greatest) - np.sqrt(least)
    return index, np.where(both < -OPPOSITE * loud, np.float32(0), depth)


def angles() -> NDArray[np.float64]:
    """Return the angle of each position, in degrees, from left to right."""
    right_half = 45 - np.degrees(np.arctan(np.arange(RESOLUTION, -1, -1) / RESOLUTION))
    return np.concatenate([-right_half[:0:-1], right_half])
