"""Measurement of latencies, and detection of late blocks."""

from __future__ import annotations

from array import array
from collections import deque

from stemsplit.separation.separator import Spec


class Clock:
    """Records when samples arrive and are written, and which blocks are late.

    A block is late if it is not written within its own duration. This period starts when the block and its
    context have arrived, but not before its first sample is as old as the latency.
    """

    def __init__(self, spec: Spec, block: int) -> None:
        self._needed, self._rate, self._block = block + spec.context, spec.sample_rate, block
        self._came: deque[tuple[float, float]] = deque()  # (number of samples so far, time)
        self._gone = 0
        self.latencies, self.late = array("f"), 0

    def came(self, total: float, when: float) -> None:
        """Record when the first `total` samples had arrived; at the end of the input, `total` is infinity."""
        self._came.append((total, when))

    def went(self, samples: int, when: float) -> None:
        """Record when the next `samples` samples were written."""
        while self._came[0][0] <= self._gone:
            self._came.popleft()
        first = self._came[0][1]
        complete = next(came for total, came in self._came if total >= self._gone + self._needed)
        due = max(first + self._needed / self._rate, complete) + self._block / self._rate
        self.late += when > due
        self.latencies.append(when - first)
        self._gone += samples
