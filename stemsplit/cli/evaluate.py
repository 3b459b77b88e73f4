"""`stemsplit evaluate`: scores on songs whose stems are known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stemsplit import DEFAULT_MODEL
from stemsplit.cli import console, models

if TYPE_CHECKING:
    from stemsplit.evaluation import Scores

EXAMPLE = "stemsplit evaluate --data stems-of-songs --split test"


def command(
    *,
    data: Annotated[Path, typer.Option(metavar="DIR", help="Holds SPLIT/SONG/STEM.wav, or other formats.")],
    split: Annotated[str, typer.Option(metavar="NAME", help="Which part of the data.")] = "test",
    model: Annotated[str, models.option()] = DEFAULT_MODEL,
    device: Annotated[str, typer.Option("--device", "-d", help="Where the networks run.")] = "auto",
    json: Annotated[
        bool, typer.Option("--json", metavar="", help="One JSON object instead of tables.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", metavar="", help="Write the scores into the weights file and its card.")
    ] = False,
) -> None:
    """Measure a model on songs whose stems are known.

    SDR and SI-SDR in dB over each whole song, for each kind of mask, for the unprocessed mixture, and for
    masks made from the true stems; accuracy of the masks over all bins. Medians over the songs.
    """
    import numpy as np

    from stemsplit import cards, evaluation, songs, weights
    from stemsplit.pipeline import MASKS, load_masks

    card = weights.read_card(model)
    separators = {mask: load_masks(model, mask=mask, device=device) for mask in MASKS}
    oracles = evaluation.oracles(separators["soft"], card.threshold)
    found: dict[str, list[Scores]] = {}
    paths = songs.song_folders(data, split, card.stems)
    for number, path in enumerate(paths, 1):
        console.say(f"[{number}/{len(paths)}] {path.name}")
        song = songs.load_song(path, card.stems, card.sample_rate)
        estimates = {mask: evaluation.separated(separator, song) for mask, separator in separators.items()}
        estimates["mixture"] = evaluation.unprocessed(song)
        estimates |= {name: oracle(song) for name, oracle in oracles.items()}
        for name, stems in estimates.items():
            found.setdefault(name, []).append(evaluation.score_stems(song, stems, card.stems))
        found.setdefault("bins", []).append(evaluation.score_masks(song, separators["soft"], card.threshold))
    scores = {name: evaluation.summarise(each, np.median) for name, each in found.items()}
    if keep:
        cards.rewrite(weights.find(model), scores={**card.scores, split: {"songs": len(paths), **scores}})
    if json:
        console.event(model=card.name, split=split, songs=len(paths), scores=scores)
    else:
        _print(scores, card.stems, f"{card.name}: medians over {len(paths)} songs of {data / split}")


def _print(scores: dict[str, Scores], stems: tuple[str, ...], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from stemsplit import cards

    console = Console()
    console.print(title)
    systems = [name for name in scores if name != "bins"]
    tables = {
        "SDR, dB": {name: cards.cells(scores[name], stems, "sdr_db", 2) for name in systems},
        "SI-SDR, dB": {name: cards.cells(scores[name], stems, "si_sdr_db", 2) for name in systems},
        "all bins": {text: cards.cells(scores["bins"], stems, name, 3) for name, text in cards.BINS.items()},
    }
    for heading, rows in tables.items():
        table = Table(heading, *stems, box=None, padding=(0, 3, 0, 0), header_style="bold")
        for name, cells in rows.items():
            table.add_row(name, *cells)
        console.print(table)
