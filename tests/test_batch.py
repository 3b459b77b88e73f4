from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from stemsplit.batch import ray_backend
from stemsplit.batch.discovery import Track
from stemsplit.batch.plan import BatchOptions
from stemsplit.batch.runner import BatchRunner
from stemsplit.errors import Collision, StemsplitError, TooFewPositions
from stemsplit.output.manifest import Fingerprint, Manifest, ManifestEntry
from stemsplit.output.template import DEFAULT_TEMPLATE

STEMS = ("vocals", "drums")


def planned(*paths, template=DEFAULT_TEMPLATE):
    tracks = [Track(Path(path)) for path in paths]
    return BatchOptions.of(out=Path("out"), stems=STEMS, template=template).plan(tracks)


def test_a_plan_says_where_everything_goes():
    (job,) = planned("music/a.mp3")
    assert job.outputs == {"vocals": Path("out/a/vocals.wav"), "drums": Path("out/a/drums.wav")}
    jobs = planned(*(f"{n}.mp3" for n in range(10)), template="{number} {track} {stem}.{ext}")
    assert jobs[0].outputs["drums"] == Path("out/01 0 drums.wav")


@pytest.mark.parametrize("other", ["y/a.mp3", "x/a.wav", "x/A.mp3"])
def test_two_tracks_of_one_name_are_refused(other):
    with pytest.raises(Collision, match="both be written") as error:
        planned("x/a.mp3", other)
    assert "{number}" in error.value.hint
    assert len(planned("x/a.mp3", other, template="{number}/{stem}.{ext}")) == 2


def test_stems_never_replace_a_track():
    with pytest.raises(Collision, match="would overwrite"):
        planned("song.mp3", "out/song/vocals.wav")


@pytest.fixture
def done(tmp_path):
    """A track that is done, and how one asks whether it is."""
    track, out = tmp_path / "song.wav", tmp_path / "out"
    outputs = {stem: out / "song" / f"{stem}.wav" for stem in STEMS}
    (out / "song").mkdir(parents=True)
    track.write_bytes(b"mixture")
    for stem, path in outputs.items():
        path.write_bytes(stem.encode())
    manifest = Manifest(out)
    fingerprints = manifest.fingerprints({path: path for path in outputs.values()})
    manifest.write(
        outputs, ManifestEntry(Fingerprint.of(track), {"mask": "soft"}, fingerprints, {"frames": 7})
    )
    return track, outputs, manifest


def is_done(done, settings=None):
    track, outputs, manifest = done
    return manifest.is_done(track, settings or {"mask": "soft"}, outputs)


def test_what_is_done_and_the_same_is_done(done):
    assert is_done(done)
    assert not is_done(done, {"mask": "binary"})
    os.utime(done[0], (1, 1))
    os.utime(done[1]["vocals"], (1, 1))
    assert is_done(done), "only the time of change is another"


@pytest.mark.parametrize("which", ["track", "vocals"])
@pytest.mark.parametrize("content", [b"m1xture", b"v0cals", b"", None])
def test_what_has_changed_is_not_done(done, which, content):
    path = done[0] if which == "track" else done[1][which]
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert not is_done(done)


def test_only_what_we_wrote_is_ours(done):
    _, outputs, manifest = done
    record = manifest.read(outputs)
    outputs["drums"].unlink()
    assert manifest.are_ours(outputs, record), "what is not there is in no one's way"
    outputs["vocals"].write_bytes(b"edited")
    assert not manifest.are_ours(outputs, record)
    assert not manifest.are_ours(outputs, None)


@pytest.mark.parametrize("damage", ["", "{}", "[1]", '{"version": 1}', '{"version": 2}', "\x00"])
def test_a_damaged_record_is_none(done, damage):
    _, outputs, manifest = done
    (path,) = (manifest.out / ".stemsplit").iterdir()
    path.write_text(damage)
    assert manifest.read(outputs) is None
    assert not is_done(done)


def test_records_of_other_outputs_are_others(done):
    track, outputs, manifest = done
    assert manifest.read({"vocals": outputs["vocals"]}) is None
    manifest.write({"vocals": outputs["vocals"]}, replace(manifest.read(outputs), settings={}))
    assert is_done(done)


def kinds_of(error):
    return [error, *(each for kind in error.__subclasses__() for each in kinds_of(kind))]


@pytest.mark.parametrize("kind", kinds_of(StemsplitError))
def test_errors_can_be_sent_by_other_machines(kind):
    words = (2, "message", "hint") if kind is TooFewPositions else ("message", "hint")
    error = pickle.loads(pickle.dumps(kind(*words)))
    assert (type(error), error.message, error.hint, error.code) == (kind, "message", "hint", kind.code)


def test_a_bug_on_another_machine_fails_a_track_alone(monkeypatch):
    def run_once(*_, again):
        raise ZeroDivisionError

    monkeypatch.setattr(BatchRunner, "run_once", run_once)
    worker = ray_backend._Worker(BatchOptions())
    worker._method = object()
    error = worker.split(SimpleNamespace(track="a.wav"), False)
    assert (error.code, error.message) == ("internal", "Unexpected error in `a.wav`: ZeroDivisionError")
    assert "run_once" in error.traceback
