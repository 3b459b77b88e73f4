"""DAW sessions of stems: one track per stem, at the detected tempo."""

from __future__ import annotations

from pathlib import Path

from stemsplit.analysis.music import Music
from stemsplit.audio.stem_folder import StemSet
from stemsplit.errors import EncodeError
from stemsplit.export.daw import dawproject, reaper
from stemsplit.export.daw.session import session
from stemsplit.files.claims import writing
from stemsplit.files.parts import refuse_to_replace

SUFFIXES = {"dawproject": ".dawproject", "reaper": ".rpp"}
WRITERS = {"dawproject": dawproject.write, "reaper": reaper.write}


def check(kind: str, path: Path, force: bool = False) -> None:
    """Raise errors about the session file before any work is done.

    Raises:
        EncodeError: the suffix does not match the kind of session, or the path is a folder.
        OutputExists: the file already exists, and `force` is not given.
    """
    if path.suffix.lower() != SUFFIXES[kind]:
        raise EncodeError(f"`{path}` is not a file name for {kind}", f"use the suffix {SUFFIXES[kind]}")
    if path.is_dir():
        raise EncodeError(f"`{path}` is a folder", "choose another name with --out")
    refuse_to_replace(path, force=force)


def write(kind: str, stems: StemSet, path: Path, music: Music, force: bool = False) -> Path:
    """Write the session of some stems; it appears whole or not at all.

    `kind` is "dawproject", which contains the audio, or "reaper", which refers to it by path. The grid
    follows the beats of `music`. Returns the path.

    Raises:
        EncodeError: the file cannot be written, or its suffix does not match the kind.
        OutputExists: it already exists, and `force` is not given.
        DecodeError: a stem cannot be read.
    """
    check(kind, path, force)
    with writing(path, force=force) as part:
        WRITERS[kind](session(stems, music), part)
    return path
