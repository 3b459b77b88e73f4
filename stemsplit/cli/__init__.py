"""The command line: each verb has its file here; it parses, calls the package, and prints.

This package loads only the standard library, typer, and modules of ours that load nothing else. What a verb
needs beyond that it imports when it runs, so that `--help` and shell completion answer at once.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from stemsplit.cli import (
    config,
    console,
    daw,
    doctor,
    evaluate,
    help,
    inspect,
    live,
    models,
    remix,
    report,
    scan,
    signals,
    split,
    streams,
    train,
    unpack,
)
from stemsplit.errors import Interrupted, StemsplitError, UsageError, failure

# Another verb: its file here, its name here. A file has a function `command` and an `EXAMPLE`.
VERBS = {
    "split": split,
    "models": models,
    "doctor": doctor,
    "train": train,
    "evaluate": evaluate,
    "config": config,
    "unpack": unpack,
    "scan": scan,
    "inspect": inspect,
    "remix": remix,
    "daw": daw,
    "report": report,
    "live": live,
    "help": help,
}


_WORDS = "stemsplit.words"


class TracksFirst(TyperGroup):
    """A group whose first word may be a track, with `split` implied; all errors are reported here."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `split` before a first word that is neither a command nor an option of ours."""
        from stemsplit.cli.settings import expanded

        ctx.meta[_WORDS] = args = [expanded(word) for word in args]
        ours = {option for parameter in self.get_params(ctx) for option in parameter.opts}
        if " ".join(args[:2]) in self.commands:  # `models add`
            args = [" ".join(args[:2]), *args[2:]]
        if args and args[0] not in self.commands and args[0].partition("=")[0] not in ours:
            args = ["split", *args]
        ctx.meta[config.JSON] = "--json" in args and self._prints_json(args[0])
        return super().parse_args(ctx, args)

    def _prints_json(self, verb: str) -> bool:
        """Whether --json makes a verb print events to standard output; `live` writes sound there."""
        parameters: list[Any] = self.commands[verb].params if verb in self.commands else []
        return verb != "live" and any(each.name == "json" and each.is_flag for each in parameters)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Offer commands and all options; at a word that begins neither, the shell then offers files."""
        found = [item for item in super().shell_complete(ctx, incomplete) if " " not in item.value]
        if incomplete.startswith("-"):
            found += self.commands["split"].shell_complete(ctx, incomplete)
        return found

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; what the user can mend ends in a sentence, a bug in its traceback.

        With --json, an event reports both.
        """

        def tell(error: StemsplitError) -> None:
            if ctx.meta[config.JSON]:
                console.error_event(error, event="error")

        try:
            return super().invoke(ctx)
        except typer.Exit:
            raise
        except StemsplitError as error:
            if isinstance(error, UsageError):
                error.hint = "\n".join(filter(None, [error.hint, _mistaken(ctx.meta[_WORDS])])) or None
            tell(error)
            console.error(error)
            raise typer.Exit(error.exit_status) from error
        except KeyboardInterrupt as interrupt:
            tell(Interrupted("interrupted"))
            console.say("interrupted")
            raise typer.Exit(signals.status(interrupt)) from interrupt
        except config.USAGE_ERROR as error:
            error.message = "; ".join(filter(None, [error.message, _mistaken(ctx.meta[_WORDS])]))
            tell(UsageError(error.format_message()))
            raise  # typer prints it, and exits 2
        except Exception as bug:
            tell(failure(bug, " ".join(sys.argv[1:])))
            raise


def _mistaken(words: list[str]) -> str | None:
    """Return how to write the name of a file or folder that was taken for an option or a command."""
    options = words[: words.index("--")] if "--" in words else words
    for word in options:
        if word.startswith("-") and len(word) > 1 and os.path.lexists(word):
            return f"for the file `{word}` put `--` before it, or write `./{word}`"
    if words and words[0] in VERBS and os.path.lexists(words[0]):
        return f"for the file or folder `{words[0]}` write `./{words[0]}`"
    return None


app = typer.Typer(
    cls=TracksFirst,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    epilog="Example: stemsplit song.mp3 -o out",
)


def _version(wanted: bool) -> None:
    if wanted:
        from stemsplit.defaults import VERSION

        typer.echo(f"stemsplit {VERSION}")
        raise typer.Exit


@app.callback(no_args_is_help=True, subcommand_metavar="TRACKS... | COMMAND [ARGS]...")
def _stemsplit(
    version: Annotated[
        bool,
        typer.Option("--version", metavar="", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Split music into stems: vocals, drums, bass and the rest.

    A first word that is not a command is a track: `stemsplit song.mp3` is short for
    `stemsplit split song.mp3`, whose options are shown by `stemsplit split --help`.
    """


for _name, _verb in VERBS.items():
    _class = config.Configured if _verb is split else None
    app.command(_name, cls=_class, epilog=f"Example: {_verb.EXAMPLE}")(_verb.command)


app.command("models add", epilog=f"Example: {models.ADD_EXAMPLE}")(models.add)
app.command("models remove", epilog=f"Example: {models.REMOVE_EXAMPLE}")(models.remove)


def main() -> None:
    """Run the command line."""
    streams.install()
    signals.install()
    try:
        app(prog_name="stemsplit")
    except SystemExit as end:
        sys.exit(streams.close(end.code))
