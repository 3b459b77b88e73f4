"""All that works with the default model works with installed ones, of six stems and of two, and in chains."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import typer.main
from typer.testing import CliRunner

import stemsplit
from stemsplit.audio import stem_folder
from stemsplit.audio.stem_boxes import read_stem_names
from stemsplit.cli import app, models, split
from stemsplit.datasets.songs import find_songs
from stemsplit.zoo import installed
from tests.conftest import SAMPLE_RATE, events, install_tiny

pytestmark = pytest.mark.slow  # each test starts networks

SIX = ("drums", "bass", "other", "vocals", "guitar", "piano")
IN_ORDER = ("vocals", "drums", "bass", "other", "guitar", "piano")
CHAIN = ("vocals-lead", "vocals-back", *IN_ORDER[1:])
GROUP: Any = typer.main.get_command(app)
SPLIT = GROUP.commands["split"]


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """Return a folder of installed models."""
    files = tmp_path_factory.mktemp("files")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(installed.FOLDER_VARIABLE, str(tmp_path_factory.mktemp("models")))
        install_tiny(files, "six", SIX, normalize=True, licence="MIT")
        install_tiny(files, "four", SIX[:4])
        install_tiny(files, "karaoke", ("lead",), residual="back", normalize=True)
        install_tiny(files, "acapella", ("vocals",))
        yield


@pytest.fixture
def song(tmp_path, music, monkeypatch):
    """Return the samples of `song.wav` in the current folder: half a second."""
    monkeypatch.chdir(tmp_path)
    samples = music[:, 20_000:42_000]
    soundfile.write("song.wav", samples.T, SAMPLE_RATE, subtype="FLOAT")
    return samples


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words], prog_name="stemsplit")


def sounds(folder):
    """Return the stems in a folder, by name."""
    return {path.stem: soundfile.read(path, dtype="float32")[0].T for path in Path(folder).glob("*.wav")}


def test_six_stems_sum_to_the_song(song):
    done = run("song.wav", "--model", "six", "--json")
    assert done.exit_code == 0, done.output
    *_, track, summary = events(done.stdout)
    assert [track["status"], summary["done"]] == ["ok", 1]
    assert set(track["outputs"]) == set(IN_ORDER)
    stems = sounds("stems/song")
    assert set(stems) == set(SIX)
    np.testing.assert_allclose(sum(stems.values()), song, atol=1e-4)


def test_some_stems_or_one_and_the_rest(song):
    every = stemsplit.split(song, SAMPLE_RATE, model="six")
    assert tuple(every) == IN_ORDER
    assert run("song.wav", "--model", "six", "--stems", "piano,guitar").exit_code == 0
    some = sounds("stems/song")
    assert set(some) == {"piano", "guitar"}
    np.testing.assert_allclose(some["piano"], every["piano"], atol=1e-5)
    assert run("song.wav", "--model", "six", "--two-stems", "guitar", "-o", "two").exit_code == 0
    two = sounds("two/song")
    np.testing.assert_allclose(two["guitar"], every["guitar"], atol=1e-5)
    np.testing.assert_allclose(two["accompaniment"], song - every["guitar"], atol=1e-4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--mask", "soft"], "six does not use masks"),
        (["--fast"], "six does not support --fast"),
        (["--stems", "horns"], "No stem called `horns` in six"),
        (["--then", "voice=karaoke"], "No stem called `voice` in six"),
        (["--then", "vocals=nothing"], "No model called `nothing`"),
        (["--then", "vocals"], "--then takes STEM=NAME"),
        (["--then", "vocals=karaoke", "--then", "vocals=four"], "--then names vocals twice"),
        (["--then", "vocals=karaoke", "--two-stems", "drums"], "--two-stems and --then exclude each other"),
        (["--then", "vocals=karaoke", "--format", "stem.mp4"], "leave out --stems, --two-stems, --then"),
        (["--then", "vocals=karaoke", "--sources", "3"], "has fixed stems"),
        (["--then", "vocals=karaoke", "--fast"], "does not support --fast"),
    ],
)
def test_what_is_refused_leaves_nothing(song, options, said):
    refused = run("song.wav", "--model", "six", *options)
    assert refused.exit_code == 2
    assert said in " ".join(refused.output.replace("│", " ").split())
    assert not Path("stems").exists()


def test_a_batch_goes_on_where_it_stopped(song):
    Path("album").mkdir()
    for name in ("one", "two"):
        soundfile.write(f"album/{name}.wav", song.T, SAMPLE_RATE)
    options = ["album", "--model", "six", "--json", "--skip-existing"]

    def states(*more):
        done = run(*options, *more)
        return [event["status"] for event in events(done.stdout) if event["event"] == "track"]

    assert states() == ["ok", "ok"]
    assert states() == ["skipped", "skipped"]
    Path("stems/two/guitar.wav").unlink()
    assert states() == ["skipped", "ok"]
    assert states("--overlap", "0.5") == ["ok", "ok"]
    assert states("--then", "vocals=karaoke", "-o", "chain") == ["ok", "ok"]
    assert states("--then", "vocals=karaoke", "-o", "chain") == ["skipped", "skipped"]
    assert states("--then", "vocals=karaoke", "-o", "chain", "--shifts", "2") == ["ok", "ok"]


def test_a_chain_is_the_split_of_a_stem(song):
    assert run("song.wav", "--model", "six").exit_code == 0
    assert run("stems/song/vocals.wav", "--model", "karaoke", "-o", "parts").exit_code == 0
    done = run("song.wav", "--model", "six", "--then", "vocals=karaoke", "-o", "chain", "--verbose")
    assert done.exit_code == 0, done.output
    stems, parts, chain = sounds("stems/song"), sounds("parts/vocals"), sounds("chain/song")
    assert set(chain) == set(CHAIN)
    for name in IN_ORDER[1:]:
        np.testing.assert_allclose(chain[name], stems[name], atol=1e-5)
    for name in ("lead", "back"):
        np.testing.assert_allclose(chain[f"vocals-{name}"], parts[name], atol=1e-5)
    np.testing.assert_allclose(sum(chain.values()), song, atol=1e-4)
    assert list(stem_folder.find(Path("chain/song")).stems)[:3] == ["drums", "bass", "other"]
    assert run("inspect", "chain/song").exit_code == 0
    mixed = run("remix", "chain/song", "vocals-lead=mute", "-o", "backing.wav")
    assert mixed.exit_code == 0, mixed.output
    backing = soundfile.read("backing.wav", dtype="float32")[0].T
    np.testing.assert_allclose(backing, song - chain["vocals-lead"], atol=1e-4)


def test_stems_of_a_chain_by_name_and_to_standard_output(song):
    options = ["song.wav", "--model", "six", "--then", "vocals=karaoke", "--then", "vocals-back=acapella"]
    planned = run(*options, "--dry-run", "--template", "{track} {stem}.{ext}")
    assert Path("stems/song vocals-back-instrumental.wav") in map(Path, planned.stdout.split("\n"))
    assert run(*options, "--stems", "vocals-lead,piano").exit_code == 0
    some = sounds("stems/song")
    assert set(some) == {"vocals-lead", "piano"}
    piped = run(*options, "--stdout", "vocals-lead", "--depth", "32f")
    assert piped.exit_code == 0, piped.output
    assert len(piped.stdout_bytes) > some["vocals-lead"].nbytes


def test_a_chain_after_a_shipped_model(song):
    options = ["song.wav", "--model", "binary-mask-cnn", "--fast", "--mask", "soft", "--overlap", "0.1"]
    done = run(*options, "--then", "vocals=karaoke")
    assert done.exit_code == 0, done.output
    np.testing.assert_allclose(sum(sounds("stems/song").values()), song, atol=1e-4)


def test_six_stems_are_mixed_anew(song):
    mixed = run("remix", "song.wav", "guitar=mute", "--model", "six", "-o", "mix.wav", "--depth", "32f")
    assert mixed.exit_code == 0, mixed.output
    stems = stemsplit.split(song, SAMPLE_RATE, model="six")
    mix = soundfile.read("mix.wav", dtype="float32")[0].T
    np.testing.assert_allclose(mix, song - stems["guitar"], atol=1e-4)


@pytest.mark.slow
def test_a_session_and_a_report_have_six_stems(song):
    options = ["--model", "six", "--daw", "reaper", "--report", "--template", "{model}/{stem}.{ext}"]
    done = run("song.wav", *options)
    assert done.exit_code == 0, done.output
    page = Path("stems/six/song.html").read_text(encoding="utf-8")
    assert all(name in page for name in SIX)
    session = next(Path("stems/six").glob("*.rpp")).read_text()
    assert all(f'NAME "{name}"' in session for name in SIX)
    colours = {line for line in session.splitlines() if "PEAKCOL" in line}
    assert len(colours) == len(SIX)


def test_a_stem_file_adds_further_stems_to_other(song):
    done = run("song.wav", "--model", "six", "--format", "stem.mp4", "--json")
    assert done.exit_code == 0, done.output
    track = events(done.stdout)[-2]
    assert track["warnings"] == ["guitar and piano were added to other: a stem file holds four stems"]
    assert set(track["outputs"]) == {"vocals", "drums", "bass", "other"}
    labels = read_stem_names("stems/song.stem.mp4")
    assert [label.name for label in labels] == ["drums", "bass", "other", "vocals"]
    stems = stemsplit.split(song, SAMPLE_RATE, model="six")
    other = stems["other"] + stems["guitar"] + stems["piano"]
    assert track["outputs"]["other"]["peak"] == pytest.approx(np.abs(other).max(), rel=1e-4)
    result = stemsplit.split_file("song.wav", "again", model="six", format="stem.mp4")
    assert result.peaks["other"] == pytest.approx(np.abs(other).max(), rel=1e-4)


def test_a_stem_file_of_two_stems_is_refused(song):
    refused = run("song.wav", "--model", "acapella", "--format", "stem.mp4")
    assert refused.exit_code == 1
    assert "A stem file has four stems, not vocals, instrumental" in refused.stderr
    assert not Path("stems").exists()


def test_an_ensemble_goes_by_the_names_of_stems(song):
    """The outputs of the network are in another order than those of the shipped model."""
    names = ("four", "binary-mask-cnn")
    both, *each = (stemsplit.split(song, SAMPLE_RATE, model=name) for name in ("+".join(names), *names))
    for stem, found in both.items():
        np.testing.assert_allclose(found, sum(stems[stem] for stems in each) / 2, atol=1e-5)


def test_a_config_file_names_installed_models(song, monkeypatch):
    Path("stemsplit.toml").write_text('model = "six"\nthen = "vocals=karaoke, drums=acapella"\n')
    monkeypatch.delenv("STEMSPLIT_CONFIG")
    planned = run("song.wav", "--dry-run")
    assert {Path(line).stem for line in planned.stdout.splitlines()} == {
        *CHAIN[:2],
        *("drums-vocals", "drums-instrumental"),
        *IN_ORDER[2:],
    }
    assert '"vocals=karaoke"' in run("config", "--json").stdout


def test_models_and_the_shell_know_them():
    listed = run("models").stdout
    assert "vocals, drums, bass, other, guitar, piano" in listed
    facts = [json.loads(line) for line in run("models", "--json").stdout.splitlines()]
    assert [each["stems"] for each in facts if each["name"] == "six"] == [list(IN_ORDER)]
    assert {"six", "karaoke"} <= set(models.complete(""))

    def complete(function, word, *words):
        return function(SPLIT.make_context("split", ["a.wav", *words], resilient_parsing=True), word)

    assert complete(split._complete_stems, "g", "--model", "six") == list(IN_ORDER)
    chain = ["--model", "six", "--then", "vocals=karaoke"]
    assert complete(split._complete_stems, "bass,", *chain)[:2] == ["bass,vocals-lead", "bass,vocals-back"]
    assert complete(split._complete_then, "vocals-", *chain) == ["vocals-lead=", "vocals-back="]
    assert complete(split._complete_then, "vocals-lead=ka", *chain) == ["vocals-lead=karaoke"]
    assert complete(split._complete_stems, "", "--model", "six", "--then", "nonsense") == []


def test_six_stems_are_measured_on_songs_of_four(song):
    """Guitar and piano are in the songs' `other`, so that is what they count as."""
    stems = stemsplit.split(song, SAMPLE_RATE, model="six")
    whole = stems | {"other": stems["other"] + stems["guitar"] + stems["piano"]}
    for name in ("vocals", "drums", "bass", "other"):
        Path("data/test/song").mkdir(parents=True, exist_ok=True)
        soundfile.write(f"data/test/song/{name}.wav", whole[name].T, SAMPLE_RATE, subtype="FLOAT")
    options = ["evaluate", "--data", "data", "--oracle", "none", "--json", "-"]

    def medians(*names):
        done = run(*options, *(word for name in names for word in ("--model", name)))
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)["splits"]["test"]["median"]

    six = medians("six")["waveform"]
    assert set(six) == {"vocals", "drums", "bass", "other"}
    assert min(each["sdr_db"] for each in six.values()) > 60  # its own estimates are the truth
    assert set(medians("six", "four")) >= {"six (waveform)", "four (waveform)"}
    for name in SIX:
        soundfile.write(f"data/test/song/{name}.wav", stems[name].T, SAMPLE_RATE, subtype="FLOAT")
    assert set(medians("six")["waveform"]) == set(SIX)


