"""What output formats can hold: the table is that of the encoders, and what does not fit is made to fit."""

from __future__ import annotations

from pathlib import Path

import mutagen.mp3
import numpy as np
import pytest
import soundfile
import soxr
from typer.testing import CliRunner

from stemsplit.audio import ffmpeg, output_formats
from stemsplit.audio.rates import RateConverter
from stemsplit.audio.reader import Block, Reader, Signal
from stemsplit.audio.stem_labels import ORDER, label_stems
from stemsplit.audio.stem_mp4 import StemFile
from stemsplit.audio.writer import Encoding, Writer, together
from stemsplit.cli import app
from tests.conftest import events
from tests.test_formats import lag, read, write

pytestmark = pytest.mark.subprocess  # most of these start ffmpeg

FAST = ("--model", "binary-mask-cnn", "--fast")


def noise(rate: int, channels: int = 2, seconds: float = 0.6) -> Block:
    """Noise below 3 kHz, which every rate here can hold; it fades in and out."""
    size = round(rate * seconds) | 1
    spectrum = np.fft.rfft(np.random.default_rng(440).standard_normal((channels, size)))
    sound = np.fft.irfft(np.where(np.fft.rfftfreq(size, 1 / rate) < 3_000, spectrum, 0), size)
    return (0.3 * np.hanning(size) * sound / np.abs(sound).max()).astype(np.float32)


def encodes(path: Path, format: str, rate: int, channels: int, bitrate: int | None = None) -> bool:
    """Whether ffmpeg's encoder takes this."""
    encoder = ffmpeg.Encoder(
        path,
        format=format,
        sample_rate=rate,
        channels=channels,
        raw="s32le" if format == "flac" else "f32le",
        bitrate=bitrate,
    )
    try:
        encoder.write(bytes(4 * channels * (rate // 4)))
        encoder.finish()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("format", "highest"), [("mp3", 48_000), ("m4a", 96_000), ("ogg", 200_000), ("flac", 1_048_575)]
)
def test_the_highest_sample_rate_is_the_encoder_s(format, highest, tmp_path):
    assert output_formats.rate_for(format, highest) == highest
    assert encodes(tmp_path / "a", format, highest, 2)
    assert Reader(tmp_path / "a").sample_rate == highest
    # Where ffmpeg does not refuse, it resamples in its own way, without a word.
    assert not encodes(tmp_path / "b", format, highest + 1, 2) or (
        Reader(tmp_path / "b").sample_rate == highest
    )
    assert output_formats.rate_for(format, highest + 1) <= highest


@pytest.mark.slow
@pytest.mark.parametrize("format", ["mp3", "m4a"])
def test_each_sample_rate_is_the_encoder_s(format, tmp_path):
    for rate in output_formats._RATES[format]:
        assert encodes(tmp_path / "a", format, rate, 1)
        assert Reader(tmp_path / "a").sample_rate == rate


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 2])
def test_bitrates_of_ogg_are_the_encoder_s(channels, tmp_path):
    """Near the lowest and highest sample rate of each row: at some of these two rows overlap."""
    above = 96_000
    for rate, lowest, highest in output_formats._VORBIS_BITRATES[channels]:
        for each in {max(rate, 1_000), above - 2} if not highest else {rate + 1, above - 2}:
            tried = (lowest, highest) if highest else ()
            assert all(encodes(tmp_path / "a", "ogg", each, channels, bitrate) for bitrate in tried)
            beyond = (lowest - 1, highest + 3) if highest else (8_000, 48_000, 96_000)
            assert not any(encodes(tmp_path / "a", "ogg", each, channels, bitrate) for bitrate in beyond)
            if highest:
                assert encodes(tmp_path / "a", "ogg", rate, channels, lowest)
        above = rate


