"""Functions shared by the methods: checks of mixtures, and peaks of curves over positions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from stemsplit.dsp.stft import Spectra, Stft
from stemsplit.errors import StemsplitError, TooFewPositions
from stemsplit.separation.separator import Samples

TRAINED = "use a trained model"
FAINTEST = 1e-3
"""Minimum height of a peak, as a fraction of the highest; overlapping sources cause lower peaks."""
WIDTH_DEGREES = 8.0
"""Range of a given azimuth to either side, unless another one is nearer."""


def checked(mixture: Iterable[Samples]) -> Iterator[Samples]:
    """Yield the blocks `(channel, time)` of a mixture, and check that it has positions.

    Raises:
        TooFewPositions: it is mono, or both channels are the same.
        StemsplitError: it is silent.
    """
    heard = apart = False
    for block in mixture:
        if len(block) != 2:
            raise TooFewPositions(1, "A mono track has no positions to separate by", TRAINED)
        heard, apart = heard or bool(block.any()), apart or bool((block[0] != block[1]).any())
        yield block
    if not heard:
        raise StemsplitError("The track is silent, and has no positions")
    if not apart:
        raise TooFewPositions(1, "Both channels are the same, so there is only one position", TRAINED)


def spectra(mixture: Iterable[Samples], stft: Stft, frames: int = 256) -> Iterator[Spectra]:
    """Check a mixture with `checked`, and yield its spectra `(channel, frame, bin)`."""
    held = np.zeros((2, 0), np.float32)
    for block in checked(mixture):
        held = np.concatenate([held, block], axis=-1)
        while held.shape[-1] >= stft.samples(frames):
            yield stft.transform(held[:, : stft.samples(frames)])
            held = held[:, frames * stft.hop_length :]
    yield stft.transform(np.pad(held, ((0, 0), (0, stft.n_fft))))


def peaks(
    heights: NDArray[np.float64], most: int, apart: int, faintest: float = FAINTEST
) -> NDArray[np.intp]:
    """Return the sorted indices of the highest peaks of a curve: at most `most`, at least `apart` apart.

    Their height and prominence are at least the fraction `faintest` of the maximum.
    """
    from scipy.signal import find_peaks

    least = faintest * heights.max(initial=0)
    found, _ = find_peaks(np.pad(heights, 1), distance=apart, height=least, prominence=least)
    highest = np.argsort(-heights[found - 1], kind="stable")[:most]
    return np.sort(found[highest] - 1)


def enough(found: int, sources: int) -> None:
    """Raise TooFewPositions if fewer positions were found than `sources`."""
    if found < sources:
        positions = f"{found} position{'s' if found != 1 else ''}"
        hint = f"choose {found} sources" if found > 1 else TRAINED
        raise TooFewPositions(found, f"Only {positions} can be distinguished", hint)
