"""Unpack stem files: each track to a separate file."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from stemsplit.audio.reader import Reader
from stemsplit.audio.stem_boxes import read_stem_names
from stemsplit.audio.stem_labels import ORDER
from stemsplit.audio.stem_mp4 import MIXTURE
from stemsplit.audio.writer import Writer, together
from stemsplit.errors import DecodeError, EncodeError
from stemsplit.output.plan import encoding_for
from stemsplit.output.template import file_names, track_name
from stemsplit.pipeline import SplitResult


def unpack(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str] = "stems",
    *,
    format: str = "wav",
    depth: str = "same",
    bitrate: str | None = None,
    force: bool = False,
) -> SplitResult:
    """Write the tracks of a stem file to `OUT/<song>/mixture.<format>`, `drums.<format>` and so on.

    Tracks have the names stored in the file, or else those of `ORDER`. Either all files appear, or none.
    Memory does not grow with their length.

    Raises:
        DecodeError: the file cannot be read, is damaged, or has too few tracks.
        EncodeError: a track cannot be written, or exists already and `force` is not given.
    """
    path, began = Path(path), time.monotonic()
    first = Reader(path, track=0)  # gives the clearest message about a file that cannot be read
    labels = read_stem_names(path)
    readers = [first, *_stems(path, len(labels or ORDER))]
    names = file_names([MIXTURE, *(ORDER if labels is None else [label.name for label in labels])])
    writers = {
        name: Writer(
            Path(out) / track_name(path) / f"{name}.{format}",
            reader.signal,
            encoding_for(reader, Path(f"{name}.{format}"), depth, bitrate),
            tags_from=path,
            title_suffix=name,
            force=force,
        )
        for name, reader in zip(names, readers, strict=True)
    }
    _copy(path, readers, list(writers.values()))
    warnings = [warning for reader in readers for warning in reader.warnings]
    if labels is None:
        order = ", ".join(ORDER)
        warnings.append(f"`{path.name}` does not name its stems; the usual order is assumed: {order}.")
    return SplitResult(
        input=path,
        outputs={name: writer.path for name, writer in writers.items()},
        sample_rate=writers[MIXTURE].sample_rate,
        channels=first.channels,
        frames=writers[MIXTURE].frames_written,
        peaks={name: writer.peak for name, writer in writers.items()},
        elapsed_seconds=time.monotonic() - began,
        warnings=[*dict.fromkeys(warnings), *writers[MIXTURE].warnings, *_clipping(writers)],
    )


def _copy(path: Path, readers: Sequence[Reader], writers: Sequence[Writer]) -> None:
    for writer in writers:
        if os.path.exists(writer.path) and writer.path.samefile(path):
            raise EncodeError(
                f"`{writer.path}` would overwrite the stem file itself", "choose another folder with --out"
            )
    with together(writers):
        for reader, writer in zip(readers, writers, strict=True):
            for block in reader:
                writer.write(block)


def _stems(path: Path, count: int) -> list[Reader]:
    try:
        return [Reader(path, track=track) for track in range(1, count + 1)]
    except DecodeError as error:
        if "fewer than" not in error.message:
            raise
        raise DecodeError(
            f"`{path}` is not a stem file: it has fewer than {count + 1} audio tracks",
            "to split a song into stems: stemsplit SONG",
        ) from error


def _clipping(writers: Mapping[str, Writer]) -> list[str]:
    loud = {name: writer.peak for name, writer in writers.items() if writer.peak > 1 and writer.clips}
    if not loud:
        return []
    excess_db = math.ceil(200 * math.log10(max(loud.values()))) / 10
    what = f"{' and '.join(loud)} reached {excess_db:.1f} dB above full scale and were clipped"
    return [f"{what}; avoid clipping with --format wav --depth 32f"]
