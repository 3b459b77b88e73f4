"""Separation by networks that process segments of a fixed length as a whole.

Segments overlap, on a fixed grid that starts at the first sample. Their estimates are averaged with
triangular weights, because estimates are best in the middle of a segment, with context on both sides. The
grid does not depend on the block size, so neither do the output samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from stemsplit.separation.separator import Execution, Samples, Spec
from stemsplit.separation.stream import resampled, side_by_side
from stemsplit.separation.waveform import in_channel_groups

CHANNELS = 2
"""Channels of a network's input. Mono is duplicated; more channels are separated in pairs."""


@dataclass(frozen=True)
class Segment:
    """A part of a stream `(channel, time)`: the input of a network, after `before` zeros.

    Of the network's output, `count` samples from `start` on are used; the first `kept` of them are final.
    """

    samples: Samples
    before: int
    start: int
    count: int
    kept: int


@dataclass(frozen=True)
class Segmentation:
    """Segments of `length` samples that start every `stride` samples."""

    length: int
    stride: int

    @classmethod
    def of(cls, length: int, overlap: float) -> Segmentation:
        """Return a segmentation with this `overlap`, as a fraction of the segment length."""
        return cls(length, max(1, int((1 - overlap) * length)))

    @cached_property
    def weights(self) -> Samples:
        """The weight of each sample of a segment: a triangle with its peak at one."""
        half = self.length // 2
        rising, falling = np.arange(1, half + 1), np.arange(self.length - half, 0, -1)
        return (np.concatenate([rising, falling]) / (self.length - half)).astype(np.float32)

    def cut(self, blocks: Iterable[Samples]) -> Iterator[Segment]:
        """Yield the segments of a stream.

        A segment that would extend beyond the end starts earlier, so that the remaining samples are in its
        middle, as in the demucs package.
        """
        held: Samples | None = None
        first = start = 0  # start of the samples held, and of the next segment, in samples of the stream
        for block in blocks:
            held = block if held is None else np.concatenate([held, block], axis=-1)
            while start + self.length <= first + held.shape[-1]:
                samples = held[:, start - first :][:, : self.length]
                yield Segment(samples, 0, 0, self.length, self.stride)
                start += self.stride
                dropped = max(0, start - self.length // 2 - first)
                held, first = held[:, dropped:], first + dropped
        if held is None:
            return
        end = first + held.shape[-1]
        while start < end:
            count = min(self.length, end - start)
            earlier = (self.length - count) // 2
            before = max(0, earlier - start)
            samples = held[:, start - earlier + before - first :][:, : self.length - before]
            yield Segment(samples, before, earlier, count, min(self.stride, count))
            start += self.stride

    def add_up(self, estimates: Iterable[tuple[Segment, Samples]]) -> Iterator[Samples]:
        """Yield the weighted means of the segments' estimates `(..., time)`, one stride at a time."""
        total, weight = np.zeros(0, np.float32), np.zeros(self.length, np.float32)
        for segment, estimate in estimates:
            if not total.size:
                total = np.zeros((*estimate.shape[:-1], self.length), np.float32)
            weights = self.weights[: segment.count]
            total[..., : segment.count] += weights * estimate
            weight[: segment.count] += weights
            yield total[..., : segment.kept] / weight[: segment.kept]
            total, weight = _advanced(total, self.stride), _advanced(weight, self.stride)


def _advanced(array: Samples, stride: int) -> Samples:
    left = np.zeros_like(array)
    left[..., : array.shape[-1] - stride] = array[..., stride:]
    return left


@dataclass(frozen=True)
class SegmentSeparator:
    """Runs a network on overlapping segments.

    `network` maps a segment `(channel, time)` of two channels to estimates `(output, channel, time)` of its
    `outputs`; its input is `(mixture - offset) / scale`. All stems sum to the mixture: the mixture minus the
    sum of the estimates is added to the stem called `residual`, or is that stem if it is not among the
    outputs. Without a `residual`, it is divided equally among all outputs. `stems` are the requested stems.
    With `any_length`, the last segment of a stream is shortened rather than extended with earlier sound.
    """

    stems: tuple[str, ...]
    sample_rate: int
    outputs: tuple[str, ...]
    residual: str
    segmentation: Segmentation
    network: Callable[[Samples], Samples]
    execution: Execution = Execution()
    offset: float = 0.0
    scale: float = 1.0
    any_length: bool = False

    @property
    def spec(self) -> Spec:
        """The context is 0, because the separator cuts the stream itself."""
        return Spec(
            stems=self.stems,
            sample_rate=self.sample_rate,
            context=0,
            stride=1,
            complete=len(self.stems) == len(all_stems(self.outputs, self.residual)),
            workers=self.execution.workers,
            how=self.execution.how,
        )

    def stream(self, blocks: Iterable[Samples]) -> Iterator[Samples]:
        """Yield stems `(stem, channel, time)` of a mixture in blocks `(channel, time)`."""
        segments = ((segment,) for segment in self.segmentation.cut(blocks))
        estimates = side_by_side(self._estimate, segments, self.execution.workers)
        yield from self.segmentation.add_up(estimates)

    def _estimate(self, segment: Segment) -> Iterator[tuple[Segment, Samples]]:
        """Yield the stems `(stem, channel, time)` of a segment, for the used samples."""
        mixture = segment.samples
        target = mixture[:, segment.start - segment.before :][:, : segment.count]
        if not mixture.any():  # silence in, silence out
            yield segment, np.zeros((len(self.stems), *target.shape), np.float32)
            return
        window = np.zeros((len(mixture), self.segmentation.length), np.float32)
        inside = window[:, segment.before : segment.before + mixture.shape[-1]]
        inside[:] = (mixture - np.float32(self.offset)) / np.float32(self.scale)
        used = slice(segment.start, segment.start + segment.count)
        if self.any_length:
            found = in_channel_groups(self.network, window[:, used], CHANNELS)
        else:
            found = in_channel_groups(self.network, window, CHANNELS)[..., used]
        if len(mixture) == CHANNELS and np.array_equal(*mixture):  # equal channels stay equal
            found = np.broadcast_to(found.mean(axis=1, keepdims=True), found.shape)
        yield segment, self._stems(found * np.float32(self.scale) + np.float32(self.offset), target)

    def _stems(self, estimates: Samples, mixture: Samples) -> Samples:
        """Return the requested stems; all stems together sum to the mixture."""
        stems = dict(zip(self.outputs, estimates, strict=True))
        if self.residual:
            stems[self.residual] = mixture - sum(
                stem for name, stem in stems.items() if name != self.residual
            )
        else:
            missing = (mixture - estimates.sum(axis=0)) / np.float32(len(estimates))
            stems = {name: stem + missing for name, stem in stems.items()}
        return np.stack([stems[name] for name in self.stems])


def all_stems(outputs: tuple[str, ...], residual: str) -> tuple[str, ...]:
    """Return the names of all stems of a network: its outputs, and the residual if it is not one of them."""
    return outputs if residual in ("", *outputs) else (*outputs, residual)


@dataclass(frozen=True)
class NormalizedSegments:
    """A separator for a network that expects tracks of mean 0 and deviation 1, measured in a first pass."""

    separator: SegmentSeparator

    @property
    def stems(self) -> tuple[str, ...]:
        """The separator's stems."""
        return self.separator.stems

    def fit(self, mixture: Iterable[Samples], sample_rate: int) -> SegmentSeparator:
        """Return the separator with the mean and standard deviation of the mixture's mono mix."""
        count, total, squares = 0, 0.0, 0.0
        for block in resampled(mixture, sample_rate, self.separator.sample_rate):
            mono = block.mean(axis=0, dtype=np.float64)
            count, total, squares = count + mono.size, total + mono.sum(), squares + mono @ mono
        mean = total / max(1, count)
        deviation = np.sqrt(max(0.0, squares - count * mean**2) / max(1, count - 1))
        return replace(self.separator, offset=float(mean), scale=float(deviation) + 1e-8)
