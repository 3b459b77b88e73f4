"""Separation by place in the stereo image: nothing is learnt, and any recording with positions will do.

Positions are angles in degrees: -45 is the left channel alone, 0 the centre, 45 the right channel alone; the
tangent of the angle from the left is the right channel's gain over the left one's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from stemsplit.errors import StemsplitError
from stemsplit.separator import Estimator, Samples
from stemsplit.stft import Spectra, Stft


@dataclass(frozen=True)
class Entry:
    """Where a method is, what it is in a few words, and how many sources it finds unless told."""

    module: str
    name: str
    title: str
    sources: int


METHODS = {
    "adress": Entry("adress", "Adress", "positions by level (ADRess, 2004)", 4),
    "duet": Entry("duet", "Duet", "positions by level and delay (DUET, 2004)", 4),
    "projet": Entry("projet", "Projet", "spatial spread, by projections (PROJET, 2016)", 4),
    "ica": Entry("ica", "Ica", "two sources that are independent (ICA)", 2),
}


def build(method: str, sources: int | None = None) -> Estimator:
    """Return a method for so many sources. Raises StemsplitError if it cannot find as many."""
    entry = METHODS[method]
    count = entry.sources if sources is None else sources
    if count < 2:
        raise StemsplitError("One source is the mixture itself", "ask for 2 sources or more")
    estimator: Estimator = getattr(import_module(f"{__name__}.{entry.module}"), entry.name)(count)
    return estimator


TRAINED = "use a model that was trained"
FAINTEST = 1e-3
"""Of the highest peak: what is lower is no source, but what sources leave where they overlap."""


def names(sources: int) -> tuple[str, ...]:
    """Return `source-1`, `source-2` and so on, from left to right."""
    return tuple(f"source-{number}" for number in range(1, sources + 1))


def checked(mixture: Iterable[Samples]) -> Iterator[Samples]:
    """Yield the blocks `(channel, time)` of a mixture that has positions.

    Raises:
        StemsplitError: it is mono, both channels are the same, or there is nothing to hear.
    """
    heard = apart = False
    for block in mixture:
        if len(block) != 2:
            raise StemsplitError("A mono track has no positions to separate by", TRAINED)
        heard, apart = heard or bool(block.any()), apart or bool((block[0] != block[1]).any())
        yield block
    if not heard:
        raise StemsplitError("There is only silence, and no position in it")
    if not apart:
        raise StemsplitError("Both channels are the same: there is but one position", TRAINED)


def spectra(mixture: Iterable[Samples], stft: Stft, frames: int = 256) -> Iterator[Spectra]:
    """Yield the spectra `(channel, frame, bin)` of a mixture that is `checked`."""
    held = np.zeros((2, 0), np.float32)
    for block in checked(mixture):
        held = np.concatenate([held, block], axis=-1)
        while held.shape[-1] >= stft.samples(frames):
            yield stft.transform(held[:, : stft.samples(frames)])
            held = held[:, frames * stft.hop_length :]
    yield stft.transform(np.pad(held, ((0, 0), (0, stft.n_fft))))


def peaks(heights: NDArray[np.float64], count: int, apart: int) -> NDArray[np.intp]:
    """Return the indices of the `count` highest peaks of a curve, in order, at least `apart` from each other.

    Raises:
        StemsplitError: there are not so many.
    """
    padded = np.concatenate([[0.0], heights, [0.0]])
    high = padded[1:-1] > FAINTEST * padded.max()
    summits = np.flatnonzero(high & (padded[1:-1] > padded[:-2]) & (padded[1:-1] >= padded[2:]))
    found: list[int] = []
    for index in summits[np.argsort(-heights[summits], kind="stable")]:
        if all(abs(int(index) - other) >= apart for other in found):
            found.append(int(index))
        if len(found) == count:
            return np.sort(np.array(found))
    positions = f"{len(found)} position{'s' if len(found) != 1 else ''}"
    raise StemsplitError(f"Only {positions} can be told apart", f"ask for {len(found)} sources")
