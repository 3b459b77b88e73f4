"""The names and colors that players show for the stems of a stem file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stemsplit.errors import EncodeError, UsageError

ORDER = ("drums", "bass", "other", "vocals")
"""Track order of the four stems, on which decks and data sets rely, because they do not read names."""
COLOURS = ("#009E73", "#D55E00", "#CC79A7", "#56B4E9")
LONGEST_NAME = 100
"""Maximum number of characters."""


@dataclass(frozen=True)
class Label:
    """A stem's name and color in players; the color is `#RRGGBB`, or empty."""

    name: str
    colour: str


def in_file_order(stems: Sequence[str]) -> list[str]:
    """Return stems in track order: as in `ORDER`, followed by others."""
    return sorted(stems, key=lambda stem: ORDER.index(stem) if stem in ORDER else len(ORDER))


def label_stems(
    stems: Sequence[str], names: Sequence[str] | None = None, colours: Sequence[str] | None = None
) -> Mapping[str, Label]:
    """Return the labels of four stems, in the order of `stems`.

    `names` and `colours`, if given, are in the order of the tracks, see `in_file_order`.

    Raises:
        EncodeError: these are not four different stems.
    """
    if len(stems) != len(ORDER) or len(set(stems)) != len(ORDER):
        raise EncodeError(
            f"A stem file has four stems, not {', '.join(stems) or 'none'}",
            "choose a model with four stems, or another --format",
        )
    ordered = in_file_order(stems)
    labels = dict(zip(ordered, map(Label, names or ordered, colours or COLOURS), strict=True))
    return {stem: labels[stem] for stem in stems}


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return four names without surrounding whitespace; UsageError if players cannot show them."""
    found = tuple(name.strip() for name in names)
    hint = f"name them in the order {', '.join(ORDER)}"
    _check_number("names", found, hint)
    for name in found:
        if not name.isprintable() or not 0 < len(name) <= LONGEST_NAME:
            raise UsageError(
                f"A stem's name must have 1 to {LONGEST_NAME} printable characters, not {name!r}", hint
            )
    if len({name.casefold() for name in found}) < len(found):
        raise UsageError(f"The names of stems must differ: {', '.join(found)}", hint)
    return found


def check_colours(colours: Sequence[str]) -> tuple[str, ...]:
    """Return four colors as `#RRGGBB`; UsageError if one is not written like that, with or without `#`."""
    found = tuple(colour.strip().removeprefix("#") for colour in colours)
    hint = "write them like 009E73,D55E00,CC79A7,56B4E9"
    _check_number("colors", found, hint)
    for colour in found:
        if not re.fullmatch("[0-9A-Fa-f]{6}", colour):
            raise UsageError(f"A stem's color must have six hexadecimal digits, not `{colour}`", hint)
    return tuple(f"#{colour.upper()}" for colour in found)


def _check_number(what: str, found: Sequence[str], hint: str) -> None:
    if len(found) != len(ORDER):
        given = f": {', '.join(found)}" if any(found) else ""
        raise UsageError(f"A stem file needs {what} for four stems, not {len(found)}{given}", hint)
