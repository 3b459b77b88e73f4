"""The sample rates, depths and bitrates that each output format supports.

The limits were measured with imageio-ffmpeg's ffmpeg; tests/test_output_formats.py repeats this.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from stemsplit.audio import ffmpeg
from stemsplit.audio.formats import DEPTHS, FORMATS, LOSSLESS
from stemsplit.errors import EncodeError

_MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_RATES = {"mp3": _MP3_RATES, "m4a": (7_350, *_MP3_RATES, 64_000, 88_200, 96_000)}
_HIGHEST_RATE = {"ogg": 200_000, "flac": 1_048_575}
_HIGHEST_LIBSNDFILE_FLAC_RATE = 655_350
_USUAL_RATES = (*_RATES["m4a"], 176_400, 192_000, 352_800, 384_000, 705_600, 768_000)

_MP3_BITRATES = ((32_000, 32_000, 320_000), (16_000, 8_000, 160_000), (0, 8_000, 64_000))
"""Rows of (minimum sample rate in Hz, lowest bitrate, highest bitrate): MPEG-1, MPEG-2, MPEG-2.5."""
_VORBIS_BITRATES = {
    1: (
        (50_001, 0, 0),
        (40_000, 32_000, 240_000),
        (26_000, 30_000, 190_000),
        (19_000, 16_000, 90_000),
        (15_000, 16_000, 100_000),
        (9_000, 12_000, 50_000),
        (8_000, 8_000, 42_000),
        (0, 0, 0),
    ),
    2: (
        (50_001, 0, 0),
        (40_000, 45_000, 500_000),
        (26_000, 36_000, 380_000),
        (19_000, 30_000, 180_000),
        (15_000, 24_000, 200_000),
        (9_000, 16_000, 100_000),
        (8_000, 12_000, 84_000),
        (0, 0, 0),
    ),
}
"""The same for Vorbis in mono and stereo. 0: a bitrate cannot be chosen, only a quality."""
_HIGHEST_AAC_BITS = 6  # per sample and channel: 6144 in a frame of 1024 samples


def check(format: str, depth: str, bitrate: str | None) -> None:
    """Raise an error for settings that the format, or a codec of `LOSSLESS`, never supports.

    Raises:
        EncodeError: the format or depth is unknown, they cannot be combined, or the bitrate is malformed.
    """
    if format not in (*FORMATS, *LOSSLESS):
        raise EncodeError(f"Cannot write `.{format}` files", f"choose one of {', '.join(FORMATS)}")
    if format not in LOSSLESS and not ffmpeg.executable():
        raise EncodeError(f"Cannot write {format} without ffmpeg", f"{ffmpeg.INSTALL}, or choose wav or flac")
    if depth not in DEPTHS[1:]:
        raise EncodeError(f"No depth `{depth}`", f"choose one of {', '.join(DEPTHS)}")
    if format in ("flac", "alac") and depth == "32f":
        raise EncodeError(f"{format.upper()} cannot store float samples", "use --depth 24, or --format wav")
    if bitrate and format in LOSSLESS:
        raise EncodeError(f"A bitrate does not apply to {format}", "leave it out, or choose mp3, ogg or m4a")
    if bitrate and not re.fullmatch(r"\d{1,6}[kK]?", bitrate):
        raise EncodeError(f"`{bitrate}` is not a bitrate", "write it like 192k")


def rate_for(format: str, sample_rate: int) -> int:
    """Return the sample rate of a file of this format: the input's, if the format supports it.

    Otherwise the lowest supported rate above it, which loses nothing, or the format's highest.
    """
    rates = _RATES.get(format)
    if rates is None:
        highest = _HIGHEST_RATE.get(format, sample_rate)
        if format == "flac" and not ffmpeg.executable():
            highest = _HIGHEST_LIBSNDFILE_FLAC_RATE
        if sample_rate <= highest:
            return sample_rate
        rates = tuple(rate for rate in _USUAL_RATES if rate <= highest)
    return next((rate for rate in rates if rate >= sample_rate), rates[-1])


def _bits_per_second(bitrate: str) -> int:
    """Parse `192k`, `192000` or `192`; numbers below 1,000 are in kbit/s."""
    number = int(bitrate.rstrip("kK"))
    return number * 1_000 if bitrate[-1] in "kK" or number < 1_000 else number


def _nearest_bitrate(format: str, sample_rate: int, channels: int, wanted: int) -> int | None:
    """Return the nearest bitrate that the format supports, or None if none can be chosen at this rate."""
    if format == "m4a":
        return max(1_000, min(wanted, _HIGHEST_AAC_BITS * sample_rate * channels))
    table = _MP3_BITRATES if format == "mp3" else _VORBIS_BITRATES[channels]
    lowest, highest = next(limits for rate, *limits in table if sample_rate >= rate)
    return min(max(wanted, lowest), highest) or None


@dataclass(frozen=True)
class Fit:
    """The settings for a format: as requested, or the nearest supported ones, with `warnings`."""

    sample_rate: int
    bitrate: int | None
    """In bit/s. None: the format's default quality."""
    warnings: list[str]


def fit(format: str, sample_rate: int, channels: int, bitrate: str | None) -> Fit:
    """Return the sample rate and bitrate to use, with supported values in place of unsupported ones."""
    rate, warnings = rate_for(format, sample_rate), []
    if rate != sample_rate:
        able = [name for name in FORMATS if rate_for(name, sample_rate) == sample_rate]
        kept = f"{' and '.join(able)} keep{'s' if len(able) == 1 else ''} the rate"
        warnings.append(f"{format} does not support {sample_rate:,} Hz: resampled to {rate:,} Hz; {kept}")
    if bitrate is None:
        return Fit(rate, None, warnings)
    wanted = _bits_per_second(bitrate)
    nearest = _nearest_bitrate(format, rate, channels, wanted)
    if nearest is None:
        warnings.append(f"{format} has no choice of bitrates at {rate:,} Hz: its default quality was used")
    elif nearest != wanted:
        limit = f"{wanted / 1000:g} kbit/s at {rate:,} Hz: {nearest / 1000:g} kbit/s was used"
        warnings.append(f"{format} does not support {limit}")
    return Fit(rate, nearest, warnings)
