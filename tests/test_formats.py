"""Every format, both ways: sample for sample in place, tags and all."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import mutagen
import numpy as np
import pytest
import soundfile

from stemsplit.audio import ffmpeg
from stemsplit.audio.formats import FORMATS
from stemsplit.audio.reader import Block, Reader, Signal
from stemsplit.audio.tags import Tags, read_tags
from stemsplit.audio.writer import DEFAULT_ENCODING, Encoding, Writer
from stemsplit.errors import EncodeError

pytestmark = pytest.mark.subprocess  # most of these start ffmpeg

LOSSY = ("mp3", "ogg", "m4a")
FRAMES = 60_001  # no multiple of any codec's frame
ROUNDING = {"16": 2**-16, "24": 2**-24, "32f": 0.0}


def run_ffmpeg(*arguments: str | Path) -> None:
    program = ffmpeg.executable()
    assert program
    subprocess.run([program, "-nostdin", "-v", "error", "-y", *map(str, arguments)], check=True)


def read(path: Path, **options: Any) -> Block:
    return np.concatenate(list(Reader(path, **options)), axis=1)


def write(
    path: Path,
    samples: Block,
    encoding: Encoding = DEFAULT_ENCODING,
    *,
    rate: int = 44_100,
    frames: int | None = None,
    **tags: Any,
) -> Writer:
    with Writer(path, Signal(rate, len(samples), frames), encoding, **tags) as writer:
        for start in range(0, samples.shape[1], 10_000):
            writer.write(samples[:, start : start + 10_000])
    return writer


def lag(samples: Block, reference: Block) -> int:
    """By how many frames `samples` come late."""
    size = 1 << 18
    spectra = [np.fft.rfft(sound[0], size) for sound in (samples, reference)]
    peak = int(np.argmax(np.fft.irfft(spectra[0] * spectra[1].conj(), size)))
    return peak if peak < size // 2 else peak - size


def noise(channels: int = 2, frames: int = FRAMES) -> Block:
    """Brownish noise, which every codec keeps well."""
    white = np.random.default_rng(440).standard_normal((channels, frames + 15))
    smooth = np.stack([np.convolve(row, np.ones(16) / 16, "valid") for row in white])
    return (0.4 * smooth).astype(np.float32)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "noise.wav"
    soundfile.write(path, noise().T, 44_100, subtype="FLOAT")
    return path


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("cbr.mp3", ["-b:a", "192k"]),
        ("vbr.mp3", ["-q:a", "2"]),
        ("a.m4a", ["-c:a", "aac", "-b:a", "256k"]),
        ("alac.m4a", ["-c:a", "alac"]),
        ("a.ogg", ["-c:a", "libvorbis"]),
        ("a.flac", []),
        ("film.mp4", ["-f", "lavfi", "-i", "color=s=64x64:r=5:d=3", "-c:v", "mjpeg", "-c:a", "aac"]),
    ],
)
def test_decoded_sound_lies_where_a_daw_shows_it(name, arguments, source, tmp_path):
    run_ffmpeg("-i", source, *arguments, tmp_path / name)
    reader = Reader(tmp_path / name)
    decoded = np.concatenate(list(reader), axis=1)
    assert decoded.shape == (2, FRAMES)
    assert lag(decoded, noise()) == 0
    assert reader.warnings == []
    assert read_tags(tmp_path / name).cover is None  # a film is no cover


def test_libsndfile_alone_reads_mp3_in_place(source, tmp_path, monkeypatch):
    run_ffmpeg("-i", source, tmp_path / "a.mp3")
    monkeypatch.setattr(ffmpeg, "executable", lambda: None)
    decoded = read(tmp_path / "a.mp3")
    assert decoded.shape == (2, FRAMES)
    assert lag(decoded, noise()) == 0


def test_opus_is_read_at_its_48_kilohertz(source, tmp_path):
    run_ffmpeg("-i", source, "-c:a", "libopus", tmp_path / "a.opus")
    reader = Reader(tmp_path / "a.opus")
    assert reader.sample_rate == 48_000
    assert abs(read(tmp_path / "a.opus").shape[1] - FRAMES * 48_000 / 44_100) < 1


@pytest.mark.parametrize(
    ("subtype", "depth", "tolerance"),
    [
        ("PCM_U8", "16", 2**-7),
        ("PCM_16", "16", 2**-15),
        ("PCM_24", "24", 2**-23),
        ("PCM_32", "24", 2**-23),
        ("FLOAT", "32f", 0),
        ("DOUBLE", "32f", 0),
    ],
)
def test_wav_of_every_depth_is_read(subtype, depth, tolerance, tmp_path):
    soundfile.write(tmp_path / "a.wav", noise().T, 44_100, subtype=subtype)
    reader = Reader(tmp_path / "a.wav")
    assert (reader.depth, reader.frames, reader.sample_rate, reader.channels) == (depth, FRAMES, 44_100, 2)
    np.testing.assert_allclose(read(tmp_path / "a.wav"), noise(), rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("name", "codec", "depth"),
    [
        ("a.mp3", "libmp3lame", "16"),
        ("a.m4a", "aac", "16"),
        ("16.m4a", "alac -sample_fmt s16p", "16"),
        ("24.m4a", "alac -sample_fmt s32p", "24"),
        ("24.flac", "flac -sample_fmt s32", "24"),
        ("24.aiff", "pcm_s24be", "24"),
        ("a.ogg", "libvorbis", "16"),
        ("float.mka", "pcm_f32le", "32f"),
    ],
)
def test_depth_is_what_the_source_had(name, codec, depth, source, tmp_path):
    run_ffmpeg("-i", source, "-c:a", *codec.split(), tmp_path / name)
    assert Reader(tmp_path / name).depth == depth


@pytest.mark.parametrize(
    ("format", "depth"), [("wav", d) for d in ROUNDING] + [("flac", "16"), ("flac", "24")]
)
@pytest.mark.parametrize("with_ffmpeg", [True, False])
def test_pcm_is_rounded_to_the_nearest_value(format, depth, with_ffmpeg, tmp_path, monkeypatch):
    if not with_ffmpeg:
        monkeypatch.setattr(ffmpeg, "executable", lambda: None)
    path = tmp_path / f"a.{format}"
    write(path, noise(), Encoding(depth))
    np.testing.assert_allclose(read(path), noise(), rtol=0, atol=ROUNDING[depth])
    assert Reader(path).depth == depth
    again = tmp_path / f"again.{format}"
    write(again, read(path), Encoding(depth))
    np.testing.assert_array_equal(read(again), read(path))


@pytest.mark.parametrize(
    ("format", "rate"),
    [("mp3", 8_000), ("mp3", 44_100), ("mp3", 48_000), ("m4a", 8_000), ("m4a", 44_100), ("m4a", 96_000)]
    + [("ogg", 8_000), ("ogg", 44_100), ("ogg", 48_000), ("ogg", 96_000), ("ogg", 192_000)],
)
def test_lossy_stems_line_up_and_keep_their_length(format, rate, tmp_path):
    path = tmp_path / f"a.{format}"
    channels = 1 if rate in (8_000, 96_000) else 2
    sound = noise(channels)
    write(path, sound, rate=rate)
    decoded = read(path)
    assert (decoded.shape, Reader(path).sample_rate) == (sound.shape, rate)
    assert lag(decoded, sound) == 0


@pytest.mark.parametrize("format", LOSSY)
def test_a_lower_bitrate_makes_a_smaller_file(format, tmp_path):
    for name, bitrate in (("default", None), ("small", "96k")):
        write(tmp_path / f"{name}.{format}", noise(), Encoding(bitrate=bitrate))
    default, small = ((tmp_path / f"{name}.{format}").stat().st_size for name in ("default", "small"))
    assert small < 0.7 * default


@pytest.mark.parametrize("format", FORMATS)
def test_too_loud_a_sound_is_clipped_and_never_wraps(format, tmp_path):
    seconds = np.arange(FRAMES, dtype=np.float32) / 44_100
    loud = 1.5 * np.sin(2 * np.pi * 440 * seconds)[None].repeat(2, axis=0)
    writer = write(tmp_path / f"a.{format}", loud.astype(np.float32))
    decoded = read(tmp_path / f"a.{format}")
    assert writer.peak == pytest.approx(1.5, abs=1e-4)
    heard = loud if format in ("mp3", "ogg") else loud.clip(-1, 1 - 2**-15)
    assert np.abs(decoded - heard)[:, 2000:-2000].max() < (0.1 if format in LOSSY else 2**-15)


def test_float_wav_keeps_what_is_above_full_scale(tmp_path):
    write(tmp_path / "a.wav", 5 * noise(), Encoding("32f"))
    np.testing.assert_array_equal(read(tmp_path / "a.wav"), 5 * noise())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.flac", {"depth": "32f"}, "cannot store float samples"),
        ("a.wav", {"depth": "12"}, "No depth `12`"),
        ("a.xyz", {}, r"Cannot write `\.xyz`"),
        ("a.wav", {"bitrate": "320k"}, "bitrate does not apply to wav"),
        ("a.mp3", {"bitrate": "-y"}, "`-y` is not a bitrate"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_with_a_hint(name, options, message, tmp_path):
    with pytest.raises(EncodeError, match=message) as refusal:
        Writer(tmp_path / name, Signal(44_100, 2), Encoding(**options))
    assert refusal.value.hint


@pytest.mark.parametrize(("frames", "magic"), [(None, b"RIFF"), (1 << 29, b"RIFF"), (1 << 30, b"RF64")])
def test_a_wav_above_four_gibibytes_is_an_rf64(frames, magic, tmp_path):
    write(tmp_path / "a.wav", noise(), frames=frames)
    assert (tmp_path / "a.wav").read_bytes()[:4] == magic
    assert read(tmp_path / "a.wav").shape == (2, FRAMES)


TITLE = "Ärger = ; # \\ 'x'\n[STREAM]"
COVERED = ("flac", "mp3", "m4a", "ogg")


@pytest.fixture(scope="module")
def cover(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cover") / "cover.jpg"
    run_ffmpeg("-f", "lavfi", "-i", "color=red:s=64x64", "-frames:v", "1", path)
    return path


@pytest.fixture(scope="module", params=["flac", "mp3", "m4a", "ogg", "wav"])
def tagged(request, tmp_path_factory, source, cover) -> Path:
    """A song with tags, and a cover where ffmpeg alone can put one."""
    path = tmp_path_factory.mktemp("tagged") / f"song.{request.param}"
    attach = ["-i", cover, "-map", "0", "-map", "1", "-c:v", "copy", "-disposition:v", "attached_pic"]
    tags = [f"title={TITLE}", "artist=Ünï", "album=Dreams", "track=3", "REPLAYGAIN_TRACK_GAIN=-3 dB"]
    run_ffmpeg(
        *["-i", source, *(attach if request.param in ("flac", "mp3", "m4a") else [])],
        *[word for tag in tags for word in ("-metadata", tag)],
        path,
    )
    return path


def tags_of(path: Path) -> dict[str, str]:
    """As others than ffmpeg see them."""
    if path.suffix == ".wav":
        with soundfile.SoundFile(path) as file:
            return {name: getattr(file, name) for name in ("title", "artist", "album")}
    return {name: values[0] for name, values in mutagen.File(path, easy=True).items()}


@pytest.mark.parametrize("format", FORMATS)
def test_tags_and_cover_are_carried_over(format, tagged, cover, tmp_path):
    path = tmp_path / f"vocals.{format}"
    write(path, noise(), tags_from=tagged, title_suffix="vocals")
    tags = tags_of(path)
    assert (tags["title"], tags["artist"], tags["album"]) == (f"{TITLE} (vocals)", "Ünï", "Dreams")
    assert not [name for name in tags if "replaygain" in name.lower()]  # the loudness of another sound
    if format in COVERED and tagged.suffix in (".flac", ".mp3", ".m4a"):
        assert read_tags(path).cover == cover.read_bytes()
        assert cover.read_bytes() in path.read_bytes() or format == "ogg"
    assert read(path).shape == (2, FRAMES)


def test_the_tags_of_a_file_win_over_those_of_its_sound_track(source, tmp_path):
    tags = ["-metadata", "title=Song", "-metadata:s:a", "title=Track 1", "-metadata:s:a", "artist=Me"]
    run_ffmpeg("-i", source, *tags, tmp_path / "a.mka")
    assert read_tags(tmp_path / "a.mka") == Tags({"title": ["Song"], "artist": ["Me"]})


@pytest.mark.parametrize("format", FORMATS)
def test_a_source_without_tags_lends_its_name(format, source, tmp_path):
    write(tmp_path / f"drums.{format}", noise(), tags_from=source, title_suffix="drums")
    assert tags_of(tmp_path / f"drums.{format}")["title"] == "noise (drums)"


@pytest.mark.parametrize(
    ("kind", "format"), [("cover", format) for format in FORMATS] + [("missing", "mp3"), ("text", "wav")]
)
def test_unreadable_tags_never_make_a_write_fail(kind, format, source, cover, tmp_path):
    song = tmp_path / "song.mp3"
    if kind == "cover":
        attach = ["-i", cover, "-map", "0", "-map", "1", "-c:v", "copy", "-disposition:v", "attached_pic"]
        run_ffmpeg("-i", source, *attach, song)
        picture = cover.read_bytes()
        song.write_bytes(song.read_bytes().replace(picture, picture[:20] + bytes(len(picture) - 20)))
    elif kind == "text":
        song.write_text("no music")
    write(tmp_path / f"bass.{format}", noise(), tags_from=song, title_suffix="bass")
    assert tags_of(tmp_path / f"bass.{format}")["title"] == "song (bass)"
    assert read(tmp_path / f"bass.{format}").shape == (2, FRAMES)


def test_the_same_sound_makes_the_same_file_at_any_time(tmp_path):
    sound = 0.1 * np.random.default_rng(440).standard_normal((2, 20_000)).astype(np.float32)
    kinds = [(kind, "16") for kind in FORMATS] + [("wav", "32f"), ("flac", "24")]
    written = []
    for moment in ("now", "later"):
        for kind, depth in kinds:
            write(tmp_path / moment / f"{depth}.{kind}", sound, Encoding(depth))
        written.append({path.name: path.read_bytes() for path in (tmp_path / moment).iterdir()})
        time.sleep(1.1)  # files hold whole seconds, if any
    assert written[0] == written[1]
