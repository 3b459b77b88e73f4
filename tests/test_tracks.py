"""Sound tracks of containers: which one is read, where its sound lies, and surround sound mixed down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from stemsplit.audio import ffmpeg
from stemsplit.audio.decoding.decoder import Decoder
from stemsplit.audio.reader import Reader
from stemsplit.cli import app
from stemsplit.errors import DecodeError, UnsupportedChannels
from tests.conftest import events
from tests.test_formats import lag, run_ffmpeg

pytestmark = pytest.mark.subprocess  # most of these start ffmpeg

RATE, SECONDS = 44_100, 3
PICTURE = ("-f", "lavfi", "-i", f"color=black:s=16x16:r=5:d={SECONDS}")
FAST = ("--model", "binary-mask-cnn", "--fast")


def tone(hz: float, channels: int = 2, seconds: float = SECONDS) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * hz * time)[None].repeat(channels, 0)).astype(np.float32)


def pitch(sound: np.ndarray) -> float:
    """Return the strongest frequency in Hz."""
    return float(np.argmax(np.abs(np.fft.rfft(sound[0]))) * RATE / sound.shape[1])


def read(path: Path, **options: Any) -> np.ndarray:
    return np.concatenate(list(Reader(path, **options)), axis=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tones in mono, stereo and 5.1, as WAV files named after their pitch; and noise."""
    path = tmp_path_factory.mktemp("tones")
    for hz, channels in ((300, 1), (600, 2), (900, 6)):
        soundfile.write(path / f"{hz}.wav", tone(hz, channels).T, RATE)
    noise = 0.2 * np.random.default_rng(440).standard_normal((SECONDS * RATE, 2))
    soundfile.write(path / "noise.wav", noise, RATE, subtype="FLOAT")
    return path


def film(folder: Path, name: str, *tracks: tuple[int | str, str, str]) -> Path:
    """Make a video with sound tracks, each of a pitch, a language and a disposition."""
    inputs = [word for hz, _, _ in tracks for word in ("-i", folder / f"{hz}.wav")]
    options: list[str] = []
    for number, (_, language, disposition) in enumerate(tracks):
        options += ["-map", f"{number + 1}:a", f"-metadata:s:a:{number}", f"language={language}"]
        options += [f"-disposition:a:{number}", disposition]
    codecs = ("-c:v", "mpeg4", "-c:a", "flac")
    run_ffmpeg(*PICTURE, *inputs, "-map", "0:v", *options, *codecs, folder / name)
    return folder / name


@pytest.mark.parametrize(
    ("tracks", "wanted", "hz"),
    [
        ([(300, "eng", "0"), (600, "deu", "default")], None, 600),
        ([(300, "eng", "0"), (600, "deu", "0")], None, 300),
        ([(300, "eng", "0"), (600, "deu", "default")], 0, 300),
        ([(300, "eng", "0"), (600, "deu", "default")], "eng", 300),
        ([(300, "eng", "0"), (600, "deu", "default")], "DEU", 600),
        ([(300, "eng", "0"), (600, "deu", "default")], "en", 300),
        ([(300, "eng", "0"), (600, "ger", "0")], "de-AT", 600),
        ([(300, "eng", "0"), (600, "ger", "0")], "deu", 600),
        ([(900, "eng", "default"), (300, "deu", "0"), (600, "eng", "0")], None, 600),
        ([(300, "und", "default")], "eng", 300),
    ],
)
def test_the_default_track_is_read_or_the_one_asked_for(tracks, wanted, hz, folder):
    reader = Reader(film(folder, "film.mkv", *tracks), track=wanted)
    sound = np.concatenate(list(reader), axis=1)
    assert pitch(sound) == pytest.approx(hz, abs=1)
    assert (len(sound), sound.shape[1]) == (2 if hz == 600 else 1, SECONDS * RATE)
    told = " ".join(reader.warnings)
    assert ("has the audio tracks" in told) == (len(tracks) > 1 and wanted is None)


