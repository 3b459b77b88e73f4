"""Files that appear whole or not at all: written to a hidden part file next to them, then renamed."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import re
import secrets
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

from stemsplit.errors import EncodeError, OutputExists
from stemsplit.files import remote

_LONGEST_BYTES = 255 - len("..01234567.part.cover")
"""Maximum length, in bytes, of a name that the name of a hidden file can include."""
_AT_FDCWD, _RENAME_NOREPLACE = -100, 1  # linux/fcntl.h, linux/fs.h


def beside(path: Path, suffix: str) -> Path:
    """Return the path of a hidden file that belongs to a file in the same folder."""
    name = path.name
    if len(os.fsencode(name)) > _LONGEST_BYTES:
        # Names that a file system may treat as the same get the same hidden file.
        plain = unicodedata.normalize("NFC", name).casefold()
        name = hashlib.sha256(plain.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return path.with_name(f".{name}{suffix}")


def part_of(path: Path) -> Path:
    """Return a path for a part file, which differs for each call."""
    return beside(path, f".{secrets.token_hex(4)}.part")


def sweep(path: Path) -> None:
    """Remove a killed program's leftovers of a file; restore the earlier file if the path is missing."""
    name = re.escape(beside(path, "").name)
    left = re.compile(name + r"\.[0-9a-f]{8}\.(part(\.[a-z]+)?|old)")
    with contextlib.suppress(OSError):
        for entry in os.scandir(path.parent):
            if left.fullmatch(entry.name):
                if entry.name.endswith(".old") and not os.path.lexists(path):
                    os.replace(entry, path)
                else:
                    os.unlink(entry)


def refuse_to_replace(path: Path, *, force: bool) -> None:
    """Raise OutputExists for a path that exists, unless `force` is given."""
    if os.path.exists(path) and not force:  # False, not an error, in a folder without permission
        raise OutputExists(f"`{path}` already exists", "use --force to replace it")


def publish(part: Path, path: Path, *, force: bool) -> None:
    """Rename a finished part file to its path.

    Without `force`, nothing is replaced, not even a file that another program has just created. Only file
    systems without exclusive renames and links have a race between the check and the rename.

    Raises:
        OutputExists: the path exists, and `force` is not given.
        OSError: the file cannot be renamed.
    """
    if force:
        remote.publish(part, path)
        return
    refuse_to_replace(path, force=False)
    try:
        _rename(part, path)
    except FileExistsError:
        refuse_to_replace(path, force=False)
        os.replace(part, path)  # a broken link


def publish_together(files: Iterable[tuple[Path, Path]], *, force: bool) -> None:
    """Rename finished part files `(part, path)`: all of them, or none.

    A file that `force` replaces keeps a second, hidden name until all files are renamed, and is restored if a
    rename fails. If the program is killed in between, each path has a complete file, either earlier or new,
    and the next claim on a path removes the hidden one (see `claims`). On file systems without links, an
    earlier file may have only its hidden name; in that case, the claim restores it.

    Raises:
        OutputExists: a path exists, and `force` is not given.
        EncodeError: a file cannot be renamed.
    """
    earlier: list[Path] = []
    with contextlib.ExitStack() as undo:
        for part, path in files:
            try:
                if force and _is_file(path):
                    earlier.append(beside(path, f".{secrets.token_hex(4)}.old"))
                    undo.callback(_put_back, earlier[-1], path)
                    _keep(path, earlier[-1])
                    remote.publish(part, path)
                else:
                    publish(part, path, force=force)
                    undo.callback(remote.remove, path)
            except OSError as error:
                raise cannot_write(path, error) from error
        undo.pop_all()
    for aside in earlier:
        with contextlib.suppress(OSError):
            remote.remove(aside)


def copy_together(pairs: Mapping[Path, Path]) -> None:
    """Copy files to paths, all of them or none. Existing files are replaced.

    Raises:
        EncodeError: a file cannot be renamed.
        OSError: a file cannot be copied.
    """
    copies = [
        (remote.part_of(target) if remote.is_remote(target) else part_of(target), target)
        for target in pairs.values()
    ]
    with contextlib.ExitStack() as cleanup:
        for source, (part, target) in zip(pairs, copies, strict=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            cleanup.callback(remote.remove, part)
            with source.open("rb") as reading, part.open("wb") as writing:
                shutil.copyfileobj(reading, writing, 1 << 20)
        publish_together(copies, force=True)


def _is_file(path: Path) -> bool:
    return path.is_file() if remote.is_remote(path) else os.path.isfile(path) or os.path.islink(path)


def _keep(path: Path, aside: Path) -> None:
    """Link a file to another name, so that it is never missing; rename it if it cannot be linked."""
    if not remote.is_remote(path) and not os.path.islink(path):
        with contextlib.suppress(OSError):
            os.link(path, aside)
            return
    remote.publish(path, aside)


def _put_back(aside: Path, path: Path) -> None:
    if not _is_file(aside):  # it was not renamed yet
        return
    try:
        remote.publish(aside, path)
        remote.remove(aside)  # renaming a link to another link of the same file does nothing
    except OSError as error:
        raise EncodeError(f"Cannot restore `{path}`: {error}", f"it is now `{aside}`") from error


def _rename(part: Path, path: Path) -> None:
    """Rename a file to a path that does not exist. Raises FileExistsError if it exists."""
    if sys.platform == "win32":
        os.rename(part, path)
        return
    if sys.platform == "linux":
        # Programs that watch a folder expect a rename, not a link.
        libc = ctypes.CDLL(None, use_errno=True)
        if hasattr(libc, "renameat2"):
            names = os.fsencode(part), os.fsencode(path)
            if not libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE):
                return
            if ctypes.get_errno() == errno.EEXIST:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:  # FAT and many network shares have no links
        os.replace(part, path)
    else:
        os.unlink(part)


def cannot_write(path: Path, error: Exception) -> EncodeError:
    """Return the error for a file that cannot be written."""
    reason = getattr(error, "strerror", None) or getattr(error, "error_string", None) or str(error)
    reason = reason or "it could not be written completely"  # soundfile's assertion has no message
    hint = "check the folder, or choose another with --out"
    with contextlib.suppress(OSError):  # libsndfile gives no reason
        full = not remote.is_remote(path) and shutil.disk_usage(path.parent).free < 1 << 16
        if full or "No space left" in reason:
            reason, hint = "the disk is full", "free some space, or choose another folder with --out"
    return EncodeError(f"Cannot write `{path}`: {reason}", hint)
