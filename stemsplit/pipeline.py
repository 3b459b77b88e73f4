"""From a file to stems: decode, separate, encode."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stemsplit.analysis.music import DRUMS, MusicAnalyser, analyse_mixture
from stemsplit.audio.formats import STEM_FILE
from stemsplit.audio.raw import RawReader, StreamWriter
from stemsplit.audio.reader import Reader
from stemsplit.audio.stem_mp4 import StemFile, kept_stems
from stemsplit.audio.writer import together
from stemsplit.errors import EncodeError, StemsplitError
from stemsplit.options import FileKeywords, MethodKeywords, Options
from stemsplit.output import template
from stemsplit.output.detected import tempo_and_key
from stemsplit.output.plan import clipping, peaks_of, plan_writers, too_loud, write_stems
from stemsplit.separation.separator import AnySeparator, FittedMethod, Method, Samples, Spec
from stemsplit.separation.stream import separate_stream
from stemsplit.zoo.ref import ModelRef, choose_stems

if TYPE_CHECKING:
    from typing_extensions import Unpack


@dataclass(frozen=True)
class SplitResult:
    """The outcome of splitting one file."""

    input: Path
    outputs: dict[str, Path]
    sample_rate: int
    """Sample rate of the stems in Hz: the input's, unless the format does not support it."""
    channels: int
    frames: int
    """Length of the stems in samples per channel, at this sample rate."""
    peaks: dict[str, float]
    """The largest absolute sample of each stem, before clipping."""
    elapsed_seconds: float
    warnings: list[str]
    sha256: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each stem's file, if the manifest has it."""
    how: str = ""
    """A description: the runtime of the model, or the positions of the sources."""


Progress = Callable[[int, "int | None"], None]
"""A function called with the number of frames (samples per channel) done and, if known, their total."""
Finished = Callable[[SplitResult, Mapping[Path, Path]], None]
"""A function called with a result, and a mapping from each final path to the path of its part file."""


def load(options: Options, ref: ModelRef | None = None) -> Method:
    """Return a trained model, or a spatial method that is fitted to each track.

    `ref` is the options' model, if it has been looked up already.

    Raises:
        StemsplitError: see `ModelRef.parse` and `ModelRef.load`.
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
    """Split a sound file into `OUT/<track>/<stem>.<format>`. Memory does not grow with its length.

    Stems have the file's sample rate, channels and exact length, and a complete set sums to the file. They
    appear all together or not at all. With `format="stem.mp4"` they are in one file, `OUT/<track>.stem.mp4`.
    `outputs` sets the path of some or all stems, instead of `out`, `template` and `format`.

    Options, with their defaults: `template=None`, e.g. `{artist}/{track}/{stem}.{ext}`; `format="wav"`;
    `depth="same"`; `bitrate=None`; for stem files `codec=None`, `stem_names=None` and `stem_colors=None`;
    `force=False`; `start_seconds=0.0`; `duration_seconds=None`; `audio_track=None` and
    `downmix=False`, see `Reader`; `gain_db=0.0`, the same for all stems. Without a `separator`, also
    `sources`, `azimuths` and the options of `load_separator`.

    For `progress` and `finished` see `Progress` and `Finished`; `finished` is called when all stems are
    complete, before they are renamed to their final paths.

    Raises:
        DecodeError: the file cannot be read.
        EncodeError: a stem cannot be written, or exists already and `force` is not given.
        StemsplitError: an error from loading the model, or from fitting it to the track.
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
    """Split a sound file as `split_file` does. Without a `method`, load the options' model."""
    began = time.monotonic()
    reader, gain_db = Reader(path, **options.split.reading), options.split.gain_db
    method = method or load(options)
    writers = plan_writers(reader, _outputs(reader, method, options, outputs), options.output)
    files = list(dict.fromkeys(writers.values()))
    separator = fit(method, reader, progress)
    tagger = _Tagger(reader, separator.spec) if options.output.tag_bpm_key else None
    summed = _added_to_other(separator.spec, writers) if isinstance(files[0], StemFile) else []
    results = []

    def write(stems: Samples) -> None:
        if tagger:
            tagger.add(stems)
        write_stems(writers, separator.spec.stems, stems)

    def complete() -> None:
        result = SplitResult(
            input=reader.path,
            outputs={name: writer.path for name, writer in writers.items()},
            sample_rate=files[0].sample_rate,
            channels=reader.channels,
            frames=files[0].frames_written,
            peaks=peaks_of(writers),
            elapsed_seconds=time.monotonic() - began,
            warnings=[*reader.warnings, *summed, *files[0].warnings, *clipping(writers, gain_db)],
            how=separator.spec.how,
        )
        results.append(result)
        if finished:
            finished(result, {file.path: file.part for file in files})

    with together(files, complete):
        _separate(reader, separator, gain_db, write, progress)
        if tagger:
            found = tagger.tags()
            for file in files:
                file.add_tags(found)
    return results[0]


