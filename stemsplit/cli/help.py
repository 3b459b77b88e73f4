"""`stemsplit help`: the text of `--help`, for the program or a command."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from stemsplit.errors import UsageError

EXAMPLES = {
    "stemsplit help": "List the commands",
    "stemsplit help split": "The same as `stemsplit split --help`",
}


def complete(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the commands whose names start with `incomplete`, for shell completion."""
    program: Any = ctx.parent
    return [name for name in program.command.list_commands(program) if name.startswith(incomplete)]


def command(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="COMMAND",
            autocompletion=complete,
            help="Command to explain. Default: the program itself.",
        ),
    ] = None,
) -> None:
    """Show the help of the program or of a command."""
    program: Any = ctx.parent
    if name is None:
        program.command.make_context(program.info_name, ["--help"])
    chosen = program.command.get_command(program, name)
    if chosen is None:
        raise UsageError(f"No command called `{name}`", "`stemsplit help` lists the commands")
    chosen.make_context(name, ["--help"], parent=program)
