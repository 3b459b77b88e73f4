"""From a file to stems: decode, separate, encode."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stemsplit.audio.raw import RawReader, StreamWriter
from stemsplit.audio.reader import Reader
from stemsplit.audio.stem_mp4 import StemFile
from stemsplit.audio.writer import together
from stemsplit.errors import EncodeError, StemsplitError
from stemsplit.options import FileKeywords, MethodKeywords, Options
from stemsplit.output import template
from stemsplit.output.plan import clipping, peaks_of, plan_writers, too_loud, write_stems
from stemsplit.separation.separator import FittedMethod, Method, Samples, Separator
from stemsplit.separation.stream import separate_stream
from stemsplit.zoo.ref import ModelRef, choose_stems

if TYPE_CHECKING:
    from typing_extensions import Unpack


@dataclass(frozen=True)
class SplitResult:
    """What came of splitting one file."""

    input: Path
    outputs: dict[str, Path]
    sample_rate: int
    """Of each stem, in Hz: the input's, unless the format cannot hold it."""
    channels: int
    frames: int
    """Samples per channel of each stem, at this sample rate."""
    peaks: dict[str, float]
    """The largest absolute sample of each stem, before any clipping."""
    elapsed_seconds: float
    warnings: list[str]
    sha256: dict[str, str] = field(default_factory=dict)
    """A digest of each stem's file, where a record of it is kept."""
    how: str = ""
    """What separated it, in words: what a model runs on, or the positions of sources."""


Progress = Callable[[int, "int | None"], None]
"""Is called with the frames (samples per channel) done and, where it is known, their total."""
Finished = Callable[[SplitResult, Mapping[Path, Path]], None]
"""Is called with a result and, by the path of each file, that of the part which is going to be it."""


def load(options: Options, ref: ModelRef | None = None) -> Method:
    """Return what separates: a trained model, or a spatial method that is fitted to each track.

    `ref` is the model of the options, if it has been looked up already.

    Raises:
        StemsplitError: as of `ModelRef.parse` and `ModelRef.load`.
    """
    split = options.split
    ref = ref or ModelRef.of(split)
    return ref.load(options.runtime, stems=split.stems, two_stems=split.two_stems, mask=split.mask)


def split_file(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str] = "stems",
    *,
    separator: Method | None = None,
    outputs: Mapping[str, Path] | None = None,
    progress: Progress | None = None,
    finished: Finished | None = None,
    **options: Unpack[FileKeywords],
) -> SplitResult:
    """Split a sound file into `OUT/<track>/<stem>.<format>`, in memory that does not grow with its length.

    Stems have the file's sample rate, channels and exact length, and a complete set adds up to it. They
    appear all together, or not at all; as `OUT/<track>.stem.mp4`, in one file. `outputs` names them one by
    one, or some of them, instead of `out`, `template` and `format`.

    Options, with their defaults: `template=None`, as in `{artist}/{track}/{stem}.{ext}`; `format="wav"`;
    `depth="same"`; `bitrate=None`; `force=False`; `start_seconds=0.0`; `duration_seconds=None`;
    `audio_track=None` and `downmix=False`, see `Reader`; `gain_db=0.0`, the same for all stems. Without a
    `separator`, those of `load_separator`, too, and `model`, `sources` and `azimuths`.

    `progress` is called with the frames done and, where it is known, their total; `finished`, when all stems
    are complete, before they get their names, with the result and where each of them lies.

    Raises:
        DecodeError: the file cannot be read.
        EncodeError: a stem cannot be written, or exists already and `force` is not given.
        StemsplitError: whatever `load_separator` raises.
    """
    refuse_both(separator, options)
    every = Options.of(FileKeywords, **options).with_output(out=Path(out))
    return split_track(path, every, separator, outputs=outputs, progress=progress, finished=finished)


