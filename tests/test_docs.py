"""The documentation site: links that hold on the site and in the repository, and what is generated."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

import stemsplit
from docs._generate import cli, docstrings, events, included
from stemsplit.cli import app


def test_links_of_the_repository_become_links_of_the_site():
    source = included.ROOT / "docs" / "guides" / "split.md"
    text = (
        "[a](batches.md#b) [`c`](../../CONTRIBUTING.md) [d](../../bench/RESULTS.md#e) [f](http://g) [h](#i)"
    )
    assert included.with_links(text, source, "guides/split.md") == (
        "[a](batches.md#b) [`c`](../contributing.md) [d](../research/results.md#e) [f](http://g) [h](#i)"
    )


def test_a_file_that_is_no_page_is_named_without_a_link_while_there_is_no_address(monkeypatch):
    source, text = included.ROOT / "README.md", "[`code`](stemsplit/options.py) and `[not](a link)`"
    monkeypatch.setattr(included, "PUBLIC_ADDRESS", "")
    assert included.with_links(text, source, "x.md") == "`code` and `[not](a link)`"
    monkeypatch.setattr(included, "PUBLIC_ADDRESS", "https://x.org/s")
    assert included.with_links(text, source, "x.md") == (
        "[`code`](https://x.org/s/blob/main/stemsplit/options.py) and `[not](a link)`"
    )


def test_a_link_that_leads_nowhere_in_the_repository_is_a_warning(caplog):
    included.with_links("```\n[a](code.md)\n```\n[a](nothing.md)", included.ROOT / "README.md", "x.md")
    assert [record.args for record in caplog.records] == [(included.Path("README.md"), "nothing.md")]


GROUP: Any = typer.main.get_command(app)
VERBS = GROUP.commands
PAGE = cli.reference()


@pytest.mark.parametrize("verb", VERBS)
def test_the_reference_says_of_a_verb_what_its_help_says(verb):
    section = PAGE.partition(f"\n## stemsplit {verb} {{#{cli.anchor(verb)}}}\n")[2].partition("\n## ")[0]
    shown = CliRunner().invoke(app, [*verb.split(), "--help"], env={"COLUMNS": "1000"}).stdout
    help_text = " ".join(re.sub(r"[│─╭╮╰╯]", " ", shown).replace("`", "").split())
    entries = re.findall(r"<dt id=\"(.*?)\"><code>(.*?)</code></dt><dd>(.*?)</dd>", section)
    assert len(entries) == len(VERBS[verb].params)
    for _, name, about in entries:
        words = re.sub(r"<em>.*?</em>|</?code>|\[.*?\]", "", about)
        assert " ".join(html.unescape(words).split()) in help_text, name
        for note in re.findall(r"<em>(.*?)</em>", about):
            assert html.unescape(note).split()[-1] in help_text, name
    names = html.unescape(" ".join(name for _, name, _ in entries))
    flags = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", names))
    assert flags == {flag for each in VERBS[verb].params for flag in each.opts if flag.startswith("--")}
    for line in cli.paragraphs(VERBS[verb].help):
        assert line in section


def test_every_anchor_of_the_reference_is_there_once():
    anchors = re.findall(r'(?:id="|\{#)([\w-]+)', PAGE)
    assert len(anchors) == len(set(anchors)) > 100


@pytest.mark.parametrize(
    ("epilog", "commands"),
    [
        ("Example: stemsplit a.mp3", ["$ stemsplit a.mp3"]),
        ("\b\nExamples:\n  stemsplit a.mp3\n  stemsplit b.mp3", ["$ stemsplit a.mp3", "$ stemsplit b.mp3"]),
        (None, []),
    ],
)
def test_examples_are_taken_from_the_help(epilog, commands):
    assert [line for part in cli.examples(epilog) for line in part.splitlines() if line[0] == "$"] == commands


def test_the_page_of_events_has_every_field_of_the_schema():
    schema = json.loads(events.SCHEMA.read_text(encoding="utf-8"))
    page = events.reference()
    assert page.count("\n## ") == len(schema["oneOf"])
    for event in schema["oneOf"]:
        assert all(f"| `{name}` |" in page for name in event["properties"])
    assert "| `outputs.STEM.sha256` | string | optional. of the file; not from unpack |" in page


def test_the_page_of_the_api_has_all_that_the_package_exports():
    page = (included.DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^::: stemsplit\.(\w+)$", page, re.MULTILINE))
    assert named == set(stemsplit.__all__) - {"__version__"}
    assert "| `UnknownStem` | `stem` | 2 |" in docstrings.table_of_errors()
