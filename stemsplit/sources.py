"""Which decoder reads a file.

libsndfile reads what it can; the ffmpeg program does the rest. MP3 too goes through ffmpeg
where there is one: libsndfile's MP3 decoder (mpg123) prints its complaints straight to the terminal,
and gives up at damage that ffmpeg skips. Both honour the encoder's delay and padding.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from stemsplit import ffmpeg
from stemsplit.decoder import Decoder
from stemsplit.errors import DecodeError
from stemsplit.sndfile import Libsndfile


class Source(Protocol):
    """One decoder at the start of one file. What is not set by opening is known once it is closed."""

    sample_rate: int
    channels: int
    slack_seconds: float
    """How inexact `promised_seconds` is."""

    @property
    def frames(self) -> int | None:
        """The exact length, where it is known before decoding."""

    @property
    def depth(self) -> str:
        """The depth that holds the samples, see `Writer`."""

    @property
    def seconds(self) -> float | None:
        """The length that the file states; good enough for a progress bar."""

    @property
    def promised_seconds(self) -> float | None:
        """The length that the file states, where less sound means that it is cut short."""

    @property
    def complaint(self) -> str | None:
        """The first fault found in the file."""

    def read(self, frames: int) -> NDArray[np.float32]:
        """Return the next `(channel, time)` block, shorter at damage or the end, then empty."""

    def seek(self, frames: int) -> bool:
        """Go to a frame if that is exact; return whether it did."""

    def close(self) -> None:
        """Free what decoding holds."""


def open_source(path: Path, track: int = 0) -> Source:
    """Open a sound track of a file, counted from 0. Raises DecodeError."""
    try:
        if path.is_dir():
            raise DecodeError(f"`{path}` is a folder, not a sound file")
        if path.exists() and not path.is_file():  # a pipe can be read only once
            raise DecodeError(f"`{path}` is no regular file", "send it through `-`: stemsplit - < PIPE")
        with path.open("rb") as file:
            head = file.read(4)
    except FileNotFoundError:
        raise DecodeError(f"No such file: `{path}`", _near_names(path)) from None
    except OSError as error:
        raise DecodeError(f"Cannot read `{path}`: {error.strerror}") from None
    if not head:
        raise DecodeError(f"`{path.name}` is empty (0 bytes)")
    # libsndfile knows of one track only.
    if not track and not (_may_be_mp3(path, head) and ffmpeg.executable()):
        try:
            source = Libsndfile(path)
        except soundfile.LibsndfileError:
            return Decoder(path)
        if not source.gives_up_early(path):
            return source
        source.close()
    return Decoder(path, track)


def _may_be_mp3(path: Path, head: bytes) -> bool:
    """Whether libsndfile would ask mpg123: by the name, an ID3 tag, or eleven set bits of a frame header."""
    sync = head[0] == 0xFF and len(head) > 1 and head[1] >= 0xE0
    return sync or head.startswith(b"ID3") or path.suffix.lower() in (".mp1", ".mp2", ".mp3")


def _near_names(path: Path) -> str | None:
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f"there is no folder `{path.parent}` either"
    near = difflib.get_close_matches(path.name, names, n=3)
    return f"did you mean {' or '.join(f'`{name}`' for name in near)}?" if near else None
