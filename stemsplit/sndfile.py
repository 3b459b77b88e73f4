"""Decoding with libsndfile."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from stemsplit import ffmpeg

_UNKNOWN_FRAMES = 1 << 62  # libsndfile says 2**63 - 1 of a FLAC stream without a length


def native(path: Path) -> str | bytes:
    """Return a path as libsndfile takes it: on POSIX as bytes, for not every file name is text."""
    return os.fsencode(path) if os.name == "posix" else str(path)


class Libsndfile:
    """A `Source` that decodes with libsndfile. Raises LibsndfileError if it cannot open the file."""

    def __init__(self, path: Path) -> None:
        self._file = soundfile.SoundFile(native(path))
        self.sample_rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        subtype = self._file.subtype
        self.depth = (
            "32f" if subtype in ("FLOAT", "DOUBLE") else "24" if re.search("24|32", subtype) else "16"
        )
        self.seconds: float = self._file.frames / self.sample_rate
        self.promised_seconds = self.seconds
        estimated = self._file.format == "MP3"  # from the bitrate, where there is no Xing header
        self.frames: int | None = None if estimated else self._file.frames
        self.slack_seconds = 0.25 if estimated else 0.0
        self.complaint: str | None = None
        self._failed = False
        # Of a cut PCM file libsndfile gives the frames that are there; only its log has the header's word.
        log = self._file.extra_info
        sizes = re.search(r"^ *(?:data|SSND) : (\d+) \(should be (\d+)\)", log, re.MULTILINE)
        if sizes and 0 < int(sizes[2]) < int(sizes[1]) < 0xFFFF_FF00:  # the largest mean "unknown": a pipe
            self.promised_seconds *= int(sizes[1]) / int(sizes[2])

    def read(self, frames: int) -> NDArray[np.float32]:
        """Return the next `(channel, time)` block, shorter at damage or the end, then empty."""
        samples = np.zeros((0 if self._failed else frames, self.channels), np.float32)
        # Not `SoundFile.read`: it seeks after each block, which some codecs cannot do and damage prevents,
        # and at an error it keeps the number of frames for itself.
        pointer = soundfile._ffi.cast("float *", samples.ctypes.data)
        count = soundfile._snd.sf_readf_float(self._file._file, pointer, len(samples))
        error = soundfile._snd.sf_error(self._file._file)
        if error:
            self._failed = True
            said = soundfile._ffi.string(soundfile._snd.sf_error_number(error)).decode("utf-8", "replace")
            self.complaint = said.rstrip(".") or "lost sync"
        return np.ascontiguousarray(samples[:count].T)

    def seek(self, frames: int) -> bool:
        """Go to a frame if that is exact and cannot fail; return whether it did."""
        plain: bool = (
            self._file.subtype.startswith(("PCM", "FLOAT", "DOUBLE")) and self._file.format != "FLAC"
        )
        if plain:
            self._file.seek(min(frames, self._file.frames))
        return plain

    def gives_up_early(self, path: Path) -> bool:
        """Whether ffmpeg would do better: at damaged or chained Ogg, or a FLAC that knows no length."""
        if self._file.format != "OGG":
            return bool(self._file.frames >= _UNKNOWN_FRAMES)
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 65_307))  # the largest page
            page = file.read().rpartition(b"OggS")[2]
        body = sum(page[23 : 23 + page[22]]) if len(page) > 22 else math.inf
        if len(page) < 23 + body or not page[1] & 4:  # cut, or not marked as the end of the stream
            self.complaint = "its last page is missing"
            return False
        position = int.from_bytes(page[2:10], "little", signed=True)
        rate = 48_000 if self._file.subtype == "OPUS" else self.sample_rate
        return position > rate * (self.seconds + 0.25) and bool(ffmpeg.executable())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