@pytest.mark.parametrize(("wanted", "words"), [("fra", "no audio track in `fra`"), (2, "fewer than 3")])
def test_a_track_that_is_not_there_is_refused(wanted, words, folder):
    path = film(folder, "film.mkv", (300, "eng", "0"), (600, "deu", "default"))
    with pytest.raises(DecodeError, match=words) as refusal:
        Reader(path, track=wanted)
    if wanted == "fra":
        assert "1 (eng, mono), 2 (deu, stereo)" in refusal.value.hint


def test_the_refusal_of_surround_sound_names_what_helps(folder):
    with pytest.raises(UnsupportedChannels) as refusal:
        Reader(film(folder, "film.mkv", (900, "eng", "default"), (600, "deu", "0")))
    assert "--downmix" in refusal.value.hint
    assert "--audio-track: 2 (deu, stereo)" in refusal.value.hint


@pytest.mark.parametrize("name", ["surround.wav", "surround.flac", "surround.mka"])
def test_surround_sound_is_mixed_down_without_clipping(name, tmp_path):
    levels = np.array([0.5, 0.25, 0.5, 0.9, 0.1, 0.2])  # left, right, centre, bass, and two behind
    soundfile.write(tmp_path / "source.wav", np.full((RATE, 6), levels), RATE, subtype="PCM_24")
    codec = ("-c:a", "flac") if name.endswith(".mka") else ()
    run_ffmpeg("-i", tmp_path / "source.wav", *codec, tmp_path / name)
    sound = read(tmp_path / name, downmix=True)
    assert sound.shape == (2, RATE)
    expected = levels[:2] + np.sqrt(0.5) * (levels[2] + levels[4:])  # ITU-R BS.775
    np.testing.assert_allclose(sound[:, RATE // 2], expected, atol=1e-4)
    assert expected[0] < 1


def test_a_downmix_above_full_scale_is_kept(tmp_path):
    soundfile.write(tmp_path / "loud.wav", np.full((RATE, 6), 0.9), RATE)
    assert read(tmp_path / "loud.wav", downmix=True).max() == pytest.approx(0.9 * (1 + 2**0.5), abs=1e-3)


def test_downmix_leaves_stereo_and_mono_alone(folder):
    for name in ("300.wav", "600.wav"):
        np.testing.assert_array_equal(read(folder / name, downmix=True), read(folder / name))


@pytest.mark.parametrize(
    ("name", "codec"),
    [("film.mp4", "aac"), ("film.mkv", "flac"), ("film.mkv", "libmp3lame"), ("film.ts", "mp2")],
)
@pytest.mark.parametrize("delay", [0.04, 1.0])
def test_sound_that_starts_late_has_silence_before_it(name, codec, delay, folder, tmp_path):
    codecs = ("-c:v", "mpeg2video", "-r", "25", "-c:a", codec, "-b:a", "320k")
    source = ("-map", "0:v", "-map", "1:a", *codecs)
    for path, late in ((tmp_path / "now", 0.0), (tmp_path / "late", delay)):
        path.mkdir()
        offset = ("-itsoffset", f"{late}", "-i", folder / "noise.wav")
        run_ffmpeg(*PICTURE, *offset, *source, "-output_ts_offset", "7200", path / name)
    sound, _ = soundfile.read(folder / "noise.wav", dtype="float32")
    late, now = (lag(read(tmp_path / each / name), sound.T) for each in ("late", "now"))
    assert late / RATE == pytest.approx(delay, abs=0.001)
    assert abs(now) < 0.03 * RATE  # not the hours at which the time stamps begin


@pytest.mark.parametrize(("name", "codec"), [("gap.mkv", "flac"), ("gap.ts", "mp2")])
def test_a_gap_is_filled_with_silence(name, codec, folder, tmp_path):
    cut = ("-af", "aselect='not(between(t,1,1.5))'")
    run_ffmpeg("-i", folder / "noise.wav", *cut, "-c:a", codec, "-b:a", "320k", tmp_path / name)
    sound = read(tmp_path / name)
    source, _ = soundfile.read(folder / "noise.wav", dtype="float32")
    assert sound.shape[1] == pytest.approx(SECONDS * RATE, abs=2500)  # the frames of MPEG
    after, before = (slice(2 * RATE, 3 * RATE - 5000), slice(0, RATE - 5000))
    assert lag(sound[:, after], source.T[:, after]) == pytest.approx(
        lag(sound[:, before], source.T[:, before]), abs=50
    )
    assert np.abs(sound[:, int(1.1 * RATE) : int(1.4 * RATE)]).max() < 1e-3


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("a.m4a", ("-c:a", "aac")),
        ("alac.m4a", ("-c:a", "alac")),
        ("a.mka", ("-c:a", "libopus")),
        ("a.mka", ("-c:a", "libmp3lame")),
        ("a.webm", (*PICTURE, "-c:v", "libvpx", "-c:a", "libvorbis", "-map", "0", "-map", "1")),
        ("film.mp4", (*PICTURE, "-c:v", "mpeg4", "-c:a", "aac", "-map", "0", "-map", "1")),
        (
            "film.avi",
            (*PICTURE, "-c:v", "mpeg4", "-c:a", "libmp3lame", "-q:a", "3", "-map", "0", "-map", "1"),
        ),
        ("film.flv", (*PICTURE, "-c:v", "flv", "-c:a", "aac", "-map", "0", "-map", "1")),
        ("a.wma", ("-c:a", "wmav2")),
    ],
)
def test_sound_of_ordinary_files_does_not_change(name, arguments, folder, tmp_path):
    """Delays of encoders, edit lists and rounded time stamps are no gaps."""
    run_ffmpeg("-i", folder / "noise.wav", *arguments, tmp_path / name)
    plain, blocks = Decoder(tmp_path / name), []
    while (block := plain.read(65_536)).shape[1]:
        blocks.append(block)
    plain.close()
    np.testing.assert_array_equal(read(tmp_path / name), np.concatenate(blocks, axis=1))


