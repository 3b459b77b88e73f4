"""Files that appear whole or not at all: written as a hidden part beside their path, then renamed."""

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
from pathlib import Path

from stemsplit.errors import EncodeError, OutputExists

_LONGEST_BYTES = 255 - len("..01234567.part.cover")
"""Of a name that another file beside it can repeat."""
_AT_FDCWD, _RENAME_NOREPLACE = -100, 1  # linux/fcntl.h, linux/fs.h


def beside(path: Path, suffix: str) -> Path:
    """Return the path of a hidden file that belongs to another one in the same folder."""
    name = path.name
    if len(os.fsencode(name)) > _LONGEST_BYTES:
        plain = unicodedata.normalize(
            "NFC", name
        ).casefold()  # equal where the file system takes both for one
        name = hashlib.sha256(plain.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return path.with_name(f".{name}{suffix}")


def part_of(path: Path) -> Path:
    """Return where to write a file until it is complete: a new path at every call."""
    return beside(path, f".{secrets.token_hex(4)}.part")


def sweep(path: Path) -> None:
    """Remove the parts of a file, which only a program that was killed leaves behind."""
    part = re.compile(re.escape(beside(path, "").name) + r"\.[0-9a-f]{8}\.part(\.[a-z]+)?")
    with contextlib.suppress(OSError):
        for entry in os.scandir(path.parent):
            if part.fullmatch(entry.name):
                os.unlink(entry)


def refuse_to_replace(path: Path, *, force: bool) -> None:
    """Raise OutputExists for what is there already, unless `force` is given."""
    if os.path.exists(path) and not force:  # false, not an error, in a folder that is closed to us
        raise OutputExists(f"`{path}` is there already", "use --force to replace it")


def publish(part: Path, path: Path, *, force: bool) -> None:
    """Give a finished file its name.

    Without `force` it replaces nothing, not even a file that another program made a moment ago. Only file
    systems that can neither rename in this way nor link leave a moment between the look and the renaming.

    Raises:
        OutputExists: the path is taken, and `force` is not given.
        OSError: the file cannot be renamed.
    """
    if force:
        os.replace(part, path)
        return
    refuse_to_replace(path, force=False)
    try:
        _rename(part, path)
    except FileExistsError:
        refuse_to_replace(path, force=False)
        os.replace(part, path)  # a link to nothing


def _rename(part: Path, path: Path) -> None:
    """Rename a file to a path that is free. Raises FileExistsError if it is not."""
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
    except OSError:  # there are no links on FAT, and on many network shares
        os.replace(part, path)
    else:
        os.unlink(part)


def cannot_write(path: Path, error: Exception) -> EncodeError:
    """Return what to tell the user of a file that cannot be written."""
    reason = getattr(error, "strerror", None) or getattr(error, "error_string", None) or str(error)
    reason = reason or "it could not be written whole"  # soundfile asserts it without a word
    hint = "check the folder, or choose another with --out"
    with contextlib.suppress(OSError):  # libsndfile names no reason
        if "No space left" in reason or shutil.disk_usage(path.parent).free < 1 << 16:
            reason, hint = "the disk is full", "free some space, or choose another folder with --out"
    return EncodeError(f"Cannot write `{path}`: {reason}", hint)
