"""Decoding with libsndfile."""

from __future__ import annotations

import os
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from stemsplit import _compat
from stemsplit.audio.decoding.headers import BYTES, Samples

_BARE = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "RAW")
"""Formats with uncompressed samples."""


def native(path: Path) -> str | bytes:
    """Return a path for libsndfile: on POSIX as bytes, because not every file name is valid text."""
    return os.fsencode(path) if os.name == "posix" else str(path)


class Libsndfile:
    """A `Source` that decodes with libsndfile. Raises LibsndfileError if it cannot open the file.

    `part` is the range of bytes to read, and `samples` their format, if they are uncompressed samples without
    a header. `patch` is a position in the part, and bytes that replace the file's own there.
    """

    remark = None

    def __init__(
        self,
        path: Path,
        part: range | None = None,
        samples: Samples | None = None,
        patch: tuple[int, bytes] | None = None,
    ) -> None:
        self._part = _Part(path, part, patch) if part else None
        form: dict[str, object] = {"format": "RAW", **asdict(samples)} if samples else {}
        if samples:
            form["samplerate"] = form.pop("sample_rate")
        try:
            self._file = soundfile.SoundFile(self._part or native(path), **form)
        except BaseException:
            if self._part:
                self._part.close()
            raise
        self.sample_rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        self.format: str = self._file.format
        self.subtype: str = self._file.subtype
        self.depth = (
            "32f"
            if self.subtype in ("FLOAT", "DOUBLE")
            else "24"
            if re.search("24|32", self.subtype)
            else "16"
        )
        self.seconds: float = self._file.frames / self.sample_rate
        self.promised_seconds: float | None = self.seconds
        estimated = self.subtype.startswith("MPEG")  # without a Xing header, an estimate from the bitrate
        self.frames: int | None = None if estimated else self._file.frames
        self.slack_seconds = 0.25 if estimated else 0.0
        self.complaint: str | None = None
        self.failed = False
        """Whether it stopped at data that it cannot decode."""
        self._position = 0

    @property
    def plain(self) -> bool:
        """Whether the samples are uncompressed and of equal size, so that seeking is exact."""
        return self.subtype in BYTES and self.format in _BARE

    @property
    def samples(self) -> Samples:
        """The format of its samples; callers must correct the byte order, which is always LITTLE."""
        return Samples(self.sample_rate, self.channels, self.subtype, "LITTLE")

    def read(self, frames: int) -> NDArray[np.float32]:
        """Return the next `(channel, time)` block, shorter at damage or the end, then empty."""
        samples = np.zeros((0 if self.failed else frames, self.channels), np.float32)
        count, complaint = _compat.read_frames(self._file, samples)
        self._position += count
        if complaint and not self.failed:
            self.failed = True
            if self._position < self._file.frames:  # after the end, it is a tag or another stream
                self.complaint = complaint
        return np.ascontiguousarray(samples[:count].T)

    def seek(self, frames: int) -> bool:
        """Seek to a frame if that is exact and cannot fail; return whether it was done."""
        if self.plain:
            self._position = self._file.seek(min(frames, self._file.frames))
        return self.plain

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        if self._part:
            self._part.close()


class _Part:
    """A range of bytes of a file, as a file object."""

    def __init__(self, path: Path, part: range, patch: tuple[int, bytes] | None = None) -> None:
        self._file = path.open("rb")
        self._patch = patch or (0, b"")
        self._part, self._position = part, 0
        self.close = self._file.close

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_CUR: self._position, os.SEEK_END: len(self._part)}.get(whence, 0)
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, count: int) -> bytes:
        count = max(0, min(count, len(self._part) - self._position))
        self._file.seek(self._part.start + self._position)
        data = bytearray(self._file.read(count))
        for position, byte in enumerate(self._patch[1], self._patch[0] - self._position):
            if 0 <= position < len(data):
                data[position] = byte
        self._position += len(data)
        return bytes(data)
