"""Sound in a temporary file, with random access."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from stemsplit.audio.reader import Block

BLOCK_FRAMES = 65_536


class Store:
    """Interleaved float32 samples in a file; `frames` is their number per channel."""

    def __init__(self, file: BinaryIO, channels: int) -> None:
        self._file, self._channels = file, channels
        self.frames = 0

    def append(self, block: Block) -> None:
        """Add frames `(channel, time)` at the end."""
        self._file.seek(self.frames * self._channels * 4)
        self._file.write(np.ascontiguousarray(block.T, np.float32).tobytes())
        self.frames += block.shape[1]

    def blocks(self) -> Iterator[Block]:
        """Yield all frames in blocks `(channel, time)`."""
        for start in range(0, self.frames, BLOCK_FRAMES):
            yield self.read(start, min(start + BLOCK_FRAMES, self.frames))

    def read(self, start: int, stop: int) -> Block:
        """Return frames `(channel, time)`, with silence before the first and after the last one."""
        block = np.zeros((self._channels, max(0, stop - start)), np.float32)
        first, last = max(0, start), min(stop, self.frames)
        if first < last:
            self._file.seek(first * self._channels * 4)
            data = self._file.read((last - first) * self._channels * 4)
            block[:, first - start : last - start] = (
                np.frombuffer(data, np.float32).reshape(-1, self._channels).T
            )
        return block
