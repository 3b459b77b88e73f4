"""Which tracks there are: files, folders and patterns, as tracks."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stemsplit import formats, naming, remote
from stemsplit.errors import DecodeError
from stemsplit.records import FOLDER, Records


@dataclass(frozen=True)
class Track:
    """A file to split."""

    path: Path
    folder: str = ""
    """Where it lies below the folder that was named."""
    label: str = ""
    """What it is called where that is not its path."""

    def __str__(self) -> str:
        return self.label or str(self.path)


def find_tracks(
    names: Iterable[str], *, recursive: bool = False, leave_out: Path | None = None
) -> list[Track]:
    """Return the tracks that names stand for: files, folders, or patterns that no shell has expanded.

    Of a folder those files that end in one of `formats.SUFFIXES`, by name, hidden ones left out; if
    `recursive`, of those below it too, except of `leave_out`, which is where the stems go. Stems of earlier
    runs, by the records in a folder, are left out unless they are named. What is found twice counts once.
    A name of nothing stays what it is: opening it says best what is wrong.

    Raises:
        DecodeError: a folder or a pattern has no tracks.
    """
    found: dict[str, Track] = {}
    for name in names:
        tracks = list(_stands_for(name, recursive, leave_out))
        if not tracks:
            hint = None if recursive else "search the folders below it too with --recursive"
            raise DecodeError(f"No sound files in `{name}`", hint)
        for track in tracks:
            found.setdefault(naming.place(track.path), track)
    return list(found.values())


def _stands_for(name: str, recursive: bool, leave_out: Path | None) -> Iterator[Track]:
    if remote.is_remote(name):
        top = remote.path_of(name)
        if not top.is_dir():
            yield Track(top)
            return
        for path, folder in remote.files(top, recursive=recursive):
            inside = leave_out is not None and str(path).startswith(f"{leave_out}/")
            if not inside and _is_sound(path):
                yield Track(path, folder)
    elif os.path.isdir(name):
        yield from _inside(name, recursive, leave_out)
    elif glob.has_magic(name) and not os.path.lexists(name):
        for match in sorted(glob.glob(name, recursive=True)):
            if os.path.isdir(match):
                if recursive:
                    yield from _inside(match, recursive, leave_out)
            else:
                yield Track(Path(match))
    else:
        yield Track(Path(name))


def _inside(top: str, recursive: bool, leave_out: Path | None) -> Iterator[Track]:
    if recursive and leave_out and _same(top, leave_out):
        raise DecodeError(
            f"`{top}` is searched for tracks, and the stems would go there", "choose another --out"
        )
    seen: set[tuple[int, int]] = set()  # a link may lead back to where it lies
    made: set[str] = set()
    tracks = stems = 0
    for folder, folders, files in os.walk(top, followlinks=True):
        state = os.stat(folder)
        ours = leave_out is not None and recursive and _same(folder, leave_out)
        if (state.st_dev, state.st_ino) in seen or ours:
            folders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        if FOLDER in folders:
            made |= Records(Path(folder)).made()
        folders[:] = sorted(each for each in folders if recursive and not each.startswith("."))
        below = os.path.relpath(folder, top)
        for file in sorted(_tracks(Path(folder), files)):
            if os.path.abspath(os.path.join(folder, file)) in made:
                stems += 1
                continue
            tracks += 1
            yield Track(Path(folder, file), "" if below == "." else below.replace(os.sep, "/"))
    if stems and not tracks:
        raise DecodeError(
            f"`{top}` has only stems that stemsplit made", "to split one of them again, name the file"
        )


def _tracks(folder: Path, names: Iterable[str]) -> list[str]:
    """Return the names of the tracks among the files of a folder; a stem file beside its song is not one."""
    sounds = [name for name in names if not name.startswith(".") and _is_sound(folder / name)]
    songs = {os.path.splitext(name)[0] for name in sounds}
    return [name for name in sounds if formats.song_of(name) not in songs]


def _is_sound(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in formats.SUFFIXES and not (suffix in formats.MAYBE_TEXT and _is_text(path))


def _is_text(path: Path) -> bool:
    with contextlib.suppress(OSError), path.open("rb") as file:  # to open it again says what is wrong
        return b"\0" not in file.read(4096)
    return False


def _same(folder: str, other: Path) -> bool:
    return not remote.is_remote(other) and other.exists() and os.path.samefile(folder, other)
