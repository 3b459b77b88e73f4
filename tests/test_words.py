"""Docstrings, comments, help and messages use the terms of the field, not idioms to be decoded."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

import stemsplit

PACKAGE = Path(stemsplit.__file__).parent
IDIOMS = {
    r"hears?|heard|deaf": "input, receptive field, context, look-ahead, audible",
    r"asks?|asked": "runs, calls, requests, requires",
    r"opinions?": "predictions, logits",
    r"processors?|graphics cards?": "CPU, GPU",
    r"so many": "N, or the name of the number",
    r"no one|nobody|whoever": "the user, the caller, another program",
    r"learns?|learnt|by heart": "trains, training songs, overfits",
    r"nought|upside down": "0, polarity inversion",
    r"(?<!there )(?:is|are) no (?:number|file|folder|stem|song|sound|source|command)s?": "is not a number",
    r"an? (?:mask|track|stem|network|row|panel|file|folder) an? \w+": "one mask per stem",
    r"as `\w+` has it": "see `x`",
    r"(?<!in )places?": "position, path, index, azimuth",
    r"models? from elsewhere|networks? from elsewhere": "third-party model",
    r"by lot|for ever|meanwhile|else than": "at random, endless, in the meantime, other than",
    r"an? (?:second|bin|layer|core|song|window) an? \w+": "one second per window",
    r"as of `": "see `x`",
}
"""What to avoid, and what to say instead."""
PATTERN = re.compile(rf"\b(?:{'|'.join(IDIOMS)})\b", re.IGNORECASE)
MODULES = sorted(PACKAGE.rglob("*.py"))
ROOT = Path(__file__).parents[1]
SCRIPTS = sorted([*ROOT.glob("bench/*.py"), *ROOT.glob("docs/**/*.py")])
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("models/**/*.md")])


def prose(code: str) -> list[str]:
    """Return the comments of code, and its texts of several words: docstrings, help, messages."""
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    found = [token.string for token in tokens if token.type == tokenize.COMMENT]
    found += [
        node.value
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value
    ]
    return [" ".join(text.split()) for text in found]


def idioms(code: str) -> list[str]:
    return [match[0] for text in prose(code) for match in PATTERN.finditer(text)]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_prose_is_in_the_terms_of_the_field(path):
    assert idioms(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_in_the_terms_of_the_field(path):
    assert idioms(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_are_in_the_terms_of_the_field(path):
    text = path.read_text(encoding="utf-8")
    if path.name == "CONTRIBUTING.md":
        text = re.sub(r"^\|.*$", "", text, flags=re.MULTILINE)  # the glossary
    assert PATTERN.findall(text) == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("# what the network hears", ["hears"]),
        ('def f():\n    """Return a mask a stem, as `g` has it."""', ["a mask a stem", "as `g` has it"]),
        ('x = 1\n"""Is no\n   number."""', ["Is no number"]),
        ('def command():\n    """What to hear."""', ["hear"]),
        ("ask = 'asked'  # in place; there is no file", []),
    ],
)
def test_every_kind_of_prose_is_seen(code, found):
    assert idioms(code) == found
