"""`stemsplit daw`: the stems of a track as a session to open in a DAW."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from stemsplit.cli import console
from stemsplit.cli.bars import Bars

EXAMPLE = "stemsplit daw stems/song --format reaper"

_where = partial(typer.Option, rich_help_panel="What to write")


def command(
    stems: Annotated[
        Path, typer.Argument(metavar="STEMS_FOLDER", help="The stems of one track, as `stems/song`.")
    ],
    *,
    format: Annotated[
        Literal["dawproject", "reaper"],
        _where("--format", "-f", help="For Bitwig Studio, Studio One, Cubase and others, or for REAPER."),
    ] = "dawproject",
    out: Annotated[
        Path | None, _where("--out", "-o", metavar="FILE", help="Default: in the folder, by its name.")
    ] = None,
    force: Annotated[bool, _where("--force", metavar="", help="Replace a file already there.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", metavar="", help="Only the path and errors.")
    ] = False,
) -> None:
    """Make a session for a DAW: one track per stem, named and coloured, at the detected tempo.

    A DAWproject holds the stems; REAPER's names them, so keep them where they are. The session's path goes to
    stdout, the tempo to stderr.
    """
    from stemsplit.audio.stem_folder import find
    from stemsplit.export import daw
    from stemsplit.export.daw.session import remark

    found = find(stems)
    path = out or stems / f"{found.name}{daw.SUFFIXES[format]}"
    daw.check(format, path, force)
    with Bars(enabled=not quiet) as bars, bars.shares(f"session of {found.name}") as progress:
        analysis = daw.analyse(found, progress)
        daw.write(format, found, path, analysis, force)
    report = console.Report(quiet=quiet, verbose=False, json=False)
    report.remark(remark(analysis))
    report.paths({"session": path})
