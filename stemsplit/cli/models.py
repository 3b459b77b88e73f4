"""`stemsplit models`: what there is, and one model's card."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemsplit.cli import console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemsplit.zoo.ref import ModelRef, Trained

EXAMPLE = "stemsplit models binary-mask-cnn"


def complete(incomplete: str) -> list[str]:
    """Give the models whose names begin like this, to the shell."""
    from stemsplit.zoo import ref

    return [name for name in ref.names() if name.startswith(incomplete)]


def option(**where: Any) -> Any:
    """The option that chooses a model, the same for every verb."""
    words: dict[str, Any] = {
        "metavar": "NAME|FILE",
        "autocompletion": complete,
        "help": "See `stemsplit models`.",
    }
    return typer.Option("--model", "-m", **(words | where))


def command(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", autocompletion=complete, help="Print the card of this model."),
    ] = None,
    *,
    networks: Annotated[
        bool, typer.Option("--networks", metavar="", help="What `stemsplit train` can train instead.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", metavar="", help="One JSON object a model.")] = False,
) -> None:
    """List the models: their stems, sizes and scores."""
    from stemsplit.zoo import ref

    if networks:
        _list_networks(json=json)
    elif name:
        _tell(ref.ModelRef.parse(name), json=json)
    elif json:
        for model in ref.trained_models():
            console.event(**model.facts())
    else:
        _print_table(ref.trained_models())
        typer.echo("\nNot trained, but fitted to each track:\n")
        for method in ref.spatial_methods():
            typer.echo(f"{method.name:10}{method.title}")


def _list_networks(*, json: bool) -> None:
    from stemsplit.networks import registry

    width = max(map(len, registry.REGISTRY)) + 3
    for name, entry in registry.REGISTRY.items():
        if json:
            console.event(name=name, title=entry.title)
        else:
            typer.echo(f"{name:{width}}{entry.title}")


def _tell(model: ModelRef, *, json: bool) -> None:
    if json:
        console.event(**model.facts())
    elif model.fits_each_track:  # plain text, whose lines are broken already
        typer.echo(model.describe())
    else:
        _print_markdown(model.describe())


def _print_table(models: Sequence[Trained]) -> None:
    from rich.console import Console
    from rich.table import Table

    stems = list(dict.fromkeys(stem for model in models for stem in model.stems))
    table = Table("model", box=None, padding=(0, 3, 0, 0), header_style="bold")
    for heading in (*stems, "parameters", "size"):
        table.add_column(heading, justify="right")
    table.add_column("licence")
    for model in models:
        card = model.card
        measured = card.scores.get("test", {}).get(card.mask, {})
        sdr = [f"{measured[stem]['sdr_db']:.1f} dB" if stem in measured else "-" for stem in stems]
        size = f"{model.path.stat().st_size / 1e6:.1f} MB"
        licence, _, _ = card.licence.partition(",")
        table.add_row(card.name, *sdr, f"{card.parameters:,}", size, licence)
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    typer.echo("\nMedian SDR on the test songs. `stemsplit models NAME` prints a card.")


def _print_markdown(text: str) -> None:
    if not sys.stdout.isatty():
        typer.echo(text)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(text))
