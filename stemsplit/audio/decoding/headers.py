"""Finds the samples in WAV, AIFF, AU, CAF and Wave64 files, even if headers state a wrong length.

Recorders that lose power leave a size of 0, pipes leave the largest number, and 32-bit sizes wrap at 4 GiB.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_GUID = bytes.fromhex("f3acd3118cd100c04f8edb8a")
"""The bytes that follow the four letters in a Wave64 chunk name."""
_PLACEHOLDERS = (0x7FFF_F000, 0x7FFF_FFFF), (0xFFFF_F000, 1 << 64)
"""Placeholder sizes, which programs write before they know the length; in Wave64, up to a page less."""
_JUNK = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"<?x")
_SHORT_JUNK = 1 << 16
_MOST_CHUNKS = 10_000
_TRAILERS = {
    b"LIST",
    b"id3 ",
    b"ID3 ",
    b"bext",
    b"cue ",
    b"smpl",
    b"iXML",
    b"_PMX",
    b"JUNK",
    b"PAD ",
    b"PEAK",
}
BYTES = {
    **{"PCM_S8": 1, "PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4},
    **{"FLOAT": 4, "DOUBLE": 8, "ALAW": 1, "ULAW": 1},
}
"""Bytes of an uncompressed sample."""
_INTEGERS = {1: "PCM_S8", 2: "PCM_16", 3: "PCM_24", 4: "PCM_32"}
_FLOATS = {4: "FLOAT", 8: "DOUBLE"}
_ALAW, _ULAW = {1: "ALAW"}, {1: "ULAW"}
_KINDS = {
    1: {**_INTEGERS, 1: "PCM_U8"},
    3: _FLOATS,
    6: _ALAW,
    7: _ULAW,
}
"""Sample formats by WAV's format code, and then by size in bytes."""
_EXTENSIBLE = 0xFFFE
"""Format code of headers that state the sample format later."""


@dataclass(frozen=True)
class Samples:
    """The format of uncompressed samples, in libsndfile's terms: PCM_16, FLOAT..., LITTLE or BIG."""

    sample_rate: int
    channels: int
    subtype: str
    endian: str


@dataclass(frozen=True)
class Extent:
    """The range of bytes that contains the samples of a file."""

    start: int
    end: int
    stated: int | None
    """The size that the header states, in bytes, or None if it is a placeholder."""
    endian: str
    size_field: tuple[int, bytes] | None = None
    """Position of the size field in the header, and the bytes that it should contain."""
    samples: Samples | None = None
    """Known for WAV and Wave64 files with uncompressed samples."""


@dataclass(frozen=True)
class _Layout:
    """The chunk structure of a file format."""

    header: str
    """`struct` format of a chunk's name and size."""
    counted: int = 0
    """Number of header bytes that are included in the size."""
    align: int = 2

    @property
    def size(self) -> str:
        """`struct` format of the size alone."""
        return self.header[:1] + self.header[-1:]


@dataclass(frozen=True)
class _Stated:
    """The header's statements about the samples."""

    start: int
    size: int
    field: int
    """Position of the size field."""
    outer: int
    """Position of the end of the file, as far as the header states it."""
    endian: str
    samples: Samples | None = None


_RIFF, _RIFX, _AIFF = _Layout("<4sI"), _Layout(">4sI"), _Layout(">4sI")
_W64, _CAF, _BARE = _Layout("<16sQ", 24, 8), _Layout(">4sQ", align=1), _Layout("")


def find_sound(path: Path) -> Extent | None:
    """Return the position of a file's samples, or None if it has none or is of another format."""
    with path.open("rb") as file:
        start, size = after_id3(file), path.stat().st_size
        file.seek(start)
        head = file.read(40)
        try:
            if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
                layout = _RIFX if head[:4] == b"RIFX" else _RIFF
                outer = start + 8 + struct.unpack(layout.header[0] + "I", head[4:8])[0]
                return _chunked(file, layout, start + 12, size, outer)
            if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
                return _chunked(file, _AIFF, start + 12, size, start + 8 + int.from_bytes(head[4:8], "big"))
            if head[:4] == b"riff" and head[24:28] == b"wave":
                return _chunked(file, _W64, start + 40, size, start + int.from_bytes(head[16:24], "little"))
            if head[:4] == b"caff":
                return _chunked(file, _CAF, start + 8, size, size)
            if head[:4] in (b".snd", b"dns."):
                endian = "BIG" if head[:4] == b".snd" else "LITTLE"
                offset, length = struct.unpack((">" if endian == "BIG" else "<") + "II", head[4:12])
                stated = _Stated(start + offset, length, start + 8, size, endian)
                return _extent(file, _BARE, stated, size)
        except struct.error:
            pass
    return None


def after_id3(file: BinaryIO) -> int:
    """Return the position after a file's leading ID3 tag; 0 without one."""
    file.seek(0)
    head = file.read(10)
    if len(head) < 10 or head[:3] != b"ID3":
        return 0
    return 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))


