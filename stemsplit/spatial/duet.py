"""DUET: the degenerate unmixing estimation technique.

O. Yilmaz, S. Rickard: "Blind separation of speech mixtures via time-frequency masking", IEEE Transactions on
Signal Processing 52(7), 2004.

Mixing model: source s is unchanged in the left channel, and scaled by a_s and delayed by d_s in the right
one: X_r(w) = sum_s a_s exp(-i w d_s) S_s(w). If only one source is present in a bin, the ratio of the
channels gives a_s and d_s; a histogram over all bins has a peak for each source. Limits: sources must be
disjoint in the spectrogram, phases are unambiguous only for w d < pi (with a delay of n samples, up to 1/n of
the Nyquist frequency), and reverberation smears the peaks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stemsplit.dsp.stft import Spectra, Stft
from stemsplit.separation.separator import Samples
from stemsplit.separation.spectral import SpectralSeparator
from stemsplit.spatial import names
from stemsplit.spatial.positions import FAINTEST, WIDTH_DEGREES, enough, spectra

ANGLES = 91
"""Number of histogram rows: angles from left to right. The paper uses a - 1/a, which is unbounded."""
DELAYS, LONGEST_DELAY = 81, 4.0
"""Number of histogram columns, and the maximum delay of either channel, in samples."""
APART = (5, 10)
"""Minimum distance between two peaks, in rows or in columns of the histogram."""


@dataclass(frozen=True)
class Duet:
    """Finds `sources` pairs of level and delay in a mixture, and assigns each bin to the most likely one.

    In the histogram, bins are weighted by |X_l X_r|^p w^q with p = 1 and q = 1, between the weights that the
    paper derives for levels (q = 0) and for delays (q = 2). Low frequencies, where a little phase noise means
    a large delay error, get less weight. Levels are expressed as azimuths. If `azimuths` in degrees are
    given, only delays are estimated, and bins farther than `width` from all of them belong to the last stem.
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
            StemsplitError: it is mono or silent, or has fewer peaks than `sources`.
        """
        stft = Stft(self.n_fft, self.hop_length)
        histogram = np.zeros((ANGLES, DELAYS))
        for spectrum in spectra(mixture, stft):
            histogram += level_delay_histogram(spectrum)
        pairs = _at(histogram, self.azimuths) if self.azimuths else summits(histogram, self.sources)
        if not self.azimuths:
            enough(len(pairs), self.sources)
        deaf = [_deaf_to(angle, delay, stft.bins) for angle, delay in pairs]
        # The share of a source's energy that a null leaves at an angular distance of `width` degrees.
        outside = np.float32(np.sin(np.radians(self.width)) ** 2)

        def share(spectrum: Spectra) -> Spectra:
            left, right = spectrum
            # Maximum likelihood (section V): canceling the most likely source leaves the least energy.
            errors = [np.abs(towards * left - away * right) ** 2 for towards, away in deaf]
            if self.azimuths:
                errors.append(outside * (np.abs(left) ** 2 + np.abs(right) ** 2))
            masks = np.argmin(errors, axis=0) == np.arange(len(self.stems))[:, None, None]
            stems: Spectra = masks[:, None] * spectrum
            return stems

        where = ", ".join(f"{angle:.0f} degrees and {delay:+.1f} samples" for angle, delay in pairs)
        return SpectralSeparator(self.stems, sample_rate, stft, share, f"azimuths, delays of right: {where}")


def summits(
    histogram: NDArray[np.float64], most: int, faintest: float = FAINTEST
) -> list[tuple[float, float]]:
    """Return angles and delays of the highest peaks, at most `most`, sorted by angle, then delay."""
    histogram = smoothed(histogram)
    found: list[tuple[int, int]] = []
    for index in np.argsort(-histogram, axis=None, kind="stable"):
        row, column = map(int, np.unravel_index(index, histogram.shape))
        if len(found) == most or histogram[row, column] <= faintest * histogram.max():
            break
        around = histogram[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
        far = all(abs(row - r) >= APART[0] or abs(column - c) >= APART[1] for r, c in found)
        if far and histogram[row, column] >= around.max():
            found.append((row, column))
    return [(float(angles()[row]), float(delays()[column])) for row, column in sorted(found)]


def _at(histogram: NDArray[np.float64], azimuths: tuple[float, ...]) -> list[tuple[float, float]]:
    """Return the angles and most likely delays of sources at `azimuths`."""
    rows = np.abs(angles() - np.array(azimuths)[:, None]).argmin(axis=1)
    columns = smoothed(histogram)[rows].argmax(axis=1)
    return [(angle, float(delays()[column])) for angle, column in zip(azimuths, columns, strict=True)]


def smoothed(histogram: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a smoothed histogram."""
    kernel = np.hanning(7)[1:-1]
    for axis in (0, 1):
        histogram = np.apply_along_axis(np.convolve, axis, histogram, kernel, "same")
    return histogram


def angles() -> NDArray[np.float64]:
    """Return the angle of each row of the histogram, in degrees."""
    return np.linspace(-45, 45, ANGLES)


def delays() -> NDArray[np.float64]:
    """Return the right channel's delay for each column of the histogram, in samples."""
    return np.linspace(-LONGEST_DELAY, LONGEST_DELAY, DELAYS)


def _deaf_to(angle: float, delay: float, bins: int) -> tuple[Spectra, np.float32]:
    """Return per-bin factors for left and right that make a source equal in both channels."""
    turned = np.radians(angle + 45)
    towards: Spectra = (np.sin(turned) * np.exp(-1j * delay * frequencies(bins))).astype(np.complex64)
    return towards, np.float32(np.cos(turned))


def frequencies(bins: int) -> NDArray[np.float64]:
    """Return the frequency of each bin in radians per sample."""
    return np.linspace(0, np.pi, bins)


def level_delay_histogram(spectrum: Spectra) -> NDArray[np.float64]:
    """Return the total weight of the bins at each pair of `angles()` and `delays()`.

    Shapes: spectrum `(channel, frame, bin)`. Bin 0 is ignored because it has no phase; so are bins with
    delays outside the range.
    """
    left, right = spectrum[:, :, 1:]
    omega = frequencies(spectrum.shape[-1])[1:]
    weight = np.abs(left) * np.abs(right) * omega
    angle = np.degrees(np.arctan2(np.abs(right), np.abs(left))) - 45
    delay = -np.angle(right * left.conj()) / omega
    inside = np.abs(delay) <= LONGEST_DELAY
    edges = (_edges(45, ANGLES), _edges(LONGEST_DELAY, DELAYS))
    counts: NDArray[np.float64] = np.histogram2d(
        angle[inside], delay[inside], (ANGLES, DELAYS), edges, weights=weight[inside]
    )[0]
    return counts


def _edges(largest: float, bins: int) -> tuple[float, float]:
    """Return the edges of bins whose centers range from -`largest` to `largest`."""
    half = largest / (bins - 1)
    return -largest - half, largest + half
