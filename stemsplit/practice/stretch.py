"""Time stretching and transposing in bounded memory, with Signalsmith Stretch.

The library (python-stretch) renders one sound per call, and keeps no state between calls. A long sound is
therefore rendered in overlapping segments. To transpose, a sound is stretched and then resampled, which is
exact; the library's own transposition is off by up to 2 cents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import soxr

from stemsplit.audio.reader import Block
from stemsplit.defaults import install_extra
from stemsplit.errors import StemsplitError
from stemsplit.practice.attacks import with_attacks
from stemsplit.practice.joints import Joint, joined

Read = Callable[[int, int], Block]
"""Returns the frames `start` to `stop` of a sound, `(channel, time)`, with silence beyond its ends."""
SEGMENT_SECONDS, OVERLAP_SECONDS = 40.0, 2.0
CONTEXT_SECONDS = 0.5
FADE_SECONDS, LAG_SECONDS = 0.09, 0.005
DRUM_FADE_SECONDS = 0.02
SLOWEST_AT_ONCE = 0.55
"""Lowest rate per step: at 0.5 and below, the library randomizes phases. Slower rates take more steps."""
DRUM_BLOCK, DRUM_INTERVAL = 1024, 256
"""Frame and hop length for drums, in samples at 44.1 kHz; the preset for music has 5292 and 1323."""
EDGE_FRAMES = 1024
"""More than half the length of the resampling filter."""


@dataclass(frozen=True)
class Passage:
    """A part of a sound to be rendered: output frame `n` is frame `first + n * rate` of the sound."""

    first: float
    rate: float
    frames: int
    """Number of output frames."""

    def part(self, start: int, stop: int) -> Passage:
        """Return a part of the output as a passage."""
        return Passage(self.first + start * self.rate, self.rate, stop - start)

    def extent(self, margin: int) -> tuple[int, int]:
        """Return where the passage starts and stops in the sound, with a margin on either side."""
        stop = self.first + self.frames * self.rate
        return math.floor(self.first) - margin, math.ceil(stop) + margin


def check() -> None:
    """Check early whether stretching is possible.

    Raises:
        StemsplitError: python-stretch is not installed.
    """
    if find_spec("python_stretch") is None:
        what = "Changing the tempo or the key needs python-stretch, which is not installed"
        raise StemsplitError(what, install_extra("practice"))


def stretched(read: Read, passage: Passage, sample_rate: int) -> Iterator[Block]:
    """Yield a passage of music at its rate, with its pitch unchanged."""

    def render(start: int, stop: int) -> Block:
        return _rendered(read, passage.part(start, stop), sample_rate)

    if passage.rate == 1:
        yield from _unchanged(read, passage)
    else:
        yield from joined(render, passage.frames, _joint(sample_rate, FADE_SECONDS, LAG_SECONDS))


def stretched_drums(read: Read, passage: Passage, sample_rate: int) -> Iterator[Block]:
    """Yield a passage of drums at its rate: attacks are copied, and the sound between them is stretched."""

    def render(start: int, stop: int) -> Block:
        part = passage.part(start, stop)
        begin, end = part.extent(round(CONTEXT_SECONDS * sample_rate))
        sound = _rendered(read, part, sample_rate, drums=True)
        return with_attacks(sound, read(begin, end), begin - part.first, part.rate, sample_rate)

    if passage.rate == 1:
        yield from _unchanged(read, passage)
    else:
        yield from joined(render, passage.frames, _joint(sample_rate, DRUM_FADE_SECONDS, 0))


def transposed(read: Read, passage: Passage, sample_rate: int, semitones: float) -> Iterator[Block]:
    """Yield a passage of music at its rate, with its pitch changed."""
    if semitones == 0:
        yield from stretched(read, passage, sample_rate)
        return
    pitch = 2 ** (semitones / 12)
    # The stretched sound is played `pitch` times as fast; it has a margin for the filter at both ends.
    frames = math.ceil((passage.frames + 2 * EDGE_FRAMES) * pitch)
    longer = Passage(passage.first - EDGE_FRAMES * passage.rate, passage.rate / pitch, frames)
    skip, left = EDGE_FRAMES, passage.frames
    stream = None
    for block in stretched(read, longer, sample_rate):
        if stream is None:
            rates = (pitch * sample_rate, sample_rate)
            stream = soxr.ResampleStream(*rates, len(block), dtype="float32", quality="VHQ")
        made = stream.resample_chunk(np.ascontiguousarray(block.T)).T
        wanted = made[:, skip : skip + left]
        skip -= min(skip, made.shape[1])
        left -= wanted.shape[1]
        if wanted.shape[1]:
            yield np.ascontiguousarray(wanted)
    if stream is not None and left:
        rest = stream.resample_chunk(np.zeros((0, len(block)), np.float32), last=True).T
        yield np.ascontiguousarray(rest[:, skip : skip + left])


def _unchanged(read: Read, passage: Passage) -> Iterator[Block]:
    first, size = round(passage.first), 65_536
    for start in range(0, passage.frames, size):
        yield read(first + start, first + min(start + size, passage.frames))


def _joint(sample_rate: int, fade_seconds: float, lag_seconds: float) -> Joint:
    lengths = (SEGMENT_SECONDS, OVERLAP_SECONDS, fade_seconds, lag_seconds)
    return Joint(*(round(seconds * sample_rate) for seconds in lengths))


def _rendered(read: Read, part: Passage, sample_rate: int, *, drums: bool = False) -> Block:
    """Return a short passage, rendered at once with context on either side."""
    begin, end = part.extent(round(CONTEXT_SECONDS * sample_rate))
    sound = read(begin, end)
    steps = 1
    while part.rate ** (1 / steps) < SLOWEST_AT_ONCE:
        steps += 1
    for _ in range(steps):
        sound = _render(sound, part.rate ** (1 / steps), sample_rate, drums=drums)
    skip = round((part.first - begin) / part.rate)
    return sound[:, skip : skip + part.frames]


def _render(sound: Block, rate: float, sample_rate: int, *, drums: bool) -> Block:
    from python_stretch.Signalsmith import Stretch

    engine = Stretch()
    if drums:
        block, interval = (round(size * sample_rate / 44_100) for size in (DRUM_BLOCK, DRUM_INTERVAL))
        engine.configure(len(sound), block, interval)
    else:
        engine.preset(len(sound), sample_rate)
    engine.setTimeFactor(rate)
    return np.asarray(engine.process(np.ascontiguousarray(sound, np.float32)))
