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

from stemsplit.separator import Samples, SpectralSeparator
from stemsplit.spatial import names
from stemsplit.spatial.positions import FAINTEST, WIDTH_DEGREES, enough, spectra
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
    for the attenuation. Where `azimuths` in degrees are given, levels are those, only delays are looked for,
    and the bins that are farther than `width` from all of them are the last stem.
    """

    sources: int = 4
    azimuths: tuple[float, ...] = ()
    width: float = WIDTH_DEGREES
    n_fft: int = 4096
    hop_length: int = 1024

    @property
    def stems(self) -> tuple[str, ...]:
        """Their names, from left to right."""
        return names(self.sources, self.azimuths)

    def fit(self, mixture: Iterable[Samples], sample_rate: int) -> SpectralSeparator:
        """Return a separator for a mixture in blocks `(channel, time)`.

        Raises:
            StemsplitError: it is mono or silent, or fewer sources than `sources` stand out.
        """
        stft = Stft(self.n_fft, self.hop_length)
        histogram = np.zeros((ATTENUATIONS, DELAYS))
        for spectrum in spectra(mixture, stft):
            histogram += level_delay_histogram(spectrum)
        if self.azimuths:
            gains, later = _at(histogram, self.azimuths)
        else:
            gains, later = summits(histogram, self.sources)
            enough(len(gains), self.sources)
        phases = np.exp(-1j * np.outer(later, frequencies(stft.bins))).astype(np.complex64)
        rotors = gains[:, None].astype(np.float32) * phases
        # What a source leaves of a bin that is so many degrees away.
        outside = np.float32(np.sin(np.radians(self.width)) ** 2) if self.azimuths else None

        def share(spectrum: Spectra) -> Spectra:
            left, right = spectrum
            # The likelihood of a source given a bin (section V): how little it leaves of it.
            errors = [
                np.abs(rotor * left - right) ** 2 / (1 + gain**2)
                for rotor, gain in zip(rotors, gains, strict=True)
            ]
            if outside is not None:
                errors.append(outside * (np.abs(left) ** 2 + np.abs(right) ** 2))
            masks = np.argmin(errors, axis=0) == np.arange(len(self.stems))[:, None, None]
            stems: Spectra = masks[:, None] * spectrum
            return stems

        pairs = zip(20 * np.log10(gains), later, strict=True)
        where = ", ".join(f"{level:+.1f} dB and {delay:+.1f} samples" for level, delay in pairs)
        return SpectralSeparator(self.stems, sample_rate, stft, share, f"right against left: {where}")


def summits(
    histogram: NDArray[np.float64], most: int, faintest: float = FAINTEST
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return gains and delays of up to `most` highest peaks of a histogram, by gain, then delay."""
    histogram = smoothed(histogram)
    found: list[tuple[int, int]] = []
    for index in np.argsort(-histogram, axis=None, kind="stable"):
        row, column = map(int, np.unravel_index(index, histogram.shape))
        if len(found) == most or histogram[row, column] <= faintest * histogram.max():
            break
        around = histogram[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
        far = all(max(abs(row - r), abs(column - c)) >= APART for r, c in found)
        if far and histogram[row, column] >= around.max():
            found.append((row, column))
    rows, columns = np.array(sorted(found), int).reshape(-1, 2).T
    symmetric = levels()[rows]
    gains = (symmetric + np.sqrt(symmetric**2 + 4)) / 2  # the inverse of a - 1/a
    return gains, delays()[columns]


def _at(
    histogram: NDArray[np.float64], azimuths: tuple[float, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return gains and likeliest delays of sources at angles."""
    # The edges, where there is nothing in one of the channels, have no logarithm.
    gains = np.tan(np.radians(np.clip(azimuths, -44.5, 44.5) + 45))
    rows = np.abs(levels() - (gains - 1 / gains)[:, None]).argmin(axis=1)
    return gains, delays()[smoothed(histogram)[rows].argmax(axis=1)]


def smoothed(histogram: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a histogram without what is only grain."""
    kernel = np.hanning(7)[1:-1]
    for axis in (0, 1):
        histogram = np.apply_along_axis(np.convolve, axis, histogram, kernel, "same")
    return histogram


def levels() -> NDArray[np.float64]:
    """Return the symmetric attenuation a - 1/a of each row, a being the gain of right over left."""
    return np.linspace(-LARGEST_ATTENUATION, LARGEST_ATTENUATION, ATTENUATIONS)


def delays() -> NDArray[np.float64]:
    """Return the delays of the histogram's columns, in samples of the right channel."""
    return np.linspace(-LONGEST_DELAY, LONGEST_DELAY, DELAYS)


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