@pytest.mark.parametrize(("rate", "lowest", "highest"), output_formats._MP3_BITRATES)
def test_bitrates_of_mp3_are_the_encoder_s(rate, lowest, highest, tmp_path):
    for bitrate, made in ((lowest, lowest), (highest, highest), (highest * 2, highest)):
        assert encodes(tmp_path / "a", "mp3", rate or 11_025, 2, bitrate)
        assert mutagen.mp3.MP3(tmp_path / "a").info.bitrate == pytest.approx(made, rel=0.01)


@pytest.mark.parametrize(
    ("format", "rate", "written"),
    [
        ("mp3", 96_000, 48_000),
        ("mp3", 47_952, 48_000),
        ("mp3", 37_800, 44_100),
        ("ogg", 352_800, 192_000),
        ("m4a", 192_000, 96_000),
        ("m4a", 50_000, 64_000),
        pytest.param("flac", 1_411_200, 768_000, marks=pytest.mark.slow),
        ("flac", 705_600, 705_600),
        pytest.param("wav", 1_411_200, 1_411_200, marks=pytest.mark.slow),
    ],
)
def test_a_rate_that_the_format_cannot_hold_is_converted(format, rate, written, tmp_path):
    sound = noise(rate)
    writer = write(tmp_path / f"a.{format}", sound, rate=rate)
    frames = round(sound.shape[1] * written / rate)
    decoded = read(tmp_path / f"a.{format}")
    assert (writer.sample_rate, Reader(tmp_path / f"a.{format}").sample_rate) == (written, written)
    assert (writer.frames_written, decoded.shape) == (frames, (2, frames))
    reference = soxr.resample(sound.T, rate, written, quality="VHQ").T
    reference = np.pad(reference, ((0, 0), (0, 1)))[:, :frames] if written != rate else sound
    assert lag(decoded, reference) == 0
    assert np.abs(decoded - reference).max() < 0.03
    told = [f"{format} does not support {rate:,} Hz: resampled to {written:,} Hz"] if written != rate else []
    assert [warning.partition(";")[0] for warning in writer.warnings] == told


def test_the_blocks_do_not_change_the_conversion():
    sound, whole = noise(96_000), RateConverter(96_000, 44_100, 2)
    at_once = whole.push(sound, last=True)
    random, parts = np.random.default_rng(1), RateConverter(96_000, 44_100, 2)
    cuts = np.sort(random.integers(0, sound.shape[1], 20))
    pieces = [parts.push(block) for block in np.split(sound, cuts, axis=1)]
    pieces.append(parts.push(sound[:, :0], last=True))
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), at_once, atol=1e-6)


@pytest.mark.parametrize("frames", [0, 1, 2, 7, 1_000, 1_001])
@pytest.mark.parametrize(("source", "target"), [(96_000, 48_000), (1_000, 8_000), (37_800, 44_100)])
def test_the_length_is_exact(frames, source, target):
    made = RateConverter(source, target, 1).push(np.ones((1, frames), np.float32), last=True)
    assert made.shape == (1, round(frames * target / source))


@pytest.mark.parametrize(
    ("format", "rate", "channels", "asked", "used"),
    [
        ("ogg", 8_000, 1, "320k", 42_000),
        ("ogg", 44_100, 2, "16k", 45_000),
        ("ogg", 44_100, 2, "128k", 128_000),
        ("ogg", 96_000, 2, "128k", None),
        ("mp3", 16_000, 2, "320k", 160_000),
        ("mp3", 96_000, 2, "320k", 320_000),
        ("mp3", 44_100, 2, "192", 192_000),
        ("m4a", 8_000, 1, "256k", 48_000),
    ],
)
def test_the_nearest_bitrate_is_used_and_told(format, rate, channels, asked, used, tmp_path):
    writer = write(tmp_path / f"a.{format}", noise(rate, channels), Encoding(bitrate=asked), rate=rate)
    assert writer._bitrate == used
    told = [warning for warning in writer.warnings if "bit" in warning]
    as_asked = used == output_formats._bits_per_second(asked)
    assert len(told) == (0 if as_asked else 1)
    assert all(f"{rate:,} Hz" in warning for warning in told)


