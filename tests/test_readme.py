"""The README tells the truth: its commands exist, its figures are the cards'."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from stemsplit.cli import app
from stemsplit.defaults import DEFAULT_MODEL, PUBLIC_ADDRESS
from stemsplit.zoo import page, store

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"(?:^\$|\|) (stemsplit [^#|>\n]*)", README, re.MULTILINE)
GROUP: Any = typer.main.get_command(app)
VERBS = GROUP.commands


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_readme_exists(line):
    words = shlex.split(line)[1:]
    verb = VERBS[next((name for name in (" ".join(words[:2]), words[0]) if name in VERBS), "split")]
    known = {flag for parameter in verb.params for flag in parameter.opts}
    assert {word.partition("=")[0] for word in words if word.startswith("-")} <= known | {"-"}


def test_the_readme_names_every_verb_and_every_option_of_split():
    assert len(COMMANDS) > 5
    for verb in VERBS:
        assert verb == "split" or f"stemsplit {verb}" in README
    for parameter in VERBS["split"].params:
        flags = [flag for flag in parameter.opts if flag.startswith("--")]
        assert all(flag in README or flag in ("--quiet", "--verbose", "--help") for flag in flags)


def test_the_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^\$ make (\w+)", README, re.MULTILINE)
    assert set(targets) >= {"demo", "test"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_the_scores_are_the_card_s():
    text = page.page(store.read_card(DEFAULT_MODEL))
    table = re.search(r"^\| SDR .*?\n\n", text.partition("## Scores: test")[2], re.MULTILINE | re.DOTALL)
    assert table is not None
    assert table[0] in README


def test_the_speeds_are_those_measured():
    section = README.partition("## How fast it is")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    assert len(rows) > 10
    assert set(rows) <= set((ROOT / "bench" / "RESULTS.md").read_text(encoding="utf-8").splitlines())


def test_files_that_the_readme_points_at_are_there():
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.slow
def test_the_python_example_runs(tmp_path, monkeypatch, music):
    import soundfile

    monkeypatch.chdir(tmp_path)
    soundfile.write("song.wav", music[:, :20_000].T, 44_100)
    soundfile.write("song.mp3", music[:, :20_000].T, 44_100)
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})
    assert Path("stems/song/vocals.wav").exists()


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
