"""Which decoder reads a file, and what comes of damage and of headers that do not tell the truth."""

from __future__ import annotations

import re
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from stemsplit.audio import ffmpeg
from stemsplit.audio.decoding.sources import open_source
from stemsplit.audio.reader import Block, Reader
from stemsplit.errors import DecodeError, StemsplitError
from stemsplit.files.scratch import scratch_folder

pytestmark = pytest.mark.subprocess  # most of these start ffmpeg

RATE = 44_100


def tone(seconds: float = 0.5, channels: int = 2) -> Block:
    """A sweep whose every part differs from every other, `(channel, time)`."""
    time = np.arange(round(seconds * RATE)) / RATE
    phases = 2 * np.pi * (200 * time + 400 * time**2)
    return np.stack([0.3 * np.sin(phases + channel) for channel in range(channels)]).astype(np.float32)


def read(path: Path, **options: Any) -> tuple[Block, list[str]]:
    """Return all of a file and the warnings about it."""
    reader = Reader(path, **options)
    return np.concatenate(list(reader), axis=1), reader.warnings


def flac(path: Path, sound: Block, frames: int) -> Path:
    """Write a FLAC file whose header states another number of frames."""
    soundfile.write(path, sound.T, RATE)
    data = bytearray(path.read_bytes())
    fields = int.from_bytes(data[21:26], "big") >> 36 << 36 | frames
    data[21:26] = fields.to_bytes(5, "big")
    path.write_bytes(data)
    return path


def test_a_flac_shorter_than_its_header_holds_only_its_own_sound(tmp_path):
    sound = tone()
    found, warnings = read(flac(tmp_path / "a.flac", sound, 10 * RATE))
    np.testing.assert_allclose(found, sound, atol=2.0**-15)
    assert "is truncated: it should be 10.00 s long but ends after 0.50 s" in warnings[0]


@pytest.mark.parametrize("blocks", [100, 65_536])
@pytest.mark.parametrize("container", ["WAV", "AIFF", "W64"])
def test_codecs_that_cannot_be_sought_are_read(container, blocks, tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(channels=1)[0], 8_000, format=container, subtype="GSM610")
    reader = Reader(path, block_frames=blocks)
    assert sum(block.shape[1] for block in reader) == reader.frames
    assert 0 <= reader.frames - 22_050 < 640
    part, _ = read(path, start_seconds=1, block_frames=blocks)
    np.testing.assert_array_equal(part, read(path)[0][:, 8_000:])


def test_an_ffmpeg_that_is_not_there_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "a.xyz").write_bytes(b"no program" * 99)
    for name, message in ((tmp_path / "nowhere", "is not a program"), (tmp_path / "a.xyz", "Cannot run")):
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(name))
        (tmp_path / "a.xyz").chmod(0o755)
        with pytest.raises(StemsplitError, match=message):
            Reader(tmp_path / "a.xyz")
    assert ffmpeg.executable() == str(tmp_path / "a.xyz")


# Headers that state another length


def rewritten(path: Path, mark: bytes, offset: int, form: str, stated: int) -> None:
    """Put another number behind a mark in a file."""
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, data.index(mark) + offset, stated)
    path.write_bytes(data)


SIZES = {
    "WAV": (b"data", 4, "<I", 0),
    "WAVEX": (b"data", 4, "<I", 0),
    "RF64": (b"ds64", 16, "<Q", 0),
    "W64": (b"data\xf3", 16, "<Q", 24),
    "AIFF": (b"SSND", 4, ">I", 8),
    "AU": (b".snd", 8, ">I", 0),
    "CAF": (b"data", 4, ">Q", 4),
}
"""Of a format: a mark, how far behind it stands the size of the sound, and what that counts in."""


@pytest.mark.parametrize("lie", ["double", "half", "zero", "ones", "signed ones", "header counted in"])
@pytest.mark.parametrize("format", SIZES)
def test_all_sound_is_read_whatever_the_header_states(format, lie, tmp_path):
    path, sound = tmp_path / "a.bin", tone()
    soundfile.write(path, sound.T, RATE, format=format, subtype="PCM_16")
    whole, (mark, offset, form, counted) = path.stat().st_size, SIZES[format]
    size = sound.size * 2
    stated = {
        "double": 2 * size + counted,
        "half": size // 2 + counted,
        "zero": 0,
        "ones": (1 << 64 if form[1] == "Q" else 1 << 32) - 1,
        "signed ones": 0x7FFF_FFFF,
        "header counted in": min(size + 44, whole),
    }
    rewritten(path, mark, offset, form, stated[lie])
    found, warnings = read(path)
    np.testing.assert_allclose(found, sound, atol=2.0**-15)
    told = {"double": "is truncated: it should be 1.00 s long", "half": "only 0.25 s", "zero": "no length"}
    assert len(warnings) == (lie in told)
    assert told.get(lie, "") in "".join(warnings)
    part, _ = read(path, start_seconds=0.3, duration_seconds=0.1)
    np.testing.assert_array_equal(part, found[:, 13_230:17_640])


