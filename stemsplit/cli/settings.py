"""Default options from the environment, a project's file, and the user's file.

    # stemsplit.toml
    format = "flac"
    two-stems = "vocals"
    mask = "wiener"

Keys are the long names of options, with `-` or `_`. Values are written as on the command line; flags are
`true` or `false`. There are three sources; earlier ones take precedence:

1. the environment: `STEMSPLIT_FORMAT=flac`, `STEMSPLIT_FAST=1`; empty variables are ignored;
2. the project's file: `stemsplit.toml` in the current folder, or in the nearest parent folder that has
   one. The search ends with the home folder, or else with the root;
3. the user's file: `stemsplit.toml` in `user_folder()`.

`STEMSPLIT_CONFIG=FILE` replaces both files with FILE. A relative path in a project's file is relative to the
folder of that file, any other relative path to the current folder; `~` is always the home folder.

A project's file can come with other people's music. Therefore, it cannot set `force`, `ray` or a remote
`out`: it can neither overwrite existing files nor send files to other machines. Its `model` and `then` cannot
name models of other packages.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stemsplit.errors import BadConfig

NAME = "stemsplit.toml"
PREFIX = "STEMSPLIT_"
NAMED = f"{PREFIX}CONFIG"
MODELS_FOLDER = f"{PREFIX}MODELS_DIR"
"""The environment variable for the folder of installed models, see `zoo.installed`."""

_NOT_FOR_PROJECTS = {"force": "have files replaced", "ray": "have others do the work"}

_TILDE = re.compile(r"(--[a-z][\w-]*=|-[A-Za-z]|)(~(?:[/\\].*)?)$", re.DOTALL)

Source = Literal["environment", "project", "user", "named"]
Options = Mapping[str, bool]
"""Maps the long name of each option, with `_`, to whether it is a flag."""


@dataclass(frozen=True)
class Setting:
    """A value for an option, and its source."""

    option: str
    value: str | bool
    source: Source
    where: str
    """The file, or the environment variable."""
    line: int | None = None

    def __str__(self) -> str:
        if self.source == "environment":
            return f"`{self.where}`"
        return _at(key(self.option), self.line, self.where)

    @property
    def place(self) -> str:
        """The environment variable, or `FILE:LINE`."""
        return f"{self.where}:{self.line}" if self.line else self.where


@dataclass(frozen=True)
class Place:
    """A file that is read if it exists. A file named by the user must exist."""

    source: Source
    path: Path

    @property
    def there(self) -> bool:
        """Whether to read the file."""
        return os.path.isfile(self.path) or self.source == "named"


def layers(options: Options) -> list[dict[str, Setting]]:
    """Return the settings of each source by option, in order of precedence.

    Raises:
        BadConfig: a file cannot be read, or a key or the type of a value is wrong.
    """
    return [environment(options), *(read(place, options) for place in places() if place.there)]


def places() -> list[Place]:
    """Return the paths of the files, in order of precedence."""
    named = os.environ.get(NAMED)
    if named:
        return [Place("named", Path(expanded(named)))]
    user = user_folder() / NAME
    found = []
    for folder in _upwards():
        path = folder / NAME
        if os.path.realpath(path) == os.path.realpath(user):
            continue
        found.append(Place("project", path))
        if os.path.isfile(path):
            break
    return [*found, Place("user", user)]


def user_folder() -> Path:
    """Return the program's folder in the platform's folder for user settings."""
    home = Path(os.path.expanduser("~"))  # Path.home() fails for users without one, e.g. in containers
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "stemsplit"
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA") or home / "AppData" / "Roaming") / "stemsplit"
    return Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "stemsplit"


def expanded(word: str) -> str:
    """Return a word with its `~` expanded to the home folder: `~/a`, `--out=~/a`, `-o~/a`.

    A shell expands only an unquoted `~` at the start of a word.
    """
    found = _TILDE.match(word)
    return found[1] + os.path.expanduser(found[2]) if found else word


def _upwards() -> Iterator[Path]:
    try:
        here = Path.cwd()
    except OSError:  # the current folder was removed
        return
    home = os.path.realpath(os.path.expanduser("~"))
    for folder in (here, *here.parents):
        yield folder
        if os.fspath(folder) == home:
            return


def variable(option: str) -> str:
    """Return the environment variable for an option, e.g. `STEMSPLIT_TWO_STEMS`."""
    return PREFIX + option.upper()


def key(option: str) -> str:
    """Return the name of an option in files and on the command line, e.g. `two-stems`."""
    return option.replace("_", "-")


def environment(options: Options) -> dict[str, Setting]:
    """Return the settings from environment variables.

    Raises:
        BadConfig: the variable of a flag is neither yes nor no.
    """
    found = {}
    for option, flag in options.items():
        name = variable(option)
        text = os.environ.get(name)
        if text:
            value = _yes_or_no(name, text) if flag else expanded(text)
            found[option] = Setting(option, value, "environment", name)
    return found


def unknown_variables(options: Options) -> dict[str, str | None]:
    """Return unknown variables with the program's prefix, each with the most similar known one, if any."""
    known = [NAMED, MODELS_FOLDER, *map(variable, options)]
    strange = [name for name in os.environ if name.startswith(PREFIX) and name not in known]
    return {name: _nearest(name, known) for name in sorted(strange)}


