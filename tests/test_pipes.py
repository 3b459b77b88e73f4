"""Sound through pipes: what comes in, what goes out, and what becomes of it when one end is closed."""

from __future__ import annotations

import io
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from stemsplit.audio import ffmpeg
from stemsplit.audio.raw import RawFormat, RawReader, StreamWriter, WavSamples, read_header, spool
from stemsplit.audio.reader import Reader
from stemsplit.cli import app
from stemsplit.errors import DecodeError, StemsplitError
from tests.conftest import SAMPLE_RATE, events

GUIDE = (Path(__file__).parent.parent / "docs" / "guides" / "scripts.md").read_text(encoding="utf-8")
FORMS = ("s16", "s24", "s32", "f32")
STEP = {"s16": 2.0**-15, "s24": 2.0**-23, "s32": 2.0**-23, "f32": 0.0}
"""Of the samples' rounding: the 32 bits of s32 hold the 24 that a float has."""


class Stream(io.BytesIO):
    """A pipe, which cannot be read or written but in order."""

    def seekable(self):
        return False


def read(path):
    return np.concatenate(list(Reader(path)), axis=-1)


@pytest.mark.parametrize("text", ["44100:2:f32", "8000:1:s16", "192000:2:s24"])
def test_a_form_is_read(text):
    assert str(RawFormat.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "44100", "44100:2", "44100:2:u8", "0:2:f32", "44100:0:f32", "44100:6:f32"]
)
def test_what_is_no_form_is_refused(text):
    with pytest.raises(StemsplitError) as problem:
        RawFormat.parse(text)
    assert problem.value.hint


@pytest.mark.parametrize("samples", FORMS)
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_go_and_come(samples, channels, music):
    raw = RawFormat(SAMPLE_RATE, channels, samples)
    data = raw.encode(music[:channels])
    assert len(data) == music.shape[1] * raw.bytes_per_frame
    np.testing.assert_allclose(raw.decode(data), music[:channels], atol=STEP[samples] / 2 + 1e-9)


@pytest.mark.parametrize("samples", FORMS)
def test_samples_are_what_others_take_them_for(samples, music):
    """libsndfile reads the same."""
    raw = RawFormat(SAMPLE_RATE, 2, samples)
    subtype = {"s16": "PCM_16", "s24": "PCM_24", "s32": "PCM_32", "f32": "FLOAT"}[samples]
    form = {"samplerate": SAMPLE_RATE, "channels": 2, "subtype": subtype, "endian": "LITTLE"}
    found, _ = soundfile.read(io.BytesIO(raw.encode(music)), format="RAW", dtype="float32", **form)
    np.testing.assert_allclose(found.T, music, atol=STEP[samples] / 2 + 1e-9)


def test_a_part_of_what_comes_is_cut_to_the_sample(music):
    raw = RawFormat(SAMPLE_RATE, 2, "f32")
    stream = io.BytesIO(raw.encode(music))
    reader = RawReader(stream, raw, start_seconds=0.5, duration_seconds=0.25, block_frames=1000)
    found = np.concatenate(list(reader), axis=-1)
    np.testing.assert_array_equal(found, music[:, 22_050 : 22_050 + 11_025])
    assert stream.tell() == (22_050 + 11_025) * 8, "no more is read than is needed: it may never end"


def test_half_a_frame_at_the_end_is_told(music):
    raw = RawFormat(SAMPLE_RATE, 2, "s16")
    reader = RawReader(io.BytesIO(raw.encode(music) + b"abc"), raw)
    assert sum(block.shape[1] for block in reader) == music.shape[1]
    assert "3 bytes" in reader.warnings[0]


@pytest.mark.parametrize("data", [b"", b"abc"])
def test_nothing_is_an_error(data):
    with pytest.raises(DecodeError, match="Standard input is empty"):
        list(RawReader(io.BytesIO(data), RawFormat(SAMPLE_RATE, 2, "f32")))


def test_what_is_no_number_is_an_error():
    data = np.full(8, np.nan, "<f4").tobytes()
    with pytest.raises(DecodeError, match="standard input contains NaN"):
        list(RawReader(io.BytesIO(data), RawFormat(SAMPLE_RATE, 2, "f32")))


@pytest.mark.parametrize("samples", FORMS)
def test_plain_samples_are_kept_as_a_sound_file(samples, music, tmp_path):
    raw = RawFormat(SAMPLE_RATE, 2, samples)
    path = spool(io.BytesIO(raw.encode(music)), tmp_path, raw)
    np.testing.assert_allclose(read(path), music, atol=STEP[samples] / 2 + 1e-9)


