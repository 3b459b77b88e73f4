"""The options that say how files are encoded, the same for every verb."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from stemsplit.audio import formats

_where = partial(typer.Option, rich_help_panel="What to write")
_format = partial(_where, "--format", "-f", case_sensitive=False)

Format = Annotated[formats.Format, _format(help="Kind of file.")]
AnyFormat = Annotated[
    formats.AnyFormat,
    _format(help="Kind of file; stem.mp4 has song and stems in one, for DJ programs."),
]
Depth = Annotated[formats.Depth, _where(help="Bits per sample, for wav and flac; 32f is float.")]
Codec = Annotated[
    formats.StemCodec | None,
    _where(
        case_sensitive=False,
        help="Of stem.mp4: alac and flac are lossless, but Traktor on Windows plays aac only. [aac]",
    ),
]
StemNames = Annotated[
    str | None,
    _where(
        metavar="NAMES",
        help="What players call drums, bass, other and vocals of a stem.mp4: `Kit,Bass,Keys,Vox`.",
    ),
]
StemColors = Annotated[
    str | None, _where(metavar="COLORS", help="Their colors: `009E73,D55E00,CC79A7,56B4E9`.")
]
Bitrate = Annotated[str | None, _where(metavar="RATE", help="For lossy formats, as in `192k`.")]


def listed(text: str | None) -> list[str] | None:
    """Return what stands between commas; None if nothing was given."""
    return None if text is None else text.split(",")
