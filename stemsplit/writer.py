"""Writing sound files that appear whole or not at all, in bounded memory.

libsndfile encodes WAV, the ffmpeg program everything else. Tags and covers go into the finished part file.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from stemsplit import ffmpeg
from stemsplit.audio import Block
from stemsplit.claims import claim
from stemsplit.errors import EncodeError
from stemsplit.parts import cannot_write, part_of, publish, refuse_to_replace
from stemsplit.sndfile import native
from stemsplit.tags import Tags, read_tags, write_tags

FORMATS: tuple[str, ...] = ("wav", "flac", "mp3", "ogg", "m4a")
DEPTHS = ("same", "16", "24", "32f")

_RIFF_LIMIT = (1 << 32) - (1 << 20)  # bytes of samples, with room for the tags
_ADD_PEAK_CHUNK = 0x1050  # SFC_SET_ADD_PEAK_CHUNK, which soundfile has no name for
_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_RATES = {"mp3": _MP3_RATES, "m4a": (7350, *_MP3_RATES, 64000, 88200, 96000)}


@contextlib.contextmanager
def together(writers: Sequence[Writer], finished: Callable[[], None] | None = None) -> Iterator[None]:
    """Open writers whose files all appear when the work is done, or none of them.

    `finished` is called when they are complete, and lie under their parts' names still.

    Raises:
        OutputBusy: another program writes one of the files.
        EncodeError: a file cannot be written, or is there already.
    """
    with claim(writer.path for writer in writers):
        try:
            for writer in writers:
                writer.open()
            yield
            for writer in writers:
                writer.finish()
            if finished:
                finished()
            _publish(sorted(writers, key=lambda writer: writer.path))
        finally:
            for writer in writers:
                writer.abandon()


def _publish(writers: Sequence[Writer]) -> None:
    published = []
    try:
        for writer in writers:
            writer.publish()
            published.append(writer)
    except BaseException:
        for writer in published:
            writer.path.unlink(missing_ok=True)
        raise


class Writer:
    """One file that appears whole or not at all: a hidden part, renamed on success, removed on failure.

    Integer depths (rounded to the nearest value) and m4a clip at full scale; `32f`, mp3 and ogg keep what is
    above it. Default bitrates: mp3 320k, m4a 256k, ogg quality 8 (about 256k). `tags_from` names the file
    whose tags and cover are carried over. `frames` is the expected length, which decides whether a WAV must
    be an RF64 (above 4 GiB). The format is that of the name, unless another is given.
    """

    def __init__(
        self,
        path: Path,
        *,
        sample_rate: int,
        channels: int,
        depth: str = "16",
        bitrate: str | None = None,
        frames: int | None = None,
        tags_from: Path | None = None,
        title_suffix: str | None = None,
        force: bool = False,
        format: str | None = None,
    ) -> None:
        self.path = Path(path)
        self.format = format or self.path.suffix.lower().lstrip(".")
        _check(self.format, sample_rate, depth, bitrate)
        refuse_to_replace(self.path, force=force)
        if os.path.isdir(self.path):
            raise EncodeError(f"`{self.path}` is a folder", "choose another folder with --out")
        self.part = part_of(self.path)
        self._force = force
        self._sample_rate, self._channels, self._bitrate = sample_rate, channels, bitrate
        self._depth = "32f" if self.format in ("mp3", "ogg", "m4a") else depth
        self._bytes_per_frame = channels * {"16": 2, "24": 3, "32f": 4}[self._depth]
        self._large = (frames or 0) * self._bytes_per_frame > _RIFF_LIMIT
        self._tags_from, self._title_suffix = tags_from, title_suffix
        self._tags = Tags()
        self._file: Any = None
        self.frames_written = 0
        self.peak = 0.0

    def _source_tags(self) -> Tags:
        if self._tags_from is None:
            return Tags()
        tags = read_tags(self._tags_from)
        if self._title_suffix:
            tags = tags.with_title(f"{tags.text('title') or self._tags_from.stem} ({self._title_suffix})")
        return tags

    def open(self) -> None:
        """Create the part file in a folder that is there, and start encoding."""
        refuse_to_replace(self.path, force=self._force)  # it may have appeared since
        self._tags = self._source_tags()  # now: the source may be gone when the work is done
        try:
            self.part.open("wb").close()  # the clearest message about a folder that cannot be written
            self._file = self._encoder()
        except BaseException as error:
            self.abandon()
            if isinstance(error, (OSError, soundfile.LibsndfileError)):
                raise cannot_write(self.path, error) from error
            raise

    def _encoder(self) -> Any:
        """Return what takes the samples, writing to the part file."""
        if self.format == "wav" or (self.format == "flac" and not ffmpeg.executable()):
            return self._open_libsndfile()
        return ffmpeg.Encoder(
            self.part,
            format=self.format,
            sample_rate=self._sample_rate,
            channels=self._channels,
            raw={"16": "s16le", "24": "s32le", "32f": "f32le"}[self._depth],
            bitrate=self._bitrate,
        )

    def _open_libsndfile(self) -> soundfile.SoundFile:
        file = soundfile.SoundFile(
            native(self.part),
            "w",
            samplerate=self._sample_rate,
            channels=self._channels,
            format="RF64" if self._large and self.format == "wav" else self.format.upper(),
            subtype={"16": "PCM_16", "24": "PCM_24", "32f": "FLOAT"}[self._depth],
        )
        # A PEAK chunk has the time of day in it: the same stems would not make the same file.
        soundfile._snd.sf_command(file._file, _ADD_PEAK_CHUNK, soundfile._ffi.NULL, 0)
        return file

    def write(self, block: Block) -> None:
        """Append a finite block `(channel, time)`."""
        if block.ndim != 2 or block.shape[0] != self._channels:
            wanted = f"(channel, time) with {self._channels} channels"
            raise ValueError(f"block must be {wanted}, got shape {block.shape}")
        if not block.shape[1]:
            return
        peak = float(np.abs(block).max())
        if not math.isfinite(peak):
            raise ValueError(f"block for {self.path.name} holds NaN or infinite samples")
        self.peak = max(self.peak, peak)
        self.frames_written += block.shape[1]
        large = self.frames_written * self._bytes_per_frame > _RIFF_LIMIT
        if large and self.format == "wav" and not self._large:
            raise EncodeError(f"`{self.path}` would exceed the 4 GiB of a WAV file", "choose --format flac")
        if self.format == "m4a":  # above full scale ffmpeg's AAC encoder distorts far worse than this
            block = block.clip(-1, 1)
        samples = np.ascontiguousarray(quantised(block, self._depth).T)
        try:
            self._file.write(samples if isinstance(self._file, soundfile.SoundFile) else samples.tobytes())
        except (OSError, soundfile.LibsndfileError, AssertionError) as error:
            raise cannot_write(self.path, error) from error

    def __enter__(self) -> Writer:
        self._alone = together([self])
        self._alone.__enter__()
        return self

    def __exit__(self, *failure: Any) -> None:
        self._alone.__exit__(*failure)

    @property
    def clips(self) -> bool:
        """Whether what is above full scale is lost in the file, not only where it is played."""
        return self._depth != "32f" or self.format == "m4a"

    def finish(self) -> None:
        """End encoding and look at what lies on the disk, still under the part file's name."""
        try:
            self._finish()
        except (OSError, soundfile.LibsndfileError) as error:
            raise cannot_write(self.path, error) from error

    def _finish(self) -> None:
        if isinstance(self._file, soundfile.SoundFile):
            self._file.close()
            if soundfile.info(native(self.part)).frames != self.frames_written:
                raise OSError(errno.EIO, "the file came out incomplete")
        else:
            self._file.finish()
        write_tags(self.part, self.format, self._tags)
        if not self.part.stat().st_size:
            raise OSError(errno.EIO, "the file came out empty")

    def publish(self) -> None:
        """Give the finished file its name."""
        try:
            publish(self.part, self.path, force=self._force)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def abandon(self) -> None:
        """Close whatever is open and remove the part file; nothing to do after success."""
        # Closing may fail on a full disk, of which the caller hears already.
        with contextlib.suppress(OSError, soundfile.LibsndfileError):
            if self._file is not None:
                self._file.close()
        with contextlib.suppress(OSError):
            self.part.unlink()


