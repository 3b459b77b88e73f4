"""The command line: one module per verb, which parses options, calls the package, and prints.

At module level, this package imports only the standard library, Typer, and modules of stemsplit that import
nothing else. A verb imports everything else when it runs, so that `--help` and shell completion are fast.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from stemsplit._compat import leave_python_types_out_of_help
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
    practice,
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

# To add a verb, add its module here. A module has a function `command`, and `EXAMPLES`, which maps command
# lines that use the verb to descriptions.
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
    "practice": practice,
    "daw": daw,
    "report": report,
    "live": live,
    "help": help,
}


EXAMPLES = {
    "stemsplit song.mp3": "Split a song into stems/song/vocals.wav, drums.wav, bass.wav and other.wav",
    "stemsplit song.mp3 --two-stems vocals -o out": "Vocals and accompaniment, in out/song/",
    "stemsplit remix song.mp3 karaoke": "The song without vocals",
    "stemsplit help split": "All options of `stemsplit song.mp3`",
}

_WORDS = "stemsplit.words"


class TracksFirst(TyperGroup):
    """A command group that defaults to `split` if the first word is a track, and reports all errors."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert `split` before a first word that is neither a command nor an option of the group."""
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
        """Whether --json makes a verb print events to stdout; not for `live`, which writes audio there."""
        parameters: list[Any] = self.commands[verb].params if verb in self.commands else []
        return verb != "live" and any(each.name == "json" and each.is_flag for each in parameters)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Complete commands and options. For other words, the shell completes file names."""
        found = [item for item in super().shell_complete(ctx, incomplete) if " " not in item.value]
        if incomplete.startswith("-"):
            found += self.commands["split"].shell_complete(ctx, incomplete)
        return found

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; print user errors as one sentence, and bugs as a traceback.

        With --json, both are also reported as events.
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
            said = error.message.removeprefix("Value error, ")  # typer 0.29 adds this prefix for choices
            error.message = "; ".join(filter(None, [said, _mistaken(ctx.meta[_WORDS])]))
            tell(UsageError(error.format_message()))
            raise  # typer prints it, and exits with status 2
        except Exception as bug:
            tell(failure(bug, " ".join(sys.argv[1:])))
            raise


def _mistaken(words: list[str]) -> str | None:
    """Return a hint for a file or folder whose name looks like an option or a command."""
    options = words[: words.index("--")] if "--" in words else words
    for word in options:
        if word.startswith("-") and len(word) > 1 and os.path.lexists(word):
            return f"to name the file `{word}`, put `--` before it or write `./{word}`"
    if words and words[0] in VERBS and os.path.lexists(words[0]):
        return f"to name the file or folder `{words[0]}`, write `./{words[0]}`"
    return None


def examples(lines: Mapping[str, str]) -> str:
    """Return the last section of a command's help: command lines, each below its description."""
    return "\n\n".join(["Examples:", *(f"  # {what}\n  {line}" for line, what in lines.items())])


def _add(name: str, command: Any, lines: Mapping[str, str], kind: type[TyperCommand] | None = None) -> None:
    """Add a command; its help is its docstring, with one line per paragraph for the terminal to wrap."""
    text = "\n\n".join(" ".join(part.split()) for part in command.__doc__.split("\n\n"))
    app.command(name, cls=kind, help=text, epilog=examples(lines))(command)


leave_python_types_out_of_help()
app = typer.Typer(
    cls=TracksFirst,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    epilog=examples(EXAMPLES),
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
    """Split music into stems: vocals, drums, bass and other.

    `stemsplit song.mp3` is short for `stemsplit split song.mp3`.

    `stemsplit split --help` shows its options.
    """


for _name, _verb in VERBS.items():
    _class = config.Configured if _verb is split else None
    _add(_name, _verb.command, _verb.EXAMPLES, _class)
_add("models add", models.add, models.ADD_EXAMPLES)
_add("models remove", models.remove, models.REMOVE_EXAMPLES)


def main() -> None:
    """Run the command line."""
    streams.install()
    signals.install()
    try:
        app(prog_name="stemsplit")
    except SystemExit as end:
        sys.exit(streams.close(end.code))
