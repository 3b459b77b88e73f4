"""Detects audio in a FLAC file beyond the length that its header states."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

_LONGEST_FRAME = 1 << 20
"""Limit of a frame in bytes; only frames with many more channels than stereo can be longer."""
_FIRST_BYTES = re.compile(rb"\xff[\xf8\xf9][\x10-\xff][\x00-\xaf]", re.DOTALL)


def continues(path: Path, frames: int) -> bool:
    """Return whether more audio follows `frames`: another stream, or later frames of the same stream.

    The result can be wrong if data looks like a frame header by chance; only decoding is certain.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        first = data.find(b"fLaC")
        if first < 0 or len(data) < first + 42:
            return False
        if re.compile(rb"fLaC[\x00\x80]\x00\x00\x22").search(data, first + 4):
            return True
        blocks = int.from_bytes(data[first + 10 : first + 12], "big")
        tail = data[max(first, len(data) - _LONGEST_FRAME) :]
    for found in reversed(list(_FIRST_BYTES.finditer(tail))):
        end = _end_of_frame(tail[found.start() : found.start() + 16], blocks)
        if end is not None:
            return end > frames
    return False


def _end_of_frame(header: bytes, blocks: int) -> int | None:
    """Return a frame's end in samples, or None if this is not a header; `blocks` is the fixed block size."""
    ones = 8 - (~header[4] & 0xFF).bit_length() if len(header) == 16 else 1
    if ones == 1 or ones == 8 or header[3] & 1:
        return None
    extra = max(0, ones - 1)
    number = header[4] & (0x7F >> ones)
    for byte in header[5 : 5 + extra]:
        number = number << 6 | byte & 0x3F
    position, size, rate = 5 + extra, header[2] >> 4, header[2] & 15
    if size in (6, 7):
        samples = int.from_bytes(header[position : position + size - 5], "big") + 1
        position += size - 5
    else:
        samples = 192 if size == 1 else 576 << size - 2 if size < 6 else 256 << size - 8
    position += {12: 1, 13: 2, 14: 2}.get(rate, 0)
    if _crc8(header[:position]) != header[position]:
        return None
    return (number if header[1] & 1 else number * blocks) + samples


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07 if crc & 0x80 else crc << 1) & 0xFF
    return crc