def quantised(block: Block, depth: str) -> NDArray[Any]:
    """Return samples as little-endian numbers of a depth: 24 bits are the upper ones of 32."""
    if depth == "32f":
        return block.astype("<f4", copy=False)
    # A power of two, as readers divide by: 16-bit samples that nothing changed come out unchanged.
    full_scale = 2.0 ** (int(depth) - 1)
    rounded: Block = np.clip(np.rint(block * np.float32(full_scale)), -full_scale, full_scale - 1)
    if depth == "16":
        return rounded.astype("<i2")
    upper_bytes: NDArray[Any] = rounded.astype("<i4") << 8
    return upper_bytes


def _check(format: str, sample_rate: int, depth: str, bitrate: str | None) -> None:
    """Refuse what the format cannot hold, before any work is done."""
    if format not in FORMATS:
        raise EncodeError(f"Cannot write `.{format}` files", f"choose one of {', '.join(FORMATS)}")
    if format not in ("wav", "flac") and not ffmpeg.executable():
        raise EncodeError(f"Cannot write {format} without ffmpeg", f"{ffmpeg.INSTALL}, or choose wav or flac")
    if depth not in DEPTHS[1:]:
        raise EncodeError(f"No depth `{depth}`", f"choose one of {', '.join(DEPTHS)}")
    if format == "flac" and depth == "32f":
        raise EncodeError("FLAC holds no floating point samples", "use --depth 24, or --format wav")
    if bitrate and format in ("wav", "flac"):
        raise EncodeError(f"A bitrate means nothing to {format}", "leave it out, or choose mp3, ogg or m4a")
    if bitrate and not re.fullmatch(r"\d{1,6}[kK]?", bitrate):
        raise EncodeError(f"`{bitrate}` is no bitrate", "write it like 192k")
    if sample_rate not in _RATES.get(format, (sample_rate,)):
        able = [name for name in FORMATS if sample_rate in _RATES.get(name, (sample_rate,))]
        raise EncodeError(f"{format} cannot hold {sample_rate} Hz", f"choose one of {', '.join(able)}")
