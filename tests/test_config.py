from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import typer.main
from typer.testing import CliRunner

from stemsplit.cli import app, settings
from stemsplit.cli.config import options_of
from stemsplit.errors import BadConfig

GROUP: Any = typer.main.get_command(app)
SPLIT = GROUP.commands["split"]
OPTIONS = options_of(SPLIT)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A user with a home folder, in a folder of two levels below it, who has set nothing."""
    for name in [name for name in os.environ if name.startswith(settings.PREFIX)]:
        monkeypatch.delenv(name)
    home = tmp_path.resolve() / "home"
    (home / "music" / "album").mkdir(parents=True)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setattr(settings, "user_folder", lambda: home / "settings")
    monkeypatch.chdir(home / "music" / "album")
    return home


@pytest.fixture
def user(home):
    """The user's own file."""
    return home / "settings" / settings.NAME


@pytest.fixture
def project(home):
    """The file of the folder above."""
    return home / "music" / settings.NAME


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines), encoding="utf-8")


def parsed(*words: str) -> dict:
    """What `stemsplit split` makes of its command line, and of all else."""
    params = SPLIT.make_context("split", ["a.wav", *words]).params
    return {**params, "out": Path(params["out"])}  # some versions of typer make it a path later


def run(*words: str):
    return CliRunner().invoke(app, list(words), prog_name="stemsplit")


def shown() -> dict[str, dict]:
    """`stemsplit config --json`, by option."""
    return {row.pop("option"): row for row in map(json.loads, run("config", "--json").stdout.splitlines())}


def test_each_place_outranks_the_next(user, project, monkeypatch):
    assert parsed()["format"] == "wav"
    write(user, 'format = "ogg"', "jobs = 2")
    assert parsed()["format"] == "ogg"
    write(project, 'format = "mp3"', "batch = 7")
    assert parsed()["format"] == "mp3"
    monkeypatch.setenv("STEMSPLIT_FORMAT", "m4a")
    assert parsed()["format"] == "m4a"
    params = parsed("-f", "flac")
    assert (params["format"], params["batch"], params["jobs"]) == ("flac", 7, 2)


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if option.default is not None])
def test_every_option_can_be_set(name, user, project, monkeypatch):
    option = OPTIONS[name]
    built_in = parsed()[option.name]
    value = str(option.default)
    write(user, f"{name} = " + (value.lower() if option.is_flag else f"'{value}'"))
    assert parsed()[option.name] == built_in
    if option.is_flag:
        write(user, f"{settings.key(name)} = true")
        assert parsed()[option.name] is True
        monkeypatch.setenv(settings.variable(name), "0")
        assert parsed()[option.name] is False
    else:
        write(user)
        monkeypatch.setenv(settings.variable(name), value)
        assert parsed()[option.name] == built_in


def test_values_are_read_as_on_the_command_line(user):
    lines = ('start = "1:30"', "duration = 20", "depth = 24", "gain = -1.5", "fast = true", "batch = 0x10")
    write(user, *lines, 'two_stems = "vocals"')
    params = parsed()
    assert (params["start"], params["duration"], params["depth"]) == (90.0, 20.0, "24")
    assert (params["gain"], params["fast"], params["batch"]) == (-1.5, True, 16)
    assert params["two_stems"] == "vocals"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value"),
    [("format", "aiff"), ("batch", "0"), ("batch", "x"), ("start", "x"), ("depth", "8"), ("gain", "90")],
)
def test_what_the_command_line_refuses_is_refused_everywhere(name, value, user, monkeypatch):
    assert run("a.wav", f"--{name}", value).exit_code == 2
    write(user, "# mine", f'{name} = "{value}"')
    result = run("a.wav")
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"`{name}` in line 2 of" in result.stderr.replace("\n", " ")
    write(user)
    monkeypatch.setenv(settings.variable(name), value)
    result = run("a.wav")
    assert (result.exit_code, result.stdout) == (2, "")
    assert settings.variable(name) in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lines", "message", "hint"),
    [
        (['fromat = "flac"'], "`fromat` in line 1 of `{}` is not an option", "did you mean `format`?"),
        (
            ["", "xyz = 1"],
            "`xyz` in line 2 of `{}` is not an option",
            "`stemsplit config` lists all options",
        ),
        (["[split]", "fast = true"], "`split` in line 1 of `{}` is not an option", None),
        (["tracks = 'a.wav'"], "`tracks` in line 1 of `{}` is not an option", None),
        (["help = true"], "`help` in line 1 of `{}` is not an option", None),
        (["fast = 'yes'"], "`fast` in line 1 of `{}` is 'yes', neither true nor false", None),
        (["fast = 1"], "`fast` in line 1 of `{}` is 1, neither true nor false", None),
        (["format = true"], "`format` in line 1 of `{}` is neither text nor a number", None),
        (["stems = ['drums']"], "`stems` in line 1 of `{}` is neither text nor a number", None),
        (["start = 01:30:00"], "`start` in line 1 of `{}` is neither text nor a number", None),
        (
            ["two-stems = 'bass'", "two_stems = 'bass'"],
            "`two_stems` in line 2 of `{}` is set twice",
            "keep one of them",
        ),
        (["jobs = 2", "format = flac"], "`{}` is not TOML: Invalid value (at line 2, column 10)", None),
        (["x = " + "[" * 100_000], "`{}` is not TOML: ", None),
    ],
)
def test_a_wrong_file_is_named_with_the_line(lines, message, hint, user):
    write(user, *lines)
    result = run("a.wav")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: " + message.format(user))
    assert hint is None or result.stderr.endswith(f"\n\nhint: {hint}\n")
    assert "\n\nhint: " in result.stderr


