from __future__ import annotations

import codecs
import os
import subprocess
import sys

import pytest

from stemsplit.audio.reader import Reader
from stemsplit.batch import tracklist
from stemsplit.errors import DecodeError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("here.wav", "lists/there.wav", "lists/Café’s.wav", "lists/disc 1/a.wav"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listed(name, data):
    with open(name, "wb") as file:
        file.write(data)
    return tracklist.read(name)


@pytest.mark.parametrize(
    "data",
    [
        codecs.BOM_UTF8 + "é.wav\n#1.wav\n".encode(),
        "\ufeffé.wav\r\n#1.wav\r\n".encode("utf-16-le"),
        "\ufeffé.wav\r\n#1.wav\r\n".encode("utf-16-be"),
        "é.wav\r\n \r\n#1.wav".encode(),
        "é.wav\0#1.wav\0".encode(),
    ],
)
def test_a_plain_list_counts_from_the_current_folder(folder, data):
    assert listed("lists/tracks.txt", data) == ["é.wav", "#1.wav"]


def test_names_in_a_list_need_not_be_text(folder):
    assert [os.fsencode(name) for name in listed("list", b"\xe9 \n.wav\0 b.wav\0")] == [
        b"\xe9 \n.wav",
        b" b.wav",
    ]


@pytest.mark.parametrize(("name", "first"), [("a.M3U", ""), ("a.m3u8", ""), ("a.txt", "#EXTM3U\r\n")])
@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_playlist_counts_from_its_own_folder(folder, name, first, coding):
    text = first + "#EXTINF:12,There\r\nthere.wav\r\nCafé’s.wav\r\n\r\ndisc 1\\a.wav\r\n../gone.wav\r\n"
    assert listed(f"lists/{name}", text.encode(coding)) == [
        "lists/there.wav",
        "lists/Café’s.wav",
        "lists/disc 1/a.wav",
        "lists/../gone.wav",
    ]


def test_a_playlist_may_name_what_is_elsewhere(folder):
    absolute = str(folder / "here.wav")
    names = [absolute, "file:///music/a.wav", "https://example.org/a.mp3", "youtu.be/1"]
    assert listed("lists/a.m3u", " \n\t".join(names).encode()) == names


@pytest.mark.parametrize("entry", [b"\xe9.wav", b"\x81.wav"])  # Latin-1, and nothing in Windows' table
def test_a_name_in_a_playlist_may_have_other_bytes(folder, entry):
    name = os.fsdecode(b"lists/" + entry)
    try:
        open(name, "w").close()
    except OSError:
        pytest.skip("names are Unicode here")
    assert listed("lists/a.m3u", entry + b"\n") == [name]


def test_a_name_in_a_playlist_may_be_composed_otherwise(folder):
    (folder / "lists" / "disc 1" / "cafe\u0301.wav").touch()
    name = listed("lists/a.m3u", "disc 1\\caf\u00e9.wav".encode())
    assert name == ["lists/disc 1/caf\u00e9.wav"]


@pytest.mark.parametrize("data", [b"\xff\xfe\x00\xd8", None])
def test_a_list_that_cannot_be_read(folder, data):
    with pytest.raises(DecodeError, match="list `odd`"):
        listed("odd", data) if data else tracklist.read("odd")


@pytest.mark.slow
def test_a_playlist_is_read_by_the_command(folder):
    (folder / "lists/a.m3u").write_text("#EXTM3U\nthere.wav\n")
    command = [sys.executable, "-m", "stemsplit", "--from-file", "lists/a.m3u", "--dry-run"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "`lists/there.wav` is empty" in run.stderr


@pytest.mark.parametrize(
    ("name", "data", "said", "hint"),
    [
        ("a.m3u8", b"#EXTM3U\nhere.wav\n", "a playlist", "--from-file"),
        ("a.XM", b"Extended Module: a" + bytes(99), "a tracker module", "WAV"),
        ("a.mid", b"MThd\0\0\0\6\0\0\0\1\0\x60", "a MIDI file", "WAV"),
    ],
)
def test_what_is_not_a_recording_is_called_what_it_is(folder, name, data, said, hint):
    (folder / name).write_bytes(data)
    with pytest.raises(DecodeError, match=f"`{name}` is {said}") as caught:
        Reader(name)
    assert hint in caught.value.hint
