"""The options that choose the sound of a file, the same for every verb."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

_what = partial(typer.Option, rich_help_panel="What to read")

AudioTrack = Annotated[
    str | None,
    _what(
        "--audio-track",
        metavar="N|LANG",
        help="Sound track of a video: `2`, or `en`. [the default track, as in players]",
    ),
]
Downmix = Annotated[
    bool,
    _what("--downmix", metavar="", help="Mix surround sound down to stereo; otherwise it is refused."),
]


def track(text: str | None) -> int | str | None:
    """Read a sound track as `Reader` takes it: a number counted from 1 becomes one counted from 0."""
    if text is None or not text.lstrip("+-").isdigit():
        return text or None
    if int(text) < 1:
        raise typer.BadParameter(f"--audio-track: {text} is not a track; the first one is 1")
    return int(text) - 1
