"""Streaming sample rate conversion."""

from __future__ import annotations

import numpy as np
import soxr

from stemsplit.audio.reader import Block


class RateConverter:
    """Converts blocks `(channel, time)` to another sample rate (in Hz) without delay.

    N frames become round(N * target / source) frames, for any block sizes.
    """

    def __init__(self, source: int, target: int, channels: int) -> None:
        self._source, self._target = source, target
        self._stream = soxr.ResampleStream(source, target, channels, dtype="float32", quality="VHQ")
        self._taken = self._given = 0

    def push(self, block: Block, *, last: bool = False) -> Block:
        """Return the output that is ready after a block; after the `last` one, all remaining output."""
        self._taken += block.shape[1]
        made = self._stream.resample_chunk(np.ascontiguousarray(block.T), last=last).T
        if last:  # the resampler's own count can be off by one frame
            missing = round(self._taken * self._target / self._source) - self._given - made.shape[1]
            made = np.pad(made, ((0, 0), (0, max(0, missing))))[:, : made.shape[1] + missing]
        self._given += made.shape[1]
        return np.ascontiguousarray(made)
