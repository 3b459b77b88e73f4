"""The sound tracks of a container, and the choice of one."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from stemsplit.audio import ffmpeg
from stemsplit.audio.formats import song_of
from stemsplit.audio.languages import canonical
from stemsplit.errors import DecodeError
from stemsplit.files.scratch import shown

_TIMED = frozenset(
    {"asf", "avi", "flv", "live_flv", "matroska", "mov", "mpeg", "mpegts", "mxf", "nut", "rm", "wtv"}
)
"""Containers that say when each piece of sound is played; elsewhere one follows the other."""
_SMALL_LAYOUTS = frozenset({"mono", "stereo", "downmix", "binaural", "1 channels", "2 channels"})
_ROUNDING_SECONDS = 0.0011
"""Time stamps in whole milliseconds are up to 0.5 ms off, and so is the start of the container."""
_LONGEST_SILENCE_SECONDS = 600
"""Before the sound: a longer one is a faulty time stamp, as of recordings of live streams."""


@dataclass(frozen=True)
class SoundTrack:
    """One sound track; `index` counts from 0."""

    index: int
    language: str
    """As in the file, mostly three letters; empty where it is not stated."""
    layout: str
    default: bool

    @property
    def surround(self) -> bool:
        """Whether it has more than two channels."""
        return self.layout not in _SMALL_LAYOUTS

    def __str__(self) -> str:
        return f"{self.index + 1} ({', '.join(filter(None, (self.language, self.layout)))})"


@dataclass(frozen=True)
class Contents:
    """What a container holds, as ffmpeg sees it."""

    tracks: tuple[SoundTrack, ...]
    timed: bool
    """Whether it has time stamps, so that sound may begin late, or have gaps."""
    start_seconds: float
    """The time stamp at which players begin."""
    others: bool
    """Whether it holds more than one stream, covers not counted."""


def contents(path: Path) -> Contents:
    """Return what a file holds; no tracks at all if ffmpeg cannot read it."""
    state = path.stat()
    return _contents(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=256)
def _contents(path: Path, changed_ns: int, size: int) -> Contents:
    log = _log("-v", "info", *ffmpeg.LOCAL, "-i", f"file:{path}")
    container = re.search(r"^Input #0, (\w+)", log, re.MULTILINE)
    start = re.search(r"^  Duration: .*, start: (-?[\d.]+)", log, re.MULTILINE)
    streams = re.findall(r"^  Stream #0:\d+(?:\[\w+\])?(?:\((\w+)\))?: (\w+): (.*)$", log, re.MULTILINE)
    sounds = [(language, rest) for language, kind, rest in streams if kind == "Audio"]
    tracks = [
        SoundTrack(
            index,
            "" if language == "und" else language,
            (re.search(r" Hz, ([^,]+)", rest) or ["", ""])[1],
            "(default)" in rest,
        )
        for index, (language, rest) in enumerate(sounds)
    ]
    return Contents(
        tuple(tracks),
        bool(container and container[1] in _TIMED),
        max(0.0, float(start[1])) if start else 0.0,
        sum("(attached pic)" not in rest for _, _, rest in streams) > 1,
    )


def choose(path: Path, tracks: Sequence[SoundTrack], wanted: int | str | None, *, downmix: bool) -> int:
    """Return the index of the track to read: the one of that number or language, else the default one.

    Of several that fit, it is the one marked as default, as in players, else the first. If that is surround
    sound, and there is no `downmix`, it is a mono or stereo track of the same language, if there is one.

    Raises:
        DecodeError: there is no track in this language.
    """
    if isinstance(wanted, int) or not tracks:
        return wanted if isinstance(wanted, int) else 0
    fitting = [track for track in tracks if wanted is None or canonical(track.language) == canonical(wanted)]
    if not fitting and len(tracks) == 1 and not tracks[0].language:
        fitting = list(tracks)
    if not fitting:
        there = ", ".join(map(str, tracks))
        raise DecodeError(f"`{shown(path)}` has no sound track in `{wanted}`", f"it has the tracks {there}")
    first = next((track for track in fitting if track.default), fitting[0])
    if first.surround and not downmix:
        same = (track for track in fitting if not track.surround and track.language == first.language)
        first = next(same, first)
    return first.index


def remark(path: Path, tracks: Sequence[SoundTrack], chosen: int) -> str | None:
    """Return the end of a sentence that says which of several tracks was chosen; not of a stem file."""
    if len(tracks) < 2 or song_of(path.name):
        return None
    return f"has the sound tracks {', '.join(map(str, tracks))}: {chosen + 1} was used (see --audio-track)."


def alternatives(path: Path) -> str:
    """Return the end of a hint: which other tracks of a file are mono or stereo, if any."""
    found = [str(track) for track in contents(path).tracks if not track.surround]
    return f", or choose another sound track with --audio-track: {', '.join(found)}" if found else ""


@lru_cache(maxsize=256)
def _first_stamp(path: Path, track: int, changed_ns: int, size: int) -> float | None:
    """Return the time stamp in seconds of a track's first decoded sample."""
    source = ("-v", "info", "-copyts", *ffmpeg.LOCAL, "-i", f"file:{path}", "-map", f"0:a:{track}")
    log = _log(*source, "-af", "ashowinfo", "-frames:a", "1", "-f", "null", "-")
    found = re.search(r"n:0 .*pts_time:(-?[\d.]+)", log)
    return float(found[1]) if found else None


def delay_seconds(path: Path, there: Contents, track: int) -> float:
    """Return for how long players show the other streams before the sound of a track begins."""
    if not (there.timed and there.others):
        return 0.0
    state = path.stat()
    first = _first_stamp(path, track, state.st_mtime_ns, state.st_size)
    delay = 0.0 if first is None else first - there.start_seconds
    return delay if _ROUNDING_SECONDS < delay < _LONGEST_SILENCE_SECONDS else 0.0


def _log(*arguments: str) -> str:
    """Return all that ffmpeg says, or nothing without ffmpeg."""
    program = ffmpeg.executable()
    if program is None:
        return ""
    command = [program, "-hide_banner", "-nostdin", "-nostats", *arguments]
    try:
        found = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as error:
        raise DecodeError(f"Cannot run `{program}`: {error.strerror}", ffmpeg.INSTALL) from error
    return found.stderr.decode("utf-8", "replace")
