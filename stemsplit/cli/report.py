"""`stemsplit report`: a page to hear and see stems with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stemsplit.cli import console

if TYPE_CHECKING:
    from stemsplit.stemset import StemSet

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
    from stemsplit import stemset
    from stemsplit.export import report

    stems = stemset.find(folder)
    if mixture:
        stems = replace(stems, mixture=mixture)
    path = report.write(
        stems, out or folder / "report.html", facts=_facts(stems, folder), force=force, progress=console.say
    )
    typer.echo(path)


def _facts(stems: StemSet, folder: Path) -> dict[str, str]:
    """Return what is known of how the stems were made: the record beside them, if they are still the same."""
    from stemsplit import __version__, weights
    from stemsplit.records import Print, Records

    facts = {}
    records = Records(folder.parent)
    record = records.read(stems.stems)
    if record and records.are_ours(stems.stems, record):
        names = {Print.of(path).sha256: name for name, path in weights.available().items()}
        made_with = str(record.settings.get("weights"))
        facts["Model"] = names.get(made_with, made_with)
        facts["Mask"] = record.settings.get("mask") or "the model's own"
        facts["Computed by"] = record.facts.get("how") or "not known"
    return {**facts, "Report by": f"stemsplit {__version__}"}
