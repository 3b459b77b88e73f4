"""Checks of an ONNX file without a runtime: whether it is one, is complete, and contains its weights.

The format is a protocol buffer (onnx/onnx.proto): a sequence of fields, each with a number and a wire type.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from stemsplit.errors import BadWeights

_GRAPH, _INITIALIZER, _DATA_LOCATION = 7, 5, 14
"""Field numbers in a model, in its graph, and in a tensor."""
_EXTERNAL = 1
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
"""Wire types."""


def check(path: Path) -> None:
    """Check the structure of a file, without reading its tensors.

    Raises:
        BadWeights: it is not an ONNX file, is truncated, or has its weights in another file.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        try:
            external = _is_external(file)
        except ValueError as error:
            raise BadWeights(
                f"`{path}` is not an ONNX file, or is truncated: {error}", "download it again"
            ) from error
    if external:
        raise BadWeights(
            f"`{path}` has its weights in another file",
            "make one file of both: onnx.save(onnx.load('in.onnx'), 'out.onnx')",
        )


def _is_external(file: BinaryIO) -> bool:
    """Whether a tensor is in another file. Raises ValueError if this is not an ONNX file."""
    graphs = [each for each in _fields(file, 0, file.seek(0, os.SEEK_END)) if each[0] == _GRAPH]
    if not graphs:
        raise ValueError("it has no graph")
    external = False
    for _, start, end in graphs:
        tensors = [each for each in _fields(file, start, end) if each[0] == _INITIALIZER]
        for _, begin, stop in tensors:
            for number, value, _ in _fields(file, begin, stop):
                external = external or (number, value) == (_DATA_LOCATION, _EXTERNAL)
    return external


def _fields(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield the fields between two positions: number, first byte, end; for integers number, value, end.

    Raises:
        ValueError: a field does not fit.
    """
    while start < end:
        file.seek(start)
        key = _integer(file)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            first = _integer(file)
            stop = file.tell()
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            first = file.tell()
            stop = first + (8 if kind == _EIGHT_BYTES else 4)
        elif kind == _BYTES:
            length = _integer(file)
            first = file.tell()
            stop = first + length
        else:
            raise ValueError(f"what begins at byte {start} is not a field")
        if stop > end or not number:
            raise ValueError(f"what begins at byte {start} does not fit")
        yield number, first, stop
        start = stop


def _integer(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 64, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("it ends in a number")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("a number is too long")