def _chunks(file: BinaryIO, layout: _Layout, position: int, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name of each chunk, the position of its content, and its size."""
    width = struct.calcsize(layout.header)
    for _ in range(_MOST_CHUNKS):
        if position + width > size:
            return
        file.seek(position)
        name, length = struct.unpack(layout.header, file.read(width))
        yield name, position + width, length - layout.counted
        position += max(width, width + length - layout.counted)
        position += -position % layout.align if layout.align == 8 else length % layout.align


def _chunked(file: BinaryIO, layout: _Layout, position: int, size: int, outer: int) -> Extent | None:
    endian, samples, large = "LITTLE" if layout in (_RIFF, _W64) else "BIG", None, None
    for name, start, length in _chunks(file, layout, position, size):
        field = start - struct.calcsize(layout.size)
        file.seek(start)
        if name[:4] == b"fmt " and layout is not _CAF:
            samples = wave_samples(file.read(max(0, min(length, 40))), "BIG" if layout is _RIFX else "LITTLE")
        elif name == b"ds64":
            riff, large = struct.unpack("<QQ", file.read(16))
            outer = outer if outer < 0xFFFF_FFFF else 8 + riff
        elif name == b"COMM" and length >= 22:
            endian = "LITTLE" if file.read(22)[18:] in (b"sowt", b"42ni", b"23ni") else "BIG"
        elif name == b"desc":
            samples = _caf_samples(file.read(32))
            endian = samples.endian if samples else endian
        elif name == b"SSND":
            offset = int.from_bytes(file.read(4), "big")
            length = max(0, length - 8 - offset) if length else 0
            return _extent(file, layout, _Stated(start + 8 + offset, length, field, outer, endian), size)
        elif name[:4] == b"data":
            if layout is _CAF:
                start, length = start + 4, max(0, length - 4)
            elif large is not None and length == 0xFFFF_FFFF:
                length = large
            stated = _Stated(start, max(0, length), field, outer, endian, samples)
            return _extent(file, layout, stated, size)
    return None


def _extent(file: BinaryIO, layout: _Layout, stated: _Stated, size: int) -> Extent:
    """Return the range of the samples, from the size in the header and the size of the file."""
    start = stated.start
    if start > size:
        raise struct.error("according to its header, the sound starts beyond the end of the file")
    end = size if start + stated.size >= size else _end(file, layout, stated, size)
    known: int | None = stated.size
    if end == size and is_placeholder(stated.size):
        known = None
    elif end - start < stated.size <= size:  # the stated size includes the header
        known = end - start
    return Extent(start, end, known, stated.endian, _size_field(layout, stated, end), stated.samples)


def _size_field(layout: _Layout, stated: _Stated, end: int) -> tuple[int, bytes] | None:
    """Return the position of the size field and its correct content, or None if that does not fit."""
    form, size = layout.size, end - stated.start + layout.counted
    if layout.header:  # the size includes all of the chunk's content
        size += stated.start - stated.field - struct.calcsize(form)
    else:
        form = ">I" if stated.endian == "BIG" else "<I"
    return (stated.field, struct.pack(form, size)) if size < 1 << 8 * struct.calcsize(form) else None


def _end(file: BinaryIO, layout: _Layout, stated: _Stated, size: int) -> int:
    """Return the end of the samples. Other chunks, junk, or more samples can follow the stated end."""
    stated_end = stated.start + stated.size
    wrapped = (size - stated_end) >> 32 << 32
    for end in (stated_end, stated_end + wrapped):
        if _chunk_follows(file, layout, end, size):
            return end
    if wrapped:
        return size
    file.seek(stated_end)
    rest = file.read(_SHORT_JUNK)
    consistent = stated.size and stated_end <= stated.outer <= stated_end + layout.align
    if rest.startswith(_JUNK) or (consistent and (len(rest) < _SHORT_JUNK or not any(rest))):
        return stated_end
    return size


def _chunk_follows(file: BinaryIO, layout: _Layout, position: int, size: int) -> bool:
    """Whether a position is the end of the file, or the start of another chunk."""
    position += -position % layout.align if layout.align == 8 else 0
    width = struct.calcsize(layout.header or "8s")
    if size - position < width:
        return True
    for start in (position, position + 1) if layout.align == 2 else (position,):
        file.seek(start)
        head = file.read(width)
        if layout.header and len(head) == width:
            name, length = struct.unpack(layout.header, head)
            named = name[4:] == _GUID if layout is _W64 else all(32 <= byte < 127 for byte in name)
            if named and (start + width + length - layout.counted <= size or name in _TRAILERS):
                return True
    return False


def _caf_samples(description: bytes) -> Samples | None:
    """Return the sample format in the `desc` chunk of a CAF file, or None if it is compressed."""
    rate, kind, flags, _, _, channels, bits = struct.unpack(">d4s5I", description)
    kinds = {b"lpcm": _FLOATS if flags & 1 else _INTEGERS, b"alaw": _ALAW, b"ulaw": _ULAW}
    name = kinds.get(kind, {}).get(bits // 8)
    endian = "LITTLE" if flags & 2 else "BIG"
    return Samples(round(rate), channels, name, endian) if name and rate >= 1 and channels else None


def is_placeholder(stated: int) -> bool:
    """Whether a size is a placeholder, which programs write before they know the length."""
    return any(low <= stated <= high for low, high in _PLACEHOLDERS)


def wave_samples(form: bytes, endian: str = "LITTLE") -> Samples | None:
    """Return the sample format in the `fmt ` chunk of a WAV file, or None if it is compressed."""
    if len(form) < 16:
        return None
    order = ">" if endian == "BIG" else "<"
    kind, channels, sample_rate, _, width, bits = struct.unpack(order + "HHIIHH", form[:16])
    if kind == _EXTENSIBLE and len(form) >= 26:
        (kind,) = struct.unpack(order + "H", form[24:26])
    each = width // channels if channels and width else bits // 8
    name = _KINDS.get(kind, {}).get(each)
    return Samples(sample_rate, channels, name, endian) if name and sample_rate and channels else None
