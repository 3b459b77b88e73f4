"""Remixing a song: gains, positions and delays for its stems."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from stemsplit.audio.loudness import Peaks
from stemsplit.files.claims import claim
from stemsplit.options import Options
from stemsplit.pipeline import Progress
from stemsplit.remix.mixer import Mixer, parse
from stemsplit.remix.song import (
    Song,
    check_output,
    limiting_gain,
    open_song,
    temporary_file,
    write,
    writer_of,
)
from stemsplit.remix.store import Store

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
    """Gain of the whole remix, if it would exceed both full scale and the peaks of the song."""
    true_peak: float
    """True peak of the remix, after that gain."""
    warnings: list[str]


def remix(
    source: Path,
    text: str,
    out: Path,
    options: Options = DEFAULT_OPTIONS,
    *,
    title: str = "remix",
    progress: Progress | None = None,
) -> RemixResult:
    """Remix the stems of a song to one file. For the text, see `mixer.parse`.

    `source` is a song, which is split with `options`, or a folder with its stems. Memory does not grow with
    the song's length. If the sample or true peak of the remix exceeds both full scale and the song's own,
    the whole remix is attenuated. Of `options.output`, only `depth`, `bitrate` and `force` are used.

    Raises:
        DecodeError, EncodeError: a file cannot be read or written.
        StemsplitError: the text is not a remix, or an error from loading the model.
    """
    check_output(source, out)
    song = open_song(source, options)
    settings, reader = parse(text, song.stems), song.reader
    writer = writer_of(song, out, reader.signal, options.output, title)
    mixer = Mixer(settings, song.stems, reader.sample_rate)
    # The gain depends on the peaks of the whole remix, which is therefore written to a temporary file first.
    with claim([out]), temporary_file(out) as file:
        mixed = Store(file, reader.channels)
        before, after = _mix(song, mixer, mixed, progress)
        gain = limiting_gain(before, after)
        write(writer, mixed.blocks(), gain)
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


def _mix(song: Song, mixer: Mixer, mixed: Store, progress: Progress | None) -> tuple[Peaks, Peaks]:
    """Store the remix; return the peaks of the song and of the remix."""
    reader = song.reader
    before, after = (Peaks(reader.sample_rate, reader.channels) for _ in range(2))
    for stems in song.blocks():
        mix = mixer.mix(stems)
        before.add(stems.sum(axis=0))
        after.add(mix)
        mixed.append(mix)
        if progress:
            progress(mixed.frames, reader.frames_estimate)
    for peaks in (before, after):
        peaks.finish()
    return before, after
