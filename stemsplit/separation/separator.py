"""Interfaces between the engine and separators."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
"""Sound `(channel, time)`, or several stems `(stem, channel, time)`."""


@dataclass(frozen=True)
class Spec:
    """The facts about a separator that the engine needs.

    A segment depends on `context` samples on either side. Its start and length must be multiples of `stride`
    samples. Streamed output then equals the output for the whole file.
    """

    stems: tuple[str, ...]
    sample_rate: int
    context: int
    stride: int
    complete: bool = True
    """Whether the stems sum to the mixture."""
    segment: int = 0
    """The best segment length in samples. 0: any."""
    shortest: int = 0
    """The length in samples down to which segments can be shortened to share a track among workers."""
    longest: int = 0
    """The length in samples up to which segments of a track of known length can be extended."""
    workers: int = 1
    """The best number of segments to separate in parallel."""
    how: str = ""
    """A description of the runtime."""

    def __post_init__(self) -> None:
        if not self.stems or len(set(self.stems)) < len(self.stems):
            raise ValueError(f"stems={self.stems} must be one or more different names")
        if self.sample_rate < 1 or self.stride < 1 or self.context < 0 or self.context % self.stride:
            raise ValueError(f"context={self.context} must be a multiple of stride={self.stride}")


class Separator(Protocol):
    """Separates sound: pure, deterministic and safe to call from several threads."""

    @property
    def spec(self) -> Spec:
        """What the engine needs to know."""

    def separate(self, window: Samples) -> Samples:
        """Return stems `(stem, channel, time)` of the segment in the middle of a window.

        Shapes: window `(channel, context + time + context)` at `spec.sample_rate`; time is a multiple of
        `spec.stride`.
        """


@runtime_checkable
class PiecewiseSeparator(Protocol):
    """A separator whose stems are done piece by piece."""

    def pieces(self, window: Samples) -> Iterator[Samples]:
        """Yield the stems of `separate` in consecutive pieces, each as soon as it is done."""


def pieces_of(separator: Separator, window: Samples) -> Iterator[Samples]:
    """Yield the stems of a window in consecutive pieces; all at once if the separator has no pieces."""
    if isinstance(separator, PiecewiseSeparator):
        yield from separator.pieces(window)
    else:
        yield separator.separate(window)


@runtime_checkable
class StreamSeparator(Protocol):
    """Separates a whole stream, for methods that cannot separate segments independently."""

    @property
    def spec(self) -> Spec:
        """What the engine needs to know; the context is 0."""

    def stream(self, blocks: Iterable[Samples]) -> Iterator[Samples]:
        """Yield stems `(stem, channel, time)`; together they are as long as the mixture.

        Shapes: blocks `(channel, time)` at `spec.sample_rate`, of any length.
        """


AnySeparator = Separator | StreamSeparator


@runtime_checkable
class FittedMethod(Protocol):
    """A method that needs the whole mixture before it can separate."""

    @property
    def stems(self) -> tuple[str, ...]:
        """The names of its stems."""

    def fit(self, mixture: Iterable[Samples], sample_rate: int) -> AnySeparator:
        """Return a separator for a mixture, given as re-iterable blocks `(channel, time)`."""


Method = Separator | StreamSeparator | FittedMethod
"""A separator, or a method that is first fitted to each track."""


@dataclass(frozen=True)
class Execution:
    """How a separator's network runs, as reported by its runtime."""

    batch: int = 1
    """Network outputs (frames or samples) per batch; segments consist of whole batches."""
    workers: int = 1
    """The best number of segments to separate in parallel."""
    how: str = ""
    """Runtime, device and precision, as text."""
