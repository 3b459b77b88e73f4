"""The documentation site: links that hold on the site and in the repository, and what is generated."""

from __future__ import annotations

import html
import json
import pkgutil
import re
import xml.etree.ElementTree
from typing import Any

import jsonschema
import pytest
import typer.main
from typer.testing import CliRunner

import stemsplit
from docs._generate import architecture, cli, docstrings, events, hooks, included, layers, models
from stemsplit.cli import app
from stemsplit.zoo import store
from tests.test_architecture import LAYERS


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
PAGES = {path.relative_to(included.DOCS).as_posix(): path for path in sorted(included.DOCS.rglob("*.md"))}


@pytest.mark.parametrize("uri", PAGES | included.pages())
def test_links_of_a_page_lead_to_files_of_the_repository(uri, caplog):
    source = (PAGES | included.pages())[uri]
    included.with_links(source.read_text(encoding="utf-8"), source, uri)
    assert [record.getMessage() for record in caplog.records] == []


def test_every_page_of_the_documentation_is_in_the_navigation():
    configuration = (included.ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = re.findall(r"[\w/-]+\.md\b", configuration.partition("\nnav:")[2])
    assert sorted(named) == sorted(set(PAGES | included.pages()) - {*included.cards(), *hooks.CARDS})


VERBS = GROUP.commands
PAGE = cli.reference()


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_the_reference_says_of_a_verb_what_its_help_says(verb):
    section = PAGE.partition(f"\n## stemsplit {verb} {{#{cli.anchor(verb)}}}\n")[2].partition("\n## ")[0]
    shown = CliRunner().invoke(app, [*verb.split(), "--help"], env={"COLUMNS": "1000"}).stdout
    help_text = " ".join(re.sub(r"[│─╭╮╰╯]", " ", shown).replace("`", "").split())
    entries = re.findall(r"<dt id=\"(.*?)\"><code>(.*?)</code></dt><dd>(.*?)</dd>", section)
    assert len(entries) == len(VERBS[verb].params)
    for _, name, about in entries:
        words = re.sub(r"<em>.*?</em>|</?code>", "", about)
        assert " ".join(html.unescape(words).split()) in help_text, name
        for note in "; ".join(re.findall(r"<em>(.*?)</em>", about)).split("; "):
            assert html.unescape(note).removeprefix("default: ") in help_text, name
    names = html.unescape(" ".join(name for _, name, _ in entries))
    flags = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", names))
    assert flags == {flag for each in VERBS[verb].params for flag in each.opts if flag.startswith("--")}
    for line in cli.paragraphs(VERBS[verb].help):
        assert line in section


def test_every_anchor_of_the_reference_is_there_once():
    anchors = re.findall(r'(?:id="|\{#)([\w-]+)', PAGE)
    assert len(anchors) == len(set(anchors)) > 100


@pytest.mark.parametrize(
    ("epilog", "block"),
    [
        ("Example: stemsplit a.mp3", "stemsplit a.mp3"),
        ("Examples:\n\n  # A\n  stemsplit a\n\n  # B\n  stemsplit b", "# A\nstemsplit a\n\n# B\nstemsplit b"),
    ],
)
def test_examples_are_taken_from_the_help(epilog, block):
    assert list(cli.examples(epilog)) == ["**Examples**", f"```bash\n{block}\n```"]
    assert list(cli.examples(None)) == []


def test_the_page_of_events_has_every_field_of_the_schema():
    schema = json.loads(included.SCHEMA.read_text(encoding="utf-8"))
    page = events.reference()
    assert page.count("\n## ") == len(schema["oneOf"])
    for event in schema["oneOf"]:
        assert all(f"| `{name}` |" in page for name in event["properties"])
    assert "| `outputs.STEM.sha256` | string | optional. Digest of the file. Not from `unpack`. |" in page


@pytest.mark.slow
def test_the_example_of_events_is_valid():
    schema = json.loads(included.SCHEMA.read_text(encoding="utf-8"))
    page = (included.DOCS / "reference" / "events.md").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in page.splitlines() if line.startswith("{")]
    for line in lines:
        jsonschema.validate(line, schema)
    assert [line["event"] for line in lines if line["event"] != "progress"] == [
        "start",
        "plan",
        "track",
        "summary",
    ]


def test_the_page_of_the_api_has_all_that_the_package_exports():
    page = (included.DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^::: stemsplit\.(\w+)$", page, re.MULTILINE))
    assert named == set(stemsplit.__all__) - {"__version__"}
    assert "<code>UnknownStem</code> <em>code stem; exit status 2</em>" in docstrings.list_of_errors()


@pytest.mark.slow
def test_what_the_architecture_names_exists():
    text = (included.DOCS / "architecture.md").read_text(encoding="utf-8")
    packages = "|".join(architecture.imports())
    names = re.findall(rf"`((?:{packages})(?:\.\w+)+)`", text)
    assert len(names) > 20
    for name in names:
        pkgutil.resolve_name(f"stemsplit.{name}")


@pytest.mark.slow
def test_the_picture_has_every_package_and_an_arrow_for_each_import_that_follows_from_no_other():
    graph = architecture.imports()
    text = architecture.picture()
    assert {name for layer in LAYERS for name in layer} - architecture.HIDDEN == set(graph)
    for name in graph:
        assert f">{architecture.title(name)}</text>" in text
    assert text.count('class="edge"') == sum(map(len, layers.reduced(graph).values()))
    xml.etree.ElementTree.fromstring(text)


def test_edges_that_follow_from_others_are_left_out():
    graph = {"a": {"b", "c", "d"}, "b": {"c"}, "c": {"d"}, "d": set()}
    assert layers.reduced(graph) == {"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": set()}


def test_boxes_do_not_overlap_and_long_edges_pass_between_them():
    graph = {"a": {"b", "c", "z"}, "b": {"z"}, "c": {"z"}, "z": set()}
    plan = layers.arranged(graph, [["a"], ["b", "c"], ["z"]])
    (left, top), (right, also) = sorted([plan.boxes["b"], plan.boxes["c"]])
    assert top == also
    assert right - left > plan.box[0] + layers.GAP - 1e-6
    assert left - plan.box[0] / 2 >= 0
    assert right + plan.box[0] / 2 <= plan.width
    assert [len(plan.edges[name]) for name in "abcz"] == [3, 1, 1, 0]


def test_links_between_layers_are_uncrossed():
    links = [("a", "z"), ("b", "y"), ("c", "x")]
    assert layers.crossings([["a", "b", "c"], ["x", "y", "z"]], links) == 3
    assert layers.crossings(layers.ordered([["a", "b", "c"], ["x", "y", "z"]], links), links) == 0


def test_the_table_of_models_has_every_card_and_its_scores():
    table = models.table()
    for uri, path in included.cards().items():
        card = store.read_card(path.with_suffix(".safetensors"))
        (row,) = [line for line in table.splitlines() if line.startswith(f"| [`{card.name}`]({uri}) |")]
        assert f"| {card.scores['test'][card.mask]['vocals']['sdr_db']:.2f} |" in row
    assert table.splitlines()[2].startswith(f"| [`{stemsplit.DEFAULT_MODEL}`]")


@pytest.mark.parametrize(
    ("element", "elsewhere"),
    [
        ('<script src="https://x.org/a.js">', True),
        ("<link rel=stylesheet href=//x.org/a.css>", True),
        ('<img src="../pictures/a.png">', False),
        ('<a href="https://x.org">', False),
    ],
)
def test_what_a_page_loads_from_another_host_is_seen(element, elsewhere):
    assert bool(hooks.ELSEWHERE.search(element)) == elsewhere
