"""Chains of two separators: the second splits a stem of the first."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np

from stemsplit.errors import EncodeError
from stemsplit.separation.compose import copies, in_step
from stemsplit.separation.separator import AnySeparator, FittedMethod, Method, Samples, Spec
from stemsplit.separation.stream import resampled, separate_blocks, separate_stream

BLOCK_FRAMES = 1 << 16
"""Number of frames to read from a temporary file at a time."""


def chained(first: Method, second: Method, parent: str, names: tuple[str, ...]) -> Method:
    """Return a method that replaces the `parent` stem of the first method with the stems of the second.

    The new stems are called `names`. The second method's input is the `parent` stem itself.
    """
    link = Link(parent, names)
    if isinstance(first, FittedMethod) or isinstance(second, FittedMethod):
        return FittedChain(first, second, link)
    return Chained(first, second, link)


@dataclass(frozen=True)
class Link:
    """Which stem is split further, and the names of its parts."""

    parent: str
    names: tuple[str, ...]

    def stems(self, first: tuple[str, ...]) -> tuple[str, ...]:
        """Return the stems of a chain: the first separator's stems, with the parent replaced by its parts."""
        index = first.index(self.parent)
        return (*first[:index], *self.names, *first[index + 1 :])


@dataclass(frozen=True)
class Chained:
    """Two separators that run block by block: the second splits a stem of the first."""

    first: AnySeparator
    second: AnySeparator
    link: Link

    @property
    def spec(self) -> Spec:
        """The spec of the first separator, with the chain's stems."""
        first, second = self.first.spec, self.second.spec
        stems, complete = self.link.stems(first.stems), first.complete and second.complete
        return replace(first, stems=stems, context=0, stride=1, segment=0, complete=complete)

    def stream(self, blocks: Iterable[Samples]) -> Iterator[Samples]:
        """Yield stems `(stem, channel, time)` of a mixture in blocks `(channel, time)`."""
        spec = self.first.spec
        index = spec.stems.index(self.link.parent)
        found, again = copies(separate_blocks(self.first, blocks), 2)
        parts = separate_stream(self.second, (stems[index] for stems in again), spec.sample_rate)
        for stems, split in in_step([found, parts]):
            yield np.concatenate([stems[:index], split, stems[index + 1 :]])


@dataclass(frozen=True)
class FittedChain:
    """Two methods in a chain, at least one of which must be fitted.

    A second method that must be fitted is fitted to the stem that it splits. The stems of the first are then
    kept in a temporary file, so that the first runs only once.
    """

    first: Method
    second: Method
    link: Link

    @property
    def stems(self) -> tuple[str, ...]:
        """The names of the stems."""
        return self.link.stems(
            self.first.stems if isinstance(self.first, FittedMethod) else self.first.spec.stems
        )

    def fit(self, mixture: Iterable[Samples], sample_rate: int) -> AnySeparator:
        """Fit the first method to the mixture and the second to its stem, if necessary.

        Raises:
            EncodeError: there is no space for the temporary file.
        """
        first = self.first.fit(mixture, sample_rate) if isinstance(self.first, FittedMethod) else self.first
        if not isinstance(self.second, FittedMethod):
            return Chained(first, self.second, self.link)
        kept = Kept(first.spec)
        rate = first.spec.sample_rate
        for stems in separate_blocks(first, resampled(mixture, sample_rate, rate)):
            kept.append(stems)
        return Chained(kept, self.second.fit(KeptStem(kept, self.link.parent), rate), self.link)


class Kept:
    """The stems of a track in a temporary file, used in place of the separator that made them.

    Raises:
        EncodeError: the file cannot be made.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = replace(spec, context=0, stride=1, segment=0)
        self._channels = 0
        self._file: BinaryIO
        try:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 (it lasts as long as this object)
        except OSError as error:
            raise _no_room(error) from error
        weakref.finalize(self, self._file.close)

    def append(self, stems: Samples) -> None:
        """Append the next stems `(stem, channel, time)`. Raises EncodeError if there is no space."""
        self._channels = stems.shape[1]
        try:
            self._file.write(np.ascontiguousarray(np.moveaxis(stems, -1, 0), np.float32).tobytes())
            self._file.flush()
        except OSError as error:
            raise _no_room(error) from error

    def read(self, start: int, frames: int) -> Samples:
        """Return up to `frames` frames of the stems `(stem, channel, time)`, from frame `start` on."""
        shape = (len(self.spec.stems), self._channels)
        width = 4 * shape[0] * shape[1]
        self._file.seek(start * width)
        interleaved = np.frombuffer(self._file.read(frames * width), np.float32).reshape(-1, *shape)
        return np.ascontiguousarray(np.moveaxis(interleaved, 0, -1))

    def stream(self, blocks: Iterable[Samples]) -> Iterator[Samples]:
        """Yield the stems `(stem, channel, time)` of the track; `blocks` only set the block lengths."""
        start = 0
        for block in blocks:
            yield self.read(start, block.shape[-1])
            start += block.shape[-1]


@dataclass(frozen=True)
class KeptStem:
    """One of the kept stems, as re-iterable blocks `(channel, time)`."""

    kept: Kept
    stem: str

    def __iter__(self) -> Iterator[Samples]:
        index, start = self.kept.spec.stems.index(self.stem), 0
        while (block := self.kept.read(start, BLOCK_FRAMES)[index]).size:
            yield block
            start += block.shape[-1]


def _no_room(error: OSError) -> EncodeError:
    return EncodeError(
        f"Cannot keep stems in `{tempfile.gettempdir()}`: {error.strerror}",
        "free some space, or choose another folder with TMPDIR",
    )
