"""The part of a song that is needed, and the timeline of its playback."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from stemsplit.analysis.beats import Beats
from stemsplit.audio.reader import Reader
from stemsplit.errors import UsageError
from stemsplit.options import Options
from stemsplit.practice.options import PracticeOptions, checked_rate, clock
from stemsplit.practice.timeline import Timeline, rates, snapped, timeline
from stemsplit.remix.store import Store

CONTEXT_SECONDS = 10.0
"""Context on either side of a loop that is also split, for beat tracking."""
SLACK_SECONDS = 0.5
"""A loop may end this much after the song, because players round its length."""


def needed(source: Path, wanted: PracticeOptions, options: Options) -> tuple[Options, float]:
    """Return the options to split only the part that a loop needs, and its start in seconds.

    Raises:
        UsageError: the loop is beyond the end of the song, if the end is already known.
    """
    if not wanted.loop or source.is_dir():
        return options, 0.0
    whole = Reader(source, **options.split.reading)
    if whole.frames_estimate is not None:
        _check_loop(wanted.loop, source, whole.frames_estimate / whole.sample_rate)
    first, stop = wanted.loop
    start = max(0.0, first - CONTEXT_SECONDS)
    duration = None if stop is None else stop + CONTEXT_SECONDS - start
    split = replace(options.split, start_seconds=start, duration_seconds=duration)
    return replace(options, split=split), start


def _check_loop(loop: tuple[float, float | None], source: Path, seconds: float) -> None:
    end = max(filter(None, loop), default=0.0)
    if end > seconds + SLACK_SECONDS:
        raise UsageError(
            f"The loop reaches {clock(end)}, but `{source.name}` ends at {clock(seconds)}",
            "choose a loop within the song",
        )


def layout(
    source: Path, wanted: PracticeOptions, kept: Store, sample_rate: int, start: float, beats: Beats | None
) -> Timeline:
    """Return the timeline of the kept sound, which begins `start` seconds into the song.

    Raises:
        UsageError: the loop is beyond the end of the song, or too short, or a tempo is out of range.
    """
    seconds = kept.frames / sample_rate
    first, stop = 0.0, seconds
    if wanted.loop:
        _check_loop(wanted.loop, source, start + seconds)
        first = wanted.loop[0] - start
        stop = seconds if wanted.loop[1] is None else wanted.loop[1] - start
    if wanted.snap and beats:
        first, stop = snapped((first, stop), beats)
    tempo = wanted.tempo or 1.0
    if wanted.tempo_bpm and beats:
        tempo = wanted.tempo_bpm / beats.bpm
    tempi = [checked_rate(each) for each in rates(tempo, wanted.ramp, wanted.passes)]
    loop = (round(first * sample_rate), min(kept.frames, round(stop * sample_rate)))
    return timeline(loop, tempi, sample_rate, beats, wanted.count_in)
