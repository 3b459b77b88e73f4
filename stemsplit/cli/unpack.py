"""`stemsplit unpack`: the tracks of a stem file, each to a file of its own."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from stemsplit.cli import console, encoding

EXAMPLE = "stemsplit unpack song.stem.mp4 -o out"

_where = partial(typer.Option, rich_help_panel="What to write")
_tell = partial(typer.Option, rich_help_panel="What to print", metavar="")


def command(
    tracks: Annotated[list[Path], typer.Argument(metavar="TRACK", help="Stem files, as DJ programs have.")],
    *,
    out: Annotated[Path, _where("--out", "-o", metavar="DIR", help="Where to write.")] = Path("stems"),
    format: encoding.Format = "wav",
    depth: encoding.Depth = "same",
    bitrate: encoding.Bitrate = None,
    force: Annotated[bool, _where("--force", metavar="", help="Replace files already there.")] = False,
    quiet: Annotated[bool, _tell("--quiet", "-q", help="Only paths and errors.")] = False,
    verbose: Annotated[bool, _tell("--verbose", "-v", help="Also the peaks.")] = False,
    json: Annotated[bool, _tell("--json", help="One JSON object a track instead of paths.")] = False,
) -> None:
    """Take stem files apart: `stems/<song>/mixture.wav`, and the stems under their names.

    Paths go to stdout, all else to stderr. A track that fails does not stop the
    others; the exit status is then 1.
    """
    from stemsplit.batch.discovery import Track
    from stemsplit.export.unpack import unpack
    from stemsplit.output.template import track_name

    if len({track_name(track).casefold() for track in tracks}) < len(tracks):
        raise typer.BadParameter("two tracks have the same name; unpack them one by one, each with its --out")
    report = console.Report(quiet=quiet, verbose=verbose, json=json)
    report.start(len(tracks))
    for track in tracks:
        with report.failing(track):
            result = unpack(track, out, format=format, depth=depth, bitrate=bitrate, force=force)
            report.done(Track(track), result)
    report.end(len(tracks))
    raise typer.Exit(1 if report.failures else 0)
