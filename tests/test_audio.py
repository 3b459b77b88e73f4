"""Reading, writing and resampling: blocks, cuts, faults."""

from __future__ import annotations

import errno
import gc
import math
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from stemsplit.audio import ffmpeg
from stemsplit.audio.formats import FORMATS
from stemsplit.audio.reader import Block, Reader, Signal, resample, to_segment
from stemsplit.audio.writer import Writer
from stemsplit.errors import DecodeError, EncodeError, OutputExists, UnsupportedChannels

RATE = 44_100
FRAMES = 60_001


def noise(channels: int = 2, frames: int = FRAMES) -> Block:
    return np.random.default_rng(440).uniform(-0.5, 0.5, (channels, frames)).astype(np.float32)


def read(path: Path, **options: Any) -> Block:
    return np.concatenate(list(Reader(path, **options)), axis=1)


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same noise in each kind of container; never written to."""
    folder = tmp_path_factory.mktemp("songs")
    paths = {name: folder / f"song.{name}" for name in ("wav", "aiff", "flac", "ogg", "mp3", "m4a")}
    soundfile.write(paths["wav"], noise().T, RATE, subtype="PCM_24")
    for name in ("aiff", "flac", "ogg", "mp3", "m4a"):
        # The index in front, so that half an m4a still has one.
        index = ["-movflags", "+faststart"] if name == "m4a" else []
        command: list[Any] = [
            str(ffmpeg.executable()),
            "-v",
            "error",
            "-nostdin",
            "-i",
            paths["wav"],
            *index,
            paths[name],
        ]
        subprocess.run(command, check=True)
    return paths


def pieces(sound: Block, size: int) -> Iterator[Block]:
    for start in range(0, sound.shape[1], size):
        yield sound[:, start : start + size]


# Reading


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wav", "flac", "ogg", "mp3", "m4a"])
@pytest.mark.parametrize("rate", [RATE, 48_000])
@settings(max_examples=3, deadline=None)
@given(size=st.sampled_from([999, 65_536]) | st.integers(500, 70_000))
def test_the_size_of_blocks_changes_nothing(name, rate, size, songs):
    whole = read(songs[name])
    blocks = list(Reader(songs[name], block_frames=size))
    assert max(block.shape[1] for block in blocks) <= size
    assert {block.dtype for block in blocks} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), whole)
    resampled = np.concatenate(list(resample(blocks, RATE, rate, 2)), axis=1)
    np.testing.assert_array_equal(resampled, np.concatenate(list(resample([whole], RATE, rate, 2)), axis=1))


@pytest.mark.parametrize("name", ["wav", "mp3"])
def test_blocks_of_one_frame_give_the_same_sound(name, songs):
    blocks = Reader(songs[name], block_frames=1, duration_seconds=0.01)
    resampled = np.concatenate(list(resample(blocks, RATE, 48_000, 2)), axis=1)
    np.testing.assert_array_equal(
        resampled, soxr.resample(read(songs[name])[:, :441].T, RATE, 48_000, "VHQ").T
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wav", "aiff", "flac", "ogg", "mp3", "m4a"])
@pytest.mark.parametrize(("start", "duration"), [(0, 0.1), (0.5, None), (0.30001, 0.7), (1.2, 60), (0, 1e-9)])
def test_a_part_is_exact_to_the_sample(name, start, duration, songs):
    first = round(start * RATE)
    last = FRAMES if duration is None else min(FRAMES, first + max(1, round(duration * RATE)))
    reader = Reader(songs[name], start_seconds=start, duration_seconds=duration, block_frames=5_000)
    part = np.concatenate(list(reader), axis=1)
    np.testing.assert_array_equal(part, read(songs[name])[:, first:last])
    assert reader.frames == (None if name in ("mp3", "m4a") else last - first)
    assert abs(reader.frames_estimate - (last - first)) <= 0.01 * RATE
    assert reader.warnings == []


@pytest.mark.parametrize("name", ["wav", "flac", "m4a"])
def test_a_reader_may_be_iterated_again_and_at_the_same_time(name, songs):
    reader = Reader(songs[name], block_frames=7_000)
    for one, other in zip(reader, reader, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["wav", "flac", "mp3", "m4a"])
def test_a_start_beyond_the_end_is_an_error(name, songs):
    with pytest.raises(DecodeError, match=r"The start, 1\.5 s, is beyond the end"):
        read(songs[name], start_seconds=1.5)


@pytest.mark.parametrize(
    "options",
    [
        {"start_seconds": -1},
        {"duration_seconds": 0},
        {"start_seconds": math.nan},
        {"duration_seconds": math.inf},
    ],
)
def test_an_impossible_part_is_an_error(options, songs):
    with pytest.raises(DecodeError, match="must not be negative"):
        Reader(songs["wav"], **options)


def test_six_channels_are_refused_with_a_way_out(tmp_path):
    soundfile.write(tmp_path / "a b.wav", noise(6).T, RATE)
    with pytest.raises(UnsupportedChannels, match="6 channels") as refusal:
        Reader(tmp_path / "a b.wav")
    assert "--downmix" in refusal.value.hint


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["-i.m4a", "a\nb.mp3", "日本 Ünï 🎵.m4a", "http:x.m4a", "%d.mp3", "'; rm $x.m4a"]
)
def test_odd_names_are_only_names(name, songs, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    shutil.copy(songs[Path(name).suffix[1:]], f"../{name}")
    with Writer(Path(name), Signal(RATE, 2), tags_from=Path(f"../{name}")) as writer:
        writer.write(noise())
    assert read(Path(name)).shape == (2, FRAMES)
    assert [entry.name for entry in Path().iterdir()] == [name]


@pytest.mark.slow
def test_a_playlist_cannot_open_the_network(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:9", "#EXTINF:9,", url, "#EXT-X-ENDLIST"]
        (tmp_path / "list.m3u8").write_text("\n".join(lines))
        with pytest.raises(DecodeError):
            read(tmp_path / "list.m3u8")
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.slow
def test_an_abandoned_iteration_leaves_no_ffmpeg_behind(tmp_path, songs, monkeypatch):
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1])
    blocks = iter(Reader(songs["m4a"], block_frames=10))
    next(blocks)
    blocks.close()
    for block in Reader(songs["m4a"], block_frames=10):
        del block
        break
    gc.collect()
    assert len(started) == 4  # each time one to open, one to read
    assert None not in [process.returncode for process in started]


# Faulty input


def test_a_missing_file_suggests_near_names(songs):
    with pytest.raises(DecodeError, match="No such file") as error:
        Reader(songs["wav"].with_name("sonk.wav"))
    assert error.value.hint.startswith("did you mean `song.wav`")
    with pytest.raises(DecodeError, match="No such file") as error:
        Reader(songs["wav"].with_name("nowhere") / "song.wav")
    assert "does not exist either" in error.value.hint


def test_a_file_without_permission_is_an_error(songs, monkeypatch):
    def refuse(*_arguments, **_options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    with pytest.raises(DecodeError, match="Cannot read .*: Permission denied"):
        Reader(songs["wav"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.mp3", b"no music\n" * 99, "is not a sound file"),
        ("text.wav", b"no music\n" * 99, "is not a sound file"),
        ("zeros.mp3", bytes(5000), "is not a sound file"),
        ("sync.mp3", b"\xff\xfb\x90\x64" + b"no music\n" * 9999, "is not a sound file|can be decoded"),
        ("empty.mp3", b"", "is empty"),
        ("empty.wav", b"", "is empty"),
        ("silent.png", None, "no sound"),
    ],
)
def test_what_is_no_sound_is_an_error_and_nothing_is_printed(name, content, message, tmp_path, capfd):
    if content is None:
        picture = ["-f", "lavfi", "-i", "color=s=8x8", "-frames:v", "1", tmp_path / name]
        subprocess.run([str(ffmpeg.executable()), "-v", "error", "-nostdin", *picture], check=True)
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DecodeError, match=message):
        read(tmp_path / name)
    assert capfd.readouterr() == ("", "")


def test_a_folder_is_an_error(tmp_path):
    with pytest.raises(DecodeError, match="is a folder"):
        Reader(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wav", "aiff", "flac", "mp3", "m4a"])
def test_of_a_truncated_file_what_decodes_is_used(name, songs, tmp_path, capfd):
    path = tmp_path / f"half.{name}"
    path.write_bytes(songs[name].read_bytes()[: songs[name].stat().st_size // 2])
    reader = Reader(path)
    for _ in range(2):  # a second iteration does not warn twice
        part = np.concatenate(list(reader), axis=1)
        [warning] = reader.warnings
    assert "`half." in warning
    assert "is truncated: it should be 1.36 s long but ends after 0." in warning
    assert 0.3 * FRAMES < part.shape[1] < 0.7 * FRAMES
    sure = part.shape[1] - 2_000  # the last frame of a codec may be half there
    np.testing.assert_allclose(part[:, :sure], read(songs[name])[:, :sure], rtol=0, atol=1e-6)
    assert capfd.readouterr() == ("", "")
    beginning = Reader(path, duration_seconds=0.1)
    assert [sum(block.shape[1] for block in beginning), beginning.warnings] == [4410, []]
    with pytest.raises(DecodeError, match="beyond the end"):
        read(path, start_seconds=1.2)


@pytest.mark.parametrize("missing", [100, 4000, None])
def test_a_truncated_ogg_is_reported(missing, songs, tmp_path):
    path = tmp_path / "half.ogg"
    whole = songs["ogg"].read_bytes()
    path.write_bytes(whole[:-missing] if missing else whole[: whole.rindex(b"OggS")])
    reader = Reader(path)
    assert 0 < sum(block.shape[1] for block in reader) < FRAMES
    assert reader.warnings == [
        "`half.ogg` is damaged (its last page is missing); the part that decodes was used."
    ]


@pytest.mark.slow
def test_an_m4a_without_its_index_says_so(songs, tmp_path):
    command: list[Any] = [
        str(ffmpeg.executable()),
        "-v",
        "error",
        "-nostdin",
        "-i",
        songs["wav"],
        tmp_path / "a.m4a",
    ]
    subprocess.run(command, check=True)
    whole = (tmp_path / "a.m4a").read_bytes()
    (tmp_path / "a.m4a").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DecodeError, match="is incomplete: its index"):
        Reader(tmp_path / "a.m4a")


@pytest.mark.parametrize("name", ["flac", "ogg", "mp3", "m4a"])
def test_damage_in_the_middle_is_reported_and_not_printed(name, songs, tmp_path, capfd):
    path = tmp_path / f"hurt.{name}"
    whole = songs[name].read_bytes()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + noise().tobytes()[:3000] + whole[middle + 3000 :])
    reader = Reader(path)
    assert sum(block.shape[1] for block in reader) > 0.2 * FRAMES
    assert len(reader.warnings) == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["wav", "flac"])
def test_a_stream_that_does_not_know_its_length_is_read_without_a_warning(name, songs, tmp_path):
    command: list[Any] = [
        str(ffmpeg.executable()),
        "-v",
        "error",
        "-nostdin",
        "-i",
        songs["wav"],
        "-f",
        name,
        "-",
    ]
    (tmp_path / f"a.{name}").write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
    reader = Reader(tmp_path / f"a.{name}")
    assert sum(block.shape[1] for block in reader) == FRAMES
    assert reader.warnings == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("start", [0, 0.5])
def test_samples_that_are_no_numbers_are_an_error_with_their_time(value, start, tmp_path):
    sound = noise()
    sound[1, RATE] = value
    soundfile.write(tmp_path / "a.wav", sound.T, RATE, subtype="FLOAT")
    with pytest.raises(DecodeError, match=r"NaN, infinite or absurdly large samples from 1\.000 s"):
        read(tmp_path / "a.wav", start_seconds=start)
    assert read(tmp_path / "a.wav", duration_seconds=1).shape == (2, RATE)


# Without ffmpeg, or with one that fails


def test_without_ffmpeg_the_hint_names_it(songs, tmp_path, monkeypatch):
    monkeypatch.setattr(ffmpeg, "executable", lambda: None)
    with pytest.raises(DecodeError, match="without ffmpeg") as error:
        Reader(songs["m4a"])
    assert "install ffmpeg" in error.value.hint
    with pytest.raises(EncodeError, match="without ffmpeg") as error:
        write(tmp_path / "a.mp3")
    assert "install ffmpeg" in error.value.hint
    assert read(songs["mp3"]).shape == (2, FRAMES)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def stand_in(tmp_path_factory, monkeypatch):
    """Put a Python program in the place of ffmpeg."""

    def replace(program: str) -> None:
        path = tmp_path_factory.mktemp("bin") / "ffmpeg"
        path.write_text(f"#!{sys.executable}\nimport sys\n{program}")
        path.chmod(0o755)
        monkeypatch.setattr(ffmpeg, "executable", lambda: str(path))

    return replace


@pytest.mark.slow
def test_a_talkative_ffmpeg_cannot_block_us(stand_in, tmp_path):
    stand_in(
        "import os, struct, time\n"
        "sys.stderr.write('[x] [warning] hm\\n' * 50_000)\n"
        "os.write(1, struct.pack('>4s5I', b'.snd', 24, 0, 6, 8000, 1) + bytes(4000))\n"
        "os.close(1)\n"
        "time.sleep(0.1)\n"
        "sys.stderr.write('[x] [error] so sad\\n' * 50_000)\n"
    )
    (tmp_path / "a.xyz").write_text("anything")
    reader = Reader(tmp_path / "a.xyz")
    assert [block.shape for block in reader] == [(1, 1000)]
    assert reader.warnings == ["`a.xyz` is damaged (so sad); the part that decodes was used."]


@pytest.mark.slow
@pytest.mark.parametrize("program", ["sys.stdin.buffer.read(9)", "sys.stdin.buffer.read()", ""])
@pytest.mark.parametrize("blocks", [0, 1, 9])
def test_an_ffmpeg_that_dies_is_an_error_with_its_reason(program, blocks, stand_in, tmp_path):
    stand_in(f"{program}\nsys.exit('[mp3] [error] out of luck')")
    with pytest.raises(EncodeError, match="Cannot write .*: out of luck"):
        write(tmp_path / "a.mp3", blocks)
    stand_in(program)
    with pytest.raises(EncodeError, match="ffmpeg stopped|file is empty"):
        write(tmp_path / "a.mp3", blocks)
    assert list(tmp_path.iterdir()) == []


# Writing


def write(path: Path, blocks: int = 1, frames: int | None = None, **options: Any) -> None:
    with Writer(path, Signal(RATE, 2, frames), **options) as writer:
        for _ in range(blocks):
            writer.write(noise())


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_appears_whole_or_not_at_all(format, tmp_path):
    path = tmp_path / "new" / "folder" / f"a.{format}"
    with Writer(path, Signal(RATE, 2)) as writer:
        writer.write(noise())
        names = sorted(entry.name for entry in path.parent.iterdir())
        assert all(name.startswith(f".a.{format}.") for name in names), names
        assert [name.rpartition(".")[2] for name in names] == ["part", "lock"]
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert (writer.frames_written, writer.peak) == (FRAMES, np.abs(noise()).max())


@pytest.mark.parametrize("format", ["wav", "flac", "mp3"])
@pytest.mark.parametrize("fault", [KeyboardInterrupt, ValueError])
def test_an_interrupted_write_leaves_nothing(format, fault, tmp_path):
    path = tmp_path / f"a.{format}"
    path.write_text("precious")
    with pytest.raises(fault), Writer(path, Signal(RATE, 2), force=True) as writer:  # noqa: PT012
        writer.write(noise())
        raise fault
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "precious"


@pytest.mark.parametrize("format", ["wav", "mp3"])
def test_an_output_that_exists_is_replaced_only_by_force(format, tmp_path):
    path = tmp_path / f"a.{format}"
    path.write_text("precious")
    with pytest.raises(OutputExists, match="already exists") as error:
        write(path)
    assert "--force" in error.value.hint
    assert path.read_text() == "precious"
    write(path, force=True)
    assert read(path).shape == (2, FRAMES)


@pytest.mark.parametrize("format", ["wav", "mp3"])
def test_a_folder_that_cannot_be_made_is_an_error(format, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(EncodeError, match="Cannot write") as error:
        write(tmp_path / "file" / "folder" / f"a.{format}")
    assert "choose another" in error.value.hint


def test_a_folder_without_permission_is_an_error(tmp_path, monkeypatch):
    def refuse(*_arguments, **_options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "open", refuse)  # root may write everywhere
    with pytest.raises(EncodeError, match="Cannot write .*: Permission denied"):
        write(tmp_path / "a.wav")


@pytest.fixture
def small_disk() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        try:
            command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder]
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("a small disk can only be mounted by root")
        yield Path(folder)
        subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "with_ffmpeg"), [(format, True) for format in FORMATS] + [("wav", False), ("flac", False)]
)
def test_a_full_disk_is_one_sentence_and_leaves_nothing(format, with_ffmpeg, small_disk, monkeypatch):
    if not with_ffmpeg:
        monkeypatch.setattr(ffmpeg, "executable", lambda: None)
    with pytest.raises(EncodeError, match="the disk is full") as error:
        write(small_disk / f"a.{format}", blocks=40)
    assert "free some space" in error.value.hint
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "the disk is full"),
        (soundfile.LibsndfileError(2), "Cannot write"),
        (None, "file is incomplete"),
    ],
)
def test_a_write_that_fails_is_an_error(reason, message, tmp_path, monkeypatch):
    def fail(*_arguments):
        if reason:
            raise reason

    monkeypatch.setattr(soundfile.SoundFile, "write", fail)
    with pytest.raises(EncodeError, match=message):
        write(tmp_path / "a.wav")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("block", [noise(1), noise(2).T, noise(2)[0], np.full((2, 5), np.nan, np.float32)])
def test_a_block_of_the_wrong_kind_is_a_programming_error(block, tmp_path):
    with pytest.raises(ValueError, match=r"block must be \(channel, time\) with 2 channels|NaN"):  # noqa: SIM117
        with Writer(tmp_path / "a.wav", Signal(RATE, 2)) as writer:
            writer.write(block)
    assert list(tmp_path.iterdir()) == []


def test_writing_leaves_the_block_alone(tmp_path):
    for format in ("wav", "flac", "m4a"):
        loud = 100 * noise()
        with Writer(tmp_path / f"a.{format}", Signal(RATE, 2)) as writer:
            writer.write(loud)
        np.testing.assert_array_equal(loud, 100 * noise())


def test_a_wav_that_grows_over_four_gibibytes_unannounced_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("stemsplit.audio.writer._RIFF_LIMIT", 1000)
    with pytest.raises(EncodeError, match="4 GiB"):
        write(tmp_path / "a.wav")
    write(tmp_path / "a.wav", frames=FRAMES)


# Resampling


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("source", "target"),
    [(44_100, 48_000), (48_000, 44_100), (8_000, 44_100), (192_000, 44_100), (44_100, 44_100)],
)
@pytest.mark.parametrize("size", [999, 65_536])
def test_resampling_by_blocks_equals_the_whole(channels, source, target, size, tmp_path):
    sound = noise(channels)
    result = np.concatenate(list(resample(pieces(sound, size), source, target, channels)), axis=1)
    np.testing.assert_array_equal(result, soxr.resample(sound.T, source, target, "VHQ").T)
    assert abs(result.shape[1] - FRAMES * target / source) <= 1
    assert result.flags.c_contiguous


@pytest.mark.parametrize(("source", "target"), [(44_100, 48_000), (48_000, 44_100), (8_000, 44_100)])
def test_resampling_delays_nothing(source, target):
    seconds = np.arange(FRAMES) / source
    tone = np.sin(2 * np.pi * 440 * seconds)[None].astype(np.float32)
    result = np.concatenate(list(resample(pieces(tone, 999), source, target, 1)), axis=1)
    expected = np.sin(2 * np.pi * 440 * np.arange(result.shape[1]) / target)
    np.testing.assert_allclose(result[0, 500:-500], expected[500:-500], atol=1e-5)


def test_resampling_nothing_gives_nothing():
    assert list(resample([], 44_100, 48_000, 2)) == []


def test_a_segment_for_pydub_holds_the_sound():
    sound = noise()
    sound[:, 0] = 2
    segment = to_segment(sound, RATE)
    assert (segment.frame_rate, segment.channels, segment.frame_count()) == (RATE, 2, FRAMES)
    samples = np.array(segment.get_array_of_samples()).reshape(-1, 2).T / 2**15
    np.testing.assert_allclose(samples, sound.clip(-1, 1), atol=2**-15)


@pytest.mark.skipif(os.name != "posix", reason="a shell script")
def test_a_long_log_keeps_its_first_error_and_its_end(tmp_path):
    program = tmp_path / "program"
    loop = 'i=0; while [ $i -lt 3000 ]; do echo "[error] number $i"; i=$((i + 1)); done >&2'
    program.write_text(f"#!/bin/sh\n{loop}\n")
    program.chmod(0o755)
    process = ffmpeg.Process(str(program), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    process.end()
    assert process.complaint == "number 0"
    assert process.log.endswith("number 2999\n")
    assert process.log.count("\n") < 1000, "memory does not grow with the log"
