"""Selects the decoder for a file.

libsndfile reads the formats that it supports; ffmpeg reads all others, and continues where libsndfile fails.
If ffmpeg is installed, it also reads MP3 and Opus: libsndfile's MP3 decoder (mpg123) prints messages to the
terminal and stops at damage that ffmpeg skips, and its Opus decoder stops at inexact time stamps. Both remove
the encoder's delay and padding.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from stemsplit.audio import ffmpeg
from stemsplit.audio.decoding import flac, headers, ogg, tracks
from stemsplit.audio.decoding.decoder import Decoder
from stemsplit.audio.decoding.relay import Chain, Relay
from stemsplit.audio.decoding.sndfile import Libsndfile
from stemsplit.errors import DecodeError
from stemsplit.files.scratch import shown
from stemsplit.missing import not_found

_UNKNOWN_FRAMES = 1 << 62
"""libsndfile reports 2**63 - 1 frames for a FLAC stream without a length."""
_OTHERS = {b"RIFF", b"RIFX", b"RF64", b"BW64", b"riff", b"FORM", b"fLaC", b"caff", b".snd", b"dns."}
"""The first bytes of files that are not MP3, despite an ID3 tag or their suffix."""


class Source(Protocol):
    """A decoder for one file. Its properties are final once it is closed."""

    sample_rate: int
    channels: int
    slack_seconds: float
    """Tolerance of `promised_seconds`."""

    @property
    def frames(self) -> int | None:
        """The exact length, if it is known before decoding."""

    @property
    def depth(self) -> str:
        """The bit depth that can store the samples, see `Writer`."""

    @property
    def seconds(self) -> float | None:
        """The stated length; good enough for a progress bar."""

    @property
    def promised_seconds(self) -> float | None:
        """The stated length, if less audio than this means that the file is truncated."""

    @property
    def remark(self) -> str | None:
        """A remark about the file: the end of a sentence that starts with its name."""

    @property
    def complaint(self) -> str | None:
        """The first fault found in the file."""

    def read(self, frames: int) -> NDArray[np.float32]:
        """Return the next `(channel, time)` block, shorter at damage or the end, then empty."""

    def seek(self, frames: int) -> bool:
        """Seek to a frame if that is exact; return whether it was done."""

    def close(self) -> None:
        """Release the resources of the decoder."""


def open_source(path: Path, track: int | str | None = None, *, downmix: bool = False) -> Source:
    """Open an audio track of a file: by index from 0, by language, or the default track.

    `downmix` mixes more than two channels down to two.

    Raises:
        DecodeError: the file cannot be read, or has no such track.
    """
    source = _open(path, track)
    if source.channels > 2 and downmix:
        source.close()
        source = _decode(path, track, downmix=True)
    return source


def _open(path: Path, track: int | str | None) -> Source:
    try:
        if path.is_dir():
            raise DecodeError(f"`{shown(path)}` is a folder, not a sound file")
        if path.exists() and not path.is_file():  # a pipe can be read only once
            raise DecodeError(
                f"`{shown(path)}` is not a regular file", "send it through `-`: stemsplit - < PIPE"
            )
        with path.open("rb") as file:
            empty = not path.stat().st_size
            file.seek(headers.after_id3(file))
            head = file.read(4) or b"ID3"
    except (FileNotFoundError, NotADirectoryError):
        raise not_found(path) from None
    except OSError as error:
        raise DecodeError(f"Cannot read `{shown(path)}`: {error.strerror}") from None
    if empty:
        raise DecodeError(f"`{shown(path)}` is empty (0 bytes)")
    chain = ogg.links(path) if head == b"OggS" else ()
    if chain:
        return Chain(path, chain, track if isinstance(track, int) else 0)
    # libsndfile reads one track only.
    number = track if isinstance(track, int) else 0
    if number or (_may_be_mp3(path, head) and ffmpeg.executable()):
        return _decode(path, track)
    return _open_libsndfile(path, track)


def _decode(path: Path, track: int | str | None, *, downmix: bool = False) -> Decoder:
    """Decode an audio track with ffmpeg, with the same timing as in players."""
    there = tracks.contents(path)
    chosen = tracks.choose(path, there.tracks, track, downmix=downmix)
    decoder = Decoder(
        path,
        chosen,
        delay_seconds=tracks.delay_seconds(path, there, chosen),
        timed=there.timed,
        downmix=downmix,
    )
    if track is None:
        decoder.remark = tracks.remark(path, there.tracks, chosen)
    return decoder


def _open_libsndfile(path: Path, track: int | str | None) -> Source:
    """Open a file with libsndfile, or with ffmpeg if that is better for its format."""
    source = _try_libsndfile(path)
    extent = headers.find_sound(path)
    if extent:
        source = _within(path, extent, source)
    if source is None:
        decoder = _decode(path, track)
        if extent and extent.stated == 0 and extent.start < extent.end:
            decoder.remark = "states no length in its header; all of its sound was used."
        return decoder
    unknown = source.frames is None or source.frames >= _UNKNOWN_FRAMES
    if unknown and ffmpeg.executable():
        source.close()
        return _decode(path, track)
    if source.plain or unknown:
        return source
    return Relay(source, path, continues=source.format == "FLAC" and flac.continues(path, source.frames or 0))


def _try_libsndfile(
    path: Path,
    part: range | None = None,
    samples: headers.Samples | None = None,
    patch: tuple[int, bytes] | None = None,
) -> Libsndfile | None:
    try:
        return Libsndfile(path, part, samples, patch)
    except soundfile.LibsndfileError:
        return None


def _within(path: Path, extent: headers.Extent, source: Libsndfile | None) -> Libsndfile | None:
    """Return a source for all audio in a file, or None if libsndfile cannot read it."""
    samples = extent.samples
    if source:
        samples = replace(source.samples, endian=extent.endian) if source.plain else None
    present = extent.end - extent.start
    if samples:
        width = samples.channels * headers.BYTES[samples.subtype]
        # A byte may be padding.
        exact = source and 0 <= present - (source.frames or 0) * width < max(width, 2)
        if present >= width and not exact:
            if source:
                source.close()
            source = _try_libsndfile(path, range(extent.start, extent.end), samples)
        if source and extent.stated != present:
            seconds = None if extent.stated is None else extent.stated // width / samples.sample_rate
            source.promised_seconds = seconds
    elif source and extent.size_field and extent.stated is not None and extent.stated < present:
        source.close()
        source = _try_libsndfile(path, range(0, extent.end), patch=extent.size_field)
        if source:
            source.promised_seconds = source.seconds * extent.stated / present
    elif source and extent.stated and extent.stated > present > 0:
        source.promised_seconds = source.seconds * extent.stated / present
    return source


def _may_be_mp3(path: Path, head: bytes) -> bool:
    """Whether libsndfile would use mpg123: it looks for a frame header, an ID3 tag, or the suffix."""
    if head in _OTHERS:
        return False
    sync = head[0] == 0xFF and len(head) > 1 and head[1] >= 0xE0
    return sync or head.startswith(b"ID3") or path.suffix.lower() in (".mp1", ".mp2", ".mp3")
