"""The audio tracks of a container, and the choice of one."""

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
"""Containers with time stamps; in other formats, audio is continuous."""
_SMALL_LAYOUTS = frozenset({"mono", "stereo", "downmix", "binaural", "1 channels", "2 channels"})
_ROUNDING_SECONDS = 0.0011
"""Time stamps in whole milliseconds have errors of up to 0.5 ms, and so does the container's start."""
_LONGEST_SILENCE_SECONDS = 600
"""Longest delay of the audio: longer ones are wrong time stamps, e.g. from recorded live streams."""


@dataclass(frozen=True)
class SoundTrack:
    """One audio track; `index` counts from 0."""

    index: int
    language: str
    """The language code in the file, usually three letters; empty if not stated."""
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
    """The contents of a container, as ffmpeg reports them."""

    tracks: tuple[SoundTrack, ...]
    timed: bool
    """Whether it has time stamps, so that audio can start late or have gaps."""
    start_seconds: float
    """The time stamp at which players start."""
    others: bool
    """Whether it has more than one stream, not counting covers."""


def contents(path: Path) -> Contents:
    """Return the contents of a file; no tracks if ffmpeg cannot read it."""
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
    """Return the index of the track to read: by number, by language, or the default track.

    If several tracks match, the one marked as default is used, as in players, or else the first. If that is
    surround sound and `downmix` is off, a mono or stereo track of the same language is used, if there is one.

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
        raise DecodeError(f"`{shown(path)}` has no audio track in `{wanted}`", f"it has the tracks {there}")
    first = next((track for track in fitting if track.default), fitting[0])
    if first.surround and not downmix:
        same = (track for track in fitting if not track.surround and track.language == first.language)
        first = next(same, first)
    return first.index


def remark(path: Path, tracks: Sequence[SoundTrack], chosen: int) -> str | None:
    """Return a remark about which of several tracks was chosen; none for a stem file."""
    if len(tracks) < 2 or song_of(path.name):
        return None
    return f"has the audio tracks {', '.join(map(str, tracks))}: {chosen + 1} was used (see --audio-track)."


def alternatives(path: Path) -> str:
    """Return the end of a hint that lists the mono and stereo tracks of a file, if any."""
    found = [str(track) for track in contents(path).tracks if not track.surround]
    return f", or choose another audio track with --audio-track: {', '.join(found)}" if found else ""


@lru_cache(maxsize=256)
def _first_stamp(path: Path, track: int, changed_ns: int, size: int) -> float | None:
    """Return the time stamp in seconds of a track's first decoded sample."""
    source = ("-v", "info", "-copyts", *ffmpeg.LOCAL, "-i", f"file:{path}", "-map", f"0:a:{track}")
    log = _log(*source, "-af", "ashowinfo", "-frames:a", "1", "-f", "null", "-")
    found = re.search(r"n:0 .*pts_time:(-?[\d.]+)", log)
    return float(found[1]) if found else None


def delay_seconds(path: Path, there: Contents, track: int) -> float:
    """Return the delay of a track's audio after the start of the other streams, as in players."""
    if not (there.timed and there.others):
        return 0.0
    state = path.stat()
    first = _first_stamp(path, track, state.st_mtime_ns, state.st_size)
    delay = 0.0 if first is None else first - there.start_seconds
    return delay if _ROUNDING_SECONDS < delay < _LONGEST_SILENCE_SECONDS else 0.0


def _log(*arguments: str) -> str:
    """Return all messages of ffmpeg; empty if ffmpeg is missing."""
    program = ffmpeg.executable()
    if program is None:
        return ""
    command = [program, "-hide_banner", "-nostdin", "-nostats", *arguments]
    try:
        found = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as error:
        raise DecodeError(f"Cannot run `{program}`: {error.strerror}", ffmpeg.INSTALL) from error
    return found.stderr.decode("utf-8", "replace")
