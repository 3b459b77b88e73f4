"""`stemsplit daw`: a DAW session of the stems of a track."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from stemsplit.cli import console
from stemsplit.cli.bars import Bars

EXAMPLES = {
    "stemsplit daw stems/song": "A DAWproject file in the folder of the stems",
    "stemsplit daw stems/song --format reaper --out song.rpp": "A REAPER project",
}

_where = partial(typer.Option, rich_help_panel="Output")


def command(
    stems: Annotated[
        Path,
        typer.Argument(metavar="STEMS_FOLDER", help="Folder with the stems of one track, e.g. `stems/song`."),
    ],
    *,
    format: Annotated[
        Literal["dawproject", "reaper"],
        _where(
            "--format", "-f", help="Session format: dawproject (Bitwig Studio, Studio One, Cubase) or reaper."
        ),
    ] = "dawproject",
    out: Annotated[
        Path | None,
        _where(
            "--out",
            "-o",
            metavar="FILE",
            help="Session file to write. Default: in the folder of stems, named after it.",
        ),
    ] = None,
    force: Annotated[bool, _where("--force", metavar="", help="Overwrite an existing file.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", metavar="", help="Print only the path and errors.")
    ] = False,
) -> None:
    """Create a DAW session from a folder of stems.

    The session has one named, coloured track per stem, and the detected tempo. A DAWproject file contains
    the stems. A REAPER project refers to them, so leave them where they are. The path of the session is
    printed to stdout, the tempo to stderr.
    """
    from stemsplit.analysis.music import analyse_stems
    from stemsplit.audio.stem_folder import find
    from stemsplit.export import daw
    from stemsplit.export.daw.session import remark

    found = find(stems)
    path = out or stems / f"{found.name}{daw.SUFFIXES[format]}"
    daw.check(format, path, force)
    with Bars(enabled=not quiet) as bars, bars.shares(f"session of {found.name}") as progress:
        music = analyse_stems(found, progress)
        daw.write(format, found, path, music, force)
    report = console.Report(quiet=quiet, verbose=False, json=False)
    report.remark(remark(music))
    report.paths({"session": path})
