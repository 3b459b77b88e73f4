"""Lists of tracks: text with one name per line, names separated by NUL bytes, and playlists."""

from __future__ import annotations

import codecs
import os
import sys
from pathlib import Path

from stemsplit.errors import DecodeError
from stemsplit.files.remote import is_remote
from stemsplit.missing import is_address, recomposed

_PLAYLISTS = (".m3u", ".m3u8")
_FIRST_LINE = b"#EXTM3U"


def is_playlist(name: str | os.PathLike[str]) -> bool:
    """Whether a file has the suffix of a playlist."""
    return os.fspath(name).lower().endswith(_PLAYLISTS)


def read(source: str) -> list[str]:
    """Return the names in a list of tracks; `-` is standard input.

    Names in a list are relative to the current folder, names in a playlist to the playlist's folder. Only
    playlists have comments: lines that start with `#`. A byte order mark is ignored.

    Raises:
        DecodeError: the list cannot be read, or is not text.
    """
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise DecodeError(f"Cannot read the list `{source}`: {error.strerror}") from error
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            data = data.decode("utf-16").encode()
        except UnicodeDecodeError as error:
            raise DecodeError(f"The list `{source}` is not text", "save it as UTF-8") from error
    data = data.removeprefix(codecs.BOM_UTF8)
    names = [name for name in (data.split(b"\0") if b"\0" in data else data.splitlines()) if name.strip()]
    if is_playlist(source) or data.startswith(_FIRST_LINE):
        return [_entry(name.strip(), Path(source).parent) for name in names if not name.startswith(b"#")]
    return [os.fsdecode(name) for name in names]


def _entry(line: bytes, folder: Path) -> str:
    """Return the path of a playlist entry: the first interpretation that exists, or else the first one."""
    try:
        text = line.decode()
    except UnicodeDecodeError:
        text = line.decode("cp1252", "replace")  # Windows-1252
    if is_remote(text) or is_address(text):
        return text
    paths = [str(folder / name) for name in (text, os.fsdecode(line), text.replace("\\", "/"))]
    return next((path for path in paths if os.path.lexists(recomposed(path))), paths[0])
