"""`stemsplit report`: an HTML page with a player and spectrograms of stems."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from stemsplit.cli.bars import Bars

EXAMPLES = {
    "stemsplit report stems/song": "Write stems/song/report.html",
    "stemsplit report stems/song --mixture song.mp3 --out song.html": "With the original song",
}


def command(
    folder: Annotated[
        Path, typer.Argument(metavar="STEMS_FOLDER", help="Folder with the stems of one track.")
    ],
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE.html", help="Page to write. Default: report.html in the folder."
        ),
    ] = None,
    mixture: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The original song. Default: mixture.* in the folder, or the sum of the stems.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", metavar="", help="Overwrite an existing file.")] = False,
) -> None:
    """Write an HTML report of stems, with a player, spectrograms and levels.

    The report is one file that contains the sound. It opens in any browser, offline.
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
