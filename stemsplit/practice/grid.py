"""The beats of a song: tracked in its drums or its mixture, or at the tempo that the user gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stemsplit.analysis import frames
from stemsplit.analysis.beats import Beats, find_beats
from stemsplit.analysis.frames import Onsets
from stemsplit.audio.rates import RateConverter
from stemsplit.audio.reader import Block
from stemsplit.errors import StemsplitError
from stemsplit.practice.groups import is_drums
from stemsplit.practice.options import PracticeOptions


class BeatTracker:
    """Tracks beats in the drums and in the sum of all stems, block by block."""

    def __init__(self, stems: Sequence[str], sample_rate: int) -> None:
        self._drums = [index for index, name in enumerate(stems) if is_drums(name)]
        self._rate = RateConverter(sample_rate, frames.RATE, 2)
        self._onsets = (Onsets(), Onsets())

    def add(self, stems: Block) -> None:
        """Append a block `(stem, channel, time)`."""
        mono = stems.mean(axis=1)
        both = np.stack([mono[self._drums].sum(axis=0), mono.sum(axis=0)])
        for onsets, samples in zip(self._onsets, self._rate.push(both), strict=True):
            onsets.add(samples)

    def beats(self) -> Beats | None:
        """Return the beats that are the more certain; None if there are none."""
        found = [find_beats(onsets.envelopes()) for onsets in self._onsets]
        return max(filter(None, found), key=lambda beats: beats.confidence, default=None)


def grid(wanted: PracticeOptions, tracked: Beats | None, start: float, duration: float) -> Beats:
    """Return the beats of a sound that lasts `duration` seconds from `start` on in its song.

    Where the first beat of a bar is not given, bars begin with the loop.

    Raises:
        StemsplitError: no beats were found, and no tempo is given.
    """
    if wanted.bpm is not None:
        return _even(wanted, wanted.bpm, tracked, start, duration)
    if tracked is None:
        raise StemsplitError("No beats were found", "give the tempo with --bpm and --first-beat")
    if wanted.meter is None:
        return tracked
    begin = (wanted.loop[0] - start) if wanted.loop else 0.0
    nearest = int(np.abs(tracked.times_seconds - begin).argmin())
    return replace(tracked, beats_per_bar=wanted.meter, first_downbeat=nearest)


def _even(wanted: PracticeOptions, bpm: float, tracked: Beats | None, start: float, duration: float) -> Beats:
    """Return an even grid; without a first beat it is where the tracked beats are, on the average."""
    period = 60 / bpm
    if wanted.first_beat is not None:
        first = wanted.first_beat - start
    elif tracked is not None:
        turns = np.exp(2j * np.pi * tracked.times_seconds / period).sum()
        first = float(np.angle(turns)) / (2 * np.pi) * period
        begin = (wanted.loop[0] - start) if wanted.loop else 0.0
        first += round((begin - first) / period) * period
    else:
        first = 0.0
    return Beats.from_bpm(bpm, first % (period * (wanted.meter or 1)), duration, wanted.meter)
