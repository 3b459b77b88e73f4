"""DUET: the degenerate unmixing estimation technique.

O. Yilmaz, S. Rickard: "Blind separation of speech mixtures via time-frequency masking", IEEE Transactions on
Signal Processing 52(7), 2004.

Mixing model: source s comes to the left channel as it is, and to the right one a_s times as strong and d_s
later, X_r(w) = sum_s a_s exp(-i w d_s) S_s(w). Where one source is alone in a bin, the ratio of the channels
there says a_s and d_s; a histogram over all bins has a peak for each source. Limits: sources must be disjoint
in the spectrogram, phases are unambiguous only while w d < pi (a delay of one sample, up to the highest
frequency; of n samples, up to the n-th part of it), and reverberation smears the peaks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stemsplit.errors import StemsplitError
from stemsplit.separator import Samples, SpectralSeparator
from stemsplit.spatial import FAINTEST, names, spectra
from stemsplit.stft import Spectra, Stft

ATTENUATIONS, LARGEST_ATTENUATION = 101, 3.0
"""Bins of the histogram, and its range: of the symmetric attenuation a - 1/a."""
DELAYS, LONGEST_DELAY = 81, 4.0
"""The same for delays, in samples."""
APART = 6
"""Bins of the histogram between two peaks, one way or the other."""


@dataclass(frozen=True)
class Duet:
    """Finds `sources` pairs of level and delay in a mixture, and gives each bin to the likeliest of them.

    Bins count in the histogram by |X_l X_r|^p w^q with p = 1 and q = 0, the weights that the paper derives
    for the attenuation.
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
            StemsplitError: it is mono or silent, or fewer sources than `sources` stand out.
        """
        stft = Stft(self.n_fft, self.hop_length)
        histogram = np.zeros((ATTENUATIONS, DELAYS))
        for spectrum in spectra(mixture, stft):
            histogram += level_delay_histogram(spectrum)
        gains, delays = self._peaks(histogram)
        phases = np.exp(-1j * np.outer(delays, frequencies(stft.bins))).astype(np.complex64)
        rotors = gains[:, None].astype(np.float32) * phases

        def share(spectrum: Spectra) -> Spectra:
            left, right = spectrum
            # The likelihood of a source given a bin (section V): how little it leaves of it.
            errors = np.stack(
                [
                    np.abs(rotor * left - right) ** 2 / (1 + gain**2)
                    for rotor, gain in zip(rotors, gains, strict=True)
                ]
            )
            masks = errors.argmin(axis=0) == np.arange(self.sources)[:, None, None]
            stems: Spectra = masks[:, None] * spectrum
            return stems

        pairs = zip(20 * np.log10(gains), delays, strict=True)
        where = ", ".join(f"{level:+.1f} dB and {delay:+.1f} samples" for level, delay in pairs)
        return SpectralSeparator(self.stems, sample_rate, stft, share, f"right against left: {where}")

    def _peaks(self, histogram: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return gains and delays of the highest peaks of the smoothed histogram, by gain, then delay."""
        kernel = np.hanning(7)[1:-1]
        for axis in (0, 1):
            histogram = np.apply_along_axis(np.convolve, axis, histogram, kernel, "same")
        found: list[tuple[int, int]] = []
        for index in np.argsort(-histogram, axis=None, kind="stable"):
            row, column = map(int, np.unravel_index(index, histogram.shape))
            if histogram[row, column] <= FAINTEST * histogram.max():
                break
            around = histogram[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            far = all(max(abs(row - r), abs(column - c)) >= APART for r, c in found)
            if far and histogram[row, column] >= around.max():
                found.append((row, column))
            if len(found) == self.sources:
                rows, columns = np.array(sorted(found)).T
                symmetric = np.linspace(-LARGEST_ATTENUATION, LARGEST_ATTENUATION, ATTENUATIONS)[rows]
                gains = (symmetric + np.sqrt(symmetric**2 + 4)) / 2  # the inverse of a - 1/a
                return gains, np.linspace(-LONGEST_DELAY, LONGEST_DELAY, DELAYS)[columns]
        raise StemsplitError(f"Only {len(found)} sources stand out", f"ask for {len(found)}")


def frequencies(bins: int) -> NDArray[np.float64]:
    """Return the frequency of each bin in radians a sample."""
    return np.linspace(0, np.pi, bins)


def level_delay_histogram(spectrum: Spectra) -> NDArray[np.float64]:
    """Return the weight of the bins at each symmetric attenuation and delay, `(ATTENUATIONS, DELAYS)`.

    Shapes: spectrum `(channel, frame, bin)`. The zeroth bin has no phase, and bins without one channel no
    ratio: such levels count at the edge. Delays beyond the edge do not count.
    """
    left, right = spectrum[:, :, 1:]
    omega = frequencies(spectrum.shape[-1])[1:]
    weight = np.abs(left) * np.abs(right)
    gain = np.abs(right) / np.maximum(np.abs(left), 1e-10)
    symmetric = gain - 1 / np.maximum(gain, 1e-10)
    delay = -np.angle(right * left.conj()) / omega
    level = np.clip(symmetric, -LARGEST_ATTENUATION, LARGEST_ATTENUATION)
    inside = np.abs(delay) <= LONGEST_DELAY
    edges = (_edges(LARGEST_ATTENUATION, ATTENUATIONS), _edges(LONGEST_DELAY, DELAYS))
    counts: NDArray[np.float64] = np.histogram2d(
        level[inside], delay[inside], (ATTENUATIONS, DELAYS), edges, weights=weight[inside]
    )[0]
    return counts


def _edges(largest: float, bins: int) -> tuple[float, float]:
    """Return the outer edges of bins whose centres go from minus to plus the largest."""
    half = largest / (bins - 1)
    return -largest - half, largest + half
