"""The options of a split, and the one table of those that exclude each other."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main
from typer.testing import CliRunner

import stemsplit
from stemsplit.audio.formats import STEM_FILE
from stemsplit.batch.plan import BatchOptions
from stemsplit.cli import app, settings
from stemsplit.cli.config import options_of
from stemsplit.errors import UsageError
from stemsplit.exclusions import EXCLUSIONS, exclusions
from stemsplit.options import BatchKeywords, Options, OutputOptions, RuntimeOptions, SplitOptions

GROUP: Any = typer.main.get_command(app)
SPLIT = GROUP.commands["split"]
COMMAND_LINE = options_of(SPLIT)
EXAMPLES = {
    "stems": "vocals",
    "two_stems": "drums",
    "then": "bass=binary-mask-cnn",
    "bitrate": "192k",
    "codec": "alac",
    "stem_names": "Kit,Bass,Keys,Vox",
    "stem_colors": "009E73,D55E00,CC79A7,56B4E9",
    "depth": "32f",
    "stdout": "vocals",
    "daw": "reaper",
    "ray": "local",
    "template": "{track} {stem}.{ext}",
}
FORMATS = {"bitrate": "wav", "depth": "flac", **dict.fromkeys(["codec", "stem_names", "stem_colors"], "wav")}
"""The format that excludes an option; for the others it is that of stem files."""

table = pytest.mark.parametrize("rule", EXCLUSIONS, ids=lambda rule: f"{rule.first}-{rule.second}")


def examples(rule):
    """Two values that exclude each other, by option."""
    first = FORMATS.get(rule.second, STEM_FILE) if rule.first == "format" else EXAMPLES.get(rule.first, True)
    return {rule.first: first, rule.second: EXAMPLES.get(rule.second, True)}


def words(name, value):
    return [f"--{settings.key(name)}", *([] if value is True else [value])]


@pytest.fixture(autouse=True)
def no_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(settings, "user_folder", lambda: tmp_path / "settings")


@table
def test_a_rule_is_about_options_that_exist_and_not_about_their_defaults(rule):
    assert {rule.first, rule.second} <= COMMAND_LINE.keys()
    values = examples(rule)
    assert list(exclusions(values)) == [rule]
    assert not list(exclusions({**values, rule.second: COMMAND_LINE[rule.second].default}))
    for name in values:
        assert not list(exclusions({name: values[name]}))


@pytest.mark.slow
@table
def test_the_command_line_refuses_both(rule):
    (first, one), (second, other) = examples(rule).items()
    result = CliRunner().invoke(app, ["missing.wav", *words(first, one), *words(second, other)])
    said = " ".join(result.output.replace("│", " ").split())
    if rule.message:
        assert result.exit_code == 2
        assert rule.explain({first: one, second: other}, lambda name: f"--{settings.key(name)}") in said
    else:
        assert "--" not in said


@table
@pytest.mark.parametrize("swapped", [False, True])
def test_a_setting_gives_way(rule, swapped, monkeypatch):
    (given, value), (set_, other) = sorted(examples(rule).items(), reverse=swapped)
    monkeypatch.setenv(settings.variable(set_), str(other))
    params = SPLIT.make_context("split", ["a.wav"]).params
    if set_ not in ("bitrate", "codec", "stem_names", "stem_colors"):  # which wait for another format
        meant = params[COMMAND_LINE[set_].name]
        assert str(meant) in (str(other), str([other]))
    params = SPLIT.make_context("split", ["a.wav", *words(given, value)]).params
    assert params[COMMAND_LINE[set_].name] in (COMMAND_LINE[set_].default, (), [])


def test_the_api_refuses_both_by_its_own_names():
    with pytest.raises(UsageError, match="^stems and two_stems exclude each other$"):
        stemsplit.split_file("song.wav", stems=["bass"], two_stems="bass")
    with pytest.raises(UsageError, match="^stems and two_stems exclude each other$"):
        stemsplit.load_separator(stems=["bass"], two_stems="bass")
    with pytest.raises(ValueError, match="list of names"):
        SplitOptions(stems="bass")


@pytest.mark.parametrize("name", ["gain_db", "format", "nonsense"])
def test_what_has_no_effect_is_refused(name):
    with pytest.raises(TypeError, match=name):
        stemsplit.split(np.zeros(100, np.float32), 44_100, **{name: 1})


def test_keywords_are_those_of_the_fields():
    kinds = (SplitOptions, OutputOptions, RuntimeOptions)
    assert set(BatchKeywords.__annotations__) == {each.name for kind in kinds for each in fields(kind)}
    options = Options.of(stems=["bass"], format="mp3", fast=True)
    assert options.split == SplitOptions(stems=("bass",))
    assert options.output == OutputOptions(format="mp3")
    assert options.runtime == RuntimeOptions(fast=True)


def test_options_travel_as_they_are():
    options = BatchOptions.of(model=Path("my.safetensors"), azimuths=[-30.0], out=Path("out"))
    assert pickle.loads(pickle.dumps(options)) == options
    assert (options.split.model, options.split.azimuths) == ("my.safetensors", (-30.0,))
    with pytest.raises(FrozenInstanceError):
        options.split.model = "other"