@pytest.mark.parametrize("trailer", [b"LIST\x04\x00\x00\x00INFO", b"TAG" + bytes(125), b"\r\n", bytes(9_999)])
@pytest.mark.parametrize("format", ["WAV", "W64"])
def test_what_follows_the_sound_is_not_sound(format, trailer, tmp_path):
    path, sound = tmp_path / "a.bin", tone()
    soundfile.write(path, sound.T, RATE, format=format, subtype="PCM_16")
    if format == "W64":
        guid = bytes.fromhex("f3acd3118cd100c04f8edb8a")
        trailer = b"bext" + guid + struct.pack("<Q", 24 + len(trailer)) + trailer
    path.write_bytes(path.read_bytes() + trailer)
    found, warnings = read(path)
    assert (found.shape, warnings) == (sound.shape, [])


@pytest.mark.parametrize("junk", [b"TAG" + bytes(125), b"APETAGEX" + bytes(99), b"<?xpacket?>", b"\r\n" * 3])
def test_junk_that_the_header_counts_in_is_not_sound(junk, tmp_path):
    path, sound = tmp_path / "a.wav", tone()
    soundfile.write(path, sound.T, RATE, subtype="PCM_16")
    path.write_bytes(path.read_bytes() + junk)
    rewritten(path, b"RIFF", 4, "<I", path.stat().st_size - 8)
    found, warnings = read(path)
    assert (found.shape, warnings) == (sound.shape, [])


@pytest.mark.parametrize("seconds", [0.05, 0.5])
def test_what_a_recorder_wrote_before_it_lost_power_is_read(seconds, tmp_path):
    path, sound = tmp_path / "a.wav", tone(seconds)
    soundfile.write(path, sound.T, RATE, subtype="PCM_16")
    rewritten(path, b"RIFF", 4, "<I", 36)
    rewritten(path, b"data", 4, "<I", 0)
    found, warnings = read(path)
    np.testing.assert_allclose(found, sound, atol=2.0**-15)
    assert "no length" in "".join(warnings)


@pytest.mark.parametrize(
    ("format", "endian"), [("WAV", "BIG"), ("AIFF", "LITTLE"), ("AU", "LITTLE"), ("CAF", "LITTLE")]
)
def test_the_other_order_of_bytes_is_read_whatever_the_header_states(format, endian, tmp_path):
    path, sound = tmp_path / "a.bin", tone()
    soundfile.write(path, sound.T, RATE, format=format, subtype="PCM_16", endian=endian)
    mark, offset, form, counted = SIZES[format]
    order = "<" if path.read_bytes()[:4] == b"dns." else ">"
    mark = b"dns." if order == "<" else mark
    rewritten(path, mark, offset, order + form[1], sound.size + counted)
    found, warnings = read(path)
    np.testing.assert_allclose(found, sound, atol=2.0**-15)
    assert "only 0.25 s" in warnings[0]


@pytest.mark.parametrize("format", SIZES)
def test_a_file_that_is_cut_in_its_header_is_one_sentence(format, tmp_path):
    path = tmp_path / "a.bin"
    soundfile.write(path, tone(0.01).T, RATE, format=format, subtype="PCM_16")
    data, (mark, *_) = path.read_bytes(), SIZES[format]
    for size in range(4, min(100, data.index(mark) + 8), 6):
        path.write_bytes(data[:size])
        with pytest.raises(StemsplitError):
            read(path)


