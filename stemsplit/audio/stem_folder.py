"""The stems of one track in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stemsplit.audio.formats import SUFFIXES
from stemsplit.audio.reader import Block, Reader
from stemsplit.errors import DecodeError, StemsplitError

MIXTURE = "mixture"
USUAL = ("vocals", "drums", "bass", "other")
"""These stems come first, in this order."""


@dataclass(frozen=True)
class StemSet:
    """The stems of one song, all with the same sample rate, and the mixture if the folder has it."""

    name: str
    """The name of the track."""
    stems: dict[str, Path]
    mixture: Path | None
    sample_rate: int
    channels: int
    reading: Mapping[str, Any] = field(default_factory=dict)
    """The options of a `Reader` for the mixture, if the stems are of an excerpt or of another track."""

    @cached_property
    def frames(self) -> int:
        """Samples per channel of the longest stem; for some formats, stems must be decoded to find it."""
        readers = (Reader(path) for path in self.stems.values())
        return max(
            sum(block.shape[-1] for block in reader) if reader.frames is None else reader.frames
            for reader in readers
        )

    def blocks(self) -> Iterator[Block]:
        """Yield blocks `(stem, channel, time)` of all stems; shorter stems are padded with silence."""
        yield from in_step([Reader(path) for path in self.stems.values()])

    def original(self) -> Reader | None:
        """Return the mixture, if there is one."""
        return Reader(self.mixture, **self.reading) if self.mixture else None

    def check_mixture(self) -> None:
        """Raise StemsplitError if a mixture differs from the stems in sample rate or channels."""
        mixture = self.original()
        if mixture and (mixture.sample_rate, mixture.channels) != (self.sample_rate, self.channels):
            raise StemsplitError(
                f"`{self.mixture}` is not the source of these stems: it has {mixture.sample_rate} "
                f"Hz and {mixture.channels} channels, they have {self.sample_rate} and {self.channels}",
                "name the file that was split, or leave it out",
            )

    def mix(self) -> Iterable[Block]:
        """Return the blocks `(channel, time)` of the mixture or, without one, of the sum of the stems."""
        return self.original() or (block.sum(axis=0) for block in self.blocks())

    def mix_and_stems(self) -> Iterator[Block]:
        """Yield blocks `(sound, channel, time)`: the mixture or the sum of the stems, then the stems."""
        if mixture := self.original():
            yield from in_step([mixture, *map(Reader, self.stems.values())])
        else:
            for stems in self.blocks():
                yield np.concatenate([stems.sum(axis=0, keepdims=True), stems])


def find(folder: Path) -> StemSet:
    """Return the stems in a folder such as `stems/song`, with one audio file per stem, named after it.

    Raises:
        DecodeError: it is not a folder, has no stems, or has stems that do not match.
    """
    if not folder.is_dir():
        raise DecodeError(f"No folder `{folder}`", "name the folder with the stems of one track")
    paths: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in paths:
            both = f"`{paths[path.stem]}` and `{path}`"
            raise DecodeError(f"{both} are the same stem", "move one of them elsewhere")
        paths[path.stem] = path
    mixture = paths.pop(MIXTURE, None)
    if not paths:
        raise DecodeError(f"No stems in `{folder}`", "name the folder with the stems of one track")
    order = sorted(paths, key=lambda stem: (USUAL.index(stem) if stem in USUAL else len(USUAL), stem))
    stems = {stem: paths[stem] for stem in order}
    forms = {(reader.sample_rate, reader.channels) for reader in map(Reader, stems.values())}
    if len(forms) > 1:
        raise DecodeError(
            f"The sounds in `{folder}` differ in sample rate or channels, so they are not stems of one track"
        )
    (sample_rate, channels) = forms.pop()
    return StemSet(folder.resolve().name, stems, mixture, sample_rate, channels)


class Passes:
    """The progress of work that reads a track several times.

    `progress` is called with the fraction of all passes that is done, from 0 to 1.
    """

    def __init__(self, passes: int, frames: float, progress: Callable[[float], None]) -> None:
        self._frames, self._progress = passes * max(1.0, frames), progress
        self._done = 0

    def watch(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Yield the blocks of one pass."""
        for block in blocks:
            yield block
            self._done += block.shape[-1]
            self._progress(min(1.0, self._done / self._frames))


def in_step(sounds: Sequence[Iterable[Block]]) -> Iterator[Block]:
    """Yield blocks `(sound, channel, time)` of several sounds, given in blocks of any length."""
    sources = [iter(sound) for sound in sounds]
    held: list[Block | None] = [next(source, None) for source in sources]
    while any(block is not None for block in held):
        length = min(block.shape[-1] for block in held if block is not None)
        channels = next(len(block) for block in held if block is not None)
        silence = np.zeros((channels, length), np.float32)
        yield np.stack([silence if block is None else block[:, :length] for block in held])
        for index, block in enumerate(held):
            if block is not None:
                rest = block[:, length:]
                held[index] = rest if rest.shape[-1] else next(sources[index], None)
