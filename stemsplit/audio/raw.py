"""Audio in pipes: headerless PCM and WAV streams, stored in a file if they must be read twice."""

from __future__ import annotations

import math
import re
import shutil
import struct
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from stemsplit.audio.decoding.headers import is_placeholder, wave_samples
from stemsplit.audio.reader import RATES, Block, Signal, check_finite
from stemsplit.audio.writer import Encoding, Writer, quantised
from stemsplit.errors import DecodeError, StemsplitError, UnsupportedChannels

NAME = "stdin"
"""The name of the track from standard input."""
_DEPTHS = {"s16": "16", "s24": "24", "s32": "24", "f32": "32f"}
_SUBTYPES = {"PCM_16": "s16", "PCM_24": "s24", "PCM_32": "s32", "FLOAT": "f32"}
_LONGEST_CHUNK = 1 << 24
"""Limit in bytes for a chunk before the samples, such as tags or a cover."""
_UNKNOWN_BYTES = (1 << 32) - 1
"""The length in a WAV header if the length is unknown or too large."""


@dataclass(frozen=True)
class RawFormat:
    """Headerless PCM samples, little-endian and interleaved: `44100:2:f32`."""

    sample_rate: int
    channels: int
    samples: str
    """s16, s24, s32 or f32."""

    @classmethod
    def parse(cls, text: str) -> RawFormat:
        """Parse `RATE:CHANNELS:SAMPLES`. Raises StemsplitError if that fails."""
        found = re.fullmatch(rf"(\d{{1,7}}):(\d{{1,3}}):({'|'.join(_DEPTHS)})", text)
        if not found or not RATES[0] <= int(found[1]) <= RATES[1] or found[2] == "0":
            wanted = f"write RATE:CHANNELS:SAMPLES, e.g. 44100:2:f32; SAMPLES is one of {', '.join(_DEPTHS)}"
            raise StemsplitError(f"`{text}` is not a sample format", wanted)
        if int(found[2]) > 2:
            raise UnsupportedChannels(
                f"`{text}` has {found[2]} channels", "only mono and stereo can be split"
            )
        return cls(int(found[1]), int(found[2]), found[3])

    def __str__(self) -> str:
        return f"{self.sample_rate}:{self.channels}:{self.samples}"

    @property
    def depth(self) -> str:
        """The bit depth of the samples, see `Writer`."""
        return _DEPTHS[self.samples]

    @property
    def bytes_per_frame(self) -> int:
        """Bytes of one sample of every channel."""
        return self.channels * int(self.samples[1:]) // 8

    def decode(self, data: bytes) -> Block:
        """Return the samples of whole frames as `(channel, time)`."""
        if self.samples == "f32":
            flat = np.frombuffer(data, "<f4")
        elif self.samples == "s24":
            upper = np.zeros((len(data) // 3, 4), np.uint8)
            upper[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
            flat = upper.view("<i4")[:, 0] / np.float32(1 << 31)
        else:
            bits = int(self.samples[1:])
            flat = np.frombuffer(data, f"<i{bits // 8}") / np.float32(1 << (bits - 1))
        return np.ascontiguousarray(flat.reshape(-1, self.channels).T, np.float32)

    def encode(self, block: Block) -> bytes:
        """Return a block `(channel, time)` as bytes."""
        flat = np.ascontiguousarray(quantised(block, self.depth).T)
        if self.samples == "s24":
            return flat.view(np.uint8).reshape(-1, 4)[:, 1:].tobytes()
        return flat.tobytes()


class RawReader:
    """Reads headerless samples as blocks `(channel, time)`, like `Reader`, but only once."""

    path = Path("-")
    frames = frames_estimate = None

    def __init__(
        self,
        stream: BinaryIO,
        raw: RawFormat,
        *,
        start_seconds: float = 0.0,
        duration_seconds: float | None = None,
        block_frames: int = 16_384,
    ) -> None:
        self._stream, self._raw, self._block_frames = stream, raw, block_frames
        self.sample_rate, self.channels, self.depth = raw.sample_rate, raw.channels, raw.depth
        self.warnings: list[str] = []
        self._start, self._end = round(start_seconds * raw.sample_rate), math.inf
        if duration_seconds is not None:
            self._end = self._start + max(1, round(duration_seconds * raw.sample_rate))

    def __iter__(self) -> Generator[Block, None, None]:
        """Yield blocks as they arrive. Raises DecodeError for an empty stream or non-finite samples."""
        width, position = self._raw.bytes_per_frame, 0
        while position < self._end:
            data = self._stream.read(width * int(min(self._block_frames, self._end - position)))
            whole = len(data) // width * width
            if whole < len(data):
                self.warnings.append(
                    f"The last {len(data) - whole} bytes of standard input are not a complete frame."
                )
            block = self._raw.decode(data[:whole])
            if not block.shape[1]:
                break
            check_finite(block, "standard input", position, self.sample_rate)
            wanted = block[:, max(0, self._start - position) :]
            position += block.shape[1]
            if wanted.shape[1]:
                yield wanted
        if position <= self._start:
            start = f" after {position / self.sample_rate:g} s" if position else ""
            raise DecodeError(f"Standard input is empty{start}")


def read_header(stream: BinaryIO) -> tuple[RawFormat, int | None]:
    """Read a WAV stream up to its samples; return their format and, if known, their size in bytes.

    Raises DecodeError if it is not a WAV stream, or has a sample format that `RawFormat` does not support.
    """
    if not re.fullmatch(b"(RIFF|RF64|BW64)....WAVE", _exactly(stream, 12), re.DOTALL):
        raise DecodeError(
            "Standard input is not a WAV file", "describe its samples with --raw, e.g. --raw 44100:2:f32"
        )
    form, large = b"", None
    while True:
        name, size = struct.unpack("<4sI", _exactly(stream, 8))
        if name == b"data":
            break
        if size > _LONGEST_CHUNK:
            raise DecodeError(
                "The WAV file on standard input is damaged", "send headerless samples, with --raw"
            )
        chunk = _exactly(stream, size + size % 2)
        form = chunk if name == b"fmt " else form
        large = int.from_bytes(chunk[8:16], "little") if name == b"ds64" else large
    if len(form) < 16:
        raise DecodeError("The WAV file on standard input does not state its sample format", "use --raw")
    found = wave_samples(form)
    if found is None or found.subtype not in _SUBTYPES:
        kind, bits = int.from_bytes(form[:2], "little"), int.from_bytes(form[14:16], "little")
        raise DecodeError(
            f"The WAV file on standard input has an unsupported sample format: {bits} bits, code {kind}",
            f"send one of {', '.join(_DEPTHS)}, e.g. with ffmpeg -i FILE -c:a pcm_f32le -f wav -",
        )
    stated = size if large is None or size < _UNKNOWN_BYTES else large
    raw = RawFormat.parse(f"{found.sample_rate}:{found.channels}:{_SUBTYPES[found.subtype]}")
    return raw, None if not stated or is_placeholder(stated) else stated


class WavSamples:
    """Reads the sample bytes of a WAV stream: as many as its header states, and more if audio follows."""

    def __init__(self, stream: BinaryIO, stated: int | None) -> None:
        self._stream, self._stated = stream, stated
        self._left: float = math.inf if stated is None else stated
        self._ahead = b""
        self.remark: str | None = None
        """A remark about a wrong length in the header; set once everything is read."""

    def read(self, count: int) -> bytes:
        """Return the next bytes, at most `count`; empty at the end."""
        if self._left <= 0 and self._stated is not None:
            self._look_ahead()
        if self._ahead:
            data, self._ahead = self._ahead[:count], self._ahead[count:]
            return data
        data = self._stream.read(int(min(count, self._left)))
        self._left -= len(data)
        if not data and 0 < self._left < math.inf:
            self.remark = f"Standard input ended {self._left:.0f} bytes before the length in its header."
        return data

    def _look_ahead(self) -> None:
        """Continue unless the stream ends or another chunk starts."""
        while len(self._ahead) < 8:
            more = self._stream.read(8 - len(self._ahead))
            if not more:
                break
            self._ahead += more
        pad = (self._stated or 0) % 2
        names = (self._ahead[:4], self._ahead[pad : pad + 4])
        self._stated = None
        if len(self._ahead) < 8 or any(re.fullmatch(rb"[ -~]{4}", name) for name in names):
            self._ahead = b""
        else:
            self._left = math.inf
            self.remark = "Standard input is longer than the length in its header; all of it was used."


def _exactly(stream: BinaryIO, count: int) -> bytes:
    """Read `count` bytes from a stream that can return fewer at a time."""
    data = b""
    while len(data) < count:
        more = stream.read(count - len(data))
        if not more:
            raise DecodeError(
                "Standard input ends before the sound starts",
                "check the messages of the program that writes to the pipe",
            )
        data += more
    return data


def spool(stream: BinaryIO, folder: Path, raw: RawFormat | None = None) -> Path:
    """Store a stream as a sound file in a folder. Raises EncodeError or OSError if that fails."""
    if raw is None:
        path = folder / NAME
        with path.open("wb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)
        return path
    path, unknown = folder / f"{NAME}.wav", 1 << 40
    with Writer(path, Signal(raw.sample_rate, raw.channels, unknown), Encoding(raw.depth)) as writer:
        for block in RawReader(stream, raw):
            writer.write(block)
    return path


class StreamWriter:
    """Writes audio to a stream: headerless samples or, with `wav`, a WAV file.

    A WAV header states the length. If `frames` is unknown, the header states 4 GiB, as other programs do.
    `finish` corrects it if the stream is a file.
    """

    def __init__(self, stream: BinaryIO, raw: RawFormat, *, wav: bool, frames: int | None = None) -> None:
        self._stream, self.raw, self._wav, self._promised = stream, raw, wav, frames
        self._began, self._bytes = False, 0
        self.peak = 0.0

    def write(self, block: Block) -> None:
        """Append a block `(channel, time)`. Raises BrokenPipeError if the pipe no longer has a reader."""
        self._begin()
        data = self.raw.encode(block)
        self.peak = max(self.peak, float(np.abs(block).max(initial=0)))
        self._bytes += len(data)
        self._stream.write(data)
        self._stream.flush()

    def finish(self) -> None:
        """Complete the WAV file: add a padding byte if needed, and correct the length in the header."""
        self._begin()
        frames, padding = self._bytes // self.raw.bytes_per_frame, bytes(self._bytes % 2)
        if self._wav:
            self._stream.write(padding)
        if self._wav and frames != self._promised and self._stream.seekable():
            header = self._header(frames)
            # Not when appending to an existing file, which starts with another header.
            if self._stream.tell() == len(header) + self._bytes + len(padding):
                self._stream.seek(0)
                self._stream.write(header)
                self._stream.seek(0, 2)
        self._stream.flush()

    def _begin(self) -> None:
        """Write the header of a WAV file, once."""
        if self._wav and not self._began:
            self._stream.write(self._header(self._promised))
        self._began = True

    def _header(self, frames: int | None) -> bytes:
        """Return the header: RIFF, `fmt `, `fact` (floating point only) and `data`."""
        raw, width = self.raw, self.raw.bytes_per_frame
        kind, bits = (3, 32) if raw.samples == "f32" else (1, int(raw.samples[1:]))
        form = struct.pack(
            "<HHIIHH", kind, raw.channels, raw.sample_rate, raw.sample_rate * width, width, bits
        )
        chunks = b"fmt " + struct.pack("<I", len(form)) + form
        if kind == 3:
            form += bytes(2)
            count = min(frames or 0, _UNKNOWN_BYTES)
            chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"fact" + struct.pack("<II", 4, count)
        size = _UNKNOWN_BYTES if frames is None else frames * width
        riff = min(size + size % 2 + 12 + len(chunks), _UNKNOWN_BYTES)
        return (
            struct.pack("<4sI4s", b"RIFF", riff, b"WAVE")
            + chunks
            + b"data"
            + struct.pack("<I", min(size, _UNKNOWN_BYTES))
        )