@pytest.mark.parametrize("stated", ["wrapped", "ones", "zero"])
def test_a_wav_file_beyond_4_gib_is_read_to_its_end(stated, tmp_path):
    path, sound = tmp_path / "a.wav", tone(0.1)
    soundfile.write(path, sound.T, RATE, subtype="PCM_16")
    size = (1 << 32) + 80_000
    sizes = {"wrapped": size & 0xFFFF_FFFF, "ones": 0xFFFF_FFFF, "zero": 0}
    rewritten(path, b"RIFF", 4, "<I", min(sizes[stated] + 36, 0xFFFF_FFFF))
    rewritten(path, b"data", 4, "<I", sizes[stated])
    with path.open("r+b") as file:  # most of it is a hole, which takes no space
        file.seek(44 + size - 4 * sound.shape[1])
        file.write((sound.T * 2**15).astype("<i2").tobytes())
    seconds = size / 4 / RATE
    reader = Reader(path, start_seconds=seconds - 0.1)
    assert reader.frames == sound.shape[1]
    np.testing.assert_allclose(np.concatenate(list(reader), axis=1), sound, atol=2.0**-14)
    assert len(reader.warnings) == (stated != "ones")


def test_a_flac_file_longer_than_its_header_is_read_to_its_end(tmp_path):
    sound = tone()
    path = flac(tmp_path / "a.flac", sound, 5_000)
    reader = Reader(path, block_frames=1_000)
    assert reader.frames is None
    np.testing.assert_allclose(np.concatenate(list(reader), axis=1), sound, atol=2.0**-15)
    assert "states only 0.11 s, but the file contains 0.50 s" in reader.warnings[0]
    soundfile.write(path, sound.T, RATE)
    path.write_bytes(path.read_bytes() * 2)
    twice, warnings = read(path)
    np.testing.assert_allclose(twice, np.tile(sound, 2), atol=2.0**-15)
    assert len(warnings) == 1


def test_a_damaged_flac_file_is_read_behind_the_damage(tmp_path):
    path, sound = tmp_path / "a.flac", tone(2)
    soundfile.write(path, sound.T, RATE)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    reader = Reader(path)
    blocks = list(reader)
    found = np.concatenate(blocks, axis=1)
    assert len(reader.warnings) == 1
    np.testing.assert_allclose(found[:, :40_000], sound[:, :40_000], atol=2.0**-15)
    np.testing.assert_allclose(found[:, -30_000:], sound[:, -30_000:], atol=2.0**-15)
    small = np.concatenate(list(Reader(path, block_frames=777)), axis=1)
    np.testing.assert_array_equal(small, found)


# Ogg


def checksum(page: bytes) -> int:
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x104C11DB7) if crc & 1 << 31 else crc << 1
    return crc


def pages(path: Path) -> list[bytes]:
    """Return the pages of an Ogg file."""
    data = path.read_bytes()
    found, start = [], 0
    while start < len(data):
        body = start + 27 + data[start + 26]
        end = body + sum(data[start + 27 : body])
        found.append(data[start:end])
        start = end
    return found


def moved(page: bytes, position: int) -> bytes:
    """Return a page with another position, and the checksum for that."""
    page = page[:6] + struct.pack("<q", position) + page[14:22] + bytes(4) + page[26:]
    return page[:22] + struct.pack("<I", checksum(page)) + page[26:]


