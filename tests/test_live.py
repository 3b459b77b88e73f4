"""Live separation: the same sound as offline, a stated time behind, to the sample."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
import types

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from stemsplit import arrays
from stemsplit.audio.raw import RawFormat, StreamWriter, read_header
from stemsplit.cli import app
from stemsplit.errors import DecodeError, DeviceUnavailable, StemsplitError
from stemsplit.live.clock import Clock
from stemsplit.live.engine import Live, block_length, find, load, only
from stemsplit.live.pipe import Pipe
from stemsplit.live.sound_card import MOST_BEHIND, SoundCard
from stemsplit.remix.mixer import Mixer, parse
from stemsplit.separation.separator import Spec
from tests.conftest import EVERY_METHOD, METHODS, SAMPLE_RATE, STEMS, mask_separator

RAW = RawFormat(SAMPLE_RATE, 2, "f32")
ALAW = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + bytes.fromhex("0600 0200 44AC0000 00000000 0200 0800")
HINT = "\n\nhint: "


class Drops(io.BytesIO):
    """A stream that gives no more than so many bytes at a time."""

    def __init__(self, data: bytes, most: int) -> None:
        super().__init__(data)
        self.most = most

    def read(self, count: int | None = -1) -> bytes:
        return super().read(self.most if count is None or count < 0 else min(count, self.most))


def stems_of(result: np.ndarray) -> np.ndarray:
    """Mix nothing: all stems, one channel after the other."""
    return result.reshape(-1, result.shape[-1])


def offline(separator, music: np.ndarray) -> np.ndarray:
    return np.stack(list(arrays.split(music, separator.spec.sample_rate, separator=separator).values()))


# The engine


@pytest.mark.slow
@pytest.mark.parametrize(("block_ms", "pieces"), [(10, 999), (100, 4608), (130, 4608), (250, 10**6)])
def test_it_is_what_is_made_offline(block_ms, pieces, music):
    music = music[:, : SAMPLE_RATE // 2 + 1]
    separator = mask_separator("soft", ("vocals",))
    engine = Live(separator, only, block_ms=block_ms)
    blocks = (music[:, start : start + pieces] for start in range(0, music.shape[1], pieces))
    found = list(engine.run(blocks))
    assert {block.shape[1] for block in found[:-1]} == {engine.block}
    np.testing.assert_allclose(
        np.concatenate(found, axis=-1), offline(separator, music)[0], atol=1e-5, strict=True
    )
    assert abs(offline(separator, music)[0]).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY_METHOD)
def test_so_it_is_with_every_method(name, music):
    separator, short = METHODS[name](), music[:, :30_001]
    engine = Live(separator, stems_of, block_ms=100)
    found = np.concatenate(list(engine.run([short])), axis=-1)
    np.testing.assert_allclose(found, stems_of(offline(separator, short)), atol=1e-5, strict=True)


@pytest.mark.slow
@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("piece", [1, 441, 5000])
def test_it_is_never_further_behind_than_its_latency(fast, piece, music):
    """A sample has come out as soon as `latency` later ones are in: none sooner, for blocks are whole."""
    separator = mask_separator("soft", ("drums",), frame_stride=3 if fast else 1)
    engine = Live(separator, only, block_ms=50)
    assert engine.latency == engine.block + separator.spec.context
    short = music[:, : engine.latency + 2 * engine.block + 7]
    given = 0

    def blocks():
        nonlocal given
        for start in range(0, short.shape[1], piece):
            assert given - engine.made < engine.latency + piece
            assert engine.made == max(0, (given - separator.spec.context) // engine.block) * engine.block
            given = min(start + piece, short.shape[1])
            yield short[:, start:given]

    found = sum(block.shape[1] for block in engine.run(blocks()))
    assert found == given == short.shape[1]


def test_latency_and_blocks_are_what_the_separator_says():
    spec = mask_separator("soft", ("vocals",)).spec
    assert spec.context == (12 + 3) * 512, "frames that the network hears ahead, and those that overlap"
    engine = Live(mask_separator("soft", ("vocals",)), only, block_ms=100)
    assert (engine.block, engine.milliseconds(engine.latency)) == (9 * 512, pytest.approx(278.64, abs=0.01))
    assert block_length(1536, SAMPLE_RATE, 100) == 3 * 1536
    assert block_length(512, SAMPLE_RATE, 1) == 512, "one, where it would be none"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "fast"), [("binary-mask-cnn", False), ("binary-mask-cnn", True), ("band-transformer", True)]
)
def test_the_networks_are_asked_for_a_block_at_once(model, fast, music):
    """No answer is thrown away, and no block takes two calls."""
    separator = load(find(model), "vocals", fast=fast, runtime="torch")
    assert separator.spec.stems == ("vocals",)
    asked, network = [], separator.network

    def counted(features):
        answers = network(features)
        asked.append(answers.shape[2])
        return answers

    batch = separator.execution.batch
    object.__setattr__(separator, "network", counted)
    list(Live(separator, only).run([music]))
    stride = separator.plan.stride
    assert len(asked) > 2
    assert all(0 <= batch - answers < stride for answers in asked[:-1])


@pytest.mark.slow
def test_a_remix_is_the_mix_of_what_is_made_offline(music):
    text = "vocals=-6dB drums=mute bass=pan:-30 other=delay:20ms"
    separator = mask_separator("joint")
    mixer = [Mixer(parse(text, STEMS), STEMS, SAMPLE_RATE) for _ in range(2)]
    engine = Live(separator, mixer[0].mix)
    engine.check(SAMPLE_RATE, 2)
    music = music[:, -30_000:]
    found = np.concatenate(list(engine.run([music[:, :20_000], music[:, 20_000:]])), axis=-1)
    expected = mixer[1].mix(offline(separator, music))
    assert abs(expected - music).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-5, strict=True)


def test_another_rate_is_refused():
    engine = Live(mask_separator("soft", ("vocals",)), only)
    with pytest.raises(StemsplitError, match="48000 Hz") as problem:
        engine.check(48_000, 2)
    assert "-ar 44100" in problem.value.hint


# The clock


SPEC = Spec(stems=("vocals",), sample_rate=1000, context=100, stride=50)


def lateness(came, went) -> tuple[list[float], int]:
    """What the clock says of blocks of 50 ms that need 100 ms more."""
    clock = Clock(SPEC, 50)
    for total, when in came:
        clock.came(total, when)
    for when in went:
        clock.went(50, when)
    return [round(seconds, 3) for seconds in clock.latencies], clock.late


REAL_TIME = [(10 * n, 0.01 * n) for n in range(1, 40)]


def test_latency_counts_from_a_block_s_first_sample():
    assert lateness(REAL_TIME, [0.16, 0.21, 0.26]) == ([0.15, 0.15, 0.15], 0)


def test_a_block_has_the_time_that_one_lasts():
    assert lateness(REAL_TIME, [0.209, 0.262]) == ([0.199, 0.202], 1)


def test_a_pause_of_the_input_is_nobody_s_fault():
    paused = [(total, when + (5.0 if total > 100 else 0)) for total, when in REAL_TIME]
    assert lateness(paused, [5.16])[1] == 0


def test_what_comes_at_once_has_the_time_that_it_lasts():
    assert lateness([(math.inf, 0.0)], [0.04, 0.08, 0.19])[1] == 0


# Pipes


def piped(stream, raw, *, wav=False, length=None, most=None):
    out = io.BytesIO()
    engine = Live(mask_separator("soft", ("bass",)), only)
    pipe = Pipe(engine, stream, raw, StreamWriter(out, raw, wav=wav), length=length)
    pipe.run()
    return out.getvalue(), pipe


@pytest.mark.slow
@pytest.mark.parametrize(("most", "frames"), [(1, 1000), (8, 9000), (4099, 40_001), (1 << 20, 40_001)])
def test_a_stream_in_drops_comes_out_whole(most, frames, music):
    short = music[:, :frames]
    data, pipe = piped(Drops(RAW.encode(short), most), RAW)
    expected = offline(mask_separator("soft", ("bass",)), short)[0]
    np.testing.assert_allclose(RAW.decode(data), expected, atol=1e-5, strict=True)
    assert pipe.summary.seconds == pytest.approx(frames / SAMPLE_RATE)
    assert pipe.summary.blocks == math.ceil(frames / 4608)
    assert pipe.summary.worst_ms >= pipe.summary.median_ms > 0
    assert pipe.summary.times_real_time > 0


@pytest.mark.slow
def test_a_wav_stream_ends_where_it_says(music):
    file = io.BytesIO()
    soundfile.write(file, music[:, :20_000].T, SAMPLE_RATE, "PCM_24", format="WAV")
    stream = Drops(file.getvalue() + b"junk" * 100, 50)
    raw, length = read_header(stream)
    assert (str(raw), length) == ("44100:2:s24", 20_000 * 6)
    data, _ = piped(stream, raw, wav=True, length=length)
    found, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    expected = offline(mask_separator("soft", ("bass",)), np.float32(music[:, :20_000]))[0]
    np.testing.assert_allclose(found.T, expected, atol=1e-5)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "FLOAT"])
@pytest.mark.parametrize("format", ["WAV", "WAVEX", "RF64"])
def test_headers_are_read(subtype, format, music):
    file = io.BytesIO()
    soundfile.write(file, music[:, :100].T, SAMPLE_RATE, subtype, format=format)
    stream = Drops(file.getvalue(), 7)
    raw, length = read_header(stream)
    samples = {"PCM_16": "s16", "PCM_24": "s24", "PCM_32": "s32", "FLOAT": "f32"}[subtype]
    assert raw == RawFormat(SAMPLE_RATE, 2, samples)
    assert length == 100 * raw.bytes_per_frame or (length is None and format == "RF64")
    rest = b"".join(iter(lambda: stream.read(1000), b""))[: 100 * raw.bytes_per_frame]
    np.testing.assert_allclose(raw.decode(rest), music[:, :100], atol=2.0**-15)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "ends before"),
        (b"RIFF\0\0\0\0WA", "ends before"),
        (b"ID3" + bytes(100), "not a WAV"),
        (b"RIFF\0\0\0\0WAVEdata\0\0\0\0", "does not state"),
        (b"RIFF\0\0\0\0WAVEjunk\xff\xff\xff\xff", "damaged"),
        (ALAW + b"data\0\0\0\0", "8 bits"),
    ],
)
def test_what_is_no_wav_stream_is_refused(data, what):
    with pytest.raises(DecodeError, match=what):
        read_header(io.BytesIO(data))


@pytest.mark.slow
def test_half_a_frame_and_clipping_are_told(music):
    raw = RawFormat(SAMPLE_RATE, 2, "s16")
    out = io.BytesIO()
    engine = Live(mask_separator("soft", ("bass",)), lambda stems: 100 * stems[0])
    pipe = Pipe(engine, io.BytesIO(raw.encode(music) + b"abc"), raw, StreamWriter(out, raw, wav=False))
    pipe.run()
    half, clipped = pipe.warnings
    assert "3 bytes" in half
    assert "clipped" in clipped


def test_what_cannot_be_read_is_told():
    class Broken(io.BytesIO):
        def read(self, count=-1):
            raise OSError(5, "Input/output error")

    with pytest.raises(DecodeError, match="Input/output error"):
        piped(Broken(), RAW)


def test_nothing_and_what_is_no_number_are_errors():
    with pytest.raises(DecodeError, match="Standard input is empty"):
        piped(io.BytesIO(), RAW)
    with pytest.raises(DecodeError, match="NaN"):
        piped(io.BytesIO(np.full(800, np.nan, "<f4").tobytes()), RAW)


# Sound cards


class FakeStream:
    """A card that hears a recording, and waits for whoever makes the blocks as no card would."""

    latency = (0.01, 0.02)
    recording: np.ndarray

    def __init__(self, *, callback, finished_callback, blocksize, channels, **options):
        self.callback, self.finished, self.blocksize = callback, finished_callback, blocksize
        self.channels, self.options, self.played = channels, options, []
        FakeStream.opened = self

    def __enter__(self):
        self.thread = threading.Thread(target=self._play)
        self.thread.start()

    def __exit__(self, *_):
        self.thread.join()

    def _play(self):
        ready, (inputs, outputs) = self.callback.__self__.ready, self.channels
        for start in range(0, self.recording.shape[1] - self.blocksize + 1, self.blocksize):
            until = time.monotonic() + 60
            while not ready and time.monotonic() < until:
                time.sleep(0.001)
            heard = self.recording[:inputs, start : start + self.blocksize].T
            played = np.full((self.blocksize, outputs), np.nan, np.float32)
            self.callback(heard, played, self.blocksize, None, None)
            self.played.append(played)
        self.finished()


class PortAudioError(Exception):
    pass


def fake(inputs=2, outputs=2):
    def query_devices(device=None, kind=None):
        devices = [
            {"index": 0, "name": "Microphone", "max_input_channels": inputs, "max_output_channels": 0},
            {"index": 1, "name": "Speaker", "max_input_channels": 0, "max_output_channels": outputs},
        ]
        if kind is None:
            return devices
        if device not in (None, 0, 1, "Micro", "Speak"):
            raise ValueError(f"No {kind} device matching {device!r}")
        return devices[kind == "output"]

    return types.SimpleNamespace(
        Stream=FakeStream, query_devices=query_devices, PortAudioError=PortAudioError
    )


@pytest.mark.slow
@pytest.mark.parametrize(("inputs", "outputs"), [(2, 2), (1, 2), (8, 1)])
def test_a_card_plays_what_is_made_offline_later_by_what_it_says(inputs, outputs, music, monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", fake(inputs, outputs))
    FakeStream.recording = music
    separator = mask_separator("soft", ("vocals",))
    engine = Live(separator, only)
    card = SoundCard(engine, "Micro", "1")
    assert FakeStream.opened.options["device"] == ("Micro", 1)
    assert FakeStream.opened.options["samplerate"] == SAMPLE_RATE
    card.run()
    played = np.concatenate(FakeStream.opened.played).T
    delay = round(card.latency - 0.03 * SAMPLE_RATE)
    assert delay == 3 * engine.block, "the context's blocks, and one for the work"
    expected = offline(separator, music[: min(inputs, outputs)])[0]
    expected = np.pad(np.broadcast_to(expected, (outputs, music.shape[1])), ((0, 0), (delay, 0)))
    np.testing.assert_allclose(played, expected[:, : played.shape[1]], atol=1e-5)
    assert card.summary.late == 0
    assert card.summary.latency_ms == pytest.approx(engine.milliseconds(delay) + 30)


def test_a_late_block_is_silence_and_is_left_out_when_it_comes(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", fake())
    card = SoundCard(Live(mask_separator("soft", ("vocals",)), only))
    card.ready.clear()
    heard = played = np.ones((4608, 2), np.float32)

    def tick(status=None):
        card.callback(heard, played, 4608, None, status)
        return played[0, 0]

    assert tick() == 0
    assert tick() == 0
    card.ready.extend(np.full((4608, 2), n, np.float32) for n in (1, 2, 3, 4))
    assert tick() == 3, "the first two are too late"
    assert tick() == 4
    assert card.late == 2
    card.ready.append(heard)
    tick(status="input overflow")
    assert card.late == 3


def test_a_machine_that_does_not_keep_up_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", fake())
    FakeStream.recording = np.zeros((2, 0), np.float32)
    card = SoundCard(Live(mask_separator("soft", ("vocals",)), only))
    block = np.zeros((4608, 2), np.float32)
    for _ in range(MOST_BEHIND + 2):
        card.callback(block, block.copy(), 4608, None, None)
    with pytest.raises(DeviceUnavailable, match="too slow for live separation"):
        card.run()


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", fake())
    with pytest.raises(DeviceUnavailable, match="No input device matching 'Piano'") as problem:
        SoundCard(Live(mask_separator("soft", ("vocals",)), only), "Piano")
    assert "--devices" in problem.value.hint


# The command line


def run(*words: str, **options):
    return CliRunner().invoke(app, ["live", *words], **options)


def loaded(model, stem, **_):
    return mask_separator("soft", (stem,) if stem else STEMS)


@pytest.fixture
def shipped(monkeypatch):
    """The program with networks that are there at once."""
    monkeypatch.setattr("stemsplit.live.engine.load", loaded)


@pytest.mark.slow
def test_plain_samples_through_the_program(shipped, music):
    result = run("--raw", "44100:2:f32", "--stem", "drums", input=RAW.encode(music))
    assert result.exit_code == 0, result.stderr
    expected = offline(mask_separator("soft", ("drums",)), music)[0]
    np.testing.assert_allclose(RAW.decode(result.stdout_bytes), expected, atol=1e-5, strict=True)
    first, last = result.stderr.strip().splitlines()
    assert first.startswith("drums: delay 279 ms")
    assert "blocks late" in last


@pytest.mark.slow
def test_a_preset_through_the_program(shipped, music):
    file = io.BytesIO()
    soundfile.write(file, music.T, SAMPLE_RATE, "FLOAT", format="WAV")
    result = run("--remix", "karaoke", "--json", "-q", input=file.getvalue())
    assert result.exit_code == 0, result.stderr
    found, _ = soundfile.read(io.BytesIO(result.stdout_bytes), dtype="float32")
    expected = offline(mask_separator("soft"), music)[1:].sum(axis=0)
    np.testing.assert_allclose(found.T, expected, atol=1e-5)
    summary = json.loads(result.stderr)
    assert summary["blocks"] == math.ceil(music.shape[1] / 4608)
    assert summary["latency_ms"] == pytest.approx(278.64, abs=0.01)


@pytest.mark.slow
def test_cards_through_the_program(shipped, music, monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", fake())
    FakeStream.recording = music
    result = run("--input", "default", "--output", "Speak", "--stem", "bass")
    assert result.exit_code == 0, result.stderr
    assert FakeStream.opened.options["device"] == (None, "Speak")
    assert "bass: delay 343 ms" in result.stderr
    assert "0 of 14 blocks late" in result.stderr
    assert run("--devices").stdout.splitlines() == [
        "  0 Microphone (2 in, 0 out)",
        "  1 Speaker (0 in, 2 out)",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        ([], 2, "--stem and --remix"),
        (["--stem", "vocals", "--remix", "karaoke"], 2, "--stem and --remix"),
        (["--stem", "vocals", "--raw", "44100:2:f32", "--input", "1"], 2, "not for sound"),
        (["--stem", "flute"], 2, "No stem called `flute`"),
        (["--remix", "flute=mute"], 2, "No stem called `flute`"),
        (["--stem", "vocals", "--model", "projet"], 2, "a whole track"),
        (["--remix", "karaoke", "--model", "projet"], 2, "a whole track"),
        (["--stem", "vocals", "--raw", "48000:2:f32"], 1, "48000 Hz"),
        (["--remix", "bass=pan:30", "--raw", "44100:1:f32"], 1, "cannot be panned or widened"),
        (["--stem", "vocals"], 1, "before the sound starts"),
        (["--stem", "vocals", "--input", "1"], 1, "package sounddevice"),
        (["--devices"], 1, "package sounddevice"),
    ],
)
def test_what_cannot_be_is_one_sentence(words, code, what, monkeypatch):
    if "--model" not in words and "flute" not in str(words):
        monkeypatch.setattr("stemsplit.live.engine.load", loaded)
    monkeypatch.setitem(sys.modules, "sounddevice", None)  # as where it is not installed
    result = run(*words, input=b"")
    assert result.exit_code == code
    assert what in " ".join(result.stderr.replace("│", " ").split())
    if code == 1:
        assert result.stderr.count(HINT) == 1
        assert "Traceback" not in result.stderr


def program(*words: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "stemsplit", "live", "--raw", "44100:2:f32", "--stem", "vocals", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Whoever runs the tests in the background may have them ignore it, and all that they start.
        preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) if os.name == "posix" else None,
    )


@pytest.mark.subprocess
@pytest.mark.skipif(os.name != "posix", reason="no such signals")
def test_a_block_comes_out_while_more_may_come_and_interrupting_ends_it(music):
    """It does not wait for a full buffer: only for the block and its context."""
    with program() as process:
        process.stdin.write(RAW.encode(music[:, : 4608 + 7680]))
        process.stdin.flush()
        data = process.stdout.read(4608 * 8)  # the input is open still
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)  # before the input is closed, which is another way to end
        rest, words = process.communicate()
    assert (len(data), rest, process.returncode) == (4608 * 8, b"", 130)
    assert b"1 blocks late" in words
    assert words.endswith(b"interrupted\n")


@pytest.mark.subprocess
@pytest.mark.skipif(os.name != "posix", reason="no such signals")
def test_who_stops_listening_ends_it(music):
    with program("-q") as process:
        process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            while process.poll() is None:
                process.stdin.write(RAW.encode(music))
        process.stdin = None
        assert process.wait(timeout=60) == 141
        assert process.stderr.read() == b""


@pytest.mark.slow
def test_a_form_of_samples_that_is_none_is_wrong_usage():
    result = CliRunner().invoke(app, ["live", "--stem", "vocals", "--raw", "44100:2"], input=b"x")
    assert result.exit_code == 2
    assert "--raw" in result.stderr
