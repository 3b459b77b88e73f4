"""A survey of positions for the user to choose from: the azimugram of ADRess, the histogram of DUET."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stemsplit.dsp.stft import Stft
from stemsplit.separation.separator import Samples
from stemsplit.spatial import adress, duet
from stemsplit.spatial.positions import spectra

MOST = 8
"""Maximum number of positions to report."""
STANDS_OUT = 0.02
"""Minimum height of a peak, as a fraction of the highest; overlapping sources cause lower peaks."""


@dataclass(frozen=True)
class Survey:
    """The positions of the sources in a mixture."""

    azimugram: NDArray[np.float64]
    """Share of the energy at each of `adress.angles()`."""
    histogram: NDArray[np.float64]
    """Share of the weight at `duet.angles()` and `duet.delays()`."""
    azimuths: tuple[float, ...]
    """Positions of the peaks of the azimugram in degrees, from left to right."""
    shares: tuple[float, ...]
    """Share of the energy nearest to each of `azimuths`."""
    pairs: tuple[tuple[float, float], ...]
    """Peaks of the histogram: azimuth in degrees, and delay of the right channel in samples."""


def scan(mixture: Iterable[Samples]) -> Survey:
    """Survey a mixture in blocks `(channel, time)`. Memory does not grow with its length.

    Raises:
        StemsplitError: it is mono or silent, or both channels are the same.
    """
    azimugram = np.zeros(len(adress.angles()))
    histogram = np.zeros((len(duet.angles()), len(duet.delays())))
    for spectrum in spectra(mixture, Stft(4096, 1024)):
        azimugram += adress.azimugram(spectrum)
        histogram += duet.level_delay_histogram(spectrum)
    azimugram /= max(azimugram.sum(), np.finfo(float).tiny)
    histogram /= max(histogram.sum(), np.finfo(float).tiny)
    azimuths = adress.summits(azimugram, MOST, STANDS_OUT)
    nearest = np.searchsorted((azimuths[1:] + azimuths[:-1]) / 2, adress.angles())
    shares = np.bincount(nearest, azimugram, len(azimuths))
    return Survey(
        azimugram=adress.smoothed(azimugram),
        histogram=duet.smoothed(histogram),
        azimuths=tuple(map(float, azimuths)),
        shares=tuple(map(float, shares)),
        pairs=tuple(duet.summits(histogram, MOST, STANDS_OUT)),
    )
