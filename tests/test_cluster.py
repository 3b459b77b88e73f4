"""A batch on a real cluster of two nodes on this machine, one of which is lost in the middle."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from stemsplit.batch import ray_backend
from stemsplit.batch.discovery import Track, find_tracks
from stemsplit.batch.plan import BatchOptions
from stemsplit.batch.runner import BatchRunner
from stemsplit.cli import app
from stemsplit.errors import ClusterUnavailable, EncodeError, StemsplitError
from stemsplit.files import remote
from stemsplit.pipeline import SplitResult
from tests.conftest import SAMPLE_RATE, events

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
needs_ray = pytest.mark.skipif(not find_spec("ray"), reason="needs Ray")
TRACKS = 12


@pytest.fixture(scope="module")
def nodes():
    """A cluster: one node for the head, which has no room for work, and two with a core each."""
    import ray
    from ray.cluster_utils import Cluster

    os.environ.pop("RAY_ADDRESS", None)
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield found, [found.add_node(num_cpus=1), found.add_node(num_cpus=1)]
    ray.shutdown()
    found.shutdown()


@pytest.fixture
def album(tmp_path, music, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("album").mkdir()
    for number in range(TRACKS):
        sound = np.roll(0.2 * music[:, :20_000], 500 * number, axis=1)
        soundfile.write(f"album/{number:02}.wav", sound.T, SAMPLE_RATE)
    return tmp_path


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.wav")}


@pytest.mark.slow
@needs_ray
def test_a_node_that_is_lost_loses_nothing(nodes, album):
    together, (first, _) = nodes
    options = BatchOptions.of(out=Path("out"), model="binary-mask-cnn", stems=("bass",))
    jobs = options.plan([*find_tracks(["album"]).tracks, Track(Path("missing.wav"))])
    outcomes, killed_after = {}, {}
    for job, outcome in ray_backend.run(options, jobs, address=together.address):
        assert job not in outcomes, "each track comes back once"
        outcomes[job] = outcome
        if len(outcomes) == TRACKS // 4:
            together.remove_node(first, allow_graceful=False)
            killed_after = times(Path("out"))
    assert len(outcomes) == TRACKS + 1
    missing = outcomes.pop(jobs[-1])
    assert isinstance(missing, StemsplitError)
    assert missing.code == "not_found"
    assert all(isinstance(outcome, SplitResult) for outcome in outcomes.values())
    written = times(Path("out"))
    assert len(written) == TRACKS
    assert killed_after.items() <= written.items(), "what was done is not done again"
    for job, outcome in outcomes.items():
        assert outcome.input == job.track.path
        assert outcome.outputs == job.outputs
        assert soundfile.info(job.outputs["bass"]).frames == outcome.frames == 20_000
    again = BatchRunner(options.with_output(skip_existing=True))
    assert all(again.is_done(job) for job in jobs[:-1]), "and the records are those of any other run"


@pytest.mark.slow
@needs_ray
def test_the_program_uses_a_cluster_and_places_that_fsspec_knows(nodes, album):
    together, _ = nodes
    (album / "album" / "broken.wav").write_text("no sound at all")
    places = [(album / name).as_uri() for name in ("album", "out")]
    words = [places[0], "-o", places[1], "--model", "binary-mask-cnn", "--stems", "bass"]
    words += ["--ray", together.address]
    first = CliRunner().invoke(app, [*words, "--json"])
    assert first.exit_code == 1, first.output
    told = events(first.stdout)
    assert [event["event"] for event in told[: TRACKS + 2]] == ["start", *["plan"] * (TRACKS + 1)]
    assert told[-1] == {"event": "summary", "done": TRACKS, "skipped": 0, "failed": 1}
    assert len(times(album / "out")) == TRACKS
    assert not list(album.rglob("*.part"))
    again = CliRunner().invoke(app, [*words, "--skip-existing"])
    assert again.exit_code == 1
    assert f"{TRACKS} skipped, 1 failed" in again.stderr
    dry = CliRunner().invoke(app, [*words, "--dry-run"])
    assert dry.stdout.splitlines()[0] == f"{places[1]}/00/bass.wav"


@pytest.mark.slow
@needs_ray
def test_a_machine_must_have_room(nodes):
    together, _ = nodes
    with pytest.raises(ClusterUnavailable, match="has 64 CPU"):
        list(ray_backend.run(BatchOptions(), [object()], address=together.address, cpus=64))


@pytest.mark.slow
@needs_ray
def test_there_may_be_no_cluster():
    with pytest.raises(ClusterUnavailable, match="No Ray cluster"):
        list(ray_backend.run(BatchOptions(), [], address="127.0.0.1:1"))


# A track whose worker was lost


@pytest.fixture
def runner(album):
    return BatchRunner(BatchOptions.of(out=Path("out")))


@pytest.fixture
def separator():
    from tests.conftest import mask_separator

    return mask_separator()


@pytest.mark.slow
def test_a_track_that_was_finished_is_not_done_again(runner, separator):
    (job, *_) = runner.options.plan(find_tracks(["album"]).tracks)
    done = runner.run_once(job, separator)
    written = times(Path("out"))
    with pytest.raises(EncodeError, match="already exists"):
        runner.run_once(job, separator)
    again = runner.run_once(job, separator, again=True)
    assert (again, times(Path("out"))) == (done, written)


@pytest.mark.slow
def test_a_track_that_was_half_finished_is_done_again(runner, separator):
    (job, *_) = runner.options.plan(find_tracks(["album"]).tracks)
    done = runner.run_once(job, separator)
    content = job.outputs["bass"].read_bytes()
    job.outputs["bass"].unlink()
    assert runner.run_once(job, separator, again=True).sha256 == done.sha256
    assert job.outputs["bass"].read_bytes() == content


def test_what_is_somebody_else_s_is_never_replaced(runner, separator):
    (job, *_) = runner.options.plan(find_tracks(["album"]).tracks)
    job.outputs["bass"].parent.mkdir(parents=True)
    job.outputs["bass"].write_bytes(b"my own")
    with pytest.raises(EncodeError, match="already exists"):
        runner.run_once(job, separator, again=True)
    assert job.outputs["bass"].read_bytes() == b"my own"


# Places elsewhere


@pytest.fixture
def elsewhere(album, request):
    """A folder of two tracks that only fsspec knows, and one for stems."""
    upath = pytest.importorskip("upath")
    top = upath.UPath(f"memory://{request.node.name}/[x]")
    for name in ("a.wav", "live/b [1977] *?.WAV", "live/notes.txt", ".hidden.wav"):
        (top / "music" / name).parent.mkdir(parents=True, exist_ok=True)
        (top / "music" / name).write_bytes(Path("album/00.wav").read_bytes())
    return top


def test_tracks_elsewhere_are_found(elsewhere):
    top = elsewhere / "music"
    assert [(track.path, track.folder) for track in find_tracks([str(top)]).tracks] == [(top / "a.wav", "")]
    found = find_tracks([str(top), str(top / "live" / "b [1977] *?.WAV")], recursive=True).tracks
    assert [(track.path, track.folder) for track in found] == [
        (top / "a.wav", ""),
        (top / "live" / "b [1977] *?.WAV", "live"),
    ]


@pytest.mark.slow
def test_stems_elsewhere_are_those_that_would_be_here(elsewhere, separator):
    near = BatchRunner(BatchOptions.of(out=Path("out")))
    (here, *_) = near.options.plan(find_tracks(["album/00.wav"]).tracks)
    near.run_once(here, separator)
    far = BatchRunner(BatchOptions.of(out=elsewhere / "out"))
    jobs = far.options.plan(find_tracks([str(elsewhere / "music")], recursive=True).tracks)
    result = far.run_once(jobs[1], separator)
    assert str(result.outputs["bass"]).endswith("out/live/b [1977] *?/bass.wav")
    for stem, path in result.outputs.items():
        there, _ = soundfile.read(path.open("rb"))
        np.testing.assert_array_equal(there, soundfile.read(here.outputs[stem])[0])
    assert not [path for path in (elsewhere / "out").rglob("*") if str(path).endswith(".part")]


@pytest.mark.slow
def test_what_is_done_elsewhere_is_remembered_there(elsewhere, separator):
    runner = BatchRunner(BatchOptions.of(out=elsewhere / "out", skip_existing=True))
    (job,) = runner.options.plan(find_tracks([str(elsewhere / "music")]).tracks)
    done = runner.run_once(job, separator)
    assert runner.run_once(job, separator) is None
    remote.remove(job.outputs["bass"])
    assert runner.run_once(job, separator).sha256 == done.sha256, (
        "only what is missing keeps it from being done"
    )
    job.outputs["bass"].write_bytes(b"my own")
    with pytest.raises(EncodeError, match="already exists"):
        runner.run_once(job, separator)
    job.track.path.write_bytes(Path("album/01.wav").read_bytes())
    assert not runner.is_done(job)


@pytest.mark.slow
def test_stems_elsewhere_are_not_replaced_unasked(elsewhere, separator):
    options = BatchOptions.of(out=elsewhere / "out")
    (job,) = options.plan(find_tracks([str(elsewhere / "music")]).tracks)
    job.outputs["bass"].parent.mkdir(parents=True, exist_ok=True)
    job.outputs["bass"].write_bytes(b"my own")
    for again in (False, True):
        with pytest.raises(EncodeError, match="already exists"):
            BatchRunner(options).run_once(job, separator, again=again)
    assert job.outputs["bass"].read_bytes() == b"my own"
    BatchRunner(options.with_output(force=True)).run_once(job, separator)
    assert job.outputs["bass"].read_bytes() != b"my own"


def test_an_unknown_address_is_one_sentence_and_stops_no_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    soundfile.write("song.wav", [0.0], SAMPLE_RATE)
    found = find_tracks(["nowhere://music", "song.wav"])
    (failure,) = found.failures
    assert failure.problem.message.startswith("Cannot open `nowhere://music`")
    assert len(found.tracks) == 1
