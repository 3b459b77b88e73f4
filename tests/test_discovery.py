from __future__ import annotations

import os
import re
import subprocess
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stemsplit.audio import ffmpeg
from stemsplit.audio.formats import SUFFIXES
from stemsplit.audio.reader import Reader
from stemsplit.batch.discovery import find_tracks


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
    return [(str(track.path), track.folder) for track in find_tracks(names, **options).tracks]


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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.mp3", "No such file: `missing.mp3`"),
        ("Song [dQw4w9WgXcQ].mp3", "No such file: `Song [dQw4w9WgXcQ].mp3`"),
        ("music/*.xyz", "No file matches `music/*.xyz`"),
        ("music/liv?", "Only folders match `music/liv?`"),
        ("music/live/1977/deep", "No sound files in `music/live/1977/deep`"),
        ("music/b.mp3/c.mp3", "No such file: `music/b.mp3/c.mp3`"),
        ("music/gone.wav", "`music/gone.wav` is a link to `nowhere.wav`, which does not exist"),
        ("", "A file name is empty"),
        ("https://youtu.be/watch?v=1", "`https://youtu.be/watch?v=1` is a web address, not a file"),
        ("www.example.org/1.mp3", "`www.example.org/1.mp3` is a web address, not a file"),
        ("music.youtube.com/watch?v=1", "`music.youtube.com/watch?v=1` is a web address, not a file"),
        ("HTTP://example.org/1.mp3", "`HTTP://example.org/1.mp3` is a web address, not a file"),
        ("s3://bucket/a.mp3", "`s3://bucket/a.mp3` is not on this machine"),
    ],
)
def test_a_name_of_nothing_fails_and_the_others_are_found(shelf, name, message):
    (shelf / "live" / "1977" / "deep").mkdir()
    (shelf / "gone.wav").symlink_to("nowhere.wav")
    tracks, (failure,) = find_tracks([name, "music/b.mp3"], elsewhere=False)
    assert [str(track) for track in tracks] == ["music/b.mp3"]
    assert (failure.name, failure.problem.message) == (name, message)


@pytest.mark.parametrize(
    ("name", "recursive", "hint"),
    [
        ("music/live/1977/deep", False, "search its subfolders too, with --recursive"),
        ("music/live/1977/deep", True, None),
        ("music/liv?", False, "search its subfolders too, with --recursive"),
        ("music/b.mp3/c.mp3", False, "`music/b.mp3` is a file, not a folder"),
        ("lost/c.mp3", False, "the folder `lost` does not exist either"),
        ("music/c.mp3", False, "did you mean `b.mp3`?"),
        ("music/live/d.ogg", False, None),
        ("music/live/1977/x.ogg", False, "did you mean `e.ogg` or `d.ogg`?"),
    ],
)
def test_the_hint_says_what_to_do(shelf, name, recursive, hint):
    (shelf / "live" / "1977" / "deep").mkdir()
    (shelf / "live" / "1977" / "e.ogg").touch()
    _, (failure,) = find_tracks([name], recursive=recursive)
    assert failure.problem.hint == hint


