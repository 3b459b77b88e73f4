"""Hostile input: damaged files, odd names, playlists, full disks, files that change while they are read."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import socket
import struct
import subprocess
import threading
import tracemalloc
import unicodedata
import zlib
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import soundfile

from stemsplit.audio.reader import Reader, Signal
from stemsplit.audio.tags import Tags, _read_tags, read_tags
from stemsplit.audio.writer import Writer
from stemsplit.errors import BadWeights, DecodeError, EncodeError, UnknownModel
from stemsplit.networks import factory
from stemsplit.zoo import page, store
from tests import mutate
from tests.mutate import FRAMES, RATE, files, noise, run_ffmpeg, split, within

pytestmark = pytest.mark.subprocess  # most of these start ffmpeg

SOUNDS = (
    *(
        "16.wav",
        "24.wav",
        "float.wav",
        "mono.wav",
        "rf64.wav",
        "tagged.wav",
        "a.flac",
        "tagged.flac",
        "a.ogg",
    ),
    *("a.mp3", "tagged.mp3", "a.m4a", "tagged.m4a"),
)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Small valid files of each kind: name to content."""
    found = mutate.sounds(tmp_path_factory.mktemp("sounds"))
    assert set(found) == set(SOUNDS)
    return found


@pytest.fixture(scope="module")
def good_weights(tmp_path_factory):
    return mutate.small_weights(tmp_path_factory.mktemp("weights") / "a.safetensors")


# Damage of every kind; thousands of it in bench/fuzz.py


@pytest.mark.parametrize("name", SOUNDS)
def test_damaged_sound_ends_in_whole_stems_or_in_one_sentence(name, sounds, tmp_path, capfd):
    path = tmp_path / name
    path.write_bytes(mutate.mutated(sounds[name], sounds, Random(f"{name}: 1")))
    mutate.outcome(path, tmp_path / "out")
    assert capfd.readouterr() == ("", "")


def test_damaged_weights_are_refused_or_work(good_weights, tmp_path):
    path = tmp_path / "a.safetensors"
    for seed in range(40):
        path.write_bytes(mutate.mutated_weights(good_weights, Random(seed)))
        mutate.weights_outcome(path)


def test_undamaged_files_come_out_clean(sounds, good_weights, tmp_path):
    for name in ("16.wav", "tagged.m4a"):
        (tmp_path / name).write_bytes(sounds[name])
        assert mutate.outcome(tmp_path / name, tmp_path / "out") == "clean"
        shutil.rmtree(tmp_path / "out")
    (tmp_path / "a.safetensors").write_bytes(good_weights)
    assert mutate.weights_outcome(tmp_path / "a.safetensors") == "clean"


@pytest.mark.parametrize("rate", [1, 100, 0x7FFF_FFFF])
def test_a_sample_rate_that_no_sound_has_is_refused(rate, tmp_path):
    # One second of 1 Hz is 44,100 samples for the separator: a block of it would be gigabytes.
    soundfile.write(tmp_path / "a.wav", noise().T, rate)
    with pytest.raises(DecodeError, match=f"{rate:,} Hz"):
        Reader(tmp_path / "a.wav")


@pytest.mark.parametrize("rate", [1_000, 705_600, 1_411_200])
def test_a_sample_rate_that_some_sound_has_is_split(rate, tmp_path):
    soundfile.write(tmp_path / "a.wav", noise().T, rate)
    assert mutate.outcome(tmp_path / "a.wav", tmp_path / "out") == "clean"


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.wav")
    with within(60), pytest.raises(DecodeError, match="is not a regular file"):
        Reader(tmp_path / "a.wav")


# Tags and covers


