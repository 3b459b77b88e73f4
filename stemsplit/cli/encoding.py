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
Bitrate = Annotated[str | None, _where(metavar="RATE", help="For lossy formats, as in `192k`.")]