class _Tagger:
    """Detects tempo and key in the stems if they are complete and include drums, or else in the track."""

    def __init__(self, reader: Reader, spec: Spec) -> None:
        self._reader = reader
        from_stems = spec.complete and any(name.startswith(DRUMS) for name in spec.stems)
        self._analyser = MusicAnalyser(spec.stems, reader.sample_rate) if from_stems else None

    def add(self, stems: Samples) -> None:
        """Append a block `(stem, channel, time)`."""
        if self._analyser:
            self._analyser.add(stems)

    def tags(self) -> dict[str, str]:
        """Return the tag fields."""
        if self._analyser:
            return self._analyser.finish(sections=False).tags
        return analyse_mixture(self._reader, self._reader.sample_rate, sections=False).tags


def _added_to_other(spec: Spec, written: Container[str]) -> list[str]:
    """Return a warning about stems that a stem file adds to `other`; EncodeError if the set is incomplete."""
    if not spec.complete:
        raise EncodeError("The stems of this model do not sum to the song", "choose another --format")
    extra = [name for name in spec.stems if name not in written]
    return [f"{' and '.join(extra)} were added to other: a stem file holds four stems"] if extra else []


def _outputs(
    reader: Reader, method: Method, options: Options, outputs: Mapping[str, Path] | None
) -> dict[str, Path]:
    """Return the stems' paths, in the order of the method's stems."""
    stems = method.stems if isinstance(method, FittedMethod) else method.spec.stems
    if outputs is None:
        output = options.output
        wanted = choose_stems(stems, options.split.stems, "this model")
        if output.format == STEM_FILE:
            wanted = kept_stems(wanted)
        known = tempo_and_key(reader.path, output.template, {})
        names = template.outputs(reader.path, wanted, output.template, output.format, **known)
        outputs = {stem: output.out / name for stem, name in names.items()}
    paths = {stem: outputs[stem] for stem in stems if stem in outputs}
    if len(paths) < len(outputs):
        raise ValueError(f"outputs are for {', '.join(outputs)}, but stems are {', '.join(stems)}")
    return paths


def split_to_stream(
    reader: Reader | RawReader,
    stem: str,
    outlet: StreamWriter,
    method: Method,
    *,
    gain_db: float = 0.0,
    progress: Progress | None = None,
) -> SplitResult:
    """Write one stem to a stream, block by block; see `output.plan.plan_stream`.

    Raises:
        DecodeError: the input cannot be read.
        BrokenPipeError: the program that reads the stream has ended.
    """
    began = time.monotonic()
    separator = fit(method, reader, progress)
    index = separator.spec.stems.index(stem)
    frames = _separate(reader, separator, gain_db, lambda stems: outlet.write(stems[index]), progress)
    outlet.finish()
    peaks = {stem: outlet.peak}
    clipped = [] if outlet.raw.depth == "32f" else too_loud(peaks, gain_db, "were clipped")
    return SplitResult(
        input=reader.path,
        outputs={},
        sample_rate=reader.sample_rate,
        channels=reader.channels,
        frames=frames,
        peaks=peaks,
        elapsed_seconds=time.monotonic() - began,
        warnings=[*reader.warnings, *clipped],
        how=separator.spec.how,
    )


def fit(method: Method, reader: Reader | RawReader, progress: Progress | None = None) -> AnySeparator:
    """Return a separator; some methods are first fitted to the whole track.

    While it is fitted, `progress` is called with 0 frames, so that it can cancel the work.
    """
    if not isinstance(method, FittedMethod):
        return method
    if isinstance(reader, RawReader):
        raise StemsplitError("This model needs a whole track before it can start", "save the input to a file")
    return method.fit(_Watched(reader, progress) if progress else reader, reader.sample_rate)


@dataclass(frozen=True)
class _Watched:
    """A track that calls `progress` for every block, in every iteration."""

    reader: Reader
    progress: Progress

    def __iter__(self) -> Iterator[Samples]:
        for block in self.reader:
            self.progress(0, self.reader.frames_estimate)
            yield block


def _separate(
    reader: Reader | RawReader,
    separator: AnySeparator,
    gain_db: float,
    write: Callable[[Samples], None],
    progress: Progress | None,
) -> int:
    """Call `write` with stems `(stem, channel, time)` block by block; return the number of frames."""
    gain, done = np.float32(10 ** (gain_db / 20)), 0
    frames = reader.frames_estimate
    with closing(iter(reader)) as blocks:  # the traceback of an error may keep them for long
        for stems in separate_stream(separator, blocks, reader.sample_rate, frames=frames):
            write(stems if gain == 1 else gain * stems)
            done += stems.shape[-1]
            if progress:
                progress(done, reader.frames_estimate)
    return done


def refuse_both(separator: Method | None, options: Mapping[str, Any]) -> None:
    """Raise TypeError if, along with a separator, there are options that apply only when loading one."""
    names = [name for name in options if name in MethodKeywords.__annotations__]
    if separator is not None and names:
        raise TypeError(f"{', '.join(names)}: choose these when loading the separator")