def png(width: int, height: int) -> bytes:
    """A black picture of three bytes a pixel, which its file has a thousandth of."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    lines = zlib.compressobj(1)
    packed = b"".join(lines.compress(bytes(1 + 3 * width)) for _ in range(height)) + lines.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def flac_with_picture(flac: bytes, picture: bytes) -> bytes:
    """Put a front cover behind the first block of a FLAC."""
    head = struct.pack(">II9s6I", 3, 9, b"image/png", 0, 0, 0, 0, 0, len(picture))
    block = b"\x06" + (len(head) + len(picture)).to_bytes(3, "big") + head + picture
    return flac[:42] + block + flac[42:]


@pytest.mark.parametrize("side", [3_000, 20_000])
def test_a_picture_that_unpacks_to_gigabytes_takes_no_memory(side, sounds, tmp_path):
    picture = png(side, 4_000)
    (tmp_path / "a.flac").write_bytes(flac_with_picture(sounds["a.flac"], picture))
    tracemalloc.start()
    try:
        cover = read_tags(tmp_path / "a.flac").cover
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()
    assert cover == (picture if side == 3_000 else None)
    assert mutate.outcome(tmp_path / "a.flac", tmp_path / "out", format="flac") == "clean"


def test_a_fault_in_a_cover_is_no_fault_of_the_sound(sounds, tmp_path):
    head = sounds["tagged.m4a"].index(b"JFIF")
    broken = sounds["tagged.m4a"][: head - 2] + b"\0\0" + sounds["tagged.m4a"][head:]
    (tmp_path / "a.m4a").write_bytes(broken)
    assert mutate.outcome(tmp_path / "a.m4a", tmp_path / "out", format="m4a") == "clean"


@pytest.mark.slow
@pytest.mark.parametrize("format", ["wav", "flac", "mp3", "m4a", "ogg"])
def test_endless_tags_do_not_harm_the_file(format, sounds, tmp_path):
    tags = tmp_path / "tags"
    words = "\n".join(f"{name}={'é' * 150_000}" for name in ("title", "artist", "comment"))
    tags.write_text(f";FFMETADATA1\n{words}\n")
    (tmp_path / "16.wav").write_bytes(sounds["16.wav"])
    attach = ["-i", tmp_path / "16.wav", "-f", "ffmetadata", "-i", tags, "-map_metadata", "1"]
    run_ffmpeg(*attach, tmp_path / "a.flac")
    assert mutate.outcome(tmp_path / "a.flac", tmp_path / "out", format=format) == "clean"
    assert "title" in read_tags(tmp_path / "out" / "a" / f"one.{format}").fields


# Names


NAMES = {
    "newline": "a\nb.wav",
    "dash": "-rf.wav",
    "emoji": "🎵👩‍🎤.wav",
    "255 bytes": "a" * 251 + ".wav",
    "255 bytes of emoji": "🎵" * 62 + "abc.wav",
    "255 bytes without a dot": "a" * 255,
    "decomposed": unicodedata.normalize("NFD", "Ünï é.wav"),
    "colon": "http:a.wav",
    "percent": "100%d %s %05d.wav",
    "quotes": "'a' \"b\" `c` $(d).wav",
    "only a suffix": ".wav",
    "the folder above": "...wav",
    "the folder itself": "..wav",
    "spaces": "  a  .wav",
    "escape": "\x1b[31ma\x07.wav",
    "no text": b"\xff\xfe.wav".decode("utf-8", "surrogateescape"),
    "backslash": "a\\b.wav",
    "concat": "concat:a.wav|b.wav",
}


@pytest.mark.parametrize("format", ["wav", "mp3"])
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_any_name_is_a_name(name, format, sounds, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(sounds["16.wav"])
    result = split(Path(name), "out", format=format)
    (folder,) = (tmp_path / "out").iterdir()  # below the output folder, whatever the name
    assert files(tmp_path) == {tmp_path / name, *(folder / f"{stem}.{format}" for stem in ("one", "two"))}
    assert {path.absolute() for path in result.outputs.values()} == files(folder)
    assert result.frames == FRAMES


def test_a_name_too_long_for_the_disk_is_one_sentence(sounds, tmp_path):
    (tmp_path / "a.wav").write_bytes(sounds["16.wav"])
    with pytest.raises(EncodeError, match="name too long"):
        split(tmp_path / "a.wav", tmp_path / ("o" * 256))
    with pytest.raises(DecodeError, match="name too long"):
        split(tmp_path / ("a" * 256), tmp_path / "out")
    with pytest.raises(UnknownModel):
        store.read_card(f"{'a' * 256}.safetensors")


# Files that name other files


def playlists(target: str) -> dict[str, str]:
    """A playlist of each kind, with one entry."""
    return {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n",
        "m3u": f"#EXTM3U\n#EXTINF:9,Song\n{target}\n",
        "pls": f"[playlist]\nFile1={target}\nTitle1=Song\nLength1=9\nNumberOfEntries=1\nVersion=2\n",
        "concat": f"ffconcat version 1.0\nfile '{target}'\n",
        "xspf": '<?xml version="1.0"?><playlist version="1" xmlns="http://xspf.org/ns/0/"><trackList><track>'
        f"<location>{target}</location></track></trackList></playlist>",
        "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT1S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period>'
        '<AdaptationSet mimeType="audio/mp4"><Representation id="1" bandwidth="9">'
        f"<BaseURL>{target}</BaseURL><SegmentBase/></Representation></AdaptationSet></Period></MPD>",
        "imf": '<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016">'
        f"<Id>urn:uuid:1</Id><SegmentList>{target}</SegmentList></CompositionPlaylist>",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n"
        f"a=control:{target}\n",
        "asx": f'<asx version="3.0"><entry><ref href="{target}"/></entry></asx>',
        "text": f"{target}\n",
    }


KINDS = tuple(playlists(""))


@pytest.mark.parametrize("name", ["song.m4a", "song.m3u8"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_playlist_reads_no_other_file(kind, name, sounds, tmp_path):
    (tmp_path / "secret.mp3").write_bytes(sounds["a.mp3"])
    for target in ("secret.mp3", str(tmp_path / "secret.mp3"), "/etc/passwd"):
        (tmp_path / name).write_text(playlists(target)[kind])
        with within(60), pytest.raises(DecodeError):
            Reader(tmp_path / name)
        assert read_tags(tmp_path / name) == Tags()
        _read_tags.cache_clear()


@pytest.mark.parametrize("kind", KINDS)
def test_a_playlist_opens_no_connection(kind, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        for scheme in ("http", "tcp"):
            url = f"{scheme}://127.0.0.1:{server.getsockname()[1]}/a.mp3"
            (tmp_path / "a.mp3").write_text(playlists(url)[kind])
            with within(60), pytest.raises(DecodeError):
                Reader(tmp_path / "a.mp3")
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize(("kind", "name"), [("hls", "a.m3u8"), ("concat", "a.mp3")])
def test_a_playlist_is_told_what_it_is(kind, name, tmp_path):
    (tmp_path / name).write_text(playlists("b.mp3")[kind])
    with pytest.raises(DecodeError, match="is a playlist|contains no sound itself") as refusal:
        Reader(tmp_path / name)
    assert ("--from-file" if name == "a.m3u8" else "playlist") in refusal.value.hint


@pytest.mark.parametrize(
    "suffix",
    ["aac", "ac3", "au", "avi", "caf", "flv", "mka", "mov", "mp2", "mpg", "ts", "tta", "webm", "wma", "wv"],
)
def test_what_holds_sound_itself_is_read(suffix, sounds, tmp_path):
    name = f"a.{suffix}"
    (tmp_path / "16.wav").write_bytes(sounds["16.wav"])
    try:
        run_ffmpeg("-i", tmp_path / "16.wav", tmp_path / name)
    except subprocess.CalledProcessError:
        pytest.skip("this ffmpeg has no encoder for it")
    assert sum(block.shape[1] for block in Reader(tmp_path / name)) > 0


# Where stems are written


@pytest.fixture
def song(sounds, tmp_path):
    (tmp_path / "song.wav").write_bytes(sounds["16.wav"])
    return tmp_path / "song.wav"


@contextlib.contextmanager
def no_large_files() -> Iterator[None]:
    """No file may grow above 4,000 bytes: half a stem's, or less. Nor may what the tests print, meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("format", ["wav", "flac", "mp3", "ogg", "m4a"])