@pytest.mark.parametrize(("samples", "channels"), [("s16", 2), ("s24", 2), ("s24", 1), ("f32", 2)])
@pytest.mark.parametrize("promised", [True, False])
@pytest.mark.parametrize("kind", [Stream, io.BytesIO])
def test_a_wav_file_is_one(samples, channels, promised, kind, music):
    raw, music = RawFormat(SAMPLE_RATE, channels, samples), music[:channels]
    stream = kind()
    outlet = StreamWriter(stream, raw, wav=True, frames=music.shape[1] if promised else None)
    for start in range(0, music.shape[1], 10_000):
        outlet.write(music[:, start : start + 10_000])
    outlet.finish()
    data = stream.getvalue()
    found, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    assert len(data) % 2 == 0
    assert rate == SAMPLE_RATE
    np.testing.assert_allclose(found.T, music, atol=STEP[samples] / 2 + 1e-9)
    told = int.from_bytes(data[data.index(b"data") + 4 :][:4], "little")
    known = promised or kind is io.BytesIO
    assert told == (music.shape[1] * raw.bytes_per_frame if known else 0xFFFFFFFF)
    assert int.from_bytes(data[4:8], "little") == (len(data) - 8 if known else 0xFFFFFFFF)


@pytest.mark.parametrize("blocks", [[], [0], [0, 3, 0, 5]])
def test_a_wav_file_has_one_header_whatever_the_blocks(blocks):
    stream = io.BytesIO()
    outlet = StreamWriter(stream, RawFormat(SAMPLE_RATE, 2, "s16"), wav=True)
    for frames in blocks:
        outlet.write(np.full((2, frames), 0.5, np.float32))
    outlet.finish()
    stream.seek(0)
    np.testing.assert_allclose(
        soundfile.read(stream, always_2d=True)[0], np.full((sum(blocks), 2), 0.5), atol=1e-4
    )


def test_a_file_that_was_there_before_is_left_alone(music, tmp_path):
    path = tmp_path / "all.wav"
    path.write_bytes(b"before")
    with path.open("ab") as file:
        outlet = StreamWriter(file, RawFormat(SAMPLE_RATE, 2, "s16"), wav=True)
        outlet.write(music)
        outlet.finish()
    assert path.read_bytes().startswith(b"before")
    assert len(path.read_bytes()) == 6 + 44 + 4 * music.shape[1]


# The program


def invoke(*words, data=None):
    return CliRunner().invoke(app, [*words, "--model", "binary-mask-cnn"], input=data)


@pytest.fixture(scope="module")
def split_once(tmp_path_factory, music):
    """A folder with a song of a second, and its stems as the program writes them to files."""
    folder = tmp_path_factory.mktemp("split")
    soundfile.write(folder / "song.wav", 0.2 * music[:, :SAMPLE_RATE].T, SAMPLE_RATE, "FLOAT")
    run = invoke(str(folder / "song.wav"), "-o", str(folder / "stems"), "-q")
    assert run.exit_code == 0, run.stderr
    return folder


@pytest.fixture
def song(split_once, tmp_path, monkeypatch):
    """The song and its stems, in the current folder."""
    shutil.copytree(split_once, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_a_song_may_come_through_a_pipe(song):
    run = invoke("-", "-o", "out", "--json", data=Path("song.wav").read_bytes())
    assert run.exit_code == 0, run.stderr
    assert '"input": "-"' in run.stdout
    for stem in ("vocals", "other"):
        np.testing.assert_array_equal(read(f"out/stdin/{stem}.wav"), read(f"stems/song/{stem}.wav"))


@pytest.mark.slow
def test_what_comes_through_a_pipe_may_be_no_song(song):
    run = invoke("-", data=b"no sound at all")
    assert run.exit_code == 1
    assert run.stderr.startswith("error: `stdin` is not a sound file")


@pytest.mark.slow
def test_a_stem_may_go_through_a_pipe(song):
    before = set(song.rglob("*"))
    run = invoke("song.wav", "--stdout", "vocals", "-q")
    assert run.exit_code == 0, run.stderr
    assert set(song.rglob("*")) == before, "nothing is written elsewhere"
    Path("vocals.wav").write_bytes(run.stdout_bytes)
    np.testing.assert_array_equal(read("vocals.wav"), read("stems/song/vocals.wav"))


@pytest.mark.slow
def test_formats_that_have_an_index_go_through_a_pipe_when_they_are_complete(song):
    run = invoke("song.wav", "--stdout", "drums", "--format", "flac", "--depth", "24")
    assert run.exit_code == 0, run.stderr
    Path("drums.flac").write_bytes(run.stdout_bytes)
    np.testing.assert_allclose(read("drums.flac"), read("stems/song/drums.wav"), atol=2.0**-23)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["-", "song.wav"])
def test_plain_samples_in_and_out(song, source):
    mixture = read("song.wav")
    raw = RawFormat(SAMPLE_RATE, 2, "f32")
    data = raw.encode(mixture) if source == "-" else None
    run = invoke(source, "--raw", str(raw), "--stdout", "bass", data=data)
    assert run.exit_code == 0, run.stderr
    np.testing.assert_allclose(raw.decode(run.stdout_bytes), read("stems/song/bass.wav"), atol=1e-6)


