"""`stemsplit config`: the user's default options, and the command class that reads them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from stemsplit.cli import console, settings
from stemsplit.errors import BadConfig

EXAMPLES = {
    "stemsplit config": "Show each default of `stemsplit split` and its source",
    "stemsplit config --path": "Show where the files are",
    "STEMSPLIT_FORMAT=flac stemsplit song.mp3": "Set a default with an environment variable",
}

_META = "stemsplit.settings"
JSON = "stemsplit.json"
"""Key in a context's `meta`: whether errors are also printed as JSON events."""
USAGE_ERROR: Any = typer.BadParameter.__base__  # typer does not export it


class Configured(TyperCommand):
    """A command whose options can take their defaults from files and environment variables."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Look up defaults for options that the command line does not set."""
        if not ctx.resilient_parsing:  # shell completion must not fail
            try:
                given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
            except USAGE_ERROR:
                self._settings(ctx, {})
                raise
            at_once = {option.name for option in self.get_params(ctx) if option.is_eager}  # --help
            if not at_once & given.keys():
                used = self._settings(ctx, given)
                options = options_of(self)
                ctx.default_map = {
                    options[name].name: _words(options[name], setting) for name, setting in used.items()
                }
                ctx.meta[_META] = used
        return super().parse_args(ctx, args)

    def _settings(self, ctx: Any, given: Mapping[str, Any]) -> dict[str, settings.Setting]:
        """Return the effective settings, and store in the context whether they turn on JSON."""
        used = _effective(self, ctx, given)
        if "json" in used:
            ctx.meta[JSON] = meaning(options_of(self)["json"], ctx, used["json"])
        return used

    def invoke(self, ctx: Any) -> Any:
        """Run the command; if it rejects a setting, name the setting's source in the error."""
        used: dict[str, settings.Setting] = ctx.meta.get(_META, {})
        if not ctx.params.get("quiet"):
            _tell(used, verbose=bool(ctx.params.get("verbose")))
            _warn_of_unknown_variables(self)
        try:
            return super().invoke(ctx)
        except typer.BadParameter as problem:
            named = re.findall(r"--([\w-]+)", problem.message)
            blamed = [str(setting) for name, setting in used.items() if settings.key(name) in named]
            if blamed:
                problem.message += f" (see {' and '.join(blamed)})"
            raise


def options_of(command: Any) -> dict[str, Any]:
    """Return a command's options by long name, with `_` instead of `-`."""
    found = {}
    for parameter in command.params:
        if parameter.param_type_name == "option":
            long = max(parameter.opts, key=len)
            found[long.lstrip("-").replace("-", "_")] = parameter
    return found


def _effective(command: Any, ctx: Any, given: Mapping[str, Any]) -> dict[str, settings.Setting]:
    """Return a command's effective settings; `given` has the command-line values, by parameter.

    A setting is overridden by one of higher precedence for the same option, or for a conflicting option.

    Raises:
        BadConfig: a key or a value is wrong, even if another setting overrides it.
    """
    options = options_of(command)
    layers = settings.layers({name: option.is_flag for name, option in options.items()})
    for layer in layers:
        for name, setting in layer.items():
            meaning(options[name], ctx, setting)
    chosen = {name: given[option.name] for name, option in options.items() if option.name in given}
    used: dict[str, settings.Setting] = {}
    for layer in layers:
        fitting = {name: setting for name, setting in layer.items() if _fits(name, setting, chosen)}
        used |= fitting
        chosen |= {name: setting.value for name, setting in fitting.items()}
    # For example, a bitrate is used only if the format has one.
    rest = {name: option.default for name, option in options.items() if name not in chosen}
    return {name: setting for name, setting in used.items() if _fits(name, setting, rest)}


def _words(option: Any, setting: settings.Setting) -> Any:
    """Return a setting's value for the parser: a list for a repeatable option, from comma-separated text."""
    if not option.multiple or not isinstance(setting.value, str):
        return setting.value
    return [word.strip() for word in setting.value.split(",")]


