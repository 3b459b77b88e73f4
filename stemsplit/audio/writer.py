"""Writing sound files that appear whole or not at all, in bounded memory.

libsndfile encodes WAV, and ffmpeg all other formats. Tags and covers are added to the finished part file.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from stemsplit import _compat
from stemsplit.audio import ffmpeg, output_formats, tag_fields
from stemsplit.audio.decoding.sndfile import native
from stemsplit.audio.formats import LOSSLESS
from stemsplit.audio.rates import RateConverter
from stemsplit.audio.reader import Block, Signal
from stemsplit.audio.tags import Tags, read_tags, write_tags
from stemsplit.errors import EncodeError
from stemsplit.files.claims import claim
from stemsplit.files.parts import cannot_write, part_of, publish_together, refuse_to_replace

if TYPE_CHECKING:
    from typing_extensions import Self

_RIFF_LIMIT = (1 << 32) - (1 << 20)  # limit of the samples in bytes, with space for tags


@contextlib.contextmanager
def together(writers: Sequence[Writer], finished: Callable[[], None] | None = None) -> Iterator[None]:
    """Open writers whose files appear all together when the work is done, or not at all.

    `finished` is called when they are complete, but still have the names of their part files.

    Raises:
        OutputBusy: another program writes one of the files.
        EncodeError: a file cannot be written, or exists already.
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
            files = [(writer.part, writer.path) for writer in sorted(writers, key=lambda writer: writer.path)]
            publish_together(files, force=all(writer.force for writer in writers))
        finally:
            for writer in writers:
                writer.abandon()


@dataclass(frozen=True)
class Encoding:
    """How a file stores its samples. The writer refuses values that its format does not support."""

    depth: str = "16"
    """Bits per sample of lossless formats: `16`, `24` or `32f`."""
    bitrate: str | None = None
    """Bitrate of lossy formats, e.g. `192k`. Default: mp3 320k, m4a 256k, ogg quality 8 (about 256k)."""
    format: str | None = None
    """Default: the suffix of the file name."""
    channels_per_track: int | None = None
    """Default: one track with all channels."""
    codec: str | None = None
    """Default: the format's. An m4a contains `aac`; a stem file can also contain `alac` or `flac`."""


DEFAULT_ENCODING = Encoding()


