"""Tempo and key in the tags of stems, and in their names."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from pathlib import Path

import mutagen
import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from stemsplit.audio.tag_fields import collect
from stemsplit.audio.tags import Tags, read_tags, write_tags
from stemsplit.cli import app
from stemsplit.cli.bars import Bars
from stemsplit.options import Options
from stemsplit.output import detected
from stemsplit.pipeline import split_file, split_track
from tests.conftest import quick_separator

pytestmark = pytest.mark.slow
RATE, SECONDS = 44_100, 9


def music(path: Path) -> Path:
    """A cadence in D minor, two beats per chord at 100 BPM, with clicks on the beats."""
    time = np.arange(SECONDS * RATE) / RATE
    beat = (time / 0.6).astype(int)
    notes = np.array([(62, 65, 69), (67, 70, 74), (69, 73, 76), (62, 65, 69)])[beat // 2 % 4]
    sound = 0.05 * np.sin(2 * np.pi * 440 * 2 ** ((notes.T - 69) / 12) * time).sum(axis=0)
    noise = np.random.default_rng(0).standard_normal(len(time))
    sound += 0.3 * noise * np.exp(-80 * (time - 0.6 * beat))
    soundfile.write(path, sound, RATE)
    return path


@pytest.fixture(scope="module")
def song(tmp_path_factory) -> Path:
    return music(tmp_path_factory.mktemp("music") / "song.wav")


@pytest.mark.parametrize("format", ["wav", "flac", "mp3", "ogg", "stem.mp4"])
def test_each_container_has_tempo_and_key(song, tmp_path, format):
    result = split_file(song, tmp_path, separator=quick_separator(), format=format, tag_bpm_key=True)
    for path in set(result.outputs.values()):
        assert (read_tags(path).text("bpm"), read_tags(path).text("initialkey")) == ("100", "Dm")
    tags = mutagen.File(path).tags
    frames = {"mp3": "TBPM TKEY", "wav": "TBPM TKEY", "flac": "bpm initialkey", "ogg": "bpm initialkey"}
    wanted = frames.get(format, "tmpo ----:com.apple.iTunes:initialkey").split()
    assert {name.lower() for name in wanted} <= {name.lower() for name in tags.keys()}  # noqa: SIM118


def test_tags_of_the_song_are_kept(song, tmp_path):
    tagged = tmp_path / "song.wav"
    tagged.write_bytes(song.read_bytes())
    write_tags(tagged, "wav", Tags(collect([("title", ["T"]), ("initialkey", ["8A"])])))
    result = split_file(tagged, tmp_path / "out", separator=quick_separator(), tag_bpm_key=True)
    tags = read_tags(result.outputs["bass"])
    assert [tags.text(name) for name in ("bpm", "initialkey", "title")] == ["100", "8A", "T (bass)"]
    plain = split_file(tagged, tmp_path / "plain", separator=quick_separator())
    assert read_tags(plain.outputs["bass"]).text("bpm") == ""


def run(*words: object) -> list[str]:
    result = CliRunner().invoke(app, [*map(str, words), "--model", "binary-mask-cnn", "--fast"])
    assert result.exit_code == 0, result.stderr
    return result.stdout.splitlines()


def test_names_with_tempo_and_key(song, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = [song, "--template", "{bpm} {key}/{stem}.{ext}", "--stems", "drums"]
    calls = []
    analyse = detected.analyse_mixture
    counted = lambda *words, **named: calls.append(1) or analyse(*words, **named)  # noqa: E731
    monkeypatch.setattr(detected, "analyse_mixture", counted)
    planned = run(*options, "--dry-run")
    assert planned == ["stems/100 Dm/drums.wav"]
    assert not Path("stems").exists()
    assert run(*options) == planned
    assert len(calls) == 2
    # From here on the record knows them, whatever a later version would detect.
    monkeypatch.setattr(detected, "analyse_mixture", None)
    before = Path(planned[0]).stat().st_mtime_ns
    assert run(*options, "--skip-existing", "--dry-run") == planned
    assert run(*options, "--skip-existing") == planned
    assert Path(planned[0]).stat().st_mtime_ns == before
    assert run(*options, "--force") == planned


def test_a_bar_counts_the_tracks_analysed_for_their_names(song, tmp_path, monkeypatch):
    shown = []

    @contextmanager
    def counting(bars, tracks, title="{} tracks"):
        yield lambda: shown.append(title.format(tracks))

    monkeypatch.setattr(Bars, "counting", counting)
    monkeypatch.chdir(tmp_path)
    shutil.copy(song, "other.wav")
    run(song, "other.wav", "--template", "{bpm} {track} {stem}.{ext}", "--dry-run")
    assert shown == ["tempo and key for 2 names"] * 2


def test_names_with_tempo_and_key_of_the_tags(song, tmp_path, monkeypatch):
    monkeypatch.setattr(detected, "analyse_mixture", None)
    tagged = tmp_path / "song.wav"
    tagged.write_bytes(song.read_bytes())
    write_tags(tagged, "wav", Tags(collect([("bpm", ["127.6"]), ("initialkey", ["F#m"])])))
    options = Options.of(template="{key} {bpm} {stem}.{ext}", out=tmp_path)
    result = split_track(tagged, options, quick_separator())
    assert result.outputs["drums"] == tmp_path / "F#m 128 drums.wav"


def test_what_has_neither_says_so_and_what_is_broken_stops_no_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    soundfile.write("silence.wav", np.zeros(RATE), RATE)
    Path("broken.wav").write_bytes(b"RIFF" + b"x" * 100)
    words = ["silence.wav", "broken.wav", "--template", "{bpm}, {key}/{track} {stem}.{ext}"]
    result = CliRunner().invoke(app, [*words, "--stems", "drums", "--model", "binary-mask-cnn", "--fast"])
    assert (result.exit_code, "broken.wav" in result.stderr) == (1, True)
    assert result.stdout == "stems/unknown tempo, unknown key/silence drums.wav\n"
