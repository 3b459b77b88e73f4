"""Running a network on a stream of frames in parts, so that nothing is computed twice."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager

import numpy as np

from stemsplit.separation import stopping
from stemsplit.separation.separator import Samples

Step = Callable[[Samples], Samples]
"""A function from the next part of a stream `(1, view, frame, bin)` to as many outputs, which are delayed."""


class InParts(ABC):
    """A network that takes `batch` frames at a time; outputs are delayed by its context, half of `around`."""

    batch: int
    around: int

    @abstractmethod
    def steps(self) -> AbstractContextManager[Step]:
        """Begin a stream, after silence."""

    def __call__(self, features: Samples) -> Samples:
        """Return outputs `(stem, channel, frame, bin)` for features `(view, frame, bin)`."""
        parts = (features[:, start:][:, : self.batch] for start in range(0, features.shape[1], self.batch))
        return np.concatenate([outputs.copy() for outputs in self.stream(parts)], axis=2)

    def stream(self, parts: Iterable[Samples]) -> Iterator[Samples]:
        """Yield outputs `(stem, channel, frame, bin)` for consecutive features `(view, frame, bin)`.

        All parts but the last have `batch` frames. There are no outputs for the context at either end.
        Outputs are valid until the next ones are computed.
        """
        missing = self.around
        with self.steps() as step:
            for part in parts:
                stopping.check()
                # What follows the last frame is only context of outputs that are dropped.
                outputs = step(padded(part, self.batch))
                if missing < part.shape[1]:
                    yield outputs[:, :, missing : part.shape[1]]
                missing = max(0, missing - part.shape[1])


def padded(part: Samples, positions: int) -> Samples:
    """Return features `(view, position, ...)` with this number of positions, and a batch axis."""
    missing = positions - part.shape[1]
    if missing:
        part = np.pad(part, ((0, 0), (0, missing), *[(0, 0)] * (part.ndim - 2)))
    return part[None]
