"""A song mixed anew: gains, positions and delays for its stems."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import numpy as np

from stemsplit.audio import stem_folder
from stemsplit.audio.loudness import Peaks
from stemsplit.audio.reader import Block, Reader
from stemsplit.audio.writer import Writer
from stemsplit.errors import EncodeError
from stemsplit.files.claims import claim
from stemsplit.files.parts import cannot_write
from stemsplit.options import Options, OutputOptions
from stemsplit.output.plan import encoding_for
from stemsplit.pipeline import Progress, fit, load
from stemsplit.remix.mixer import Mixer, parse
from stemsplit.separation.separator import Samples
from stemsplit.separation.stream import separate_stream
from stemsplit.zoo.ref import ModelRef

CHUNK_FRAMES = 65_536
DEFAULT_OPTIONS = Options()


@dataclass(frozen=True)
class RemixResult:
    """The outcome of a remix."""

    input: Path
    output: Path
    sample_rate: int
    channels: int
    frames: int
    gain_db: float
    """Applied to the whole remix where it would exceed both full scale and the song's own peaks."""
    true_peak: float
    """Of the remix, after that gain."""
    warnings: list[str]


@dataclass(frozen=True)
class _Song:
    """The source of stems: a folder that has them, or a song that is split for the remix."""

    reader: Reader
    """Reads the song, or one of its stems."""
    stems: tuple[str, ...]
    blocks: Callable[[], Iterable[Block]]
    tags_from: Path | None


def remix(
    source: Path,
    text: str,
    out: Path,
    options: Options = DEFAULT_OPTIONS,
    *,
    title: str = "remix",
    progress: Progress | None = None,
) -> RemixResult:
    """Mix the stems of a song anew into one file; for the text, see `mixer.parse`.

    `source` is a song, which is split with `options`, or a folder with its stems. Memory does not grow with
    its length. True peaks may reach full scale or the song's own true peak, whichever is higher; where the
    remix would exceed both, one gain is applied to all of it. Of `options.output`, `depth`, `bitrate` and
    `force` are used.

    Raises:
        DecodeError, EncodeError: a file cannot be read or written.
        StemsplitError: the text is not a remix, or an error from loading the model.
    """
    _check(source, out)
    song = _from_folder(source) if source.is_dir() else _from_song(source, options)
    settings, reader = parse(text, song.stems), song.reader
    writer = _writer(song, out, options.output, title)
    mixer = Mixer(settings, song.stems, reader.sample_rate)
    # The gain depends on the peaks of the whole remix, which goes to a temporary file first.
    with claim([out]), _temporary_file(out) as mixed:
        before, after = _mix(song, mixer, mixed, progress)
        gain = _gain(before, after)
        _encode(mixed, reader.channels, gain, writer)
    return RemixResult(
        input=source,
        output=out,
        sample_rate=writer.sample_rate,
        channels=reader.channels,
        frames=writer.frames_written,
        gain_db=20 * math.log10(gain),
        true_peak=gain * after.true,
        warnings=[*dict.fromkeys(reader.warnings), *writer.warnings],
    )


def _check(source: Path, out: Path) -> None:
    """Raise EncodeError if the remix would replace the song or one of its stems."""
    if out.exists() and source.exists() and out.samefile(source):
        raise EncodeError(f"`{out}` would replace the song itself", "choose another file with --out")
    if source.is_dir() and out.parent.resolve() == source.resolve():
        raise EncodeError(f"`{out}` would be one of the stems", "choose another folder with --out")


def _writer(song: _Song, out: Path, output: OutputOptions, title: str) -> Writer:
    reader = song.reader
    return Writer(
        out,
        reader.signal,
        encoding_for(reader, out, output.depth, output.bitrate),
        tags_from=song.tags_from,
        title_suffix=title,
        force=output.force,
    )


@contextlib.contextmanager
def _temporary_file(out: Path) -> Iterator[BinaryIO]:
    """Yield a temporary file on the disk of `out`. Raises EncodeError if that disk is full."""
    try:
        with TemporaryFile(dir=out.parent) as file:
            yield file
    except OSError as error:
        raise cannot_write(out, error) from error


def _mix(song: _Song, mixer: Mixer, file: BinaryIO, progress: Progress | None) -> tuple[Peaks, Peaks]:
    """Write the remix into a file, as interleaved float32; return the peaks of the song and of the remix."""
    reader, frames = song.reader, 0
    before, after = (Peaks(reader.sample_rate, reader.channels) for _ in range(2))
    for stems in song.blocks():
        mix = mixer.mix(stems)
        before.add(stems.sum(axis=0))
        after.add(mix)
        file.write(np.ascontiguousarray(mix.T).tobytes())
        frames += mix.shape[-1]
        if progress:
            progress(frames, reader.frames_estimate)
    for peaks in (before, after):
        peaks.add(np.zeros((reader.channels, 0), np.float32), last=True)
    return before, after


def _encode(file: BinaryIO, channels: int, gain: float, writer: Writer) -> None:
    file.seek(0)
    with writer:
        while data := file.read(CHUNK_FRAMES * channels * 4):
            block = np.frombuffer(data, np.float32).reshape(-1, channels).T
            writer.write(block if gain == 1 else np.float32(gain) * block)


def _from_folder(folder: Path) -> _Song:
    found = stem_folder.find(folder)
    first = Reader(next(iter(found.stems.values())))
    return _Song(first, tuple(found.stems), found.blocks, found.mixture)


def _from_song(path: Path, options: Options) -> _Song:
    reader = Reader(path, **options.split.reading)
    split, ref = options.split, ModelRef.of(options.split)

    def blocks() -> Iterator[Samples]:
        yield from separate_stream(fit(load(options, ref), reader), reader, reader.sample_rate)

    return _Song(reader, ref.output_stems(split.stems, split.two_stems), blocks, reader.path)


def _gain(before: Peaks, after: Peaks) -> float:
    """Return the gain that limits a remix's peaks to full scale, or to the song's if they are higher."""
    room = [
        max(1.0, song) / remix
        for song, remix in ((before.sample, after.sample), (before.true, after.true))
        if remix > 0
    ]
    return min([1.0, *room])