@pytest.fixture(scope="module")
def oggs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three seconds as Vorbis, Opus and FLAC in Ogg, in pages of 0.1 s; never written to."""
    folder = tmp_path_factory.mktemp("oggs")
    soundfile.write(folder / "a.wav", tone(3).T, RATE)
    codecs = {"vorbis": "libvorbis", "opus": "libopus", "flac": "flac"}
    for name, codec in codecs.items():
        options = ["-c:a", codec, "-page_duration", "100000", "-f", "ogg"]
        command: list[Any] = [
            str(ffmpeg.executable()),
            "-v",
            "error",
            "-i",
            folder / "a.wav",
            *options,
            folder / name,
        ]
        subprocess.run(command, check=True)
    return {name: folder / name for name in codecs}


@pytest.mark.parametrize("codec", ["vorbis", "opus", "flac"])
@pytest.mark.parametrize("fault", ["late", "early", "far", "wavering", "ends early", "last is unknown"])
def test_wrong_positions_of_ogg_pages_lose_nothing(codec, fault, oggs, tmp_path):
    found = pages(oggs[codec])
    positions = [struct.unpack_from("<q", page, 6)[0] for page in found]
    middle = len(found) // 2
    if fault == "wavering":
        sound = [index for index, position in enumerate(positions) if position > 20_000][:-1]
        for index in sound:
            positions[index] += (index % 3 - 1) * 100
    elif fault in ("ends early", "last is unknown"):
        positions[-1] = 20_000 if fault == "ends early" else -1
    else:
        positions[middle] += {"late": 448, "early": -448, "far": 9_999}[fault]
    path = tmp_path / "a.ogg"
    path.write_bytes(b"".join(map(moved, found, positions)))
    whole, _ = read(oggs[codec])
    sound, warnings = read(path)
    # Without the last position the encoder's padding stays, or what a decoder takes for it goes.
    assert abs(sound.shape[1] - whole.shape[1]) <= (1_000 if " " in fault else 0)
    common = min(sound.shape[1], whole.shape[1])
    np.testing.assert_allclose(sound[:, :common], whole[:, :common], atol=1e-3)
    assert fault == "last is unknown" or warnings == []


def decoded(path: Path, channels: int = 2) -> Block:
    """Return what ffmpeg alone makes of a file, without any of our code around it."""
    command: list[Any] = [str(ffmpeg.executable()), "-v", "error", "-i", path, "-f", "f32le", "-"]
    samples = np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, "<f4")
    return samples.reshape(-1, channels).T


@pytest.mark.parametrize("position", [0, 100])
def test_opus_whose_first_position_is_too_small_is_read_as_ffmpeg_decodes_it(position, oggs, tmp_path):
    found = pages(oggs["opus"])
    found[2] = moved(found[2], position)
    (tmp_path / "a.ogg").write_bytes(b"".join(found))
    sound, warnings = read(tmp_path / "a.ogg")
    np.testing.assert_array_equal(sound, decoded(oggs["opus"]))
    assert warnings == []


@pytest.mark.parametrize("codec", ["vorbis", "opus", "flac"])
@pytest.mark.parametrize("fault", ["none", "late", "early", "wavering"])
def test_ogg_is_read_as_ffmpeg_decodes_it(codec, fault, oggs, tmp_path):
    found = pages(oggs[codec])
    positions = [struct.unpack_from("<q", page, 6)[0] for page in found]
    for index in range(len(found) // 2, len(found) - 1):
        positions[index] += {"none": 0, "late": 448, "early": -448, "wavering": (index % 3 - 1) * 100}[fault]
    path = tmp_path / "a.ogg"
    path.write_bytes(b"".join(map(moved, found, positions)))
    sound, warnings = read(path)
    wanted = decoded(path)
    # The padding that the last page cuts off depends on the position before it, for ffmpeg too.
    assert abs(sound.shape[1] - wanted.shape[1]) <= (0 if fault == "none" else 448)
    common = min(sound.shape[1], wanted.shape[1])
    np.testing.assert_allclose(sound[:, :common], wanted[:, :common], rtol=0, atol=1e-4)
    assert warnings == []


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        ("flac", "flac"),
        ("ogg", "libvorbis"),
        ("opus", "libopus"),
        ("mp3", "libmp3lame"),
        ("wav", "adpcm_ms"),
        ("wav", "adpcm_ima_wav"),
    ],
)
def test_compressed_files_are_read_as_ffmpeg_decodes_them(suffix, codec, tmp_path):
    soundfile.write(tmp_path / "tone.wav", tone(3).T, RATE)
    path = tmp_path / f"a.{suffix}"
    command: list[Any] = [
        str(ffmpeg.executable()),
        "-v",
        "error",
        "-i",
        tmp_path / "tone.wav",
        "-c:a",
        codec,
        path,
    ]
    subprocess.run(command, check=True)
    sound, warnings = read(path)
    wanted = decoded(path)
    assert sound.shape == wanted.shape
    np.testing.assert_allclose(sound, wanted, rtol=0, atol=1e-4)
    assert warnings == []


@pytest.mark.parametrize("codec", ["vorbis", "opus", "flac"])
def test_chained_ogg_is_read_to_its_end(codec, oggs, tmp_path):
    whole, _ = read(oggs[codec])
    (tmp_path / "a.ogg").write_bytes(oggs[codec].read_bytes() * 3)
    reader = Reader(tmp_path / "a.ogg", block_frames=10_000)
    for _ in range(2):
        np.testing.assert_allclose(np.concatenate(list(reader), axis=1), np.tile(whole, 3), rtol=0, atol=1e-6)
        assert reader.warnings == ["`a.ogg` contains 3 recordings in a row; all were used."]
    part, _ = read(tmp_path / "a.ogg", start_seconds=2.5, duration_seconds=1)
    first = round(2.5 * reader.sample_rate)
    wanted = np.tile(whole, 2)[:, first : first + reader.sample_rate]
    np.testing.assert_allclose(part, wanted, rtol=0, atol=1e-6)


def test_chained_vorbis_of_another_codebook_is_no_noise(oggs, tmp_path):
    short = tmp_path / "b.ogg"
    soundfile.write(short, tone(0.5).T, RATE, format="OGG", subtype="VORBIS")
    (tmp_path / "a.ogg").write_bytes(short.read_bytes() + oggs["vorbis"].read_bytes())
    found, warnings = read(tmp_path / "a.ogg")
    wanted = np.concatenate([read(short)[0], read(oggs["vorbis"])[0]], axis=1)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
    assert len(warnings) == 1
    soundfile.write(short, tone(0.5, 1).T, 22_050, format="OGG", subtype="VORBIS")
    (tmp_path / "a.ogg").write_bytes(oggs["vorbis"].read_bytes() + short.read_bytes())
    found, warnings = read(tmp_path / "a.ogg")
    assert found.shape[1] == 3 * RATE
    assert "goes on after 3.00 s with another sample rate" in warnings[0]


@pytest.mark.parametrize("codec", ["vorbis", "opus", "flac"])
def test_ogg_with_a_page_missing_says_so_and_a_stream_tuned_in_to_does_not(codec, oggs, tmp_path):
    found = pages(oggs[codec])
    path, middle = tmp_path / "a.ogg", len(found) // 2
    path.write_bytes(b"".join(found[:middle] + found[middle + 1 :]))
    assert read(path)[1] == [
        "`a.ogg` is damaged (pages are missing or broken); the part that decodes was used."
    ]
    path.write_bytes(b"".join(found[:2] + found[middle:]))
    assert read(path)[1] == []


def test_compressed_sound_in_wav_is_not_cut_short(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(2).T, RATE)
    options = ["-c:a", "libmp3lame", "-f", "wav", tmp_path / "b.wav"]
    subprocess.run([str(ffmpeg.executable()), "-v", "error", "-i", tmp_path / "a.wav", *options], check=True)
    found, warnings = read(tmp_path / "b.wav")
    assert found.shape[1] >= 2 * RATE
    assert warnings == []


@pytest.mark.parametrize("subtype", ["IMA_ADPCM", "MS_ADPCM", "GSM610", "NMS_ADPCM_32", "ALAW"])
@pytest.mark.parametrize("stated", [0, 4_160])
def test_compressed_sound_is_read_to_its_end_whatever_the_header_states(subtype, stated, tmp_path):
    path, sound = tmp_path / "a.wav", tone(1, channels=1)
    soundfile.write(path, sound.T, 8_000, subtype=subtype)
    whole, _ = read(path)
    rewritten(path, b"data", 4, "<I", stated)
    found, warnings = read(path)
    np.testing.assert_allclose(found, whole, atol=1e-3)
    assert len(warnings) == 1
    assert ("only" if stated else "no length") in warnings[0]


@pytest.mark.parametrize("trailer", [b"", b"LIST\x04\x00\x00\x00INFO"])
def test_a_file_without_samples_holds_no_sound(trailer, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros((0, 2)), RATE)
    (tmp_path / "a.wav").write_bytes((tmp_path / "a.wav").read_bytes() + trailer)
    with pytest.raises(DecodeError, match="a.wav` contains no sound: its length is 0"):
        read(tmp_path / "a.wav")


def test_a_chunk_smaller_than_its_own_header_is_no_crash(tmp_path):
    path = tmp_path / "a.w64"
    soundfile.write(path, tone().T, RATE, format="W64", subtype="PCM_16")
    rewritten(path, b"fmt \xf3", 16, "<Q", 3)
    with pytest.raises(DecodeError, match="is not a sound file"):
        read(path)


def test_a_chain_whose_first_link_is_broken_is_read_from_the_next(oggs, tmp_path):
    found = pages(oggs["vorbis"])
    (tmp_path / "a.ogg").write_bytes(found[0] + b"".join(found[5:]) + oggs["vorbis"].read_bytes())
    sound, warnings = read(tmp_path / "a.ogg")
    np.testing.assert_allclose(sound, read(oggs["vorbis"])[0], rtol=0, atol=1e-6)
    assert len(warnings) == 2


def test_messages_name_the_whole_path_but_of_a_copy_its_name(tmp_path):
    own = tmp_path / "stemsplit-2026" / "a.wav"
    own.parent.mkdir()
    with scratch_folder() as folder:
        for path, name in ((own, str(own)), (Path(folder, "b.wav"), "b.wav")):
            path.touch()
            with pytest.raises(DecodeError, match=f"^`{re.escape(name)}` is empty"):
                open_source(path)
