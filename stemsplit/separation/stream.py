"""Overlap-save: runs any separator on a stream of blocks, in memory that does not grow with its length.

The stream is cut into segments whose length is a multiple of the separator's stride. Each is separated with
context on both sides (silence before the start and after the end), and only the segment is kept. Crossfades
are not needed, because each sample equals the result of separating the whole stream at once. For the same
reason, segments can be separated in parallel.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

import numpy as np

from stemsplit.audio.reader import resample
from stemsplit.separation import stopping
from stemsplit.separation.separator import AnySeparator, Samples, Spec, StreamSeparator, pieces_of

_Made = TypeVar("_Made")

SEGMENT_SECONDS = 10.0
"""Segment length for separators that do not specify one."""
CHECK_SECONDS = 0.1
"""Time between checks for an interruption while segments are in work."""


def separate_stream(
    separator: AnySeparator, blocks: Iterable[Samples], sample_rate: int, *, frames: int | None = None
) -> Iterator[Samples]:
    """Yield stems `(stem, channel, time)` of blocks `(channel, time)`, both at `sample_rate`.

    `frames` is the expected length of the mixture, for segments of equal length.

    If the separator works at another rate, the part of the mixture that resampling loses (all above half the
    lower rate) is divided equally among the stems of a complete set, so that they still sum to the mixture.
    The stems are exactly as long as the mixture.
    """
    inner = separator.spec.sample_rate
    if sample_rate == inner:
        yield from separate_blocks(separator, blocks, frames=frames)
        return

    if frames is not None:
        frames = round(frames * inner / sample_rate)
    blocks = iter(blocks)
    first = next(blocks, None)
    if first is None:
        return
    held = first[:, :0]

    def remember(block: Samples) -> Samples:
        nonlocal held
        held = np.concatenate([held, block], axis=-1)
        return block

    names, channels = len(separator.spec.stems), len(first)
    mixture = resample(map(remember, chain([first], blocks)), sample_rate, inner, channels)
    separated = separate_blocks(separator, mixture, frames=frames)
    flat = (stems.reshape(names * channels, -1) for stems in separated)
    for piece in chain(resample(flat, inner, sample_rate, names * channels), [None]):
        if piece is None:  # the remainder after rounding to whole samples
            piece = np.zeros((names * channels, held.shape[-1]), np.float32)
        piece = piece[:, : held.shape[-1]]
        stems = piece.reshape(names, channels, -1)
        original, held = held[:, : piece.shape[-1]], held[:, piece.shape[-1] :]
        if separator.spec.complete:
            stems = stems + (original - stems.sum(axis=0)) / names
        yield stems


def resampled(blocks: Iterable[Samples], sample_rate: int, to: int) -> Iterator[Samples]:
    """Yield blocks `(channel, time)` at another sample rate."""
    blocks = iter(blocks)
    first = next(blocks, None)
    if first is not None:
        yield from resample(chain([first], blocks), sample_rate, to, len(first))


def separate_blocks(
    separator: AnySeparator,
    blocks: Iterable[Samples],
    *,
    frames: int | None = None,
    segment_seconds: float | None = None,
    workers: int | None = None,
) -> Iterator[Samples]:
    """Yield stems `(stem, channel, time)` of a mixture in blocks `(channel, time)`, segment by segment.

    Together they are exactly as long as the mixture. `frames` is its expected length, for segments of equal
    length. `segment_seconds` and `workers` override the separator's segment length and number of parallel
    segments.
    """
    if isinstance(separator, StreamSeparator):
        yield from separator.stream(blocks)
        return
    spec = separator.spec
    workers = workers or spec.workers
    seconds = segment_seconds or SEGMENT_SECONDS
    segment = max(1, round(seconds * spec.sample_rate / spec.stride)) * spec.stride
    if segment_seconds is None and spec.segment:
        segment = shared_out(spec, frames, workers) if frames else spec.segment

    def separate(window: Samples, keep: int) -> Iterator[Samples]:
        for stems in pieces_of(separator, window):
            yield stems[..., :keep]
            keep -= min(keep, stems.shape[-1])
            if not keep:
                return

    cut = windows(blocks, segment, spec.context, spec.stride)
    yield from side_by_side(separate, cut, workers)


def shared_out(spec: Spec, frames: int, workers: int) -> int:
    """Return the length of segments that keep all workers busy until the end of `frames` samples."""
    longest = spec.longest or spec.segment
    rounds = max(1, math.ceil(frames / (workers * longest)))
    equal = math.ceil(frames / (workers * rounds * spec.stride)) * spec.stride
    return min(longest, max(equal, spec.shortest or spec.segment))


def side_by_side(
    work: Callable[..., Iterable[_Made]], cut: Iterable[tuple[Any, ...]], workers: int
) -> Iterator[_Made]:
    """Yield what `work` yields for each window, in the order of the windows.

    Several windows are in work at a time; the results of the first of them are yielded at once.
    """
    if workers == 1:
        for window in cut:
            yield from work(*window)
        return
    stop = stopping.Stop(within=stopping.current())
    ahead: deque[_Results[_Made]] = deque()
    with ThreadPoolExecutor(workers, "segment", initializer=stop.apply_here) as pool:
        try:
            for window in cut:
                ahead.append(_Results(pool, work, window))
                if len(ahead) > workers:
                    yield from ahead.popleft().until(stop)
            while ahead:
                yield from ahead.popleft().until(stop)
        finally:
            stop.set()
            for results in ahead:
                results.future.cancel()


class _Results(Generic[_Made]):
    """The results of the work on a window, while a thread makes them."""

    def __init__(
        self, pool: ThreadPoolExecutor, work: Callable[..., Iterable[_Made]], window: tuple[Any, ...]
    ) -> None:
        self._made: SimpleQueue[tuple[_Made, ...]] = SimpleQueue()
        self.future = pool.submit(self._make, work, window)

    def _make(self, work: Callable[..., Iterable[_Made]], window: tuple[Any, ...]) -> None:
        try:
            for result in work(*window):
                self._made.put((result,))
        finally:
            self._made.put(())  # the end

    def until(self, stop: stopping.Stop) -> Iterator[_Made]:
        """Yield each result as soon as it is there; raise KeyboardInterrupt if the work must stop before."""
        while True:
            try:  # Windows cannot interrupt a wait without a time limit
                result = self._made.get(timeout=CHECK_SECONDS)
            except Empty:
                stop.check()
                continue
            if not result:
                break
            yield result[0]
        self.future.result()


def windows(
    blocks: Iterable[Samples], segment: int, context: int, stride: int
) -> Iterator[tuple[Samples, int]]:
    """Yield each segment with its context, and the number of its samples within the stream."""
    pending: list[Samples] = []
    held = 0
    for block in blocks:
        if not pending:
            pending, held = [np.zeros((len(block), context), np.float32)], context
        pending.append(block)
        held += block.shape[-1]
        if held >= segment + 2 * context:
            joined = np.concatenate(pending, axis=-1)
            while joined.shape[-1] >= segment + 2 * context:
                yield joined[:, : segment + 2 * context], segment
                joined = joined[:, segment:]
            pending, held = [joined], joined.shape[-1]
    if not pending:
        return
    missing = -(held - context) % stride
    joined = np.concatenate([*pending, np.zeros((len(pending[0]), missing + context), np.float32)], axis=-1)
    left = held - context
    while left > 0:
        window = joined[:, : segment + 2 * context]
        yield window, min(segment, left)
        joined, left = joined[:, segment:], left - segment
