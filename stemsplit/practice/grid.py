"""The beats of a song: tracked, or an even grid at the user's tempo."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stemsplit.analysis.beats import Beats
from stemsplit.errors import StemsplitError
from stemsplit.practice.options import PracticeOptions


def grid(wanted: PracticeOptions, tracked: Beats | None, start: float, duration: float) -> Beats:
    """Return the beats of the part of a song that starts at `start` and lasts `duration` seconds.

    Without a first beat, bars of a given meter begin at the beat nearest to the start of the loop, and an
    even grid begins there if no beats were tracked.

    Raises:
        StemsplitError: no beats were found, and no tempo is given.
    """
    if wanted.bpm is not None:
        return _even(wanted, wanted.bpm, tracked, start, duration)
    if tracked is None:
        raise StemsplitError("No beats were found", "give the tempo with --bpm and --first-beat")
    if wanted.meter is None:
        return tracked
    nearest = int(np.abs(tracked.times_seconds - _loop_start(wanted, start)).argmin())
    return replace(tracked, beats_per_bar=wanted.meter, first_downbeat=nearest)


def _even(wanted: PracticeOptions, bpm: float, tracked: Beats | None, start: float, duration: float) -> Beats:
    """Return an even grid; without a first beat, its phase is the mean phase of the tracked beats."""
    period = 60 / bpm
    if wanted.first_beat is not None:
        first = wanted.first_beat - start
    elif tracked is not None:
        turns = np.exp(2j * np.pi * tracked.times_seconds / period).sum()
        first = float(np.angle(turns)) / (2 * np.pi) * period
        first += round((_loop_start(wanted, start) - first) / period) * period
    else:
        first = _loop_start(wanted, start)
    return Beats.from_bpm(bpm, first % (period * (wanted.meter or 1)), duration, wanted.meter)


def _loop_start(wanted: PracticeOptions, start: float) -> float:
    """Return the start of the loop, or of the song, in seconds from `start`."""
    return wanted.loop[0] - start if wanted.loop else 0.0
