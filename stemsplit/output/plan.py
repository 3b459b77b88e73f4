"""The writers for a track's stems, and warnings about clipping."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from stemsplit.audio.raw import RawFormat, RawReader, StreamWriter
from stemsplit.audio.reader import Reader
from stemsplit.audio.stem_labels import label_stems
from stemsplit.audio.stem_mp4 import SUFFIX, StemFile, kept_sounds
from stemsplit.audio.writer import Encoding, Writer
from stemsplit.errors import EncodeError
from stemsplit.files.scratch import shown
from stemsplit.options import OutputOptions
from stemsplit.separation.separator import Samples


def plan_writers(reader: Reader, outputs: Mapping[str, Path], options: OutputOptions) -> dict[str, Writer]:
    """Return unopened writers for a track's stems, and raise all errors that are known before writing.

    All stems of a stem file share one writer.

    Raises:
        EncodeError: the format does not support the stems, or a stem would overwrite the track itself.
        OutputExists: a stem exists already, and `force` is not given.
    """
    for path in outputs.values():
        if os.path.exists(path) and path.samefile(reader.path):
            raise EncodeError(
                f"`{path}` would overwrite the track itself", "choose another folder with --out"
            )
    shared = set(outputs.values())
    if len(shared) == 1 and (path := shared.pop()).name.endswith(SUFFIX):
        file = StemFile(
            path,
            label_stems(list(outputs), options.stem_names, options.stem_colors),
            reader.signal,
            _stem_encoding(reader, options),
            tags_from=reader.path,
            force=options.force,
        )
        return dict.fromkeys(outputs, file)
    return {
        name: Writer(
            path,
            reader.signal,
            encoding_for(reader, path, options.depth, options.bitrate),
            tags_from=reader.path,
            title_suffix=name,
            force=options.force,
        )
        for name, path in outputs.items()
    }


def plan_stream(
    reader: Reader | RawReader, stream: BinaryIO, raw: RawFormat | None, depth: str
) -> StreamWriter:
    """Return a writer of one stem to a stream: headerless PCM in the format `raw`, or WAV.

    Raises:
        EncodeError: the track has a different sample rate or number of channels than `raw`.
    """
    depth = reader.depth if depth == "same" else depth
    form = raw or RawFormat(reader.sample_rate, reader.channels, "f32" if depth == "32f" else f"s{depth}")
    if (form.sample_rate, form.channels) != (reader.sample_rate, reader.channels):
        same = RawFormat(reader.sample_rate, reader.channels, form.samples)
        raise EncodeError(f"`{shown(reader.path)}` does not match the format `{form}`", f"use --raw {same}")
    return StreamWriter(stream, form, wav=raw is None, frames=reader.frames)


def encoding_for(reader: Reader, path: Path, depth: str, bitrate: str | None) -> Encoding:
    """Return the encoding of a file; `same` means the track's depth, or 24 bits for a float track in FLAC."""
    if depth == "same":
        depth = "24" if (path.suffix.lower(), reader.depth) == (".flac", "32f") else reader.depth
    return Encoding(depth, bitrate)


def _stem_encoding(reader: Reader, options: OutputOptions) -> Encoding:
    """Return the encoding of a stem file's tracks, whose codecs do not support float samples."""
    depth = "24" if (options.depth, reader.depth) == ("same", "32f") else options.depth
    return Encoding(reader.depth if depth == "same" else depth, options.bitrate, codec=options.codec)


def write_stems(writers: Mapping[str, Writer], names: Sequence[str], stems: Samples) -> None:
    """Append a block of stems `(stem, channel, time)`. A stem file stores all of them, and their sum."""
    file = next(iter(writers.values()))
    if isinstance(file, StemFile):
        file.write_tracks(stems.sum(axis=0), kept_sounds(names, stems))
        return
    for name, stem in zip(names, stems, strict=True):
        if name in writers:
            writers[name].write(stem)


def peaks_of(writers: Mapping[str, Writer]) -> dict[str, float]:
    """Return the peak of each stem."""
    return {
        name: writer.peaks[name] if isinstance(writer, StemFile) else writer.peak
        for name, writer in writers.items()
    }


def clipping(writers: Mapping[str, Writer], gain_db: float) -> list[str]:
    """Return warnings about stems above full scale, with a remedy."""
    file = next(iter(writers.values()))
    if file.format == "wav" and not file.clips:  # float samples do not clip
        return []
    peaks = file.peaks if isinstance(file, StemFile) else peaks_of(writers)
    return too_loud(peaks, gain_db, "were clipped" if file.clips else "will clip when played")


def too_loud(peaks: Mapping[str, float], gain_db: float, what: str) -> list[str]:
    """Return warnings about peaks above full scale, with a remedy."""
    loud = {name: peak for name, peak in peaks.items() if peak > 1}
    if not loud:
        return []
    excess_db = math.ceil(200 * math.log10(max(loud.values()))) / 10
    return [
        f"{' and '.join(loud)} reached {excess_db:.1f} dB above full scale and {what}; lower all stems "
        f"with --gain {gain_db - excess_db:.1f}, or avoid clipping with --format wav --depth 32f"
    ]
