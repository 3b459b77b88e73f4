"""Overlap-save: any separator over a stream of blocks, in memory that does not grow with its length.

The stream is cut into segments on the separator's grid. Each is separated with its context on both sides,
silence before the start and after the end, and only the segment itself is kept: there is nothing to
cross-fade, because a kept sample is the very sample that separating the whole stream would give.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from .separator import Samples, Separator

SEGMENT_SECONDS = 10.0


def separate_blocks(
    separator: Separator, blocks: Iterable[Samples], *, segment_seconds: float = SEGMENT_SECONDS
) -> Iterator[Samples]:
    """Yield stems `(stem, channel, time)` of a mixture in blocks `(channel, time)`, segment by segment.

    Together they are exactly as long as the mixture.
    """
    spec = separator.spec
    segment = max(1, round(segment_seconds * spec.sample_rate / spec.grid)) * spec.grid
    for window, keep in _windows(blocks, segment, spec.context):
        yield separator.separate(window)[..., spec.context : spec.context + keep]


def _windows(blocks: Iterable[Samples], segment: int, context: int) -> Iterator[tuple[Samples, int]]:
    """Yield each segment with its context, and how many samples of it there are in the stream."""
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
    joined = np.concatenate([*pending, np.zeros((len(pending[0]), context), np.float32)], axis=-1)
    while joined.shape[-1] > 2 * context:
        keep = min(segment, joined.shape[-1] - 2 * context)
        yield joined[:, : keep + 2 * context], keep
        joined = joined[:, keep:]
