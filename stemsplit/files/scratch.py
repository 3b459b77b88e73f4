"""Temporary folders, for work and for caches that have no folder of their own."""

from __future__ import annotations

import functools
import os
import re
import secrets
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

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
    _never_reuse_cache_names()
    return folder


def _never_reuse_cache_names() -> None:
    """Give each file in numba's cache a name of its own.

    numba 0.68 counts them: two programs that compile at once give one name to different code, and a third
    crashes that loads the code of one by the index of the other.
    """
    from numba.core import caching

    def name(self: Any, number: int) -> str:
        pattern: str = self._data_name_pattern
        return pattern.format(number=number).replace(".nbc", f".{secrets.token_hex(8)}.nbc")

    files: Any = caching.IndexDataCacheFile
    files._data_name = name