@pytest.mark.slow
def test_plain_samples_of_another_kind_are_not_made_up(song):
    run = invoke("song.wav", "--raw", "48000:2:s16", "--stdout", "bass")
    assert run.exit_code == 1
    assert "--raw 44100:2:s16" in run.stderr
    assert run.stdout_bytes == b""


@pytest.mark.slow
def test_plain_samples_into_files(song):
    raw = RawFormat(SAMPLE_RATE, 2, "f32")
    run = invoke("-", "--raw", str(raw), "-o", "out", data=raw.encode(read("song.wav")))
    assert run.exit_code == 0, run.stderr
    np.testing.assert_array_equal(read("out/stdin/vocals.wav"), read("stems/song/vocals.wav"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["song.wav", "--stdout", "vocals", "--json"],
        ["song.wav", "--stdout", "vocals", "--dry-run"],
        ["song.wav", "--raw", "44100:2:f32"],
        ["-", "--raw", "44100"],
        ["-", "--from-file", "-"],
        ["song.wav", "song.mp3", "--stdout", "vocals"],
        ["song.wav", "--stdout", "vocals", "--format", "stem.mp4"],
    ],
)
def test_what_makes_no_sense_is_wrong_usage(song, words):
    run = invoke(*words)
    assert run.exit_code == 2
    assert [event["code"] for event in events(run.stdout)] == ["usage"] * ("--json" in words)


@pytest.mark.slow
def test_a_stem_that_there_is_not_is_named(song):
    run = invoke("song.wav", "--stdout", "violin")
    assert run.exit_code == 2
    assert "vocals, drums, bass, other" in run.stderr


@pytest.mark.slow
@pytest.mark.subprocess
@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_a_pipe_that_is_closed_ends_quietly(song):
    long = np.tile(read("song.wav"), 30)
    soundfile.write("long.wav", long.T, SAMPLE_RATE)
    split = f"{sys.executable} -m stemsplit long.wav --stdout vocals -q --model binary-mask-cnn"
    command = f"{split} | head -c 100 | wc -c; echo ${{PIPESTATUS[0]}}"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["100", "141"]
    assert run.stderr == ""


@pytest.mark.slow
@pytest.mark.subprocess
@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_the_pipes_of_the_guide_work(song, monkeypatch):
    pipes = GUIDE.partition("\n## Pipes\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\$ (.*)", re.sub(r"\\\n\s*", "", pipes), re.MULTILINE)
    assert len(lines) >= 4
    ffmpeg_run = [ffmpeg.executable(), "-v", "error", "-i", "song.wav", "song.mp3"]
    subprocess.run(ffmpeg_run, check=True)
    programs = song / "bin"
    programs.mkdir()
    (programs / "ffmpeg").symlink_to(ffmpeg.executable())
    (programs / "stemsplit").symlink_to(Path(sys.executable).with_name("stemsplit"))
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    before = set(song.rglob("*"))
    for line in lines:
        run = subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, check=False)
        assert run.returncode == 0, (line, run.stderr)
        made = [path for path in set(song.rglob("*")) - before if path.is_file()]
        before |= set(made)
        assert made, line
        assert all(path.stat().st_size > 1000 for path in made if ".stemsplit" not in path.parts)


# What a WAV stream's header states


def wav_stream(stated: int, sound: bytes, trailer: bytes = b"") -> io.BytesIO:
    form = struct.pack("<HHIIHH", 1, 1, 44_100, 88_200, 2, 16)
    head = b"RIFF" + bytes(4) + b"WAVEfmt " + struct.pack("<I", 16) + form + b"data"
    return io.BytesIO(head + struct.pack("<I", stated) + sound + trailer)


@pytest.mark.parametrize("size", [3, 4_096])
@pytest.mark.parametrize(
    ("stated", "trailer", "remark"),
    [
        (0, b"", None),
        (0xFFFF_FFFF, b"", None),
        (0x7FFF_FFFF, b"", None),
        (4_000, b"LIST\x04\0\0\0INFO", None),
        (4_000, b"", None),
        (1_000, b"", "is longer than the length"),
        (5_000, b"", "ended 1000 bytes before"),
    ],
)
def test_a_wav_stream_is_read_to_its_end_whatever_its_header_states(stated, trailer, remark, size):
    sound = np.arange(2_000, dtype="<i2") * 16 - 16_001
    stream = wav_stream(stated, sound.tobytes(), trailer)
    _, length = read_header(stream)
    samples = WavSamples(stream, length)
    assert b"".join(iter(lambda: samples.read(size), b"")) == sound.tobytes()
    assert (remark in samples.remark) if remark else samples.remark is None