def test_the_command_line_splits_the_track_and_remembers_it(folder, tmp_path):
    path = film(folder, "film.mkv", (900, "eng", "default"), (300, "deu", "0"), (600, "fra", "0"))
    options = [*FAST, "-o", str(tmp_path / "out"), "--json", "--skip-existing"]

    def run(*more: str) -> dict:
        result = CliRunner().invoke(app, [str(path), *options, *more])
        return next(event for event in events(result.stdout) if event["event"] == "track")

    assert (run()["status"], "--downmix" in run()["hint"]) == ("error", True)
    second = run("--audio-track", "2")
    assert (second["status"], second["channels"], second["frames"]) == ("ok", 1, SECONDS * RATE)
    assert run("--audio-track", "2")["status"] == "skipped"
    assert (run("--audio-track", "fra")["channels"], run("--downmix")["channels"]) == (2, 2)


def test_scan_chooses_the_track_too(folder):
    for name, gains in (("left", (1, 0.3)), ("right", (0.3, 1))):
        soundfile.write(folder / f"{name}.wav", (tone(600) * np.array(gains)[:, None]).T, RATE)
    path = film(folder, "film.mkv", ("left", "eng", "default"), ("right", "deu", "0"))
    for track, side in (("1", -1), ("deu", 1)):
        result = CliRunner().invoke(app, ["scan", str(path), "--audio-track", track, "--json"])
        assert result.exit_code == 0, result.stderr
        assert np.sign(json.loads(result.stdout)["azimuths"][0]["degrees"]) == side


def test_track_0_is_wrong_usage(folder):
    result = CliRunner().invoke(app, [str(folder / "600.wav"), "--audio-track", "0"])
    assert result.exit_code == 2
    assert "the first one is 1" in result.stderr


def test_there_is_nothing_to_choose_without_ffmpeg(folder, monkeypatch):
    monkeypatch.setattr(ffmpeg, "executable", lambda: None)
    assert Reader(folder / "600.wav", track="eng").channels == 2