def meaning(option: Any, ctx: Any, setting: settings.Setting) -> Any:
    """Return a setting's value, converted like a command-line value.

    Raises:
        BadConfig: the value is invalid for the option.
    """
    try:
        return option.process_value(ctx, _words(option, setting))
    except typer.BadParameter as problem:
        hint = "`stemsplit split --help` shows the possible values"
        raise BadConfig(f"{setting}: {problem.message}", hint) from problem


def _fits(name: str, setting: settings.Setting, chosen: Mapping[str, Any]) -> bool:
    from stemsplit.exclusions import exclusions

    return name not in chosen and not any(
        any(exclusions({name: setting.value, other: value})) for other, value in chosen.items()
    )


def refuse_exclusions(ctx: Any) -> None:
    """Raise BadParameter for options that exclude each other."""
    from stemsplit.exclusions import exclusions

    values = {name: ctx.params[option.name] for name, option in options_of(ctx.command).items()}
    for rule in exclusions(values):
        if rule.message:
            raise typer.BadParameter(rule.explain(values, lambda name: f"--{settings.key(name)}"))


def _tell(used: Mapping[str, settings.Setting], *, verbose: bool) -> None:
    """Print the options that a project's file sets, because users may not know of a file in a parent folder.

    If `verbose`, print the options of all sources.
    """
    by_place: dict[str, list[str]] = {}
    for name, setting in used.items():
        if verbose or setting.source == "project":
            by_place.setdefault(setting.where, []).append(settings.key(name))
    for place, names in by_place.items():
        console.say(f"settings from `{place}`: {', '.join(names)}")


def command(
    ctx: typer.Context,
    *,
    path: Annotated[
        bool,
        typer.Option("--path", metavar="", help="Print only the paths of the files, in order of precedence."),
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", metavar="", help="Print one JSON object per option.")
    ] = False,
) -> None:
    """Show the default options of `stemsplit split`, and the source of each.

    Sources, in order of precedence: the command line; environment variables such as `STEMSPLIT_FORMAT=flac`;
    the file `stemsplit.toml` in the current folder or the nearest parent folder that has one; your own
    `stemsplit.toml` (see --path); the built-in defaults. `STEMSPLIT_CONFIG=FILE` replaces both files by FILE.

    A file has lines such as `format = "flac"`, `two-stems = "vocals"`, `mask = "wiener"`.
    """
    if path:
        _print_places()
        return
    group: Any = ctx.find_root().command
    split = group.commands["split"]
    options, used = options_of(split), _effective(split, ctx, {})
    rows = []
    for name, option in options.items():
        setting = used.get(name)
        if json:
            value = option.default if setting is None else meaning(option, ctx, setting)
            source, where, line = (
                ("default", None, None) if setting is None else (setting.source, setting.where, setting.line)
            )
            console.event(option=settings.key(name), value=value, source=source, where=where, line=line)
        else:
            value = option.default if setting is None else setting.value
            rows.append((settings.key(name), _shown(value), setting.place if setting else "default"))
    if rows:
        _print_table([("option", "value", "from"), *rows])
    _warn_of_unknown_variables(split)


def _warn_of_unknown_variables(split: Any) -> None:
    for strange, near in settings.unknown_variables(dict.fromkeys(options_of(split), False)).items():
        console.say(f"warning: {strange} sets no option" + (f"; did you mean {near}?" if near else ""))


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "-" if value is None else str(value)


def _print_table(rows: list[tuple[str, str, str]]) -> None:
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    for option, value, place in rows:
        typer.echo(console.printable(f"{option:{first}}   {value:{second}}   {place}"))


def _print_places() -> None:
    for place in settings.places():
        if place.there:
            typer.echo(os.fsencode(place.path))  # as bytes: file names can be invalid text
        else:
            console.say(f"does not exist: {place.path}")
