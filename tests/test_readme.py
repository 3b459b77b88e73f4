"""The README tells the truth: its output is the program's, its figures are those measured."""

from __future__ import annotations

import re
import runpy
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stemsplit.cli import app
from stemsplit.defaults import DEFAULT_MODEL, PUBLIC_ADDRESS
from stemsplit.zoo import page, store

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMPARISON = (ROOT / "docs" / "comparison.md").read_text(encoding="utf-8")


def figures(text: str, row: str) -> list[str]:
    """Return the cells of a table's row after its name."""
    (line,) = re.findall(rf"^\| {re.escape(row)} \|(.*)\|$", text, re.MULTILINE)
    return [cell.strip() for cell in line.split("|")]


def test_the_readme_can_be_read_in_a_few_minutes():
    assert len(README.splitlines()) <= 130


def test_the_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^\$ make (\w+)", README, re.MULTILINE)
    assert set(targets) >= {"demo", "test"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_the_scores_are_the_card_s_and_those_of_the_comparison():
    test_scores = page.page(store.read_card(DEFAULT_MODEL)).partition("## Scores: test\n")[2]
    table = test_scores.partition("| SDR |")[2].partition("\n\n")[0]
    (default,) = (line for line in table.splitlines() if "(default)" in line)
    assert f"| stemsplit, default |{default.split('|', 2)[2]}" in README.splitlines()
    for row in ("stemsplit, default", "HT Demucs, run by stemsplit"):
        quality = COMPARISON.partition("## Quality")[2].partition("## Speed")[0]
        assert figures(README, row) == figures(quality, row)


def test_the_picture_is_small():
    assert (ROOT / "docs" / "pictures" / "report.png").stat().st_size < 150_000


@pytest.mark.slow
def test_the_output_is_what_the_program_prints(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "examples" / "caesium-30s.mp3", "song.mp3")
    (shown,) = re.findall(r"^\$ stemsplit song.mp3\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    words = ["song.mp3", "--model", "binary-mask-cnn", "--fast", "--duration", "1"]
    printed = CliRunner().invoke(app, words)
    without_figures = re.compile(r"\d+\.\d")
    assert without_figures.sub("N", printed.stderr + printed.stdout) == without_figures.sub("N", shown)


def test_the_build_makes_links_absolute_once_there_is_a_public_address():
    build = runpy.run_path(str(ROOT / "setup.py"))
    assert build["public_address"]() == PUBLIC_ADDRESS
    absolute = build["with_absolute_links"]
    assert absolute(README, "") == README
    text = "[a](models/a.md) ![b](bench/b.png) [c](https://c.org) [d](#d)"
    assert absolute(text, "https://x.org/s") == (
        "[a](https://x.org/s/blob/main/models/a.md) ![b](https://x.org/s/raw/main/bench/b.png) "
        "[c](https://c.org) [d](#d)"
    )
