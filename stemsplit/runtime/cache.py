"""A cache of compiled networks on the disk."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

KEPT = 16
"""Maximum number of files; the least recently used ones are removed."""
_DIGEST = hashlib.sha256().digest_size


def folder() -> Path:
    """Return the program's folder in the user's cache.

    Raises:
        OSError: the user has no home folder.
    """
    if sys.platform == "darwin":
        return _home() / "Library" / "Caches" / "stemsplit"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or _home() / "AppData" / "Local") / "stemsplit" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache") / "stemsplit"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:
        raise FileNotFoundError(errno.ENOENT, str(error)) from error


def key(*made_of: bytes) -> str:
    """Return a cache key for a result that depends on all of `made_of`, and on nothing else."""
    digest = hashlib.sha256()
    for part in made_of:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def kept(name: str, make: Callable[[], bytes]) -> bytes:
    """Return the content cached under a name; if there is none, make it and cache it.

    A file starts with the digest of the rest, so that damaged files are made again. If the folder is not
    writable, nothing is cached.
    """
    with contextlib.suppress(OSError):
        content = _path(name).read_bytes()
        digest, blob = content[:_DIGEST], content[_DIGEST:]
        if digest == hashlib.sha256(blob).digest():
            return blob
    blob = make()
    with contextlib.suppress(OSError):
        _write(_path(name), hashlib.sha256(blob).digest() + blob)
    return blob


def _path(name: str) -> Path:
    return folder() / f"{name}.blob"


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, part = tempfile.mkstemp(dir=path.parent)  # readable by this user only
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise
    # All files: a killed program may have left one with a temporary name.
    files = sorted(path.parent.iterdir(), key=lambda file: file.stat().st_mtime, reverse=True)
    for old in files[KEPT:]:
        old.unlink(missing_ok=True)
