"""Stems that earlier runs made are not split again, unless they are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from stemsplit.batch.discovery import Track, find_tracks
from stemsplit.batch.plan import BatchOptions, Job
from stemsplit.batch.runner import BatchRunner
from stemsplit.separation.separator import Spec

RATE = 44_100


class Halves:
    """Two stems, each half of the mixture."""

    spec = Spec(stems=("a", "b"), sample_rate=RATE, context=0, stride=1, segment=4096)

    def separate(self, mixture):
        return np.stack([mixture / 2] * 2)


@pytest.fixture
def album(tmp_path, monkeypatch):
    """Return a folder with a song, and with its stems in `stems`; it is the current folder."""
    monkeypatch.chdir(tmp_path)
    song = np.random.default_rng(0).normal(0, 0.1, (5000, 2))
    soundfile.write("song.wav", song, RATE)
    outputs = {stem: Path("stems", "song", f"{stem}.wav") for stem in ("a", "b")}
    options = BatchOptions()
    options.__dict__["settings"] = {}
    BatchRunner(options).run(Job(Track(Path("song.wav")), outputs), Halves())
    return tmp_path


def found(*names: str, **options: Any) -> list[str]:
    return [str(track.path) for track in find_tracks(names, **options).tracks]


def test_a_search_leaves_them_out(album):
    assert found(".", recursive=True) == ["song.wav"]
    assert found(str(album), recursive=True) == [str(album / "song.wav")]
    _, (failure,) = find_tracks(["stems"], recursive=True)
    assert "contains only stems made by stemsplit" in failure.problem.message


def test_named_ones_are_split(album):
    assert found("stems/song/a.wav") == ["stems/song/a.wav"]
    assert found("stems/song") == ["stems/song/a.wav", "stems/song/b.wav"]
    assert found("stems/*/b.wav") == ["stems/song/b.wav"]


def test_what_someone_else_put_there_is_a_track(album):
    soundfile.write("stems/song/new.wav", np.zeros((10, 2)), RATE)
    soundfile.write("stems/song/a.wav", np.zeros((5000, 2)), RATE)  # recorded anew, as long as before
    assert found(".", recursive=True) == ["song.wav", "stems/song/a.wav", "stems/song/new.wav"]


def test_parts_of_older_versions_are_neither_tracks_nor_touched(album):
    part = Path("stems/song/a.wav.part")
    part.write_text("half")
    assert found(".", recursive=True) == ["song.wav"]
    options = BatchOptions.of(force=True)
    options.__dict__["settings"] = {}
    outputs = {stem: Path("stems", "song", f"{stem}.wav") for stem in ("a", "b")}
    BatchRunner(options).run(Job(Track(Path("song.wav")), outputs), Halves())
    assert part.read_text() == "half"
