"""Temporary folders, for work and for caches without a folder."""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory

from stemsplit import _compat
from stemsplit.errors import EncodeError

_PREFIX = "stemsplit-"


def scratch_folder() -> TemporaryDirectory[str]:
    """Return a temporary folder as a context manager. Raises EncodeError if it cannot be created."""
    try:
        return TemporaryDirectory(prefix=_PREFIX)
    except OSError as error:
        hint = "set the variable TMPDIR to a writable folder with free space"
        raise EncodeError(f"Cannot create a temporary folder: {error.strerror}", hint) from error


def shown(path: Path) -> str:
    """Return the name of a file for messages: its path or, for a copy in a scratch folder, its name."""
    copied = any(re.fullmatch(_PREFIX + "[a-z0-9_]{8}", folder.name) for folder in path.parents)
    return path.name if copied else str(path)


@functools.cache  # keeps the folder until the program ends
def librosa_caches() -> TemporaryDirectory[str] | None:
    """Set up librosa's caches. Call this before librosa is imported.

    If the home folder is missing or read-only, the caches are in a temporary folder, because librosa does not
    load without them; that folder is returned. Raises EncodeError if it cannot be created.
    """
    folder = None
    if not os.access(os.path.expanduser("~"), os.W_OK):
        folder = scratch_folder()
        for name in ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "MPLCONFIGDIR"):
            os.environ.setdefault(name, folder.name)
    _compat.never_reuse_numba_cache_names()
    return folder
