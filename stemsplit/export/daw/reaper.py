"""REAPER projects: text of nested `<CHUNK ... >` blocks that refers to audio files by path."""

from __future__ import annotations

import os
import re
from pathlib import Path

from stemsplit.errors import EncodeError
from stemsplit.export.daw.session import BEATS_PER_BAR, Session, Track, printable

SOURCES = {
    **dict.fromkeys((".oga", ".ogg"), "VORBIS"),
    **dict.fromkeys((".m4a", ".m4b", ".mka", ".mkv", ".mov", ".mp4", ".webm", ".wma"), "VIDEO"),
    **{".flac": "FLAC", ".mp3": "MP3", ".opus": "OPUS", ".wv": "WAVPACK"},
}
"""REAPER's name for the decoder of a file, if it is not WAVE; REAPER uses this name, not the suffix."""
QUOTES = "\"'`"


def write(session: Session, path: Path) -> None:
    """Write a session to a file. It refers to the audio by paths relative to its folder.

    Raises:
        EncodeError: a stem has a file name that a REAPER project cannot store.
        OSError: the file cannot be written.
    """
    folder = path.parent
    lines = [
        # A version that all recent versions of REAPER open without a warning; its colors are 0x1BBGGRR.
        '<REAPER_PROJECT 0.1 "6.0/win64" 0',
        f"  TITLE {_name(session.name)}",
        "  <NOTES 0 2",
        f"    |{session.remark}",
        "  >",
        f"  SAMPLERATE {session.sample_rate} 1 0",
        f"  TEMPO {session.bpm} {BEATS_PER_BAR} 4",
        *(f"  {line}" for line in _tempo_map(session)),
        *(f"  {line}" for track in session.tracks for line in _track(session, track, folder)),
        ">",
    ]
    path.write_text("\n".join([*lines, ""]), encoding="utf-8", newline="\n")


def _tempo_map(session: Session) -> list[str]:
    if not session.tempo_map:
        return []
    # The last number is the shape: 1 holds the tempo until the next point.
    points = [f"  PT {change.seconds:.12f} {change.bpm:.10f} 1" for change in session.tempo_map]
    return [
        "<TEMPOENVEX",
        "  ACT 1 -1",
        "  VIS 1 0 1",
        "  LANEHEIGHT 0 0",
        "  ARM 0",
        "  DEFSHAPE 1 -1 -1",
        *points,
        ">",
    ]


def _track(session: Session, track: Track, folder: Path) -> list[str]:
    red, green, blue = bytes.fromhex(track.colour[1:])
    return [
        "<TRACK",
        f"  NAME {_name(track.name)}",
        f"  PEAKCOL {0x1000000 | blue << 16 | green << 8 | red}",
        "  <ITEM",
        "    POSITION 0",
        f"    LENGTH {session.seconds(track):.14f}",
        "    LOOP 0",
        "    BEAT 0",  # positions in seconds: changing the tempo moves the grid, not the audio
        "    FADEIN 1 0 0",
        "    FADEOUT 1 0 0",
        f"    NAME {_name(track.name)}",
        "    SOFFS 0",
        "    PLAYRATE 1 1 0 -1 0 0.0025",
        f"    <SOURCE {SOURCES.get(track.path.suffix.lower(), 'WAVE')}",
        f"      FILE {_file(track.path, folder)}",
        "    >",
        "  >",
        ">",
    ]


def _name(text: str) -> str:
    """Return a name as a token. As in REAPER, ` becomes ' if the name has all three kinds of quotes."""
    return _token(text) or "`{}`".format(text.replace("`", "'"))


def _file(path: Path, folder: Path) -> str:
    try:
        reference = Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # on another Windows drive
        reference = os.path.abspath(path)
    token = _token(reference) if printable(reference) == reference else None
    if token is None:
        raise EncodeError(
            f"A REAPER project cannot name the file `{path}`",
            "rename it or its folder, or choose --format dawproject",
        )
    return token


def _token(text: str) -> str | None:
    """Return text as one token, quoted with a mark that it does not contain, or bare; None if impossible."""
    for quote in QUOTES:
        if quote not in text:
            return f"{quote}{text}{quote}"
    return None if re.search(r"\s", text) or text[0] in QUOTES else text
