"""`--help`: complete texts, and examples that work."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from stemsplit import cli
from stemsplit.cli import VERBS, app, models

GROUP: Any = typer.main.get_command(app)
EXAMPLES = {
    "": cli.EXAMPLES,
    **{verb: module.EXAMPLES for verb, module in VERBS.items()},
    "models add": models.ADD_EXAMPLES,
    "models remove": models.REMOVE_EXAMPLES,
}


def words(text: str) -> str:
    """Return a text without line breaks and frames of tables."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


def shown(command: str) -> str:
    return words(CliRunner(env={"COLUMNS": "400"}).invoke(app, [*command.split(), "--help"]).stdout)


@pytest.mark.slow
@pytest.mark.parametrize("command", EXAMPLES)
def test_help_ends_with_examples_of_the_command(command):
    expected = cli.examples(EXAMPLES[command])
    assert shown(command).endswith(words(expected))
    assert 1 <= len(EXAMPLES[command]) <= 4
    assert f"stemsplit {command}".strip() in expected or command == "split"  # `stemsplit song.mp3`


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_an_example_names_commands_and_options_that_exist(line):
    (ours,) = (each for each in re.split(r" [|>] ", line) if "stemsplit " in each)
    arguments = shlex.split(ours.partition("stemsplit ")[2])
    names = sorted(GROUP.commands, key=len, reverse=True)  # `models add` before `models`
    name = next((each for each in names if arguments[: len(each.split())] == each.split()), "")
    arguments = arguments[len(name.split()) :]
    name = name or "split"
    parent = typer.Context(GROUP, info_name="stemsplit")
    context = GROUP.commands[name].make_context(name, arguments, parent=parent)
    assert context.command.name == name


@pytest.mark.slow
@pytest.mark.parametrize("command", ["", *GROUP.commands])
def test_help_names_no_types_of_python(command):
    assert not re.findall(r"<(?:bool|str|int|float|path|list\b.*?)>", shown(command), re.IGNORECASE)


@pytest.mark.slow
@pytest.mark.parametrize("command", GROUP.commands)
def test_no_text_is_lost_in_help(command):
    text = shown(command)
    for parameter in GROUP.commands[command].params:
        assert words(parameter.help) in text  # square brackets are markup, and would not be shown
