from __future__ import annotations

import pytest

from stemsplit.discovery import find_tracks
from stemsplit.errors import DecodeError


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
    return [(str(track.path), track.folder) for track in find_tracks(names, **options)]


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
        find_tracks([name])
