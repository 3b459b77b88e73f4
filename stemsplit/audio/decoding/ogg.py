"""The streams of an Ogg file, found from its page headers."""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_HEADER = struct.Struct("<4sBBqIIIB")
_CODECS = {b"\x01vorbis": "vorbis", b"OpusHead": "opus", b"\x7fFLAC": "flac", b"Speex   ": "speex"}
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_FIRST, _LAST = 2, 4
"""Flags of a stream's first and last page."""


@dataclass
class Link:
    """Streams that start together. A file with several links is chained."""

    start: int
    end: int
    """Range of bytes in the file."""
    streams: int = 1
    codec: str = ""
    serial: int | None = None
    """Serial number of the first audio stream, which `codec` and the fields below describe."""
    sample_rate: int = 0
    pages: int = 0
    first: int = 0
    last: int = 0
    """Positions of the last sample of the first page with audio, and of the last page."""
    ordered: bool = True
    """Whether the last page has the highest position."""
    complete: bool = False
    """Whether the last page is marked as the last."""
    gaps: bool = False
    """Whether pages in between are missing or damaged; decoders skip those."""

    @property
    def seconds(self) -> float:
        """Its length in seconds, accurate to about a page."""
        begin = self.first if self.first > self.sample_rate else 0
        return max(0, self.last - begin) / self.sample_rate if self.sample_rate else 0.0

    @property
    def fault(self) -> str | None:
        """A description of what is wrong with its pages."""
        if self.gaps:
            return "pages are missing or broken"
        return None if self.complete else "its last page is missing"

    @property
    def suits_libsndfile(self) -> bool:
        """Whether libsndfile decodes all of it. If positions are wrong, it can stop early."""
        return self.codec == "vorbis" and self.streams == 1 and self.ordered and not self.gaps


def links(path: Path) -> tuple[Link, ...]:
    """Return the links of a file; empty if it is not an Ogg file."""
    state = path.stat()
    return _links(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=8)  # a file is opened several times
def _links(path: Path, size: int, changed: int) -> tuple[Link, ...]:
    found: list[Link] = []
    before, last_end = 0, 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for start, end, body in _pages(data):
            _, _, flags, position, serial, number, _, _ = _HEADER.unpack_from(data, start)
            if flags & _FIRST and before & _FIRST:
                found[-1].streams += 1
            elif flags & _FIRST or not found:
                found.append(Link(start, end))
            link, before = found[-1], flags
            if flags & _FIRST and link.serial is None:
                _identify(link, serial, data[body : body + 48])
            elif serial == link.serial:
                link.gaps |= start != last_end or not _is_whole(data[start:end])
                _add(link, flags, position, number)
            link.end = last_end = end
    if found:
        found[-1].end = size
    return tuple(found)


def _pages(data: mmap.mmap) -> Iterator[tuple[int, int, int]]:
    """Yield the start, the end and the first content byte of each complete page."""
    start = data.find(b"OggS")
    while 0 <= start <= len(data) - _HEADER.size:
        body = start + _HEADER.size + data[start + 26]
        end = body + sum(data[start + _HEADER.size : body])
        if end > len(data):
            return
        yield start, end, body
        start = data.find(b"OggS", end)


def _is_whole(page: bytes) -> bool:
    """Whether a page's checksum is correct: CRC-32 as in zlib, but with reversed bits in each byte."""
    wanted = int.from_bytes(page[22:26], "little")
    mirrored = (page[:22] + bytes(4) + page[26:]).translate(_MIRRORED)
    found = ~zlib.crc32(mirrored, 0xFFFF_FFFF) & 0xFFFF_FFFF
    return int.from_bytes(found.to_bytes(4, "little").translate(_MIRRORED), "big") == wanted


def _identify(link: Link, serial: int, packet: bytes) -> None:
    for magic, codec in _CODECS.items():
        if packet.startswith(magic):
            link.codec, link.serial = codec, serial
    if link.codec == "opus":
        link.sample_rate = 48_000
    elif link.codec == "vorbis":
        link.sample_rate = int.from_bytes(packet[12:16], "little")
    elif link.codec == "flac":
        link.sample_rate = int.from_bytes(packet[27:30], "big") >> 4
    elif link.codec == "speex":
        link.sample_rate = int.from_bytes(packet[36:40], "little")


def _add(link: Link, flags: int, position: int, number: int) -> None:
    """Add a page after the first one of the stream."""
    link.pages += 1
    link.gaps |= bool(link.last) and number != link.pages  # recordings of live streams lack the first pages
    link.pages = number
    link.ordered &= not link.complete and position >= -1
    link.complete = bool(flags & _LAST)
    if position > 0:
        link.ordered &= position >= link.last
        link.first = link.first or position
        link.last = position
    elif link.complete:
        link.ordered = False