def test_a_library_becomes_songs_to_train_on(song):
    for name in ("music/a/one/song.wav", "music/b/two/song.wav", "music/b/two/last.wav"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(name, song.T, SAMPLE_RATE)
    options = ["--model", "four", "-o", "DATA/train", "--format", "flac", "--daw", "reaper"]
    done = run("-r", "music", *options)
    assert done.exit_code == 0, done.output
    songs = find_songs(["DATA"], "train", ("vocals", "drums", "bass", "other"))
    assert [each.name for each in songs] == ["a/one/song", "b/two/last", "b/two/song"]
    assert all(each.known == (True,) * 4 for each in songs)
    np.testing.assert_allclose(songs[0].load(SAMPLE_RATE).mixture, song, atol=1e-3)


@pytest.mark.slow
def test_such_songs_train_a_model(song):
    for name in ("music/a/one/song.wav", "music/b/two/song.wav"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(name, np.tile(song, 8).T, SAMPLE_RATE)
    assert run("-r", "music", "--model", "four", "-o", "DATA/train", "--format", "flac").exit_code == 0
    options = ["--name", "mine", "--steps", "1", "--examples", "2", "--validation", "2", "--stems", "vocals"]
    done = run("train", "--data", "DATA", "--run", "run", *options)
    assert done.exit_code == 0, done.output
    assert Path("run/mine.safetensors").exists()


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("ray"), reason="needs Ray")
def test_workers_of_a_cluster_find_them(song):
    options = ["--model", "six", "--then", "vocals=karaoke"]
    done = run("song.wav", *options, "--ray", "local", "-o", "cluster")
    assert done.exit_code == 0, done.output
    assert run("song.wav", *options).exit_code == 0
    here, there = sounds("stems/song"), sounds("cluster/song")
    assert set(here) == set(CHAIN)
    for name, stem in here.items():
        np.testing.assert_allclose(there[name], stem, atol=1e-5)


def test_a_pipe_that_has_no_end_cannot_be_normalized(song, monkeypatch):
    class Pipe:
        buffer = None

        def isatty(self):
            return False

    monkeypatch.setattr(sys, "stdin", Pipe())
    refused = run("-", "--raw", "44100:2:f32", "--stdout", "guitar", "--model", "six")
    assert refused.exit_code == 1
    assert "save the input to a file" in refused.stderr


def test_an_interruption_ends_the_first_model_of_a_chain(song):
    """All of it runs before the second is fitted, and before any stem is written."""
    calls = []

    def interrupt(done, _total):
        calls.append(done)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stemsplit.split_file("song.wav", model="six", then={"vocals": "karaoke"}, progress=interrupt)
    assert calls == [0]
    assert not Path("stems").exists()
