"""Options that select the audio in a file, shared by all verbs."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

_what = partial(typer.Option, rich_help_panel="Input")

AudioTrack = Annotated[
    str | None,
    _what(
        "--audio-track",
        metavar="N|LANG",
        help="Audio track of a video: a number such as `2`, or a language such as `en`. Default: the "
        "file's default track.",
    ),
]
Downmix = Annotated[
    bool,
    _what(
        "--downmix", metavar="", help="Mix surround sound down to stereo. Without this option it is an error."
    ),
]


def track(text: str | None) -> int | str | None:
    """Return an audio track for `Reader`: a number, converted from 1-based to 0-based, or a language."""
    if text is None or not text.lstrip("+-").isdigit():
        return text or None
    if int(text) < 1:
        raise typer.BadParameter(f"--audio-track: {text} is not a track; the first one is 1")
    return int(text) - 1
