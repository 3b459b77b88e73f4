"""README and documentation: commands, options, files and examples exist, and figures are those measured."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
import typer.main
from typer.testing import CliRunner

from stemsplit.cli import app

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")))
}
GUIDES = {name: text for name, text in PAGES.items() if name.startswith("docs/guides/")}
GROUP: Any = typer.main.get_command(app)
VERBS = GROUP.commands
EVERY_FLAG = {flag for verb in VERBS.values() for parameter in verb.params for flag in parameter.opts}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> Iterator[str]:
    """Yield the commands of a page's console examples, without what they are piped to."""
    for block in blocks(text, "console"):
        lines = re.sub(r"\\\n\s*", "", block)
        yield from re.findall(r"(?:^\$|^ +|\|) *(stemsplit [^#|>;\n]*)", lines, re.MULTILINE)


COMMANDS = [(name, line.strip()) for name, text in PAGES.items() for line in dict.fromkeys(commands(text))]


def words_of(line: str) -> list[str]:
    return shlex.split(line)[1:]


@pytest.mark.parametrize(("name", "line"), COMMANDS)
def test_a_command_exists(name, line):
    words = words_of(line)
    if words == ["--install-completion"]:
        return
    verb = next((each for each in (" ".join(words[:2]), words[0]) if each in VERBS), "split")
    rest = words[len(verb.split()) :] if words[0] in VERBS else words
    command = VERBS[verb]
    with command.make_context(verb, [], resilient_parsing=True) as context:
        command.make_parser(context).parse_args(list(rest))  # raises on unknown options, or without a value


@pytest.mark.parametrize("name", sorted(PAGES.keys() - {"docs/comparison.md"}))
def test_options_in_the_text_exist(name):
    text = re.sub(r"^```.*?^```", "", PAGES[name], flags=re.MULTILINE | re.DOTALL)
    inline = [
        code for code in re.findall(r"`([^`\n]+)`", text) if not code.startswith(("pip ", "make ", "mkdocs "))
    ]
    found = {flag for code in inline for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", code)}
    assert found <= EVERY_FLAG | {"--help", "--install-completion"}


def test_every_verb_has_a_passage_in_the_documentation():
    for verb in VERBS:
        assert any(f"stemsplit {verb}" in text for text in GUIDES.values()) or f"stemsplit {verb}" in (
            PAGES["README.md"] + PAGES["docs/index.md"]
        ), verb


@pytest.mark.parametrize("name", PAGES)
def test_files_that_a_page_links_to_are_there(name):
    text = re.sub(r"^```.*?^```", "", PAGES[name], flags=re.MULTILINE | re.DOTALL)
    generated = {"docs/contributing.md", "docs/changelog.md"}
    for target in re.findall(r"\]\((?!http|#)([^)#\s]+)", text):
        path = (ROOT / name).parent.joinpath(target).resolve()
        assert path.exists() or str(path.relative_to(ROOT)) in generated, target


def test_speeds_are_those_measured():
    measured = set((ROOT / "bench" / "RESULTS.md").read_text(encoding="utf-8").splitlines())
    for name in ("README.md", "docs/comparison.md"):
        tables = re.findall(r"^\| (?:the whole|30 s of).*?(?=\n\n)", PAGES[name], re.MULTILINE | re.DOTALL)
        rows = [line for table in tables for line in table.splitlines()]
        assert len(rows) >= 3
        assert set(rows) <= measured


def test_scores_in_the_text_are_those_measured():
    measured = (ROOT / "bench" / "NETWORKS.md").read_text(encoding="utf-8")
    card = (ROOT / "models" / "binary-mask-cnn.md").read_text(encoding="utf-8")
    split = GUIDES["docs/guides/split.md"]
    assert "| band-transformer+mmdensenet-joint | 6.35 | 6.76 | 5.15 | 3.21 |" in measured
    assert "6.35, 6.76, 5.15 and 3.21 dB" in split
    assert "| soft mask (default) | 4.72 | 4.74 | 3.52 | 2.29 |" in card
    for figure in ("4.72 dB for vocals", "instead of 4.74 for drums", "instead of 3.52 for bass"):
        assert figure in " ".join(split.split())


@pytest.mark.parametrize("name", PAGES)
def test_data_in_examples_can_be_parsed(name):
    for block in blocks(PAGES[name], "json"):
        json.loads(block)
    options = {flag[2:] for parameter in VERBS["split"].params for flag in parameter.opts}
    for block in blocks(PAGES[name], "toml"):
        assert set(tomllib.loads(block)) <= options


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, text in PAGES.items() if blocks(text, "python")])
def test_python_examples_run(name, tmp_path, monkeypatch, music):
    monkeypatch.chdir(tmp_path)
    soundfile.write("song.wav", music[:, :20_000].T, 44_100)
    soundfile.write("song.mp3", music[:, :20_000].T, 44_100)
    examples = blocks(PAGES[name], "python")
    for example in examples:
        exec(compile(example, name, "exec"), {})
    if any("split_file" in example for example in examples):
        assert list(Path("stems").rglob("vocals.*"))


SHORT = {
    "--duration 20": "--duration 2 --model binary-mask-cnn --fast",
    "--start 20": "--start 29 --model binary-mask-cnn --fast",
    "--minutes 30": "--stems vocals --steps 1 --examples 1 --frames 8 --validation 1 --warmup 1",
    "evaluate": "evaluate --oracle none --baseline none --fast",
    "--model binary-mask-cnn --model": "--model",
    "mp3 --model": "mp3 --duration 1 --fast --model",
}
"""What makes the tutorial short: an hour becomes some seconds."""


@pytest.mark.slow
def test_the_tutorial_runs_as_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEMSPLIT_MODELS_DIR", str(tmp_path / "models"))
    Path("examples").mkdir()
    shutil.copy(ROOT / "examples" / "caesium-30s.mp3", "examples")
    tutorial = GUIDES["docs/guides/training.md"].partition("## In an hour")[2].partition("\n## ")[0]
    lines = list(commands(tutorial))
    assert len(lines) == 7
    for long, short in SHORT.items():
        assert any(long in line for line in lines)
        lines = [line.replace(long, short) for line in lines]
    for line in lines:
        run = CliRunner().invoke(app, words_of(line))
        assert run.exit_code == 0, (line, run.output)
    assert Path("runs/mine/curves.png").exists()
    assert Path("stems-by-mine/caesium-30s/vocals.wav").exists()
