"""`stemsplit help`: the text of `--help`, of the program or of a command."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from stemsplit.errors import UsageError

EXAMPLE = "stemsplit help split"


def complete(ctx: typer.Context, incomplete: str) -> list[str]:
    """Give the commands whose names begin like this, to the shell."""
    program: Any = ctx.parent
    return [name for name in program.command.list_commands(program) if name.startswith(incomplete)]


def command(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(metavar="COMMAND", autocompletion=complete, help="Show the options of this command."),
    ] = None,
) -> None:
    """Show how to use the program, or one of its commands."""
    program: Any = ctx.parent
    if name is None:
        program.command.make_context(program.info_name, ["--help"])
    chosen = program.command.get_command(program, name)
    if chosen is None:
        raise UsageError(f"No command called `{name}`", "`stemsplit help` lists the commands")
    chosen.make_context(name, ["--help"], parent=program)
