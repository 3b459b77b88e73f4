"""The program as it is run, with the shipped weights: one process a test, nothing replaced."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import mutagen
import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from stemsplit.audio.reader import Reader, Signal
from stemsplit.audio.stem_boxes import read_stem_names
from stemsplit.audio.writer import Writer
from stemsplit.cli import app
from tests.conftest import SAMPLE_RATE, STEMS, default_signals, events

pytestmark = pytest.mark.subprocess

LIGHT = ("--model", "binary-mask-cnn", "--fast")
"""The default model splits a song in the first test; what the others show, they show with the quickest."""


def stemsplit(*words, folder):
    command = [sys.executable, "-m", "stemsplit", *map(str, words)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def read(path):
    return np.concatenate(list(Reader(path)), axis=-1)


@pytest.fixture
def tagged(tmp_path, music):
    """A loud song at 48 kHz that has a title, and whose end is missing."""
    path = tmp_path / "a song.wav"
    with soundfile.SoundFile(path, "w", 48_000, 2, subtype="PCM_16") as file:
        file.title, file.artist = "Clair de lune", "Claude"
        file.write(np.clip(4 * music, -1, 1).T)
    path.write_bytes(path.read_bytes()[:180_000])
    return path


def test_a_song_is_split_with_all_that_belongs_to_it(tagged, tmp_path):
    mixture = read(tagged)
    run = stemsplit(tagged.name, "--format", "flac", "--json", folder=tmp_path)
    assert run.returncode == 0, run.stderr
    *_, result, end = events(run.stdout)
    assert end["done"] == 1
    assert (result["status"], result["frames"], result["sample_rate"]) == ("ok", mixture.shape[1], 48_000)
    assert any("is truncated" in warning for warning in result["warnings"])
    stems = [tmp_path / result["outputs"][name]["path"] for name in STEMS]
    assert stems == [tmp_path / "stems" / "a song" / f"{name}.flac" for name in STEMS]
    assert mutagen.File(stems[0])["title"] == ["Clair de lune (vocals)"]
    assert mutagen.File(stems[3])["artist"] == ["Claude"]
    if not any("clipped" in warning for warning in result["warnings"]):
        np.testing.assert_allclose(sum(map(read, stems)), mixture, atol=4 / 2**16)
    for stem, path in zip(STEMS, stems, strict=True):
        assert result["outputs"][stem]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_one_bad_track_does_not_stop_the_others(tagged, tmp_path):
    (tmp_path / "b.mp3").write_text("no sound at all\n")
    run = stemsplit("b.mp3", "missing.mp3", tagged.name, "--stems", "bass", *LIGHT, folder=tmp_path)
    assert run.returncode == 1
    assert run.stdout.splitlines() == [str(Path("stems", "a song", "bass.wav"))]
    assert "Traceback" not in run.stderr
    assert len(re.findall(r"^error: ", run.stderr, re.MULTILINE)) == 2
    assert "a song.wav: 1 stem in " in run.stderr
    again = stemsplit(tagged.name, "--stems", "bass", *LIGHT, folder=tmp_path)
    assert again.returncode == 1
    assert "--force" in again.stderr


def test_two_stems_are_one_and_the_rest(tagged, tmp_path):
    words = (tagged.name, "--two-stems", "drums", "--depth", "32f", "-q")
    run = stemsplit(*words, *LIGHT, folder=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    drums, rest = (read(tmp_path / path) for path in run.stdout.splitlines())
    np.testing.assert_allclose(drums + rest, read(tagged), atol=1e-5)
    assert np.abs(drums - rest).max() > 0.1


def test_a_stem_file_holds_the_song_and_its_stems(tagged, tmp_path):
    words = (tagged.name, "--format", "stem.mp4", "-o", ".", "--gain", "-12", "--json", *LIGHT)
    run = stemsplit(*words, folder=tmp_path)
    assert run.returncode == 0, run.stderr
    *_, result, _ = events(run.stdout)
    path = tmp_path / "a song.stem.mp4"
    assert {each["path"] for each in result["outputs"].values()} == {path.name}
    assert {each["sha256"] for each in result["outputs"].values()} == {
        hashlib.sha256(path.read_bytes()).hexdigest()
    }
    assert set(result["outputs"]) == {label.name for label in read_stem_names(path)}
    tracks = [np.concatenate(list(Reader(path, track=track)), axis=-1) for track in range(5)]
    mixture = 10 ** (-12 / 20) * read(tagged)
    assert all(track.shape == mixture.shape for track in tracks)
    for whole in (tracks[0], sum(tracks[1:])):
        assert np.square(whole - mixture).sum() < 10**-1.5 * np.square(mixture).sum()
    assert mutagen.File(path)["\xa9nam"] == ["Clair de lune"]
    assert stemsplit(*words, "--skip-existing", folder=tmp_path).returncode == 0
    assert stemsplit(*words, folder=tmp_path).returncode == 1, "it is there already"
    again = stemsplit(path.name, "--stems", "bass", *LIGHT, folder=tmp_path)
    assert again.stdout.split("\n")[0] == str(Path("stems", "a song", "bass.wav"))


@pytest.mark.parametrize("words", [("--stems", "bass"), ("--template", "{track} {stem}.{ext}")])
def test_a_stem_file_is_for_all_stems(tagged, tmp_path, words):
    run = stemsplit(tagged.name, "--format", "stem.mp4", *words, folder=tmp_path)
    assert run.returncode == 2
    assert "contains all stems" in run.stderr


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
@pytest.mark.parametrize("song", ["long.wav", "long.mp3"])  # by libsndfile, and by ffmpeg
def test_a_signal_ends_it_in_good_order(tmp_path, music, name, status, song):
    with Writer(tmp_path / song, Signal(SAMPLE_RATE, 2)) as writer:
        for _ in range(200):
            writer.write(0.2 * music)
    command = [sys.executable, "-m", "stemsplit", song, "--json", "--format", "flac", *LIGHT]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=default_signals,
    ) as process:
        for line in process.stdout:
            if b'"progress"' in line:
                process.send_signal(getattr(signal, name))
                break
        _, said = process.communicate()
    assert process.returncode == status
    assert said == b"interrupted\n"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / song]


@pytest.fixture
def data(tmp_path, music):
    """A song without vocals whose bass no one could tell from the rest."""
    for split in ("train", "valid"):
        for name, part in (("drums", music), ("other_and_bass", music[::-1])):
            path = tmp_path / "data" / split / "song" / f"{name}.wav"
            with Writer(path, Signal(SAMPLE_RATE, 2)) as writer:
                writer.write(0.5 * part[:, :30_000])
        path.with_name("credits.txt").write_text("no sound")
    return tmp_path / "data"


def test_evaluate_leaves_out_what_no_song_has(data):
    run = CliRunner().invoke(app, ["evaluate", "--data", str(data), "--split", "valid"])
    assert run.exit_code == 0, run.stderr
    (row,) = re.findall(r"^wiener +(.*)$", run.stdout.partition("SI-SDR")[0], re.MULTILINE)
    vocals, drums, _mean, bass, other = row.split()
    assert (vocals, bass, other) == ("-", "-", "-")
    assert float(drums) > -20
    facts = CliRunner().invoke(app, ["evaluate", "--data", str(data), "--split", "valid", "--json", "-"])
    assert list(json.loads(facts.stdout)["splits"]["valid"]["median"]["wiener"]) == ["drums"]


def test_train_makes_a_model_that_splits(data, tagged, tmp_path):
    words = ["train", "--data", str(data), "--run", str(tmp_path / "run"), "--stems", "drums", "--steps", "1"]
    run = CliRunner().invoke(app, [*words, "--examples", "1", "--frames", "2", "--validation", "1"])
    assert run.exit_code == 0, run.stderr
    model = run.stdout.strip()
    split = CliRunner().invoke(app, [str(tagged), "--model", model, "-o", str(tmp_path / "out")])
    assert split.exit_code == 0, split.stderr
    assert split.stdout.splitlines() == [str(tmp_path / "out" / "a song" / "drums.wav")]


def test_train_names_what_is_missing(data, tmp_path):
    run = CliRunner().invoke(app, ["train", "--data", str(data), "--run", str(tmp_path / "run")])
    assert run.exit_code == 2
    assert "has vocals as a separate stem" in run.stderr


@pytest.fixture
def album(tmp_path, music):
    """Five tracks, one of them below another folder, one of them no sound."""
    for number, name in enumerate(("a.wav", "b.flac", "live/c.wav", "d.ogg")):
        path = tmp_path / "album" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with Writer(path, Signal(SAMPLE_RATE, 2)) as writer:
            writer.write(0.2 * music[:, : 40_000 + 5_000 * number])
    (tmp_path / "album" / "e.mp3").write_text("no sound at all")
    return tmp_path


def written(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".stemsplit" not in path.parts
    }


def test_a_folder_is_split_and_a_second_run_only_does_what_is_missing(album):
    words = ("album", "-r", "--stems", "bass", "--json", "--threads", "1", *LIGHT)
    first = stemsplit(*words, folder=album)
    assert first.returncode == 1, first.stderr
    *told, end = events(first.stdout)
    assert end == {"event": "summary", "done": 4, "skipped": 0, "failed": 1}
    tracks = [event for event in told if event["event"] == "track"]
    assert [event["input"] for event in told if event["event"] == "plan"] == [
        event["input"] for event in tracks if event["status"] == "ok"
    ]
    assert [event["status"] for event in tracks].count("error") == 1
    before = written(album / "stems")
    assert sorted(before) == ["a/bass.wav", "b/bass.wav", "d/bass.wav", "live/c/bass.wav"]
    assert stemsplit(*words, folder=album).returncode == 1, "they are there already"
    (album / "stems" / "b" / "bass.wav").unlink()
    again = stemsplit(*words, "--skip-existing", folder=album)
    end = events(again.stdout)[-1]
    assert end == {"event": "summary", "done": 1, "skipped": 3, "failed": 1}
    assert written(album / "stems") == before


def test_what_someone_has_edited_is_not_replaced(album):
    words = ("album/a.wav", "--stems", "bass", "--threads", "1", *LIGHT)
    assert stemsplit(*words, folder=album).returncode == 0
    edited = album / "stems" / "a" / "bass.wav"
    edited.write_bytes(b"my own")
    run = stemsplit(*words, "--skip-existing", folder=album)
    assert run.returncode == 1
    assert "already exists" in run.stderr
    assert edited.read_bytes() == b"my own"
    assert stemsplit(*words, "--skip-existing", "--force", folder=album).returncode == 0
    assert edited.read_bytes() != b"my own"


def test_a_run_that_is_killed_goes_on_where_it_was(album):
    words = ("album", "-r", "--stems", "bass,drums", "--threads", "1", *LIGHT)
    assert stemsplit(*words, "-o", "whole", folder=album).returncode == 1
    program = [sys.executable, "-m", "stemsplit", *words, "-o", "pieces", "--skip-existing", "--json"]

    def parts():
        return {*(album / "pieces").rglob(".*.part")}

    for in_a_track in (True, False, True):
        left = parts()  # by the run that was killed before
        with subprocess.Popen(program, cwd=album, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            if in_a_track:
                while not parts() - left:
                    assert process.poll() is None
            else:
                assert any(b'"ok"' in line for line in process.stdout)
            process.kill()
        assert process.returncode == -signal.SIGKILL
    run = stemsplit(*words, "-o", "pieces", "--skip-existing", folder=album)
    assert run.stderr.count("error: ") == 1, run.stderr
    assert written(album / "pieces") == written(album / "whole")


def test_a_dry_run_says_where_everything_would_go_and_writes_nothing(album):
    run = stemsplit("album", "-r", "--dry-run", "--template", "{track}_{stem}.{ext}", folder=album)
    assert run.returncode == 1, "one of the tracks cannot be read"
    assert len(run.stdout.splitlines()) == 16
    assert "stems/c_vocals.wav" in run.stdout
    assert not (album / "stems").exists()
    plan = stemsplit("album/a.wav", "--dry-run", "--json", folder=album)
    _, event, end = events(plan.stdout)
    assert (event["event"], event["input"]) == ("plan", "album/a.wav")
    assert event["seconds"] == pytest.approx(40_000 / SAMPLE_RATE)
    assert end["done"] == 0


@pytest.mark.parametrize("between", ["\n", "\0"])
def test_tracks_may_be_listed(album, between):
    listed = between.join(["album/a.wav", "album/live/c.wav"])
    command = [sys.executable, "-m", "stemsplit", "--from-file", "-", "--dry-run", "--stems", "bass"]
    run = subprocess.run(command, cwd=album, input=listed, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["stems/a/bass.wav", "stems/c/bass.wav"]
