"""`stemsplit models`: what there is, and one model's card."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemsplit.cli import console

if TYPE_CHECKING:
    from pathlib import Path

    from stemsplit.zoo.store import ModelCard

EXAMPLE = "stemsplit models binary-mask-cnn"


def complete(incomplete: str) -> list[str]:
    """Give the models whose names begin like this, to the shell."""
    from stemsplit import spatial
    from stemsplit.zoo import store

    names = (*store.available(), store.BEST, *spatial.METHODS)
    return [name for name in names if name.startswith(incomplete)]


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
    from stemsplit import spatial
    from stemsplit.zoo import page as cards
    from stemsplit.zoo import store

    if networks:
        _list_networks(json=json)
        return
    if name in spatial.METHODS:
        _tell_method(name, json=json)
        return
    if name and not json:
        _print_markdown(cards.page(store.read_card(name)))
        return
    paths = [store.find(model) for model in ([name] if name else store.ranked())]
    found = {path: store.read_card(path) for path in paths}
    if not json:
        _print_table(found)
        if not name:
            typer.echo("\nNot trained, but fitted to each track:\n")
            for method, entry in spatial.METHODS.items():
                typer.echo(f"{method:10}{entry.title}")
        return
    for path, card in found.items():
        console.event(**asdict(card), path=path)


def _list_networks(*, json: bool) -> None:
    from stemsplit.networks import registry

    width = max(map(len, registry.REGISTRY)) + 3
    for name, entry in registry.REGISTRY.items():
        if json:
            console.event(name=name, title=entry.title)
        else:
            typer.echo(f"{name:{width}}{entry.title}")


def _tell_method(name: str, *, json: bool) -> None:
    import importlib

    from stemsplit import spatial

    entry = spatial.METHODS[name]
    if json:
        console.event(name=name, title=entry.title, sources=entry.sources)
    else:
        typer.echo(importlib.import_module(f"stemsplit.spatial.{entry.module}").__doc__)


def _print_table(cards: dict[Path, ModelCard]) -> None:
    from rich.console import Console
    from rich.table import Table

    stems = list(dict.fromkeys(stem for card in cards.values() for stem in card.stems))
    table = Table("model", box=None, padding=(0, 3, 0, 0), header_style="bold")
    for heading in (*stems, "parameters", "size"):
        table.add_column(heading, justify="right")
    table.add_column("licence")
    for path, card in cards.items():
        measured = card.scores.get("test", {}).get(card.mask, {})
        sdr = [f"{measured[stem]['sdr_db']:.1f} dB" if stem in measured else "-" for stem in stems]
        size = f"{path.stat().st_size / 1e6:.1f} MB"
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
