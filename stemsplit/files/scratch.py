"""Temporary folders, for work and for caches that have no folder of their own."""

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
    """Return a new folder that lasts as long as its context. Raises EncodeError if none can be made."""
    try:
        return TemporaryDirectory(prefix=_PREFIX)
    except OSError as error:
        hint = "name a folder that you can write into, with free space, in the variable TMPDIR"
        raise EncodeError(f"Cannot make a temporary folder: {error.strerror}", hint) from error


def shown(path: Path) -> str:
    """Return the name of a file in messages: its path, but of a copy in a scratch folder only its name."""
    copied = any(re.fullmatch(_PREFIX + "[a-z0-9_]{8}", folder.name) for folder in path.parents)
    return path.name if copied else str(path)


@functools.cache  # which keeps the folder until the program ends
def librosa_caches() -> TemporaryDirectory[str] | None:
    """Prepare what librosa compiles and caches; to be called before it is imported.

    If the home folder is missing or read-only, the caches are in a temporary folder, which is returned:
    librosa does not load without. Raises EncodeError if there is no such folder.
    """
    folder = None
    if not os.access(os.path.expanduser("~"), os.W_OK):
        folder = scratch_folder()
        for name in ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "MPLCONFIGDIR"):
            os.environ.setdefault(name, folder.name)
    _compat.never_reuse_numba_cache_names()
    return folder