def read(place: Place, options: Options) -> dict[str, Setting]:
    """Return the settings of a file.

    Raises:
        BadConfig: it cannot be read, or a key or the type of a value is wrong.
    """
    text, content = _parse(place.path)
    found: dict[str, Setting] = {}
    for name, value in content.items():
        option, line = name.replace("-", "_"), _line(text, name)
        at = _at(name, line, place.path)
        if option not in options:
            near = _nearest(option, options)
            hint = f"did you mean `{key(near)}`?" if near else "`stemsplit config` lists all options"
            raise BadConfig(f"{at} is not an option", hint)
        if option in found:
            raise BadConfig(f"{at} is set twice", "keep one of them")
        if option in _NOT_FOR_PROJECTS and place.source == "project":
            hint = f"use --{option} on the command line, or your own file: see `stemsplit config --path`"
            raise BadConfig(f"{at}: a project's file cannot {_NOT_FOR_PROJECTS[option]}", hint)
        meant = _typed(value, at, flag=options[option])
        if isinstance(meant, str):
            if place.source == "project":
                _refuse_plugin(option, meant, at)
            if option == "out" and "://" in meant and place.source == "project":
                raise BadConfig(
                    f"{at}: a project's file cannot send stems to other machines",
                    "use --out, or your own file",
                )
            meant = _path(option, expanded(meant), place)
        found[option] = Setting(option, meant, place.source, str(place.path), line)
    return found


def _refuse_plugin(option: str, meant: str, at: str) -> None:
    """Raise BadConfig for a model that is code of another package."""
    if option not in ("model", "then"):
        return
    from stemsplit.zoo.variants import needs_plugin

    models = [meant] if option == "model" else [each.partition("=")[2] for each in meant.split(",")]
    if any(needs_plugin(model.strip()) for model in models):
        hint = f"use --{option} on the command line, or your own file: see `stemsplit config --path`"
        raise BadConfig(f"{at}: a project's file can name shipped and installed models only", hint)


def _parse(path: Path) -> tuple[str, dict[str, Any]]:
    # Imported here, because it is not needed without such a file.
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows editors add a byte order mark
        return text, tomllib.loads(text)
    except OSError as problem:
        raise BadConfig(
            f"`{path}` cannot be read: {problem.strerror or problem}", "make it readable, or remove it"
        ) from problem
    except (ValueError, RecursionError) as problem:
        hint = 'write lines such as `format = "flac"`: text in quotes; numbers, true and false without quotes'
        raise BadConfig(f"`{path}` is not TOML: {problem}", hint) from problem


def _line(text: str, name: str) -> int | None:
    """Return the line of a key in its usual form, because the TOML parser does not report line numbers."""
    pattern = re.compile(rf"""\s*\[*\s*["']?{re.escape(name)}["']?\s*[=.\]]""")
    return next((number for number, line in enumerate(text.splitlines(), 1) if pattern.match(line)), None)


def _at(name: str, line: int | None, path: Path | str) -> str:
    return f"`{name}` in " + (f"line {line} of " if line else "") + f"`{path}`"


def _nearest(name: str, known: Mapping[str, Any] | list[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, known, n=1)), None)


def _yes_or_no(name: str, text: str) -> bool:
    lowered = text.strip().lower()
    if lowered in ("1", "true", "yes", "on"):
        return True
    if lowered in ("0", "false", "no", "off"):
        return False
    raise BadConfig(f"`{name}` is {text!r}, neither yes nor no", "set it to 1 or to 0")


def _typed(value: Any, at: str, *, flag: bool) -> str | bool:
    """Return the value of a flag, or the text as on the command line."""
    if flag:
        if isinstance(value, bool):
            return value
        raise BadConfig(f"{at} is {value!r}, neither true nor false", "write true or false, without quotes")
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    hint = "write it as on the command line, in quotes unless it is a number"
    raise BadConfig(f"{at} is neither text nor a number", hint)


def _path(option: str, text: str, place: Place) -> str:
    if "://" in text or option != "out" and not (option == "model" and text.endswith(".safetensors")):
        return text
    if place.source == "project" and place.path.parent != Path.cwd():
        return os.path.join(place.path.parent, text)
    return text
