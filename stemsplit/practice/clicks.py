"""The metronome: click sounds, added to music at given frames."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stemsplit.audio.reader import Block
from stemsplit.practice.timeline import Click

# Partials in Hz, and the time constant of their decay in seconds.
_SOUNDS = {"beep": ((1000.0,), 0.015), "wood": ((820.0, 1930.0), 0.006), "tick": ((3100.0, 4700.0), 0.002)}
SOUNDS = tuple(_SOUNDS)
ACCENT = 1.5
"""Pitch ratio of the click on the first beat of a bar."""


def sound(name: str, sample_rate: int, *, accented: bool) -> NDArray[np.float32]:
    """Return a click `(time,)` with a peak of 1."""
    partials, decay = _SOUNDS[name]
    seconds = np.arange(round(8 * decay * sample_rate)) / sample_rate
    pitch = ACCENT if accented else 1.0
    wave = sum(np.sin(2 * np.pi * pitch * hz * seconds) for hz in partials) * np.exp(-seconds / decay)
    click: NDArray[np.float32] = (wave / np.abs(wave).max()).astype(np.float32)
    return click


class Metronome:
    """Adds clicks to blocks of music."""

    def __init__(self, clicks: Sequence[Click], name: str, level_db: float, sample_rate: int) -> None:
        gain = np.float32(10 ** (level_db / 20))
        self._clicks = sorted(clicks, key=lambda click: click.frame)
        self._frames = [click.frame for click in self._clicks]
        self._plain = gain * sound(name, sample_rate, accented=False)
        self._accented = gain * sound(name, sample_rate, accented=True)

    def added(self, block: Block, start: int) -> Block:
        """Return a block `(channel, time)` that starts at frame `start`, with its clicks added."""
        stop, block = start + block.shape[1], block.copy()
        first = bisect_left(self._frames, start - len(self._plain) + 1)
        for click in self._clicks[first : bisect_left(self._frames, stop)]:
            wave = self._accented if click.number == 1 else self._plain
            begin = max(start, click.frame)
            part = wave[begin - click.frame : stop - click.frame]
            block[:, begin - start : begin - start + len(part)] += part
        return block