@pytest.mark.slow
def test_a_wrong_file_is_told_of_even_where_it_does_not_count(user):
    write(user, 'format = "aiff"')
    assert run("a.wav", "-f", "wav").exit_code == 2
    assert run("config").exit_code == 2


def test_a_file_of_a_windows_editor(user):
    user.parent.mkdir()
    user.write_bytes(b'\xef\xbb\xbfformat = "flac"\r\nfast = true\r\n')
    assert (parsed()["format"], parsed()["fast"]) == ("flac", True)


def test_a_file_that_is_not_text(user):
    user.parent.mkdir()
    user.write_bytes(b'out = "\xff"')
    with pytest.raises(BadConfig, match="is not TOML"):
        parsed()


def test_a_folder_of_that_name_is_no_file(project):
    project.mkdir()
    assert parsed()["format"] == "wav"


@pytest.mark.parametrize(("lower", "higher"), [("stems", "two-stems"), ("two-stems", "stems")])
def test_of_options_that_exclude_each_other_the_lower_gives_way(lower, higher, user, project, monkeypatch):
    ours, theirs = settings.variable(settings.key(lower).replace("-", "_")), higher.replace("-", "_")
    write(user, f'{lower} = "vocals"')
    assert parsed()[lower.replace("-", "_")] == "vocals"
    for source in ("project", "line"):
        if source == "project":
            write(project, f'{higher} = "drums"')
            params = parsed()
        else:
            project.unlink()
            monkeypatch.setenv(ours, "bass")
            params = parsed(f"--{higher}", "drums")
        assert params[lower.replace("-", "_")] is None
        assert params[theirs] == "drums"


def test_in_one_file_they_are_wrong_usage_and_the_file_is_named(user):
    write(user, 'stems = "vocals"', 'two-stems = "vocals"')
    result = run("a.wav")
    assert result.exit_code == 2
    said = " ".join(result.stderr.replace("│", " ").split())
    assert "exclude each other" in said
    assert "`stems` in line 1 of" in said
    assert "`two-stems` in line 2 of" in said


def test_quiet_gives_way_to_verbose(user, monkeypatch):
    write(user, "quiet = true")
    assert parsed()["quiet"]
    params = parsed("-v")
    assert params["verbose"]
    assert not params["quiet"]
    monkeypatch.setenv("STEMSPLIT_VERBOSE", "0")
    assert parsed()["quiet"]


def test_a_bitrate_waits_for_a_format_that_has_one(user):
    write(user, 'bitrate = "192k"', 'depth = "32f"')
    assert parsed()["bitrate"] is None
    assert parsed("-f", "flac")["bitrate"] is None
    assert parsed("-f", "mp3")["bitrate"] == "192k"
    assert parsed("-f", "flac")["depth"] == "same"
    assert parsed("-f", "wav")["depth"] == "32f"
    write(user, 'bitrate = "192k"', 'format = "wav"')
    assert run("a.wav").exit_code == 2


@pytest.mark.slow
def test_a_project_s_file_cannot_have_files_replaced(user, project, home, monkeypatch):
    for path in (project, home / "music" / "album" / settings.NAME):
        write(path, "force = true")
        result = run("a.wav")
        assert result.exit_code == 2
        assert "a project's file cannot have files replaced" in result.stderr
        path.unlink()
    write(user, "force = true")
    assert parsed()["force"]
    monkeypatch.setenv("STEMSPLIT_FORCE", "no")
    assert not parsed()["force"]


