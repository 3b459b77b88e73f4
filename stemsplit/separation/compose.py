"""Separators that combine others: averages, time shifts, and an added residual."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from stemsplit.separation.separator import (
    AnySeparator,
    FittedMethod,
    Method,
    Samples,
    Separator,
    Spec,
    StreamSeparator,
    pieces_of,
)
from stemsplit.separation.stream import separate_blocks


def ensemble(methods: Sequence[Method]) -> Method:
    """Return a method that averages several methods, whose errors partly cancel.

    All must have the same stems in the same order, and the same sample rate.
    """
    return _composed(methods, _mean)


def with_residual(method: Method, name: str) -> Method:
    """Return a method that adds the residual as a stem: the mixture minus all other stems."""

    def add(separators: Sequence[AnySeparator]) -> AnySeparator:
        (separator,) = separators
        if isinstance(separator, StreamSeparator):
            return StreamWithResidual(separator, name)
        return WithResidual(separator, name)

    return _composed([method], add, (name,))


def shifted(method: Method, shifts: int, seconds: float) -> Method:
    """Return a method that averages `shifts` runs, delayed in steps of `seconds / shifts` from 0."""

    def repeat(separators: Sequence[AnySeparator]) -> AnySeparator:
        (separator,) = separators
        samples = round(seconds * separator.spec.sample_rate)
        return StreamMean(tuple(Shifted(separator, samples * each // shifts) for each in range(shifts)))

    return _composed([method], repeat)


Combine = Callable[[Sequence[AnySeparator]], AnySeparator]


def _composed(methods: Sequence[Method], combine: Combine, more: tuple[str, ...] = ()) -> Method:
    ready = [method for method in methods if not isinstance(method, FittedMethod)]
    if len(ready) == len(methods):
        return combine(ready)
    first = methods[0]
    stems = first.stems if isinstance(first, FittedMethod) else first.spec.stems
    return Composed((*stems, *more), tuple(methods), combine)


def _mean(separators: Sequence[AnySeparator]) -> AnySeparator:
    windowed = [each for each in separators if not isinstance(each, StreamSeparator)]
    return Ensemble(tuple(windowed)) if len(windowed) == len(separators) else StreamMean(tuple(separators))


@dataclass(frozen=True)
class Composed:
    """A combination of methods, some of which must be fitted to a track first."""

    stems: tuple[str, ...]
    methods: tuple[Method, ...]
    combine: Combine

    def fit(self, mixture: Iterable[Samples], sample_rate: int) -> AnySeparator:
        """Fit the methods that need it, and combine the separators."""
        return self.combine(
            [
                method.fit(mixture, sample_rate) if isinstance(method, FittedMethod) else method
                for method in self.methods
            ]
        )


@dataclass(frozen=True)
class Ensemble:
    """The mean of several separators, whose errors partly cancel."""

    separators: tuple[Separator, ...]
    """All have the same stems in the same order, and the same sample rate."""

    @cached_property
    def spec(self) -> Spec:
        """The maximum context, and the least common multiple of the strides."""
        specs = [separator.spec for separator in self.separators]
        stride = math.lcm(*(spec.stride for spec in specs))

        def whole_strides(samples: int) -> int:
            return math.ceil(samples / stride) * stride

        return Spec(
            stems=specs[0].stems,
            sample_rate=specs[0].sample_rate,
            context=whole_strides(max(spec.context for spec in specs)),
            stride=stride,
            complete=all(spec.complete for spec in specs),
            segment=whole_strides(max(spec.segment for spec in specs)),
            workers=max(spec.workers for spec in specs),
            how=specs[0].how,
        )

    def separate(self, window: Samples) -> Samples:
        """Return stems `(stem, channel, time)` of the segment in the middle of a window."""
        stems = np.float32(0)
        for separator in self.separators:
            edge = self.spec.context - separator.spec.context
            stems = stems + separator.separate(window[:, edge : window.shape[-1] - edge])
        found: Samples = stems / np.float32(len(self.separators))
        return found


@dataclass(frozen=True)
class WithResidual:
    """A separator with the residual as an additional stem: the mixture minus all others."""

    separator: Separator
    name: str

    @property
    def spec(self) -> Spec:
        """The separator's spec, with the residual added."""
        spec = self.separator.spec
        return replace(spec, stems=(*spec.stems, self.name), complete=True)

    def separate(self, window: Samples) -> Samples:
        """Return stems `(stem, channel, time)` of the segment in the middle of a window."""
        return np.concatenate(list(self.pieces(window)), axis=-1)

    def pieces(self, window: Samples) -> Iterator[Samples]:
        """Yield stems `(stem, channel, time)` of the same segment in consecutive pieces."""
        start = self.separator.spec.context
        for stems in pieces_of(self.separator, window):
            mixture = window[:, start : start + stems.shape[-1]]
            start += stems.shape[-1]
            yield np.concatenate([stems, (mixture - stems.sum(axis=0))[None]])


