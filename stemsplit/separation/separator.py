"""Interfaces between the engine and separators."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
"""Sound, `(channel, time)`; of several stems `(stem, channel, time)`."""


@dataclass(frozen=True)
class Spec:
    """The facts about a separator that the engine needs.

    `context` is how many samples on either side a segment depends on, and `stride` what its start and length
    must be multiples of, for streamed output to equal the whole file's; both in samples.
    """

    stems: tuple[str, ...]
    sample_rate: int
    context: int
    stride: int
    complete: bool = True
    """Whether the stems add up to the mixture."""
    segment: int = 0
    """The best length of a segment, in samples; 0: any."""
    workers: int = 1
    """How many segments are best separated in parallel."""
    how: str = ""
    """A description of what it runs on."""

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
class StreamSeparator(Protocol):
    """Separates a stream from its first sample to its last, where no part can be separated by itself."""

    @property
    def spec(self) -> Spec:
        """What the engine needs to know; there is no context."""

    def stream(self, blocks: Iterable[Samples]) -> Iterator[Samples]:
        """Yield stems `(stem, channel, time)`, in all as long as the mixture.

        Shapes: blocks `(channel, time)` at `spec.sample_rate`, of any length.
        """


AnySeparator = Separator | StreamSeparator


@runtime_checkable
class FittedMethod(Protocol):
    """A method that needs the whole mixture before it separates any of it."""

    @property
    def stems(self) -> tuple[str, ...]:
        """The names of the stems that its separators give."""

    def fit(self, mixture: Iterable[Samples], sample_rate: int) -> AnySeparator:
        """Return a separator for a mixture given as blocks `(channel, time)`, which may be iterated again."""


Method = Separator | StreamSeparator | FittedMethod
"""A separator that is ready, or a method that is fitted to each track first."""


@dataclass(frozen=True)
class Execution:
    """How a separator's network runs: what its runtime reports."""

    batch: int = 1
    """Frames or samples that the network gives at a time: segments are made for whole batches."""
    workers: int = 1
    """How many segments are best separated in parallel."""
    how: str = ""
    """Runtime, device and precision, in words."""