def test_a_file_that_cannot_grow_is_one_sentence_and_leaves_nothing(format, song, tmp_path):
    with pytest.raises(EncodeError, match=r"Cannot write `.*`: \w") as error, no_large_files():
        split(song, tmp_path / "out", format=format, bitrate=None if format in ("wav", "flac") else "320k")
    assert error.value.hint
    assert not files(tmp_path / "out")


@pytest.fixture
def closed_disk(tmp_path) -> Iterator[Path]:
    folder = tmp_path / "closed"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", folder], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a read-only disk can only be mounted by root")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("format", ["wav", "mp3"])
def test_a_disk_that_cannot_be_written_is_one_sentence(format, song, closed_disk):
    for out in (closed_disk, closed_disk / "out"):
        with pytest.raises(EncodeError, match="Read-only file system"):
            split(song, out, format=format)


@pytest.mark.parametrize("format", ["wav", "flac", "mp3", "m4a"])
def test_a_folder_that_goes_away_meanwhile_is_one_sentence(format, song, tmp_path):
    with pytest.raises(EncodeError, match="Cannot write"):
        split(song, tmp_path / "out", format=format, progress=lambda *_: shutil.rmtree(tmp_path / "out"))
    assert not files(tmp_path / "out")


def test_a_folder_in_the_place_of_a_stem_is_refused_before_the_work(song, tmp_path):
    (tmp_path / "out" / "song" / "two.wav").mkdir(parents=True)
    with pytest.raises(EncodeError, match="is a folder"):
        split(song, tmp_path / "out", force=True, progress=lambda *_: pytest.fail("it began"))


