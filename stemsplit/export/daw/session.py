"""A DAW session of stems: names, colours, lengths and tempo."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from stemsplit.analysis.sound import Analysis
from stemsplit.audio.reader import Reader
from stemsplit.audio.stem_folder import StemSet
from stemsplit.audio.stem_labels import COLOURS, ORDER

DEFAULT_BPM = 120.0
"""The usual default of DAWs, if no tempo was detected."""
BEATS_PER_BAR = 4
USUAL_COLOURS = dict(zip(ORDER, COLOURS, strict=True))
"""Colours of the usual stems, the same as in stem files."""
OTHER_COLOURS = ("#E69F00", "#F0E442", "#0072B2", "#999999")
"""Colours for other stems. All colours are those of M. Okabe and K. Ito."""
_NOT_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class Track:
    """One stem: its name, its colour as `#RRGGBB`, its file and its length."""

    name: str
    colour: str
    path: Path
    frames: int


@dataclass(frozen=True)
class Session:
    """The stems of a song, as tracks that start at 0 s, and the tempo of the grid."""

    name: str
    tracks: tuple[Track, ...]
    sample_rate: int
    channels: int
    bpm: float
    remark: str

    def seconds(self, track: Track) -> float:
        """Return the duration of a track."""
        return track.frames / self.sample_rate


def session(stems: StemSet, analysis: Analysis) -> Session:
    """Return the session of some stems, at the tempo detected in their mixture."""
    colours = _colours(stems.stems)
    return Session(
        name=printable(stems.name),
        tracks=tuple(
            Track(printable(stem), colours[stem], path, _frames(path)) for stem, path in stems.stems.items()
        ),
        sample_rate=stems.sample_rate,
        channels=stems.channels,
        bpm=DEFAULT_BPM if analysis.bpm is None else round(analysis.bpm, 3),
        remark=remark(analysis),
    )


def remark(analysis: Analysis) -> str:
    """Return a message about a session's tempo and its confidence."""
    if analysis.bpm is None:
        return f"no tempo was detected: {DEFAULT_BPM:.1f} BPM is used"
    said = f"tempo {analysis.bpm:.1f} BPM, confidence {analysis.bpm_confidence:.2f}"
    return f"{said}; key {analysis.key}, confidence {analysis.key_confidence:.2f}" if analysis.key else said


def printable(text: str) -> str:
    """Replace characters of file names that XML or a line of text cannot contain."""
    return _NOT_TEXT.sub("\N{REPLACEMENT CHARACTER}", text)


def _colours(stems: Mapping[str, Path]) -> dict[str, str]:
    others = cycle(OTHER_COLOURS)
    return {stem: USUAL_COLOURS.get(stem) or next(others) for stem in stems}


def _frames(path: Path) -> int:
    reader = Reader(path)
    return sum(block.shape[-1] for block in reader) if reader.frames is None else reader.frames
