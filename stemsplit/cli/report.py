"""`stemsplit report`: a page that plays and shows stems."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from stemsplit.cli.bars import Bars

EXAMPLE = "stemsplit report stems/song --mixture song.mp3"


def command(
    folder: Annotated[Path, typer.Argument(metavar="STEMS_FOLDER", help="The stems of one track.")],
    *,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE.html", help="Default: report.html among the stems."),
    ] = None,
    mixture: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The song that was split; default: the stems' sum, or mixture.*."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", metavar="", help="Replace a file already there.")] = False,
) -> None:
    """Write a page that plays stems side by side and shows what is in them.

    One file for any browser, which needs no network: the sounds are in it.
    """
    from stemsplit.audio import stem_folder
    from stemsplit.export import report

    stems = stem_folder.find(folder)
    if mixture:
        stems = replace(stems, mixture=mixture)
    facts, path = report.facts(stems, folder.parent), out or folder / "report.html"
    with Bars(enabled=True) as bars, bars.shares(f"report of {stems.name}") as progress:
        report.write(stems, path, facts=facts, force=force, progress=progress)
    typer.echo(path)
