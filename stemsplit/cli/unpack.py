"""`stemsplit unpack`: extract the song and the stems of a stem file (.stem.mp4)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from stemsplit.cli import console, encoding

EXAMPLES = {
    "stemsplit unpack song.stem.mp4": "Write stems/song/mixture.wav, stems/song/drums.wav and so on",
    "stemsplit unpack *.stem.mp4 --format flac --out out": "Several files, as FLAC",
}

_where = partial(typer.Option, rich_help_panel="Output")
_tell = partial(typer.Option, rich_help_panel="Messages", metavar="")


def command(
    tracks: Annotated[
        list[Path], typer.Argument(metavar="TRACK", help="Stem files (.stem.mp4), as DJ software uses them.")
    ],
    *,
    out: Annotated[Path, _where("--out", "-o", metavar="DIR", help="Output folder.")] = Path("stems"),
    format: encoding.Format = "wav",
    depth: encoding.Depth = "same",
    bitrate: encoding.Bitrate = None,
    force: Annotated[bool, _where("--force", metavar="", help="Overwrite existing files.")] = False,
    quiet: Annotated[bool, _tell("--quiet", "-q", help="Print only paths and errors.")] = False,
    verbose: Annotated[bool, _tell("--verbose", "-v", help="Also print peak levels.")] = False,
    json: Annotated[bool, _tell("--json", help="Print one JSON object per track instead of paths.")] = False,
) -> None:
    """Extract the song and the stems from stem files.

    The song is written to `stems/<song>/mixture.wav`, the stems beside it under their own names. Paths are
    printed to stdout, everything else to stderr. If a file fails, the others continue, and the exit status
    is 1.
    """
    from stemsplit.batch.discovery import Track
    from stemsplit.export.unpack import unpack
    from stemsplit.output.template import track_name

    if len({track_name(track).casefold() for track in tracks}) < len(tracks):
        raise typer.BadParameter("two files have the same name; unpack each with a different --out")
    report = console.Report(quiet=quiet, verbose=verbose, json=json)
    report.start(len(tracks))
    for track in tracks:
        with report.failing(track):
            result = unpack(track, out, format=format, depth=depth, bitrate=bitrate, force=force)
            report.done(Track(track), result)
    report.end(len(tracks))
    raise typer.Exit(1 if report.failures else 0)