@dataclass(frozen=True)
class StreamMean:
    """The mean of several separators, some of which process a whole stream."""

    separators: tuple[AnySeparator, ...]

    @property
    def spec(self) -> Spec:
        """The first separator's spec, without context."""
        specs = [separator.spec for separator in self.separators]
        complete, workers = all(spec.complete for spec in specs), max(spec.workers for spec in specs)
        return replace(specs[0], context=0, stride=1, segment=0, complete=complete, workers=workers)

    def stream(self, blocks: Iterable[Samples]) -> Iterator[Samples]:
        """Yield stems `(stem, channel, time)` of a mixture in blocks `(channel, time)`."""
        copied = copies(blocks, len(self.separators))
        streams = [separate_blocks(*each) for each in zip(self.separators, copied, strict=True)]
        for parts in in_step(streams):
            yield np.float32(1 / len(parts)) * sum(parts[1:], start=parts[0])


@dataclass(frozen=True)
class StreamWithResidual:
    """A separator of whole streams, with the residual as an additional stem."""

    separator: StreamSeparator
    name: str

    @property
    def spec(self) -> Spec:
        """The separator's spec, with the residual added."""
        spec = self.separator.spec
        return replace(spec, stems=(*spec.stems, self.name), complete=True)

    def stream(self, blocks: Iterable[Samples]) -> Iterator[Samples]:
        """Yield stems `(stem, channel, time)` of a mixture in blocks `(channel, time)`."""
        mixture, copy = copies(blocks, 2)
        for stems, part in in_step([self.separator.stream(copy), mixture]):
            yield np.concatenate([stems, (part - stems.sum(axis=0))[None]])


@dataclass(frozen=True)
class Shifted:
    """A separator whose input is delayed by `samples` samples of silence."""

    separator: AnySeparator
    samples: int

    @property
    def spec(self) -> Spec:
        """The separator's spec."""
        return self.separator.spec

    def stream(self, blocks: Iterable[Samples]) -> Iterator[Samples]:
        """Yield stems `(stem, channel, time)` of a mixture in blocks `(channel, time)`."""
        left = self.samples
        for stems in separate_blocks(self.separator, self._delayed(blocks)):
            dropped = min(left, stems.shape[-1])
            left -= dropped
            if dropped < stems.shape[-1]:
                yield stems[..., dropped:]

    def _delayed(self, blocks: Iterable[Samples]) -> Iterator[Samples]:
        for index, block in enumerate(blocks):
            if index == 0 and self.samples:
                yield np.zeros((len(block), self.samples), np.float32)
            yield block


def copies(blocks: Iterable[Samples], count: int) -> list[Iterator[Samples]]:
    """Return iterators over the same blocks. A block is kept until all iterators have yielded it.

    `itertools.tee` would keep up to 57 blocks: minutes of several stems.
    """
    source, waiting = iter(blocks), [deque[Samples]() for _ in range(count)]

    def copy(own: deque[Samples]) -> Iterator[Samples]:
        while True:
            if not own:
                block = next(source, None)
                if block is None:
                    return
                for queue in waiting:
                    queue.append(block)
                del block
            yield own.popleft()

    return [copy(own) for own in waiting]


def in_step(streams: Sequence[Iterable[Samples]]) -> Iterator[list[Samples]]:
    """Yield parts `(..., time)` of several streams in step: the parts at each step have the same length."""
    iterators = [iter(stream) for stream in streams]
    held: list[Samples | None] = [None] * len(iterators)
    while True:
        for index, iterator in enumerate(iterators):
            if held[index] is None:
                held[index] = next(iterator, None)
        parts = [part for part in held if part is not None]
        if len(parts) < len(held):
            return
        count = min(part.shape[-1] for part in parts)
        yield [part[..., :count] for part in parts]
        held = [part[..., count:] if part.shape[-1] > count else None for part in parts]
