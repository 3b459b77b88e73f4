"""Every kind of file that libsndfile writes is read: the right length, and the right sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from stemsplit.audio.reader import Block, Reader

pytestmark = pytest.mark.subprocess  # most of these start ffmpeg

FRAMES = 9_001
TELEPHONE = ("GSM610", "NMS_ADPCM_16", "NMS_ADPCM_24", "NMS_ADPCM_32", "G721_32", "G723_24", "G723_40")
"""Codecs of speech, mono at 8 kHz."""
PRECISION = {
    **dict.fromkeys(("GSM610", "NMS_ADPCM_16", "OPUS"), 0.03),
    **dict.fromkeys(("PCM_S8", "PCM_U8", "ULAW", "ALAW", "DPCM_8", "VORBIS"), 0.008),
    **dict.fromkeys((*TELEPHONE[2:], "IMA_ADPCM"), 0.01),
}
"""The error's root mean square that a codec may have; 0.002 otherwise."""
BLOCKS = {**dict.fromkeys(TELEPHONE, 640), "IMA_ADPCM": 4_100, "MS_ADPCM": 4_100}
BLOCKS_OF_FORMATS = {"AIFF": 1, "VOC": 1, "PAF": 10, "SDS": 60}
"""What fills the last block up, and the frames of one."""
ROUNDED_RATES = ("HTK", "SDS", "VOC")
"""They keep the duration of a sample, or a divisor."""
FORMATS = sorted(set(soundfile.available_formats()) - {"RAW"})


def written(path: Path, format: str, subtype: str, endian: str, channels: int) -> Block | None:
    """Write a sweep with noise, the same for the same kind of file; None if there is no such kind."""
    rate = 48_000 if subtype == "OPUS" else 8_000 if subtype in TELEPHONE else 44_100
    random = np.random.default_rng([ord(letter) for letter in format + subtype])
    time = np.arange(FRAMES) / rate
    phase = 2 * np.pi * (random.uniform(100, 200) * time + 200 * time**2)
    sound = np.stack([0.3 * np.sin(phase + channel) for channel in range(channels)]).astype(np.float32)
    try:
        soundfile.write(path, sound.T, rate, subtype, endian, format)
    except (soundfile.LibsndfileError, ValueError):  # not in stereo, or not this order of bytes
        return None
    return sound


@pytest.mark.parametrize("format", FORMATS)
def test_files_of_every_kind_are_read(format, tmp_path):
    path, kinds = tmp_path / "a.bin", 0
    for subtype in soundfile.available_subtypes(format):
        for endian in ("FILE", "LITTLE", "BIG"):
            for channels in (1, 2):
                sound = written(path, format, subtype, endian, channels)
                if sound is None:
                    continue
                kinds += 1
                kind = (format, subtype, endian, channels)
                reader = Reader(path, block_frames=2_000)
                found = np.concatenate(list(reader), axis=1)
                assert reader.warnings == [], kind
                assert reader.frames in (None, found.shape[1]), kind
                longest = FRAMES + BLOCKS.get(subtype, BLOCKS_OF_FORMATS.get(format, 0))
                assert FRAMES <= found.shape[1] <= longest, kind
                error = np.sqrt(np.mean((found[:, : FRAMES - 1] - sound[:, :-1]) ** 2))  # SDS loses one
                assert error < PRECISION.get(subtype, 0.002), kind
                rate = soundfile.info(str(path)).samplerate
                assert reader.sample_rate == rate or format in ROUNDED_RATES, kind
    assert kinds


def test_the_corpus_is_large(tmp_path):
    count = sum(
        soundfile.check_format(format, subtype, endian)
        for format in FORMATS
        for subtype in soundfile.available_subtypes(format)
        for endian in ("FILE", "LITTLE", "BIG")
    )
    assert count > 200
