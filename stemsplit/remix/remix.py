"""A song again, with its stems louder, softer, elsewhere or left out."""

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
from stemsplit.options import Options
from stemsplit.output.plan import depth_for
from stemsplit.pipeline import Progress, fit, load
from stemsplit.remix.mixer import Mixer, parse
from stemsplit.separation.separator import Samples
from stemsplit.separation.stream import separate_stream
from stemsplit.zoo.ref import ModelRef

CHUNK_FRAMES = 65_536
DEFAULT_OPTIONS = Options()


@dataclass(frozen=True)
class RemixResult:
    """What came of a remix."""

    input: Path
    output: Path
    sample_rate: int
    channels: int
    frames: int
    gain_db: float
    """Of the whole remix, where it would have been louder than full scale and the song itself."""
    true_peak: float
    """The remix's, after that gain."""
    warnings: list[str]


@dataclass(frozen=True)
class _Song:
    """Where stems come from: a folder that has them, or a song that is split on the way."""

    reader: Reader
    """Of the song, or of one of its stems."""
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
    """Mix the stems of a song anew, as `mixing.parse` understands the text, into one file.

    `source` is a song, which is split on the way as `options` say; or a folder with its stems. Memory does
    not grow with its length. Peaks between samples may go as high as full scale, or as the song's own: where
    the remix would go higher, all of it gets one gain. Of `options.output`, `depth`, `bitrate` and `force`
    count.

    Raises:
        DecodeError, EncodeError: a file cannot be read or written.
        StemsplitError: the text is no remix, or whatever loading the model raises.
    """
    if out.exists() and source.exists() and out.samefile(source):
        raise EncodeError(f"`{out}` would replace the song itself", "choose another file with --out")
    if source.is_dir() and out.parent.resolve() == source.resolve():
        raise EncodeError(f"`{out}` would be one of the stems", "choose another folder with --out")
    if source.is_dir():
        song = _from_folder(source)
    else:
        song = _from_song(Reader(source, **options.split.reading), options)
    settings = parse(text, song.stems)
    reader, output = song.reader, options.output
    writer = Writer(
        out,
        sample_rate=reader.sample_rate,
        channels=reader.channels,
        depth=depth_for(reader, out, output.depth),
        bitrate=output.bitrate,
        frames=reader.frames_estimate,
        tags_from=song.tags_from,
        title_suffix=title,
        force=output.force,
    )
    mixer = Mixer(settings, song.stems, reader.sample_rate)
    before, after = (Peaks(reader.sample_rate, reader.channels) for _ in range(2))
    frames = 0
    # Only when all of it has been heard is it known how loud it gets.
    with claim([out]), _held_beside(out) as held:
        for stems in song.blocks():
            mix = mixer.mix(stems)
            before.hear(stems.sum(axis=0))
            after.hear(mix)
            held.write(np.ascontiguousarray(mix.T).tobytes())
            frames += mix.shape[-1]
            if progress:
                progress(frames, reader.frames_estimate)
        for peaks in (before, after):
            peaks.hear(np.zeros((reader.channels, 0), np.float32), last=True)
        gain = _gain(before, after)
        held.seek(0)
        with writer:
            while data := held.read(CHUNK_FRAMES * reader.channels * 4):
                block = np.frombuffer(data, np.float32).reshape(-1, reader.channels).T
                writer.write(block if gain == 1 else np.float32(gain) * block)
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


@contextlib.contextmanager
def _held_beside(out: Path) -> Iterator[BinaryIO]:
    """Yield a temporary file on the disk of `out`. Raises EncodeError if that disk is full."""
    try:
        with TemporaryFile(dir=out.parent) as held:
            yield held
    except OSError as error:
        raise cannot_write(out, error) from error


def _from_folder(folder: Path) -> _Song:
    found = stem_folder.find(folder)
    first = Reader(next(iter(found.stems.values())))
    return _Song(first, tuple(found.stems), found.blocks, found.mixture)


def _from_song(reader: Reader, options: Options) -> _Song:
    split, ref = options.split, ModelRef.of(options.split)

    def blocks() -> Iterator[Samples]:
        yield from separate_stream(fit(load(options, ref), reader), reader, reader.sample_rate)

    return _Song(reader, ref.output_stems(split.stems, split.two_stems), blocks, reader.path)


def _gain(before: Peaks, after: Peaks) -> float:
    """Return what keeps a remix from being louder than full scale, or than the song where that is louder."""
    room = [
        max(1.0, song) / remix
        for song, remix in ((before.sample, after.sample), (before.true, after.true))
        if remix > 0
    ]
    return min([1.0, *room])
