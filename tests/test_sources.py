"""Which decoder reads a file, and what comes of damage and of headers that do not tell the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from stemsplit import ffmpeg
from stemsplit.audio import Block, Reader
from stemsplit.errors import StemsplitError

RATE = 44_100


def tone(seconds: float = 0.5, channels: int = 2) -> Block:
    """A sweep whose every part differs from every other, `(channel, time)`."""
    time = np.arange(round(seconds * RATE)) / RATE
    phases = 2 * np.pi * (200 * time + 400 * time**2)
    return np.stack([0.3 * np.sin(phases + channel) for channel in range(channels)]).astype(np.float32)


def read(path: Path, **options: object) -> tuple[Block, list[str]]:
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
    assert "is cut short: it should last 10.00 s but ends after 0.50 s" in warnings[0]


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