def test_a_variable_that_says_neither_yes_nor_no(monkeypatch):
    monkeypatch.setenv("STEMSPLIT_FAST", "perhaps")
    result = run("a.wav")
    assert result.exit_code == 2
    assert "error: `STEMSPLIT_FAST` is 'perhaps', neither yes nor no\n" in result.stderr
    monkeypatch.setenv("STEMSPLIT_FAST", "")
    assert parsed()["fast"] is False


def test_the_nearest_project_counts_alone(project, home):
    write(home / settings.NAME, 'format = "ogg"', "jobs = 2")
    assert parsed()["format"] == "ogg"
    write(project, 'format = "mp3"')
    assert (parsed()["format"], parsed()["jobs"]) == ("mp3", None)
    write(Path(settings.NAME), 'format = "m4a"')
    assert parsed()["format"] == "m4a"


def test_the_search_ends_at_the_home_folder(home):
    write(home.parent / settings.NAME, 'format = "ogg"')
    assert parsed()["format"] == "wav"
    assert home / settings.NAME in [place.path for place in settings.places()]


def test_elsewhere_the_search_ends_at_the_root(home, monkeypatch):
    elsewhere = home.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    above = [folder / settings.NAME for folder in (elsewhere, *elsewhere.parents)]
    found = [place.path for place in settings.places() if place.source == "project"]
    assert found == above[: len(found)]
    assert found[-1] == above[-1] or found[-1].is_file()


def test_in_its_own_folder_the_user_s_file_is_the_user_s(user, monkeypatch):
    write(user, "force = true")
    monkeypatch.chdir(user.parent)
    assert parsed()["force"]


@pytest.mark.skipif(sys.platform == "win32", reason="no one's folder goes there")
def test_a_folder_that_is_gone_has_no_project(user):
    write(user, "jobs = 3")
    gone = Path("gone").absolute()
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    assert parsed()["jobs"] == 3


def test_paths_of_a_project_count_from_its_file(project, user, home):
    (home / "music" / "mine.safetensors").touch()
    write(project, 'out = "stems here"', 'model = "mine.safetensors"')
    assert parsed()["out"] == home / "music" / "stems here"
    assert parsed()["model"] == str(home / "music" / "mine.safetensors")
    write(project, 'out = "~/stems"', 'model = "binary-mask-cnn"')
    assert parsed()["out"] == home / "stems"
    assert parsed()["model"] == "binary-mask-cnn"
    write(Path(settings.NAME), 'out = "stems here"')
    assert parsed()["out"] == Path("stems here")


def test_other_paths_count_from_the_current_folder(user, home, monkeypatch):
    write(user, 'out = "x"', 'model = "~/mine.safetensors"')
    assert (parsed()["out"], parsed()["model"]) == (Path("x"), str(home / "mine.safetensors"))
    monkeypatch.setenv("STEMSPLIT_OUT", "y")
    assert parsed()["out"] == Path("y")


def test_a_named_file_is_the_only_one(user, project, home, monkeypatch):
    write(user, "jobs = 2")
    write(project, "jobs = 3")
    write(home / "other.toml", "force = true")
    monkeypatch.setenv(settings.NAMED, str(home / "other.toml"))
    assert (parsed()["jobs"], parsed()["force"]) == (None, True)
    monkeypatch.setenv(settings.NAMED, os.devnull)
    assert (parsed()["jobs"], parsed()["force"]) == (None, False)
    monkeypatch.setenv(settings.NAMED, "gone.toml")
    result = run("a.wav")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: `gone.toml` cannot be read: No such file")


@pytest.mark.slow
def test_what_a_project_says_is_told(project, user):
    write(project, 'format = "flac"', "jobs = 2")
    write(user, "gain = -1")
    assert run("a.wav").stderr.startswith(f"settings from `{project}`: format, jobs\nerror: ")
    assert run("a.wav", "-q").stderr.startswith("error: ")
    assert f"settings from `{user}`: gain\n" in run("a.wav", "-v").stderr
    assert run("a.wav", "-f", "wav", "-j1").stderr.startswith("error: ")


def test_the_table(user, project, monkeypatch):
    write(user, "", "fast = true", 'stems = "vocals"')
    write(project, 'two-stems = "drums"')
    monkeypatch.setenv("STEMSPLIT_START", "1:30")
    result = run("config")
    assert (result.exit_code, result.stderr) == (0, "")
    rows = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert list(rows) == ["option", *map(settings.key, OPTIONS)]
    assert rows["fast"].split(maxsplit=1) == ["true", f"{user}:2"]
    assert rows["two-stems"].split(maxsplit=1) == ["drums", f"{project}:1"]
    assert rows["start"].split() == ["1:30", "STEMSPLIT_START"]
    assert rows["stems"].split() == ["-", "default"]
    assert rows["format"].split() == ["wav", "default"]


