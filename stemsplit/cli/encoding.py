"""Options for the encoding of output files, shared by all verbs."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from stemsplit.audio import formats

_where = partial(typer.Option, rich_help_panel="Output")
_format = partial(_where, "--format", "-f", case_sensitive=False)

Format = Annotated[formats.Format, _format(help="Audio format of the files.")]
AnyFormat = Annotated[
    formats.AnyFormat,
    _format(help="Audio format. stem.mp4 is one file with the song and its stems, for DJ software."),
]
Depth = Annotated[
    formats.Depth, _where(help="Bits per sample of wav and flac. 32f: float; same: as in the input.")
]
Codec = Annotated[
    formats.StemCodec | None,
    _where(
        case_sensitive=False,
        help="Codec of stem.mp4. alac and flac are lossless, but Traktor on Windows plays only aac. "
        "Default: aac.",
    ),
]
StemNames = Annotated[
    str | None,
    _where(
        metavar="NAMES",
        help="Names that players show for drums, bass, other and vocals of a stem.mp4, e.g. "
        "`Kit,Bass,Keys,Vox`.",
    ),
]
StemColors = Annotated[
    str | None,
    _where(metavar="COLORS", help="Colors of the same stems, e.g. `009E73,D55E00,CC79A7,56B4E9`."),
]
Bitrate = Annotated[str | None, _where(metavar="RATE", help="Bitrate of mp3, ogg and m4a, e.g. `192k`.")]


def listed(text: str | None) -> list[str] | None:
    """Split text at commas; None stays None."""
    return None if text is None else text.split(",")
