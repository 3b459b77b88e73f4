"""Converting sound to another sample rate while it is written."""

from __future__ import annotations

import numpy as np
import soxr

from stemsplit.audio.reader import Block


class RateConverter:
    """Converts blocks `(channel, time)` to another sample rate (in Hz) without delay.

    Of N frames it makes round(N * target / source), however they are cut into blocks.
    """

    def __init__(self, source: int, target: int, channels: int) -> None:
        self._source, self._target = source, target
        self._stream = soxr.ResampleStream(source, target, channels, dtype="float32", quality="VHQ")
        self._taken = self._given = 0

    def push(self, block: Block, *, last: bool = False) -> Block:
        """Return the output that is ready after another block; after the `last` one, all the rest."""
        self._taken += block.shape[1]
        made = self._stream.resample_chunk(np.ascontiguousarray(block.T), last=last).T
        if last:  # the filter's own count may be one frame off
            missing = round(self._taken * self._target / self._source) - self._given - made.shape[1]
            made = np.pad(made, ((0, 0), (0, max(0, missing))))[:, : made.shape[1] + missing]
        self._given += made.shape[1]
        return np.ascontiguousarray(made)
