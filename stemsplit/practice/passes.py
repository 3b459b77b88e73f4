"""The passes of a loop: rendered once per rate, joined by crossfades, in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from stemsplit.audio.reader import Block
from stemsplit.audio.stem_folder import in_step
from stemsplit.practice.groups import Group
from stemsplit.practice.joints import crossfade
from stemsplit.practice.stretch import Passage
from stemsplit.practice.timeline import Timeline
from stemsplit.remix.store import Store

FADE_SECONDS = 0.02
"""Length of the crossfade before each joint, so that a loop begins with its first attack at full level."""
BLOCK = 65_536


class Passes:
    """The music of a timeline, kept in a file. Each pass starts before the loop, to fade in."""

    def __init__(self, timeline: Timeline, sample_rate: int, store: Store) -> None:
        self._timeline, self._sample_rate, self._store = timeline, sample_rate, store
        self._fade = round(FADE_SECONDS * sample_rate)
        self._offsets: dict[float, int] = {}
        self._ends_early = False

    @property
    def frames(self) -> int:
        """Number of frames to render."""
        lengths = {each.rate: each.frames for each in self._timeline.passes}
        return sum(lengths.values()) + len(lengths) * self._fade

    def render(self, song: Store, groups: Sequence[Group], semitones: float) -> Iterator[int]:
        """Render all passes from the mixed groups of a song; yield the number of frames done."""
        first, stop = self._timeline.loop
        self._ends_early = stop < song.frames
        for each in self._timeline.passes:
            if each.rate in self._offsets:
                continue
            self._offsets[each.rate] = self._store.frames
            passage = Passage(first - self._fade * each.rate, each.rate, self._fade + each.frames)
            rendered = [
                group.render(_channels(song, index, len(groups)), passage, self._sample_rate, semitones)
                for index, group in enumerate(groups)
            ]
            for block in in_step(rendered):
                self._store.append(block.sum(axis=0))
                yield self._store.frames

    def blocks(self) -> Iterator[Block]:
        """Yield the output without clicks, `(channel, time)`."""
        fade, lead = self._fade, self._timeline.lead
        silence = self._store.read(-fade, 0)
        for start in range(0, lead - fade, BLOCK):
            yield np.zeros((len(silence), min(BLOCK, lead - fade - start)), np.float32)
        held = silence if lead >= fade else None
        for each in self._timeline.passes:
            begin = self._offsets[each.rate]
            body = begin + fade
            if held is not None:
                yield crossfade(held, self._store.read(begin, body))
            end = body + each.frames - fade
            for start in range(body, end, BLOCK):
                block = self._store.read(start, min(start + BLOCK, end))
                if held is None and self._timeline.loop[0] > 0:
                    block[:, : fade // 4] *= np.linspace(0, 1, fade // 4, dtype=np.float32)
                yield block
                held = silence
            held = self._store.read(end, end + fade)
        assert held is not None
        yield crossfade(held, silence) if self._ends_early else held


def _channels(song: Store, index: int, groups: int) -> Callable[[int, int], Block]:
    def read(start: int, stop: int) -> Block:
        return np.split(song.read(start, stop), groups)[index]

    return read