def test_a_folder_that_cannot_be_read_fails_and_the_others_are_found(shelf, monkeypatch):
    scandir = os.scandir

    def closed(folder):
        if str(folder).endswith("1977"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", closed)
    tracks, (failure,) = find_tracks(["music"], recursive=True)
    assert Path("music/live/c.Flac") in [track.path for track in tracks]
    assert failure.problem.message == "Cannot read the folder `music/live/1977`: Permission denied"


def test_an_address_of_a_file_manager_is_a_path(shelf):
    (shelf / "a b.wav").touch()
    tracks, _ = find_tracks([f"{shelf.as_uri()}/a%20b.wav"], elsewhere=False)
    assert [track.path for track in tracks] == [shelf / "a b.wav"]


def test_a_file_reached_by_two_folders_counts_once(shelf):
    (shelf / "again").symlink_to("live")
    assert len(found("music", "music/again/c.Flac", recursive=True)) == 5


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_may_be_composed_otherwise(shelf, form):
    there = f"music/{unicodedata.normalize(form, 'café.wav')}"
    Path(there).touch()
    for name in ("music/caf\u00e9.wav", "music/cafe\u0301.wav"):
        tracks, failures = find_tracks([name])
        assert ([str(track.path) for track in tracks], failures) == ([there], [])


def test_files_of_one_name_or_one_content_are_several(shelf):
    (shelf / "live" / "b.mp3").touch()
    os.link(shelf / "b.mp3", shelf / "linked.mp3")
    assert len(found("music/b.mp3", "music/live/b.mp3", "music/linked.mp3")) == 3


def test_a_stem_file_beside_its_song_is_not_a_track(shelf):
    for name in ("b.stem.mp4", "b.stem.m4a", "A.STEM.MP4", "other.stem.mp4"):
        (shelf / name).touch()
    assert [name for name, _ in found("music")] == ["music/A.WAV", "music/b.mp3", "music/other.stem.mp4"]


def test_typescript_is_not_a_transport_stream(tmp_path):
    packet = b"\x47\x40\x00\x10\x00\x00\xb0"
    for name, data in (("film.ts", packet), ("disc.mts", packet), ("app.ts", b"Group(1)"), ("a.mts", b"x")):
        (tmp_path / name).write_bytes(data * 99)
    tracks = find_tracks([str(tmp_path)]).tracks
    assert [track.path.name for track in tracks] == ["disc.mts", "film.ts"]


NOT_SEARCHED = {
    *("avif", "heic", "heif", "mks", "ism", "apl", "vql"),  # pictures, subtitles, names of other files
    *("mac", "sf"),  # mostly something else
    *("ismv", "isma", "mj2", "psp", "vqe"),  # hardly used for whole songs
}


@pytest.mark.parametrize("container", ffmpeg._CONTAINERS.split(","))
def test_a_folder_is_searched_for_what_ffmpeg_reads(container):
    command = [ffmpeg.executable(), "-hide_banner", "-h", f"demuxer={container}"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    said = re.search(r"Common extensions: ([\w,]+)\.", told)
    suffixes = set(said[1].split(",")) if said else set()
    assert {f".{suffix}" for suffix in suffixes - NOT_SEARCHED} <= SUFFIXES


@pytest.mark.slow
def test_what_a_folder_is_searched_for_is_read(tmp_path):
    noise = np.random.default_rng(3).uniform(-0.5, 0.5, (9_600, 1))
    by_ffmpeg = {
        *("aac", "adts", "ac3", "aif", "aifc", "aiff", "asf", "au", "avi", "caf", "eac3", "ec3", "f4v"),
        *("flac", "flv", "ircam", "loas", "m2a", "m2ts", "m4a", "m4b", "m4v", "mka", "mkv", "mov"),
        *("mp2", "mp3", "mp4", "mpa", "mpeg", "mpg", "mts", "nut", "oga", "ogg", "ogv", "opus", "ra"),
        *("rm", "ts", "tta", "vob", "voc", "w64", "webm", "wma", "wmv", "wtv", "wv"),
    }
    by_libsndfile = {kind: kind.upper() for kind in ("avr", "nist", "paf", "pvf", "rf64", "wav")}
    by_libsndfile |= {"snd": "AU", "wave": "WAV"}
    for suffix, kind in by_libsndfile.items():
        soundfile.write(tmp_path / f"x.{suffix}", noise, 48_000, format=kind, subtype="PCM_16")
    outputs = [tmp_path / f"x.{suffix}" for suffix in by_ffmpeg]
    command = [ffmpeg.executable(), "-v", "error", "-nostdin", "-i", tmp_path / "x.wav"]
    subprocess.run([*command, *outputs], check=True)
    tracks = find_tracks([str(tmp_path)]).tracks
    assert {track.path.suffix[1:] for track in tracks} == {*by_ffmpeg, *by_libsndfile}
    for track in tracks:
        assert sum(block.shape[1] for block in Reader(track.path)) > 4_000, track


def test_stems_may_go_into_the_folder_that_is_searched_but_not_below_it(shelf):
    assert len(found("music", leave_out=shelf)) == 2
    _, (failure,) = find_tracks(["music"], recursive=True, leave_out=shelf)
    assert "is also searched for tracks" in failure.problem.message


def test_links_that_lead_in_circles_end(shelf, monkeypatch):
    scanned, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: scanned.append(folder) or scandir(folder))
    (shelf / "live" / "again").symlink_to(shelf)
    names = [name for name, _ in found("music", recursive=True, leave_out=shelf / "stems")]
    assert len(names) == 4
    assert len(scanned) < 10, "each folder once, and each link"
