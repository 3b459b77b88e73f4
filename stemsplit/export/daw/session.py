"""A DAW session of stems: names, colors, lengths and tempo."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stemsplit.analysis.beats import Beats
from stemsplit.analysis.music import Music
from stemsplit.audio.reader import Reader
from stemsplit.audio.stem_folder import StemSet
from stemsplit.audio.stem_labels import COLOURS, ORDER

DEFAULT_BPM = 120.0
"""The tempo if none was detected: the usual default of DAWs."""
BEATS_PER_BAR = 4
STEADY_SECONDS = 0.001
"""Beats have a constant tempo if the intervals between them differ by less than this."""
USUAL_COLOURS = dict(zip(ORDER, COLOURS, strict=True))
"""Colors of the usual stems, the same as in stem files."""
OTHER_COLOURS = ("#E69F00", "#F0E442", "#0072B2", "#999999")
"""Colors for other stems. All colors are from the palette of M. Okabe and K. Ito."""
_NOT_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class Track:
    """One stem: its name, its color as `#RRGGBB`, its file and its length."""

    name: str
    colour: str
    path: Path
    frames: int


class TempoChange(NamedTuple):
    """A tempo that starts at a beat; `seconds` is the beat's time."""

    beat: int
    seconds: float
    bpm: float


@dataclass(frozen=True)
class Session:
    """The stems of a song as tracks that start at 0 s, and the tempo of the grid."""

    name: str
    tracks: tuple[Track, ...]
    sample_rate: int
    channels: int
    bpm: float
    """The mean tempo."""
    tempo_map: tuple[TempoChange, ...]
    """Empty if no beats were found."""
    remark: str

    def seconds(self, track: Track) -> float:
        """Return the duration of a track."""
        return track.frames / self.sample_rate


def session(stems: StemSet, music: Music) -> Session:
    """Return the session of some stems, with the beats found in them."""
    colours, map = _colours(stems.stems), tempo_map(music.beats)
    return Session(
        name=printable(stems.name),
        tracks=tuple(
            Track(printable(stem), colours[stem], path, _frames(path)) for stem, path in stems.stems.items()
        ),
        sample_rate=stems.sample_rate,
        channels=stems.channels,
        bpm=DEFAULT_BPM if music.bpm is None else round(music.bpm, 3),
        tempo_map=map,
        remark=remark(music),
    )


def tempo_map(beats: Beats | None) -> tuple[TempoChange, ...]:
    """Return the tempo changes that align a DAW's grid, which starts at 0 s, with the beats.

    The tempo before the first beat is chosen so that a whole number of beats fits. A constant tempo changes
    only there; a drifting tempo changes once per bar.
    """
    if beats is None:
        return ()
    times = beats.times_seconds
    period = 60 / beats.bpm
    first = next(index for index, time in enumerate(times) if time >= 2 * period / 3)
    lead = max(1, round(float(times[first]) / period))
    even = float(np.ptp(np.diff(times))) < STEADY_SECONDS
    step = len(times) - 1 - first if even else BEATS_PER_BAR
    found = [TempoChange(0, 0.0, 60 * lead / float(times[first]))]
    for start in range(first, len(times) - 1, max(1, step)):
        end = min(start + step, len(times) - 1)
        bpm = 60 * (end - start) / float(times[end] - times[start])
        found.append(TempoChange(lead + start - first, float(times[start]), bpm))
    return tuple(found)


def remark(music: Music) -> str:
    """Return a message about a session's tempo and key, with their confidence."""
    if music.beats is None:
        return f"no tempo was detected: {DEFAULT_BPM:.1f} BPM is used"
    said = f"tempo {music.beats.bpm:.1f} BPM, confidence {music.beats.confidence:.2f}"
    return f"{said}; key {music.key}, confidence {music.key_confidence:.2f}" if music.key else said


def printable(text: str) -> str:
    """Replace characters of file names that XML or a line of text cannot contain."""
    return _NOT_TEXT.sub("\N{REPLACEMENT CHARACTER}", text)


def _colours(stems: Mapping[str, Path]) -> dict[str, str]:
    others = cycle(OTHER_COLOURS)
    return {stem: USUAL_COLOURS.get(stem) or next(others) for stem in stems}


def _frames(path: Path) -> int:
    reader = Reader(path)
    return sum(block.shape[-1] for block in reader) if reader.frames is None else reader.frames
