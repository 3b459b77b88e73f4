"""Writing and reading the MP4 boxes that identify a stem file.

The box `moov/udta/stem` contains JSON with the stems' names and colors, as specified by Native Instruments.
The content follows the sample file of stempeg, which writes such files with the program MP4Box
(stempeg/write.py), and what Mixxx accepts (src/track/steminfoimporter.cpp).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from stemsplit.audio.stem_labels import Label
from stemsplit.errors import DecodeError
from stemsplit.files.scratch import shown

LONGEST_TEXT = 1 << 20
"""Limit of the JSON in bytes. Four stems take about 600."""
MOST_BOXES = 100_000
"""Limit of boxes on one level: far more than in any real file, but read in a short time."""
# The settings that NI's own tools write, but disabled, so that the stems sum to the mixture.
_MASTERING = {
    "compressor": {
        "enabled": False,
        "ratio": 3,
        "output_gain": 0.5,
        "release": 0.3,
        "attack": 0.003,
        "input_gain": 0.5,
        "threshold": 0,
        "hp_cutoff": 300,
        "dry_wet": 50,
    },
    "limiter": {"enabled": False, "release": 0.05, "threshold": 0, "ceiling": -0.35},
}


@dataclass(frozen=True)
class _Box:
    """An MP4 box: its four-letter type, its start, and its content from `body` to `end`."""

    kind: bytes
    start: int
    body: int
    end: int


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[_Box]:
    """Yield the boxes between two positions of a file; ValueError if one does not fit."""
    for _ in range(MOST_BOXES):
        if end - start < 8:  # nothing, or the zero that terminates a list in older files
            return
        file.seek(start)
        head = file.read(16)
        size, kind, body = int.from_bytes(head[:4], "big"), head[4:8], start + 8
        if size == 1:
            size, body = int.from_bytes(head[8:], "big"), start + 16
        elif size == 0:
            size = end - start
        if not body - start <= size <= end - start:
            raise ValueError(f"what begins at byte {start} does not fit")
        yield _Box(kind, start, body, start + size)
        start += size
    raise ValueError("it has too many parts")


def _find(file: BinaryIO, *kinds: bytes) -> _Box | None:
    """Return the first box with a path such as `moov`, `udta`, or None; ValueError if a box does not fit."""
    found: _Box | None = _Box(b"", 0, 0, file.seek(0, os.SEEK_END))
    for kind in kinds:
        if found is not None:
            boxes = _boxes(file, found.body, found.end)
            found = next((box for box in boxes if box.kind == kind), None)
    return found


def make_stem_file(path: Path, labels: Sequence[Label]) -> None:
    """Turn ffmpeg's MP4 with five tracks into a stem file, in place: only its last box grows."""
    stems = [{"name": label.name, "color": label.colour} for label in labels]
    text = json.dumps({"mastering_dsp": _MASTERING, "version": 1, "stems": stems}).encode("ascii")
    atom = (8 + len(text)).to_bytes(4, "big") + b"stem" + text
    with path.open("r+b") as file:
        moov, udta = _find(file, b"moov"), _find(file, b"moov", b"udta")
        end = file.seek(0, os.SEEK_END)
        if moov is None or udta is None or not moov.end == udta.end == end:
            raise OSError("this ffmpeg puts the parts of an MP4 in another order")
        tracks = [box for box in _boxes(file, moov.body, moov.end) if box.kind == b"trak"]
        for number, track in enumerate(tracks):
            _set_header(file, track, enabled=number == 0)
        for box in (moov, udta):
            file.seek(box.start)
            file.write((end - box.start + len(atom)).to_bytes(4, "big"))
        file.seek(end)
        file.write(atom)


def _set_header(file: BinaryIO, track: _Box, *, enabled: bool) -> None:
    """Enable or disable a track, and remove it from its alternate group, of which players play one track."""
    header = next(box for box in _boxes(file, track.body, track.end) if box.kind == b"tkhd")
    file.seek(header.body)
    long_times = file.read(1) == b"\1"
    file.write(bytes([0, 0, enabled]))
    file.seek(header.body + (46 if long_times else 34))  # ISO/IEC 14496-12, 8.3.2
    file.write(bytes(2))


def read_stem_names(path: str | os.PathLike[str]) -> tuple[Label, ...] | None:
    """Return the names and colors of a file's stems, in the order of its tracks from the second on.

    None if the file is not an MP4 or does not list stems. Reads at most `LONGEST_TEXT` bytes at once.

    Raises:
        DecodeError: the file cannot be read or is truncated, or its list of stems is invalid.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            if file.read(8)[4:] != b"ftyp":
                return None
            box = _find(file, b"moov", b"udta", b"stem")
            if box is None:
                return None
            if box.end - box.body > LONGEST_TEXT:
                raise ValueError("its list of stems is too long")
            file.seek(box.body)
            return _labels(file.read(box.end - box.body))
    except OSError as error:
        raise DecodeError(f"Cannot read `{path}`: {error.strerror}") from error
    except ValueError as error:
        raise DecodeError(f"`{shown(path)}` is damaged: {error}", "get a fresh copy of the file") from error


def _labels(text: bytes) -> tuple[Label, ...]:
    """Return the labels in a JSON text, of which any field may be missing; ValueError if it is invalid."""
    try:
        facts: Any = json.loads(text.rstrip(b"\0"))  # some programs append zeros
    except (ValueError, RecursionError) as error:
        raise ValueError("its list of stems is no JSON") from error
    stems = facts.get("stems") if isinstance(facts, dict) else None
    if not isinstance(stems, list) or not stems or not all(isinstance(stem, dict) for stem in stems):
        raise ValueError("it lists no stems")
    words = [[stem.get(key) for key in ("name", "color")] for stem in stems]
    told = [[word.strip() if isinstance(word, str) else "" for word in pair] for pair in words]
    return tuple(Label(name or f"stem {n}", colour) for n, (name, colour) in enumerate(told, 1))