@pytest.mark.slow
def test_a_stem_file_of_a_high_rate_is_converted_too(tmp_path):
    stems = np.stack([noise(192_000) * gain for gain in (0.5, 0.3, 0.2, 0.1)])
    file = StemFile(tmp_path / "a.stem.mp4", label_stems(ORDER), Signal(192_000, 2), Encoding(bitrate="900k"))
    with together([file]):
        file.write_tracks(stems.sum(axis=0), stems)
    assert [warning[:28] for warning in file.warnings] == ["m4a does not support 192,000"]
    assert file.frames_written == round(stems.shape[-1] / 2)
    peak = np.abs(noise(192_000)).max()
    for track, level in enumerate((1.1, 0.5, 0.3, 0.2, 0.1)):
        decoded = np.concatenate(list(Reader(tmp_path / "a.stem.mp4", track=track)), axis=1)
        assert decoded.shape == (2, file.frames_written)
        assert np.abs(decoded).max() == pytest.approx(peak * level, rel=0.05)
        name = "mixture" if not track else ORDER[track - 1]
        assert file.peaks[name] == pytest.approx(peak * level, rel=0.01)


@pytest.mark.slow
def test_a_batch_of_tracks_above_48_khz_is_split_to_mp3(tmp_path):
    paths = [tmp_path / "a.wav", tmp_path / "b.wav"]
    for path, rate in zip(paths, (96_000, 44_100), strict=True):
        soundfile.write(path, noise(rate).T, rate)
    options = [*FAST, "-f", "MP3", "-o", str(tmp_path / "out"), "--json"]
    result = CliRunner().invoke(app, [*map(str, paths), *options])
    assert result.exit_code == 0, result.stderr
    high, low = (event for event in events(result.stdout) if event["event"] == "track")
    assert (high["sample_rate"], low["sample_rate"]) == (48_000, 44_100)
    assert high["frames"] == high["outputs"]["bass"]["frames"] == round(noise(96_000).shape[1] / 2)
    assert ("resampled to 48,000 Hz" in " ".join(high["warnings"]), low["warnings"]) == (True, [])
    stem = read(tmp_path / "out" / "a" / "bass.mp3")
    assert stem.shape == (2, high["frames"])


@pytest.mark.slow
@pytest.mark.parametrize("command", ["remix", "unpack", "stdout"])
def test_every_command_converts(command, tmp_path):
    path, options = tmp_path / "song.wav", ["-o", str(tmp_path / "out")]
    if command == "unpack":
        path = tmp_path / "song.stem.mp4"
        stems = np.stack([noise(96_000) * 0.2] * 4)
        file = StemFile(path, label_stems(ORDER), Signal(96_000, 2))
        with together([file]):
            file.write_tracks(stems.sum(axis=0), stems)
        arguments = ["unpack", str(path), "-f", "mp3", *options]
    else:
        soundfile.write(path, noise(96_000).T, 96_000)
        arguments = ["remix", str(path), "karaoke", *FAST[:2], "-o", str(tmp_path / "out.mp3")]
    if command == "stdout":
        arguments = [str(path), "--stdout", "bass", "-f", "mp3", *FAST]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    assert "mp3 does not support 96,000 Hz: resampled to 48,000 Hz" in result.stderr
    if command == "stdout":
        (tmp_path / "out.mp3").write_bytes(result.stdout_bytes)
    for written in tmp_path.rglob("*.mp3"):
        reader = Reader(written)
        assert reader.sample_rate == 48_000
        assert sum(block.shape[1] for block in reader) == round(noise(96_000).shape[1] / 2)
    assert list(tmp_path.rglob("*.mp3"))


def test_a_malformed_bitrate_is_refused_by_the_writer(tmp_path):
    with pytest.raises(output_formats.EncodeError, match="`12.5k` is not a bitrate"):
        Writer(tmp_path / "a.mp3", Signal(44_100, 2), Encoding(bitrate="12.5k"))
