"""The timeline of the output: the passes of a loop, the count-in before them, and the clicks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stemsplit.analysis.beats import Beats
from stemsplit.errors import UsageError

USUAL_METER = 4
"""Beats per bar of a count-in if the meter is not known."""
SAME_BEAT_SECONDS = 0.02
"""A beat at most this long before the start of a loop belongs to it."""
LEAST_SECONDS = 0.1
"""Minimum length of a pass: several times the crossfade at its joints."""


@dataclass(frozen=True)
class Pass:
    """One time through the loop, or through the song."""

    start: int
    """The frame of the output at which it starts."""
    frames: int
    """Length in output frames."""
    rate: float
    """Tempo factor: 0.8 is slower than the original."""


@dataclass(frozen=True)
class Click:
    """One beat of the metronome."""

    frame: int
    """The frame of the output."""
    number: int | None
    """The number of the beat in its bar, from 1; None if bars are not known."""
    counts_in: bool = False
    """Whether it is before the music."""


@dataclass(frozen=True)
class Timeline:
    """The layout of the output, in frames."""

    loop: tuple[int, int]
    """The first frame of the song that is played, and the one after the last."""
    lead: int
    """The length of the count-in."""
    passes: tuple[Pass, ...]
    clicks: tuple[Click, ...]

    @property
    def frames(self) -> int:
        """The length of the output."""
        return self.passes[-1].start + self.passes[-1].frames


def rates(tempo: float, ramp: tuple[float, float] | None, times: int) -> list[float]:
    """Return the rate of each pass: a ramp has equal steps."""
    if ramp is None:
        return [tempo] * times
    return [tempo * float(share) for share in np.linspace(*ramp, times)]


def snapped(loop: tuple[float, float], beats: Beats) -> tuple[float, float]:
    """Return a loop, in seconds, that begins and ends at the nearest beats."""
    start, stop = (float(beats.times_seconds[np.abs(beats.times_seconds - end).argmin()]) for end in loop)
    if start >= stop:
        raise UsageError("The loop is shorter than a beat", "leave out --snap, or choose a longer one")
    return start, stop


def timeline(
    loop: tuple[int, int], rates: Sequence[float], sample_rate: int, beats: Beats | None, count_in: int
) -> Timeline:
    """Lay out a loop, in frames, that is played once at each rate, after a count-in of some bars.

    Without beats there are no clicks. The count-in has the tempo of the first pass, and leads into its first
    beat.

    Raises:
        UsageError: a pass is too short, or there are no beats to count in.
    """
    first, stop = loop
    lengths = [round((stop - first) / rate) for rate in rates]
    if min(lengths) < LEAST_SECONDS * sample_rate:
        raise UsageError("The loop is too short", f"choose one of at least {LEAST_SECONDS:g} s")
    lead, clicks = 0, list[Click]()
    if beats and count_in:
        lead, clicks = _count_in(loop, rates[0], sample_rate, beats, count_in)
    passes, position = [], lead
    for length, rate in zip(lengths, rates, strict=True):
        passes.append(Pass(position, length, rate))
        if beats:
            clicks += _clicks(loop, passes[-1], sample_rate, beats)
        position += length
    return Timeline(loop, lead, tuple(passes), tuple(clicks))


def _inside(loop: tuple[int, int], sample_rate: int, beats: Beats) -> range:
    """Return the indices of the beats in a loop; a beat at its very end belongs to the next pass."""
    ends = [end / sample_rate - SAME_BEAT_SECONDS for end in loop]
    first, stop = np.searchsorted(beats.times_seconds, ends)
    return range(int(first), int(stop))


def _clicks(loop: tuple[int, int], each: Pass, sample_rate: int, beats: Beats) -> list[Click]:
    found = []
    for index in _inside(loop, sample_rate, beats):
        frame = each.start + round((beats.times_seconds[index] * sample_rate - loop[0]) / each.rate)
        found.append(Click(max(each.start, frame), beats.number(index)))
    return found


def _count_in(
    loop: tuple[int, int], rate: float, sample_rate: int, beats: Beats, bars: int
) -> tuple[int, list[Click]]:
    """Return the length of a count-in, and its clicks.

    It begins with a bar. If the loop begins within a bar, it also has that bar's beats before the loop.
    """
    inside = _inside(loop, sample_rate, beats)
    if not inside:
        raise UsageError("There is no beat in the loop to count in", "give --bpm and --first-beat")
    meter, index = beats.beats_per_bar or USUAL_METER, inside[0]
    times = beats.times_seconds[index : index + meter + 1]
    period = (float(np.diff(times).mean()) if len(times) > 1 else 60 / beats.bpm) * sample_rate
    # Distance in beats from the start of the loop to its first beat.
    before = max(0.0, (times[0] * sample_rate - loop[0]) / period)
    whole = math.floor(before + 1e-6)
    count = bars * meter + ((beats.number(index) or 1) - 1 - whole) % meter
    period /= rate
    lead = round((count - max(0.0, before - whole)) * period)
    frames = [round(beat * period) for beat in range(count)]
    return lead, [
        Click(frame, beat % meter + 1, counts_in=True) for beat, frame in enumerate(frames) if frame < lead
    ]
