"""The source of a remix: the stems of a song, from a folder or split on the fly."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import numpy as np

from stemsplit.audio import stem_folder
from stemsplit.audio.loudness import Peaks
from stemsplit.audio.reader import Block, Reader, Signal
from stemsplit.audio.writer import Writer
from stemsplit.errors import EncodeError
from stemsplit.files.parts import cannot_write
from stemsplit.options import Options, OutputOptions
from stemsplit.output.plan import encoding_for
from stemsplit.pipeline import fit, load
from stemsplit.separation.separator import Samples
from stemsplit.separation.stream import separate_stream
from stemsplit.zoo.ref import ModelRef


@dataclass(frozen=True)
class Song:
    """The source of stems: a folder with stems, or a song that is split for the remix."""

    reader: Reader
    """Reads the song, or one of its stems."""
    stems: tuple[str, ...]
    blocks: Callable[[], Iterable[Block]]
    """Returns blocks `(stem, channel, time)` of all stems in step."""
    tags_from: Path | None


def open_song(source: Path, options: Options) -> Song:
    """Return the stems of a folder, or the stems of a song, which is split with `options`.

    Raises:
        DecodeError: there are no stems in the folder, or the song cannot be read.
    """
    return _from_folder(source) if source.is_dir() else _from_song(source, options)


def _from_folder(folder: Path) -> Song:
    found = stem_folder.find(folder)
    first = Reader(next(iter(found.stems.values())))
    return Song(first, tuple(found.stems), found.blocks, found.mixture)


def _from_song(path: Path, options: Options) -> Song:
    reader = Reader(path, **options.split.reading)
    split, ref = options.split, ModelRef.of(options.split)

    def blocks() -> Iterator[Samples]:
        separator, frames = fit(load(options, ref), reader), reader.frames_estimate
        with contextlib.closing(iter(reader)) as mixture:
            yield from separate_stream(separator, mixture, reader.sample_rate, frames=frames)

    return Song(reader, ref.output_stems(split.stems, split.two_stems), blocks, reader.path)


def check_output(source: Path, out: Path) -> None:
    """Raise EncodeError if the output would overwrite the song or one of its stems."""
    if out.exists() and source.exists() and out.samefile(source):
        raise EncodeError(f"`{out}` would overwrite the song itself", "choose another file with --out")
    if source.is_dir() and out.parent.resolve() == source.resolve():
        raise EncodeError(f"`{out}` would be one of the stems", "choose another folder with --out")


def writer_of(song: Song, out: Path, signal: Signal, output: OutputOptions, title: str) -> Writer:
    """Return a writer for a file with the song's tags, and with `title` added to the song's title."""
    return Writer(
        out,
        signal,
        encoding_for(song.reader, out, output.depth, output.bitrate),
        tags_from=song.tags_from,
        title_suffix=title,
        force=output.force,
    )


def write(
    writer: Writer,
    blocks: Iterable[Block],
    gain: float,
    progress: Callable[[int], None] = lambda frames: None,
) -> None:
    """Write blocks with a gain. `progress` is called with the number of frames written."""
    with writer:
        for block in blocks:
            writer.write(block if gain == 1 else np.float32(gain) * block)
            progress(writer.frames_written)


@contextlib.contextmanager
def temporary_file(out: Path) -> Iterator[BinaryIO]:
    """Yield a temporary file on the disk of `out`. Raises EncodeError if that disk is full."""
    try:
        with TemporaryFile(dir=out.parent) as file:
            yield file
    except OSError as error:
        raise cannot_write(out, error) from error


def limiting_gain(before: Peaks, after: Peaks) -> float:
    """Return the gain that limits a remix's peaks to full scale, or to the song's if they are higher."""
    room = [
        max(1.0, song) / remix
        for song, remix in ((before.sample, after.sample), (before.true, after.true))
        if remix > 0
    ]
    return min([1.0, *room])
