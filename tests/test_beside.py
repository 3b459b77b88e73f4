"""`stemsplit split --daw --report`: what is made of the stems as soon as they are there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from stemsplit.cli import app, console, split_here
from stemsplit.defaults import DEFAULT_MODEL
from tests.conftest import default_signals, events

pytestmark = pytest.mark.slow

RATE = 44_100


@pytest.fixture
def song(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    noise = 0.1 * np.random.default_rng(0).standard_normal((RATE, 2))
    soundfile.write("song.wav", noise, RATE)


def run(*words: str):
    return CliRunner().invoke(app, ["song.wav", "--stems", "bass,other", *words])


def test_both_lie_beside_the_stems(song, tmp_path):
    result = run("--daw", "dawproject", "--report", "--json")
    assert result.exit_code == 0, result.stderr
    (done,) = (event for event in events(result.stdout) if event["event"] == "track")
    assert done["session"] == "stems/song/song.dawproject"
    assert done["report"] == "stems/song/report.html"
    names = {path.name for path in (tmp_path / "stems" / "song").iterdir()}
    assert names >= {"bass.wav", "other.wav", "song.dawproject", "report.html"}
    page = (tmp_path / "stems" / "song" / "report.html").read_text(encoding="utf-8")
    assert DEFAULT_MODEL in page, "the record of the stems says by what"
    assert page.count("<audio controls") == 3, "the song, too"


@pytest.mark.parametrize(
    ("words", "phases"),
    [
        ([], ["split"]),
        (["--daw", "reaper"], ["split", "session"]),
        (["--daw", "reaper", "--report"], ["split", "session", "report"]),
    ],
)
def test_json_tells_the_progress_of_each_phase(song, monkeypatch, words, phases):
    monkeypatch.setattr(console, "EVERY_SECONDS", 0.0)
    result = run("--json", "--model", "binary-mask-cnn", "--fast", *words)
    assert result.exit_code == 0, result.stderr
    told = [event for event in events(result.stdout) if event["event"] == "progress"]
    assert list(dict.fromkeys(event["phase"] for event in told)) == phases
    for phase in phases:
        done = [event["done_seconds"] for event in told if event["phase"] == phase]
        assert done == sorted(done), phase
        assert (done[-1], told[0]["seconds"]) == (pytest.approx(1.0), 1.0), phase


def test_the_time_of_a_track_includes_what_is_made_beside_it(song, monkeypatch):
    begin_and_end = SimpleNamespace(monotonic=iter((0.0, 3600.0)).__next__)
    monkeypatch.setattr(split_here, "time", begin_and_end)
    result = run("--json", "--model", "binary-mask-cnn", "--fast", "--daw", "reaper")
    (done,) = (event for event in events(result.stdout) if event["event"] == "track")
    assert done["elapsed_seconds"] > 3600


def test_names_that_share_a_folder_say_of_which_track_they_are(song):
    result = run("--template", "{track} {stem}.{ext}", "--daw", "reaper", "--report")
    assert result.stdout.splitlines()[2:] == ["stems/song.rpp", "stems/song.html"]


def test_the_mixture_of_an_excerpt_is_that_excerpt(song, tmp_path):
    excerpt = ["song.wav", "--report", "--start", "0.2", "--duration", "0.5"]
    result = CliRunner().invoke(app, excerpt)
    assert result.exit_code == 0, result.stderr
    page = (tmp_path / "stems" / "song" / "report.html").read_text(encoding="utf-8")
    assert page.count("<audio controls") == 5
    assert "The stems sum" in page


def test_a_song_is_not_the_mixture_of_softer_stems(song, tmp_path):
    assert run("--report", "--gain", "-6").exit_code == 0
    page = (tmp_path / "stems" / "song" / "report.html").read_text(encoding="utf-8")
    assert page.count("<audio controls") == 2


def test_what_is_there_is_refused_before_the_work(song, tmp_path):
    (tmp_path / "stems" / "song").mkdir(parents=True)
    (tmp_path / "stems" / "song" / "song.rpp").write_text("mine")
    result = run("--daw", "reaper")
    assert result.exit_code == 1
    assert "song.rpp` already exists" in result.stderr
    assert not (tmp_path / "stems" / "song" / "bass.wav").exists()
    assert run("--daw", "reaper", "--force").exit_code == 0


def test_without_matplotlib_there_is_no_page(song, tmp_path, monkeypatch):
    monkeypatch.setattr("stemsplit.plots.find_spec", lambda name: None)
    result = run("--report")
    assert result.exit_code == 1
    assert "pip install 'stemsplit-audio[plot]'" in result.stderr
    assert not list(tmp_path.rglob("*.html"))


@pytest.mark.parametrize("words", [["--stdout", "bass"], ["--ray", "local"]])
def test_files_of_this_machine_are_needed(song, words):
    result = run("--report", *words)
    assert result.exit_code == 2
    assert "one local file per stem" in result.stderr


def test_what_would_be_written_is_told(song):
    assert run("--daw", "reaper", "--dry-run").stdout.splitlines()[2:] == ["stems/song/song.rpp"]


def test_a_track_that_is_done_already_gets_no_page_and_says_so(song):
    assert run().exit_code == 0
    again = run("--report", "--skip-existing")
    assert again.exit_code == 0
    assert "no `stems/song/report.html`; `stemsplit daw` and `stemsplit report`" in again.stderr


WORKING = """
import sys, time
from stemsplit import cli
from stemsplit.analysis import music

def work(*_):
    print("working", file=sys.stderr, flush=True)
    while True:
        time.sleep(0.01)

def half(session, path):
    path.write_text("half")
    work()

music.MusicAnalyser.add = lambda *_: None
music.MusicAnalyser.finish = lambda *_: music.NO_MUSIC
if sys.argv[1] == "analysis":
    music.MusicAnalyser.finish = work
else:
    from stemsplit.export import daw
    daw.WRITERS["reaper"] = half
del sys.argv[1]
cli.main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", ["analysis", "writing"])
def test_a_signal_ends_what_is_made_beside_the_stems(song, tmp_path, where, number):
    options = ["--model", "binary-mask-cnn", "--fast", "--daw", "reaper", "--quiet"]
    run = subprocess.Popen(
        [sys.executable, "-c", WORKING, where, "song.wav", *options],
        env=os.environ | {"STEMSPLIT_CONFIG": os.devnull},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=default_signals if os.name == "posix" else None,
    )
    try:
        assert "working\n" in run.stderr
        run.send_signal(number)
        _, said = run.communicate(timeout=30)
    finally:
        run.kill()
    assert run.returncode == 128 + number
    assert "interrupted" in said
    names = {path.name for path in (tmp_path / "stems" / "song").iterdir()}
    assert names == {"vocals.wav", "drums.wav", "bass.wav", "other.wav"}