def test_as_json(user, monkeypatch):
    write(user, "", "batch = 7", 'out = "x"')
    monkeypatch.setenv("STEMSPLIT_START", "1:30")
    rows = shown()
    assert list(rows) == [settings.key(name) for name in OPTIONS]
    assert rows["batch"] == {"value": 7, "source": "user", "where": str(user), "line": 2}
    assert rows["out"]["value"] == "x"
    assert rows["start"] == {"value": 90.0, "source": "environment", "where": "STEMSPLIT_START", "line": None}
    assert rows["two-stems"] == {"value": None, "source": "default", "where": None, "line": None}


def test_the_files_looked_at(user, project, home):
    write(project, "this is broken")
    result = run("config", "--path")
    assert result.exit_code == 0
    assert result.stdout == f"{project}\n"
    assert result.stderr.splitlines() == [
        f"does not exist: {home / 'music' / 'album' / settings.NAME}",
        f"does not exist: {user}",
    ]


@pytest.mark.slow
def test_a_mistyped_variable_is_told(monkeypatch):
    monkeypatch.setenv("STEMSPLIT_FROMAT", "flac")
    warning = "warning: STEMSPLIT_FROMAT sets no option; did you mean STEMSPLIT_FORMAT?\n"
    assert run("config").stderr == warning
    assert run("missing.wav").stderr.startswith(warning)
    assert warning not in run("missing.wav", "--quiet").stderr


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {}, ".config/stemsplit"),
        ("linux", {"XDG_CONFIG_HOME": "there"}, "there/stemsplit"),
        ("darwin", {"XDG_CONFIG_HOME": "there"}, "Library/Application Support/stemsplit"),
        ("win32", {}, "AppData/Roaming/stemsplit"),
        ("win32", {"APPDATA": "there"}, "there/stemsplit"),
    ],
)
def test_the_folder_of_the_user_s_file(platform, variables, folder, home, monkeypatch):
    monkeypatch.undo()
    for name in ("XDG_CONFIG_HOME", "APPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    for name, value in variables.items():
        monkeypatch.setenv(name, str(home / value))
    monkeypatch.setattr(sys, "platform", platform)
    assert settings.user_folder() == home / folder


@pytest.mark.subprocess
@pytest.mark.parametrize(
    "words", [["--help"], ["split", "--help"], ["doctor", "--help"], ["config", "--help"]]
)
def test_help_reads_no_file(words):
    write(Path(settings.NAME), "this is broken")
    code = "import sys; from stemsplit.cli import app\n"
    code += f"try:\n    app({words})\nfinally:\n    print('loaded:', *sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    loaded = set(ended.stdout.rpartition("loaded: ")[2].split())
    assert "stemsplit.cli.settings" in loaded
    assert loaded & {"tomllib", "tomli"} == set()


def test_a_broken_file_does_not_hinder_completion():
    write(Path(settings.NAME), "this is broken")
    line = {"COMP_WORDS": "stemsplit\na.wav\n--two", "COMP_CWORD": "2"}
    shell = {"_STEMSPLIT_COMPLETE": "complete_bash", **line}
    assert CliRunner(env=shell).invoke(app, prog_name="stemsplit").stdout.split() == ["--two-stems"]


def test_the_help_of_config_tells_the_ranks():
    said = run("config", "--help").stdout
    places = [said.index(word) for word in ("command line", "variables", "current folder", "own", "built-in")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("word", "end"),
    [("~/a b", "a b"), ("--out=~/a", "a"), ("-o~/a", "a"), ("--out=~", "")],
)
def test_a_tilde_is_the_home_folder(word, end, home):
    before = word.partition("~")[0]
    assert settings.expanded(word) == before + os.path.join(home, end).rstrip(os.sep)
    for other in ("a~/b", "~a.wav", "--out=./~/a", "./~", "-", "--out"):
        assert settings.expanded(other) == other


@pytest.mark.slow
@pytest.mark.parametrize("way", ["--out=~/there", "-o~/there", "variable", "file"])
def test_a_tilde_is_expanded_wherever_a_path_is_said(way, user, home, monkeypatch):
    soundfile.write("a.wav", np.zeros((999, 2)), 44_100)
    words = [way] if way.startswith("-") else []
    if way == "variable":
        monkeypatch.setenv("STEMSPLIT_OUT", "~/there")
    elif way == "file":
        write(user, 'out = "~/there"')
    result = run("~/music/album/a.wav", *words, "--dry-run", "--stems", "vocals", "--print0")
    assert result.stdout == f"{home / 'there' / 'a' / 'vocals.wav'}\0", result.stderr
    monkeypatch.setenv(settings.NAMED, "~/other.toml")
    assert f"{home / 'other.toml'}" in run("a.wav").stderr
