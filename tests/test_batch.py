from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from stemsplit import batch
from stemsplit.batch import Order
from stemsplit.errors import Collision, DecodeError
from stemsplit.naming import DEFAULT_TEMPLATE
from stemsplit.records import Print, Record, Records

STEMS = ("vocals", "drums")


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder of music with other things in it."""
    for name in (
        "b.mp3",
        "A.WAV",
        "notes.txt",
        ".hidden.wav",
        "live/c.Flac",
        "live/1977/d.ogg",
        ".trash/e.wav",
        "stems/b/vocals.wav",
    ):
        path = tmp_path / "music" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "music"


def found(*names, **options):
    return [(str(track.path), track.folder) for track in batch.find_tracks(names, **options)]


def test_a_folder_stands_for_the_tracks_in_it(shelf):
    assert found("music") == [("music/A.WAV", ""), ("music/b.mp3", "")]


def test_folders_below_it_are_searched_if_asked_for_but_not_the_stems(shelf):
    assert found("music", recursive=True, leave_out=shelf / "stems") == [
        ("music/A.WAV", ""),
        ("music/b.mp3", ""),
        ("music/live/c.Flac", "live"),
        ("music/live/1977/d.ogg", "live/1977"),
    ]


def test_patterns_are_expanded_where_no_shell_did(shelf):
    assert found("music/*.mp3", "music/**/*.ogg") == [("music/b.mp3", ""), ("music/live/1977/d.ogg", "")]


def test_a_file_that_is_called_like_a_pattern_is_that_file(shelf):
    (shelf / "[x].wav").touch()
    (shelf / "x.wav").touch()
    assert found("music/[x].wav") == [("music/[x].wav", "")]


def test_what_is_named_twice_counts_once(shelf):
    assert len(found("music", "music/b.mp3", "./music/../music/b.mp3")) == 2


def test_a_name_of_nothing_is_left_to_whoever_opens_it(shelf):
    assert found("missing.mp3") == [("missing.mp3", "")]


def test_a_stem_file_beside_its_song_is_no_track(shelf):
    for name in ("b.stem.mp4", "other.stem.mp4"):
        (shelf / name).touch()
    assert [name for name, _ in found("music")] == ["music/A.WAV", "music/b.mp3", "music/other.stem.mp4"]


def test_stems_may_go_into_the_folder_that_is_searched_but_not_below_it(shelf):
    assert len(found("music", leave_out=shelf)) == 2
    with pytest.raises(DecodeError, match="the stems would go there"):
        found("music", recursive=True, leave_out=shelf)


def test_links_that_lead_in_circles_end(shelf):
    (shelf / "live" / "again").symlink_to(shelf)
    names = [name for name, _ in found("music", recursive=True, leave_out=shelf / "stems")]
    assert len(names) == 4


@pytest.mark.parametrize("name", ["music/live/1977/deep", "music/*.xyz"])
def test_where_there_is_nothing_is_an_error(shelf, name):
    (shelf / "live" / "1977" / "deep").mkdir()
    with pytest.raises(DecodeError, match="No sound files"):
        batch.find_tracks([name])


def planned(*paths, template=DEFAULT_TEMPLATE):
    tracks = [batch.Track(Path(path)) for path in paths]
    return Order(Path("out"), stems=STEMS, template=template).plan(tracks)


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
    with pytest.raises(Collision, match="would replace"):
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
    records = Records(out)
    prints = records.prints({path: path for path in outputs.values()})
    records.write(outputs, Record(Print.of(track), {"mask": "soft"}, prints, {"frames": 7}))
    return track, outputs, records


def is_done(done, settings=None):
    track, outputs, records = done
    return records.is_done(track, settings or {"mask": "soft"}, outputs)


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
    _, outputs, records = done
    record = records.read(outputs)
    outputs["drums"].unlink()
    assert records.are_ours(outputs, record), "what is not there is in no one's way"
    outputs["vocals"].write_bytes(b"edited")
    assert not records.are_ours(outputs, record)
    assert not records.are_ours(outputs, None)


@pytest.mark.parametrize("damage", ["", "{}", "[1]", '{"version": 1}', '{"version": 2}', "\x00"])
def test_a_damaged_record_is_none(done, damage):
    _, outputs, records = done
    (path,) = (records.out / ".stemsplit").iterdir()
    path.write_text(damage)
    assert records.read(outputs) is None
    assert not is_done(done)


def test_records_of_other_outputs_are_others(done):
    track, outputs, records = done
    assert records.read({"vocals": outputs["vocals"]}) is None
    records.write({"vocals": outputs["vocals"]}, replace(records.read(outputs), settings={}))
    assert is_done(done)
