"""Temporary folders, for work that has no folder of its own."""

from __future__ import annotations

from tempfile import TemporaryDirectory

from stemsplit.errors import EncodeError


def scratch_folder() -> TemporaryDirectory[str]:
    """Return a new folder that lasts as long as its context. Raises EncodeError if none can be made."""
    try:
        return TemporaryDirectory(prefix="stemsplit-")
    except OSError as error:
        hint = "name a folder that you can write into, with free space, in the variable TMPDIR"
        raise EncodeError(f"Cannot make a temporary folder: {error.strerror}", hint) from error
