"""Separation by position in the stereo image, without training.

Positions are angles in degrees: -45 is hard left, 0 the center, 45 hard right. The tangent of the angle from
hard left is the ratio of the right channel's gain to the left channel's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from stemsplit.errors import UsageError

if TYPE_CHECKING:
    from stemsplit.separation.separator import FittedMethod

REST = "rest"
APART_DEGREES = 4.0
"""Minimum distance between two positions."""


@dataclass(frozen=True)
class Entry:
    """A method's module, class, description, and default number of sources."""

    module: str
    name: str
    title: str
    sources: int


METHODS = {
    "adress": Entry("adress", "Adress", "positions from level differences (ADRess, 2004)", 4),
    "duet": Entry("duet", "Duet", "positions from level and delay differences (DUET, 2004)", 4),
    "projet": Entry("projet", "Projet", "spatial distributions from projections (PROJET, 2016)", 4),
    "ica": Entry("ica", "Ica", "two independent sources (ICA)", 2),
}


def build(method: str, sources: int | None = None, azimuths: Sequence[float] = ()) -> FittedMethod:
    """Return a method for a number of `sources`, or for sources at `azimuths` in degrees and a residual.

    Raises:
        UsageError: the method cannot find this number of sources, or the positions are invalid.
    """
    entry = METHODS[method]
    angles = checked_azimuths(azimuths)
    if angles and sources is not None:
        raise UsageError("Both a number of sources and positions are given", "choose one")
    count = len(angles) + 1 if angles else entry.sources if sources is None else sources
    if count < 2:
        raise UsageError("One source is the mixture itself", "choose 2 sources or more")
    kind = getattr(import_module(f"{__name__}.{entry.module}"), entry.name)
    found: FittedMethod = kind(count, angles)
    return found


def checked_azimuths(azimuths: Sequence[float]) -> tuple[float, ...]:
    """Return sorted positions. Raises UsageError if they are invalid or too close to each other."""
    angles = tuple(sorted(azimuths))
    if not all(-45 <= angle <= 45 for angle in angles):
        raise UsageError("Positions must be from -45 (left) to 45 (right)", "0 is the centre")
    if any(right - left < APART_DEGREES for left, right in zip(angles, angles[1:], strict=False)):
        raise UsageError(f"Positions must be {APART_DEGREES:g} degrees apart", "leave one out")
    return angles


def names(sources: int, azimuths: Sequence[float] = ()) -> tuple[str, ...]:
    """Return names such as `left-30`, `center` and `rest`, or `source-1`, `source-2` from left to right."""
    if not azimuths:
        return tuple(f"source-{number}" for number in range(1, sources + 1))
    return (*(position(angle) for angle in azimuths), REST)


def position(angle: float) -> str:
    """Return the name of a position: `left-30`, `center`, `right-7.5`."""
    if angle == 0:
        return "center"
    return f"{'left' if angle < 0 else 'right'}-{abs(angle):g}"
