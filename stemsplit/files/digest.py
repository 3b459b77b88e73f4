"""Digests of files."""

from __future__ import annotations

import hashlib
from typing import Any


def sha256(file: Any) -> str:
    """Return the SHA-256 digest of the rest of an open binary file, in hexadecimal."""
    digest = hashlib.sha256()
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()
