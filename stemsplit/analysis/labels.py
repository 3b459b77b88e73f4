"""Audacity label files: lines of start, end (both in seconds) and text, separated by tabs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from stemsplit.errors import DecodeError
from stemsplit.files.claims import writing


class Label(NamedTuple):
    """A text for a part of a sound, or for one moment if both times are equal."""

    start: float
    end: float
    text: str


def write(path: Path, labels: Iterable[Label], *, force: bool = True) -> None:
    """Write labels to a file atomically.

    Raises:
        OutputExists: it already exists, and `force` is not given.
        EncodeError: it cannot be written.
    """
    lines = [f"{label.start:.6f}\t{label.end:.6f}\t{label.text}\n" for label in labels]
    with writing(path, force=force) as part:
        part.write_text("".join(lines), encoding="utf-8", newline="\n")


def read(path: Path) -> list[Label]:
    """Return the labels of a file, without the frequency ranges that Audacity can add.

    Raises:
        DecodeError: it cannot be read, or is not a label file.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DecodeError(f"Cannot read `{path}`: {error.strerror}") from error
    except UnicodeDecodeError:
        lines = ["?"]
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("\\"):
            continue
        start, _, rest = line.partition("\t")
        end, _, text = rest.partition("\t")
        try:
            times = float(start), float(end or start)
        except ValueError:
            times = (math.nan, math.nan)
        if not 0 <= times[0] <= times[1] < math.inf:
            raise DecodeError(
                f"`{path}` is not a file of labels: see line {number}",
                "each line has a start and an end in seconds and a text, with tabs between them",
            )
        found.append(Label(*times, text.strip()))
    return found