def split_track(
    path: str | os.PathLike[str],
    options: Options,
    method: Method | None = None,
    *,
    outputs: Mapping[str, Path] | None = None,
    progress: Progress | None = None,
    finished: Finished | None = None,
) -> SplitResult:
    """Split a sound file as `split_file` does. Without a `method`, load what the options name."""
    began = time.monotonic()
    reader, gain_db = Reader(path, **options.split.reading), options.split.gain_db
    method = method or load(options)
    writers = plan_writers(reader, _outputs(reader, method, options, outputs), options.output)
    files = list(dict.fromkeys(writers.values()))
    separator = fit(method, reader)
    if isinstance(files[0], StemFile) and not separator.spec.complete:
        raise EncodeError("The stems of this model do not add up to the song", "choose another --format")
    done = 0

    def write(stems: Samples) -> None:
        nonlocal done
        write_stems(writers, separator.spec.stems, stems)
        done += stems.shape[-1]
        if progress:
            progress(done, reader.frames_estimate)

    results = []

    def complete() -> None:
        result = SplitResult(
            input=reader.path,
            outputs={name: writer.path for name, writer in writers.items()},
            sample_rate=files[0].sample_rate,
            channels=reader.channels,
            frames=files[0].frames_written,
            peaks=peaks_of(writers),
            elapsed_seconds=time.monotonic() - began,
            warnings=[*reader.warnings, *files[0].warnings, *clipping(writers, gain_db)],
            how=separator.spec.how,
        )
        results.append(result)
        if finished:
            finished(result, {file.path: file.part for file in files})

    with together(files, complete):
        _separate(reader, separator, gain_db, write)
    return results[0]


def _outputs(
    reader: Reader, method: Method, options: Options, outputs: Mapping[str, Path] | None
) -> dict[str, Path]:
    """Return where stems go, in the order of the method's."""
    there = method.stems if isinstance(method, FittedMethod) else method.spec.stems
    if outputs is None:
        output = options.output
        wanted = choose_stems(there, options.split.stems, "this model")
        names = template.outputs(reader.path, wanted, output.template, output.format)
        outputs = {stem: output.out / name for stem, name in names.items()}
    found = {stem: outputs[stem] for stem in there if stem in outputs}
    if len(found) < len(outputs):
        raise ValueError(f"outputs are for {', '.join(outputs)}, but stems are {', '.join(there)}")
    return found


def split_to_stream(
    reader: Reader | RawReader,
    stem: str,
    outlet: StreamWriter,
    method: Method,
    *,
    gain_db: float = 0.0,
    progress: Progress | None = None,
) -> SplitResult:
    """Write one stem to a stream as it is made, see `output.plan.plan_stream`.

    Raises:
        DecodeError: the sound cannot be read.
        BrokenPipeError: the reader of the stream has ended.
    """
    began = time.monotonic()
    separator = fit(method, reader)
    index, done = separator.spec.stems.index(stem), 0

    def write(stems: Samples) -> None:
        nonlocal done
        outlet.write(stems[index])
        done += stems.shape[-1]
        if progress:
            progress(done, reader.frames_estimate)

    _separate(reader, separator, gain_db, write)
    outlet.finish()
    peaks = {stem: outlet.peak}
    clipped = [] if outlet.raw.depth == "32f" else too_loud(peaks, gain_db, "were clipped")
    return SplitResult(
        input=reader.path,
        outputs={},
        sample_rate=reader.sample_rate,
        channels=reader.channels,
        frames=done,
        peaks=peaks,
        elapsed_seconds=time.monotonic() - began,
        warnings=[*reader.warnings, *clipped],
        how=separator.spec.how,
    )


def fit(method: Method, reader: Reader | RawReader) -> Separator:
    """Return a separator, for which some methods must hear all of a track first."""
    if not isinstance(method, FittedMethod):
        return method
    if isinstance(reader, RawReader):
        raise StemsplitError(
            "This method must hear all of a song before it separates any", "save it to a file"
        )
    return method.fit(reader, reader.sample_rate)


def _separate(
    reader: Reader | RawReader, separator: Separator, gain_db: float, write: Callable[[Samples], None]
) -> None:
    gain = np.float32(10 ** (gain_db / 20))
    for stems in separate_stream(separator, reader, reader.sample_rate):
        write(stems if gain == 1 else gain * stems)


def refuse_both(separator: Method | None, options: Mapping[str, Any]) -> None:
    """Raise TypeError for options beside a separator, which has been loaded with its own."""
    beside = [name for name in options if name in MethodKeywords.__annotations__]
    if separator is not None and beside:
        raise TypeError(f"{', '.join(beside)}: choose these when loading the separator")
