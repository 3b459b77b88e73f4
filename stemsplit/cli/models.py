"""`stemsplit models`: list models, print a model's card, add and remove models."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemsplit.cli import console
from stemsplit.errors import BadWeights, StemsplitError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemsplit.zoo.plugins import Plugin
    from stemsplit.zoo.ref import ModelRef
    from stemsplit.zoo.variants import Trained

EXAMPLES = {
    "stemsplit models": "List all models with their scores",
    "stemsplit models binary-mask-cnn": "Print the card of a model: its use, known failures and scores",
    "stemsplit models --networks": "List the networks that `stemsplit train` can train",
}
ADD_EXAMPLES = {
    "stemsplit models add htdemucs.onnx": "Add an ONNX file under its own name",
    "stemsplit models add model.ckpt --config model.yaml --name "
    "vocals-large": "Add a checkpoint and its settings",
}
REMOVE_EXAMPLES = {"stemsplit models remove htdemucs": "Remove an installed model"}


def complete(incomplete: str) -> list[str]:
    """Return the models whose names start with `incomplete`, for shell completion."""
    from stemsplit.zoo import catalogue

    return [name for name in catalogue.names() if name.startswith(incomplete)]


def _complete_word(incomplete: str) -> list[str]:
    return [*complete(incomplete), *(word for word in ("add", "remove") if word.startswith(incomplete))]


def _complete_installed(incomplete: str) -> list[str]:
    from stemsplit.zoo import installed

    return [name for name in installed.names() if name.startswith(incomplete)]


def option(**where: Any) -> Any:
    """Return the option that selects a model, shared by all verbs."""
    words: dict[str, Any] = {
        "metavar": "NAME|FILE",
        "autocompletion": complete,
        "help": "Model to use: see `stemsplit models`. `A+B` averages two models.",
    }
    return typer.Option("--model", "-m", **(words | where))


def command(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", autocompletion=_complete_word, help="Print the card of this model."),
    ] = None,
    *,
    networks: Annotated[
        bool, typer.Option("--networks", metavar="", help="List the networks for `stemsplit train` instead.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", metavar="", help="Print one JSON object per model.")
    ] = False,
) -> None:
    """List the models with their scores, or print the card of one.

    A card says what a model is for, how it fails, how it scores, and what it was trained on.
    """
    from stemsplit.zoo import catalogue
    from stemsplit.zoo.ref import ModelRef

    if networks:
        _list_networks(json=json)
    elif name:
        _tell(ModelRef.parse(name), json=json)
    elif json:
        for model in (
            *catalogue.trained_models(),
            *catalogue.installed_models(),
            *catalogue.plugin_models(),
        ):
            if isinstance(model, StemsplitError):
                _tell_unusable(model)
            else:
                console.event(**model.facts())
    else:
        _print_table(catalogue.trained_models())
        _print_installed(catalogue.installed_models())
        _print_plugins(catalogue.plugin_models())
        _print_not_installed()
        typer.echo("\nSpatial methods, fitted to each track without training:\n")
        for method in catalogue.spatial_methods():
            typer.echo(f"{method.name:10}{method.title}")


def add(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Model file: ONNX, or a checkpoint.")],
    *,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Name of the model. Default: the file's name."),
    ] = None,
    description: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="FILE", help="Description of the model (YAML or JSON), if the file has none."
        ),
    ] = None,
) -> None:
    """Install a third-party model, so that `--model NAME` can use it.

    The file is checked, and copied to your models folder, or to `STEMSPLIT_MODELS_DIR` if that is set.
    Nothing is downloaded.
    """
    from stemsplit.zoo import install, installed

    card = install.add(file, name, description)
    console.say(f"added {card.name} to `{installed.folder()}`: {', '.join(card.stems)}")
    console.say(f"speed here: {card.speed:g} x real time; licence: {card.licence}")


def remove(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", autocompletion=_complete_installed, help="Installed model to remove."),
    ],
) -> None:
    """Remove a model that `stemsplit models add` installed."""
    from stemsplit.zoo import install

    install.remove(name)
    console.say(f"removed {name}")


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
    elif model.blind:  # plain text with line breaks
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


def _print_installed(models: Sequence[ModelRef | BadWeights]) -> None:
    if not models:
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("installed", "stems", box=None, padding=(0, 3, 0, 0), header_style="bold")
    for heading in ("speed", "size"):
        table.add_column(heading, justify="right")
    table.add_column("licence")
    for model in models:
        if not isinstance(model, BadWeights):
            facts = model.facts()
            speed, size = f"{facts['speed']:g} x", f"{facts['path'].stat().st_size / 1e6:.1f} MB"
            table.add_row(model.name, ", ".join(model.stems), speed, size, facts["licence"].partition(",")[0])
    typer.echo()
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    for model in models:
        if isinstance(model, BadWeights):
            _tell_unusable(model)


def _tell_unusable(problem: StemsplitError) -> None:
    console.say(f"warning: {problem.message}" + (f"; {problem.hint}" if problem.hint else ""))


def _print_plugins(models: Sequence[Plugin | StemsplitError]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("of a package", "stems", "package", "licence", box=None, padding=(0, 3, 0, 0))
    table.header_style = "bold"
    for model in models:
        if isinstance(model, StemsplitError):
            _tell_unusable(model)
        else:
            licence, _, _ = model.card.licence.partition(",")
            table.add_row(model.name, ", ".join(model.stems), model.package, licence)
    if table.row_count:
        typer.echo()
        Console(width=None if sys.stdout.isatty() else 200).print(table)


def _print_not_installed() -> None:
    from stemsplit.defaults import install_models
    from stemsplit.zoo import store

    if missing := store.not_available():
        typer.echo(f"\nNot installed: {', '.join(missing)}.\nTo get them, {install_models()}.")


def _print_markdown(text: str) -> None:
    if not sys.stdout.isatty():
        typer.echo(text)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(text))