class Writer:
    """Writes one file, which appears whole or not at all: a hidden part file is renamed or removed.

    Integer depths (rounded to the nearest value) and m4a clip at full scale; `32f`, mp3 and ogg do not. The
    signal's expected length decides whether a WAV must be an RF64 (above 4 GiB). `sample_rate` is the
    file's; if the format does not support the signal's rate, the two differ, and `warnings` report it.
    `tags_from` is the file whose tags and cover are copied.
    """

    def __init__(
        self,
        path: Path,
        signal: Signal,
        encoding: Encoding = DEFAULT_ENCODING,
        *,
        tags_from: Path | None = None,
        title_suffix: str | None = None,
        force: bool = False,
    ) -> None:
        self.path = Path(path)
        self.format = encoding.format or self.path.suffix.lower().lstrip(".")
        self._codec = self.format if encoding.codec in (None, "aac") else encoding.codec
        output_formats.check(self._codec, encoding.depth, encoding.bitrate)
        refuse_to_replace(self.path, force=force)
        if os.path.isdir(self.path):
            raise EncodeError(f"`{self.path}` is a folder", "choose another folder with --out")
        if os.path.exists(self.path) and not os.path.isfile(self.path):
            raise EncodeError(f"`{self.path}` is a device, not a file", "choose a file with --out")
        self.part = part_of(self.path)
        self.force = force
        rate, self._channels = signal.sample_rate, signal.channels
        per_track = encoding.channels_per_track or self._channels
        fit = output_formats.fit(self._codec, rate, per_track, encoding.bitrate)
        self.sample_rate, self.warnings, self._bitrate = fit.sample_rate, fit.warnings, fit.bitrate
        self._converter: RateConverter | None = None
        if self.sample_rate != rate:
            self._converter = RateConverter(rate, self.sample_rate, self._channels)
        self._depth = encoding.depth if self._codec in LOSSLESS else "32f"
        self._bytes_per_frame = self._channels * {"16": 2, "24": 3, "32f": 4}[self._depth]
        self._large = (signal.frames or 0) * self._bytes_per_frame > _RIFF_LIMIT
        self._tags_from, self._title_suffix = tags_from, title_suffix
        self.untrue_tags: Collection[str] = ()
        """Tag fields of the source, such as `bpm`, that are not copied."""
        self._tags = Tags()
        self._file: Any = None
        self.frames_written = 0
        self.peak = 0.0

    def _source_tags(self) -> Tags:
        if self._tags_from is None:
            return Tags()
        tags = read_tags(self._tags_from).without(self.untrue_tags)
        if self._title_suffix:
            tags = tags.with_title(f"{tags.text('title') or self._tags_from.stem} ({self._title_suffix})")
        return tags

    def open(self) -> None:
        """Create the part file in its folder, and start encoding."""
        refuse_to_replace(self.path, force=self.force)  # it may have appeared in the meantime
        # Read now, because the source may no longer exist when the work is done.
        self._tags = self._source_tags()
        try:
            self.part.open("wb").close()  # gives the clearest message about a folder without write permission
            self._file = self._encoder()
        except BaseException as error:
            self.abandon()
            if isinstance(error, (OSError, soundfile.LibsndfileError)):
                raise cannot_write(self.path, error) from error
            raise

    def add_tags(self, fields: Mapping[str, str]) -> None:
        """Add tag fields that the source lacks; call this before the file is finished."""
        found = tag_fields.collect((name, [text]) for name, text in fields.items())
        self._tags = replace(self._tags, fields=found | self._tags.fields)

    def _encoder(self) -> Any:
        """Return the encoder that writes the samples to the part file."""
        if self.format == "wav" or (self.format == "flac" and not ffmpeg.executable()):
            return self._open_libsndfile()
        return ffmpeg.Encoder(
            self.part,
            format=self.format,
            sample_rate=self.sample_rate,
            channels=self._channels,
            raw=ffmpeg.RAW[self._depth],
            bitrate=self._bitrate,
        )

    def _open_libsndfile(self) -> soundfile.SoundFile:
        file = soundfile.SoundFile(
            native(self.part),
            "w",
            samplerate=self.sample_rate,
            channels=self._channels,
            format="RF64" if self._large and self.format == "wav" else self.format.upper(),
            subtype={"16": "PCM_16", "24": "PCM_24", "32f": "FLOAT"}[self._depth],
        )
        _compat.leave_out_peak_chunk(file)
        return file

    def write(self, block: Block) -> None:
        """Append a finite block `(channel, time)` at the signal's sample rate."""
        if block.ndim != 2 or block.shape[0] != self._channels:
            wanted = f"(channel, time) with {self._channels} channels"
            raise ValueError(f"block must be {wanted}, got shape {block.shape}")
        if not block.shape[1]:
            return
        if not np.isfinite(block).all():
            raise ValueError(f"block for {self.path.name} contains NaN or infinite samples")
        self._append(block if self._converter is None else self._converter.push(block))

    def _append(self, block: Block) -> None:
        """Encode a block at the file's sample rate."""
        self.peak = max(self.peak, float(np.abs(block).max(initial=0)))
        self.frames_written += block.shape[1]
        large = self.frames_written * self._bytes_per_frame > _RIFF_LIMIT
        if large and self.format == "wav" and not self._large:
            raise EncodeError(f"`{self.path}` would exceed the 4 GiB of a WAV file", "choose --format flac")
        # Above full scale, ffmpeg's AAC encoder distorts far more than clipping does.
        if self._codec == "m4a":
            block = block.clip(-1, 1)
        samples = np.ascontiguousarray(quantised(block, self._depth).T)
        try:
            self._file.write(samples if isinstance(self._file, soundfile.SoundFile) else samples.tobytes())
        except (OSError, soundfile.LibsndfileError, AssertionError) as error:
            raise cannot_write(self.path, error) from error

    def __enter__(self) -> Self:
        self._alone = together([self])
        self._alone.__enter__()
        return self

    def __exit__(self, *failure: Any) -> None:
        self._alone.__exit__(*failure)

    @property
    def clips(self) -> bool:
        """Whether the file itself is clipped at full scale, not only its playback."""
        return self._depth != "32f" or self._codec == "m4a"

    def finish(self) -> None:
        """Finish encoding, and check the part file on the disk."""
        try:
            self._finish()
        except (OSError, soundfile.LibsndfileError) as error:
            raise cannot_write(self.path, error) from error

    def _finish(self) -> None:
        if self._converter is not None:
            self._append(self._converter.push(np.zeros((self._channels, 0), np.float32), last=True))
        if isinstance(self._file, soundfile.SoundFile):
            self._file.close()
            if soundfile.info(native(self.part)).frames != self.frames_written:
                raise OSError(errno.EIO, "the file is incomplete")
        else:
            self._file.finish()
        write_tags(self.part, self.format, self._tags)
        if not self.part.stat().st_size:
            raise OSError(errno.EIO, "the file is empty")

    def abandon(self) -> None:
        """Close open files and remove the part file. After success, do nothing."""
        # Closing can fail on a full disk, which the caller already reports.
        with contextlib.suppress(OSError, soundfile.LibsndfileError):
            if self._file is not None:
                self._file.close()
        with contextlib.suppress(OSError):
            self.part.unlink()


def quantised(block: Block, depth: str) -> NDArray[Any]:
    """Return samples in a bit depth, little-endian; 24-bit samples are the upper bits of 32."""
    if depth == "32f":
        return block.astype("<f4", copy=False)
    # The power of two that readers divide by, so that unmodified 16-bit samples stay the same.
    full_scale = 2.0 ** (int(depth) - 1)
    rounded: Block = np.clip(np.rint(block * np.float32(full_scale)), -full_scale, full_scale - 1)
    if depth == "16":
        return rounded.astype("<i2")
    upper_bytes: NDArray[Any] = rounded.astype("<i4") << 8
    return upper_bytes