def test_when_the_last_stem_cannot_get_its_name_none_has_one(song, tmp_path):
    with pytest.raises(EncodeError, match="already exists"):
        split(song, tmp_path / "out", progress=lambda *_: (tmp_path / "out" / "song" / "two.wav").mkdir())
    assert not files(tmp_path / "out")


def test_a_write_cut_short_says_so(tmp_path, monkeypatch):
    def cut(*_: object) -> None:
        raise AssertionError  # as soundfile does, without a word

    monkeypatch.setattr(soundfile.SoundFile, "write", cut)
    with (
        pytest.raises(EncodeError, match="could not be written completely"),
        Writer(tmp_path / "a.wav", Signal(RATE, 2)) as writer,
    ):
        writer.write(noise())


# Files that change while they are read


@pytest.mark.parametrize("name", ["16.wav", "rf64.wav", "a.flac", "a.ogg", "a.mp3", "a.m4a"])
@pytest.mark.parametrize("when", ["opened", "read"])
def test_a_file_that_is_cut_while_it_is_read_is_reported(name, when, sounds, tmp_path):
    path = tmp_path / name
    path.write_bytes(sounds[name])
    reader = Reader(path, block_frames=1_000)
    blocks = iter(reader)
    if when == "read":
        next(blocks)
    os.truncate(path, len(sounds[name]) // 2)
    try:
        frames = sum(block.shape[1] for block in blocks)
    except DecodeError:
        return
    assert frames <= FRAMES
    assert any("changed" in warning for warning in reader.warnings)


@pytest.mark.parametrize("name", ["16.wav", "a.flac", "a.mp3", "a.m4a"])
@pytest.mark.parametrize("with_frames", [5_000, FRAMES, 2 * FRAMES])
def test_a_file_that_is_replaced_by_another_is_reported(name, with_frames, sounds, tmp_path):
    path, other = tmp_path / name, tmp_path / f"other {name}"
    path.write_bytes(sounds[name])
    reader = Reader(path)
    mutate.write(other, noise(2, with_frames))
    other.replace(path)
    list(reader)
    assert any("changed" in warning for warning in reader.warnings)


@pytest.mark.parametrize(("rate", "channels"), [(48_000, 2), (44_100, 1), (44_100, 6)])
@pytest.mark.parametrize("name", ["16.wav", "a.m4a"])
def test_a_file_that_is_replaced_by_another_kind_of_sound_is_an_error(name, rate, channels, sounds, tmp_path):
    path = tmp_path / name
    path.write_bytes(sounds[name])
    reader = Reader(path)
    soundfile.write(path, noise(channels).T, rate, format="WAV")
    with pytest.raises(DecodeError, match="changed while it was read"):
        list(reader)


def test_a_file_that_goes_away_while_it_is_read_is_an_error_or_whole(sounds, tmp_path):
    path = tmp_path / "16.wav"
    path.write_bytes(sounds["16.wav"])
    reader = Reader(path, block_frames=1_000)
    blocks = iter(reader)
    first = next(blocks)
    path.unlink()
    assert first.shape[1] + sum(block.shape[1] for block in blocks) == FRAMES
    with pytest.raises(DecodeError, match="No such file"):
        list(reader)


def test_splitting_a_file_that_grows_ends(sounds, tmp_path):
    path = tmp_path / "16.wav"
    path.write_bytes(sounds["16.wav"])
    stop = threading.Event()

    def grow() -> None:
        with path.open("ab") as file:
            while not stop.wait(0.001):
                file.write(bytes(1_000))

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        with within(60):
            result = split(path, tmp_path / "out")
    finally:
        stop.set()
        writer.join()
    assert result.frames == FRAMES


# Weights


def header_of(card: object) -> bytes:
    return json.dumps({"__metadata__": {"stemsplit": json.dumps(card)}}).encode()


def spoiled(good: bytes, **facts: Any) -> bytes:
    header, tensors = mutate.unpacked(good)
    card = json.loads(header["__metadata__"]["stemsplit"])
    header["__metadata__"]["stemsplit"] = json.dumps({**card, **facts})
    return mutate.packed(json.dumps(header).encode(), tensors)


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 500_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        json.dumps({"__metadata__": {"stemsplit": "[" * 500_000}}).encode(),
        json.dumps({"__metadata__": {"stemsplit": '{"a":' * 100_000}}).encode(),
        b'{"__metadata__":' + b"9" * 500_000 + b"}",
        b'{"__metadata__":{"stemsplit":"{}"},"__metadata__":{"stemsplit":"[]"}}',
        b"\xff\xfe{}",
        header_of([]),
        header_of(None),
        header_of({"stems": None}),
    ],
    ids=[
        "lists",
        "dicts",
        "inner lists",
        "inner dicts",
        "integer",
        "twice",
        "utf-16",
        "list",
        "null",
        "none",
    ],
)
def test_a_header_that_is_no_card_is_refused(header, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(mutate.packed(header))
    with pytest.raises(BadWeights, match="not a weights file"):
        store.read_card(path)


@pytest.mark.parametrize(
    "facts",
    [
        {"name": 1},
        {"title": None},
        {"network": ["binary-mask-cnn"]},
        {"mask": {}},
        {"parameters": "many"},
        {"seed": float("nan")},
        {"complete": "yes"},
        {"limits": 0},
        {"licence": []},
        {"recipe": []},
        {"scores": []},
        {"scores": {"test": 1}},
        {"scores": {"test": {"soft": 1}}},
        {"scores": {"test": {"soft": {"vocals": 1}}}},
        {"scores": {"test": {"soft": {"vocals": {"sdr_db": "loud"}}}}},
        {"scores": {"test": {"soft": {"vocals": {"sdr_db": []}}}}},
        {"mask_power": float("inf")},
        {"mask_power": "1"},
        {"mask_power": 10**400},
        {"threshold": float("nan")},
        {"combination": [[0, 0, float("nan")], [0, 0, 0]]},
        {"combination": [[0, 0, "1"], [0, 0, 0]]},
        {"combination": [[0, 0, 10**400], [0, 0, 0]]},
        {"combination": 1},
    ],
    ids=str,
)
def test_a_card_with_facts_of_the_wrong_kind_is_refused(facts, good_weights, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(spoiled(good_weights, **facts))
    with pytest.raises(BadWeights, match="not a weights file"):
        store.read_card(path)


@pytest.mark.parametrize(
    "facts",
    [
        {"n_fft": 1 << 19, "hop_length": 1},
        {"n_fft": 2048, "hop_length": 1},
        {"n_fft": 1 << 19, "hop_length": 1 << 17},
        {"sample_rate": 1},
        {"sample_rate": (1 << 20) - 1},
        {"sample_rate": True},
    ],
    ids=str,
)
def test_a_card_that_would_take_all_memory_is_refused(facts, good_weights, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(spoiled(good_weights, **facts))
    with pytest.raises(BadWeights, match="not a weights file"):
        store.read_card(path)


@pytest.mark.parametrize(
    "split_scores", [{}, {"songs": 3}, {"soft": {}}, {"soft": {"vocals": {"sdr_db": None}}}]
)
def test_a_card_with_few_scores_has_its_page(split_scores, good_weights, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(spoiled(good_weights, scores={"test": split_scores}))
    assert "## Scores: test" in page.page(store.read_card(path))


def tensors_with(good: bytes, **entry: Any) -> bytes:
    header, tensors = mutate.unpacked(good)
    header["vocals.dense.bias"].update(entry)
    return mutate.packed(json.dumps(header).encode(), tensors)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "I16"},
        {"dtype": "U16"},
        {"dtype": "BF16"},
        {"dtype": "F32"},
        {"dtype": "C64", "shape": [32]},
        {"dtype": "F8_E4M3", "shape": [256]},
        {"dtype": "F8_E8M0", "shape": [256]},
        {"dtype": "F4", "shape": [512]},
        {"dtype": "F6_E2M3", "shape": [128]},
        {"dtype": "BOOL", "shape": [256]},
        {"dtype": "nonsense"},
        {"shape": [2**40, 2**40]},
        {"shape": [-1]},
        {"shape": [0, 2**63]},
        {"shape": []},
        {"data_offsets": [0, 2**63]},
        {"data_offsets": [256, 0]},
        {"data_offsets": [0, 256]},
        {"data_offsets": [-1, 255]},
    ],
    ids=str,
)
def test_a_tensor_of_another_kind_or_place_is_refused_or_read(entry, good_weights, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(tensors_with(good_weights, **entry))
    try:
        built = factory.build("binary-mask-cnn", store.load(path, ["vocals"]))
    except BadWeights:
        return
    assert entry == {"dtype": "BF16"}  # other numbers, but numbers
    assert len(built) == 1


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_deviation_that_divides_by_nothing_is_refused(value, good_weights, tmp_path):
    header, tensors = mutate.unpacked(good_weights)
    start, end = header["vocals.deviation"]["data_offsets"]
    deviation = np.frombuffer(tensors[start:end], "<f2").copy()
    deviation[100] = value
    path = tmp_path / "a.safetensors"
    content = tensors[:start] + deviation.tobytes() + tensors[end:]
    path.write_bytes(mutate.packed(json.dumps(header).encode(), content))
    found = store.load(path, ["vocals"])
    if value:
        assert factory.build("binary-mask-cnn", found)
        return
    with pytest.raises(BadWeights, match="vocals"):
        factory.build("binary-mask-cnn", found)
