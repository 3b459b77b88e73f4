"""Track discovery: names of files, folders and patterns are resolved to tracks."""

from __future__ import annotations

import contextlib
import glob
import os
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import url2pathname

from stemsplit.audio import formats
from stemsplit.errors import DecodeError, NotFound, StemsplitError
from stemsplit.files import remote
from stemsplit.missing import is_address, not_found, recomposed
from stemsplit.output import template
from stemsplit.output.manifest import FOLDER, Manifest


@dataclass(frozen=True)
class Track:
    """A file to split."""

    path: Path
    folder: str = ""
    """Its folder, relative to the folder that the user named."""
    label: str = ""
    """A name for messages, if not the path."""

    def __str__(self) -> str:
        return self.label or str(self.path)


class Failure(NamedTuple):
    """A name that matches no track, or a folder that cannot be searched, with the reason."""

    name: str
    problem: StemsplitError


class Found(NamedTuple):
    """The tracks found, and the failures."""

    tracks: list[Track]
    failures: list[Failure]


def find_tracks(
    names: Iterable[str], *, recursive: bool = False, leave_out: Path | None = None, elsewhere: bool = True
) -> Found:
    """Return the tracks for names of files and folders, and for patterns that the shell did not expand.

    The tracks of a folder are its files with a suffix in `formats.SUFFIXES`, sorted by name, except hidden
    files. If `recursive`, subfolders are searched too, except `leave_out`, the output folder. Stems of
    earlier runs, identified by the records in a folder, are skipped unless they are named. A file that is
    found twice counts once. A name that does not exist is a failure, but the search continues. A remote name
    is also a failure, unless `elsewhere` is set.
    """
    search = _Search(recursive, leave_out)
    found: dict[object, Track] = {}
    for name in names:
        failed = len(search.failures)
        try:
            path = name if elsewhere and remote.is_remote(name) else recomposed(_on_this_machine(name))
            tracks = list(search.tracks(path))
            if not tracks and failed == len(search.failures):
                raise search.nothing(path)
        except StemsplitError as problem:
            search.failures.append(Failure(name, problem))
            continue
        for track in tracks:
            found.setdefault(_identity(track.path), track)
    return Found(list(found.values()), search.failures)


class _Search:
    def __init__(self, recursive: bool, leave_out: Path | None) -> None:
        self._recursive, self._leave_out = recursive, leave_out
        self.failures: list[Failure] = []

    def tracks(self, name: str) -> Iterator[Track]:
        """Yield the tracks for a name. Raises StemsplitError if it does not exist."""
        if remote.is_remote(name) and not is_address(name):
            yield from self._remote(name)
        elif os.path.isdir(name):
            yield from self._inside(name)
        elif glob.has_magic(name) and not os.path.lexists(name) and not is_address(name):
            for match in sorted(glob.glob(name, recursive=True)):
                if not os.path.isdir(match):
                    yield Track(Path(match))
                elif self._recursive:
                    yield from self._inside(match)
        else:
            try:
                os.stat(name)
            except (FileNotFoundError, NotADirectoryError):
                raise not_found(name) from None
            except OSError:
                pass  # opening the file will report the error
            yield Track(Path(name))

    def nothing(self, name: str) -> NotFound:
        """Return the error for a folder without tracks, or a pattern without matches."""
        hint = None if self._recursive else "search its subfolders too, with --recursive"
        if os.path.isdir(name) or remote.is_remote(name):
            return NotFound(f"No sound files in `{name}`", hint)
        if glob.glob(name, recursive=True):
            return NotFound(f"Only folders match `{name}`", hint)
        return NotFound(f"No file matches `{name}`") if set("*?") & set(name) else not_found(name)

    def _remote(self, name: str) -> Iterator[Track]:
        top = remote.path_of(name)
        if not top.is_dir():
            yield Track(top)
            return
        for path, folder in remote.files(top, recursive=self._recursive):
            inside = self._leave_out is not None and str(path).startswith(f"{self._leave_out}/")
            if not inside and _is_sound(path):
                yield Track(path, folder)

    def _inside(self, top: str) -> Iterator[Track]:
        leave_out = self._leave_out if self._recursive else None
        if leave_out and _same(top, leave_out):
            self._fail(top, f"The output folder `{top}` is also searched for tracks", "choose another --out")
            return
        seen: set[tuple[int, int]] = set()  # links can form cycles
        made: set[str] = set()
        tracks = stems = 0
        for folder, folders, files in os.walk(top, followlinks=True, onerror=self._closed):
            state = os.stat(folder)
            if (state.st_dev, state.st_ino) in seen or (leave_out and _same(folder, leave_out)):
                folders.clear()
                continue
            seen.add((state.st_dev, state.st_ino))
            if FOLDER in folders:
                made |= Manifest(Path(folder)).made()
            folders[:] = sorted(each for each in folders if self._recursive and not each.startswith("."))
            below = os.path.relpath(folder, top)
            for file in sorted(_tracks(Path(folder), files)):
                if os.path.abspath(os.path.join(folder, file)) in made:
                    stems += 1
                    continue
                tracks += 1
                yield Track(Path(folder, file), "" if below == "." else below.replace(os.sep, "/"))
        if stems and not tracks:
            self._fail(
                top,
                f"`{top}` contains only stems made by stemsplit",
                "to split one of them, name the file",
            )

    def _closed(self, error: OSError) -> None:
        name = str(error.filename)
        self._fail(name, f"Cannot read the folder `{name}`: {error.strerror}")

    def _fail(self, name: str, message: str, hint: str | None = None) -> None:
        self.failures.append(Failure(name, DecodeError(message, hint)))


def _on_this_machine(name: str) -> str:
    """Return a path unchanged, or the path in a URL such as `file:///music/a%20b.mp3`."""
    if name.lower().startswith("file:///"):
        return url2pathname(urlsplit(name).path)
    if remote.is_remote(name) and not name.lower().startswith(("http:", "https:")):
        raise DecodeError(f"`{name}` is not on this machine", "use --ray (`--ray local` will do)")
    return name


def _identity(path: Path) -> object:
    """Return a key that is equal for all paths to a file, unless links give it different names."""
    with contextlib.suppress(OSError):
        if not remote.is_remote(path) and (state := path.stat()).st_ino:
            return state.st_dev, state.st_ino, unicodedata.normalize("NFC", path.name).casefold()
    return template.place(path)


def _tracks(folder: Path, names: Iterable[str]) -> list[str]:
    """Return the names of the tracks in a folder, except stem files next to their songs."""
    sounds = [name for name in names if not name.startswith(".") and _is_sound(folder / name)]
    songs = {os.path.splitext(name)[0] for name in sounds}
    return [name for name in sounds if formats.song_of(name) not in songs]


def _is_sound(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in formats.SUFFIXES and not (suffix in formats.MAYBE_TEXT and _is_text(path))


def _is_text(path: Path) -> bool:
    with contextlib.suppress(OSError), path.open("rb") as file:  # opening it later will report the error
        return b"\0" not in file.read(4096)
    return False


def _same(folder: str, other: Path) -> bool:
    return not remote.is_remote(other) and other.exists() and os.path.samefile(folder, other)
