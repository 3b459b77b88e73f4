"""From a file to stems: decode, separate, encode."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from stemsplit.audio.raw import Outlet, Raw, RawReader
from stemsplit.audio.reader import Reader, resample
from stemsplit.audio.stem_mp4 import SUFFIX, StemFile
from stemsplit.audio.writer import Writer, together
from stemsplit.errors import EncodeError, StemsplitError
from stemsplit.files.scratch import shown
from stemsplit.output import template as naming
from stemsplit.separation.separator import FittedMethod, Method, Samples, Separator
from stemsplit.separation.stream import separate_blocks
from stemsplit.zoo.loading import chosen, load_method


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


def split_file(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str] = "stems",
    *,
    separator: Method | None = None,
    template: str | None = None,
    format: str = "wav",
    outputs: Mapping[str, Path] | None = None,
    depth: str = "same",
    bitrate: str | None = None,
    gain_db: float = 0.0,
    start_seconds: float = 0.0,
    duration_seconds: float | None = None,
    audio_track: int | str | None = None,
    downmix: bool = False,
    force: bool = False,
    progress: Callable[[int, int | None], None] | None = None,
    finished: Callable[[SplitResult, Mapping[Path, Path]], None] | None = None,
    **options: Any,
) -> SplitResult:
    """Split a sound file into `OUT/<track>/<stem>.<format>`, in memory that does not grow with its length.

    Stems have the file's sample rate, channels and exact length, and a complete set adds up to it. They
    appear all together, or not at all; as `OUT/<track>.stem.mp4`, in one file. `template` names them
    otherwise, as `naming.fill` has it; or `outputs` one by one, or some of them, instead of `out`, `template`
    and `format`. `gain_db` is the same for all of them. `audio_track` and `downmix`: see `Reader`.

    `progress` is called with the frames done and, where it is known, their total; `finished`, when all stems
    are complete, before they get their names, with the result and where each of them lies. Without a
    `separator`, `options` are those of `load_method`.

    Raises:
        DecodeError: the file cannot be read.
        EncodeError: a stem cannot be written, or is there already and `force` is not given.
        StemsplitError: whatever `load_separator` raises.
    """
    refuse_both(separator, options)
    began = time.monotonic()
    reader = Reader(
        path,
        start_seconds=start_seconds,
        duration_seconds=duration_seconds,
        track=audio_track,
        downmix=downmix,
    )
    method = separator or load_method(**options)
    there = method.stems if isinstance(method, FittedMethod) else method.spec.stems
    if outputs is None:
        names = naming.outputs(
            reader.path, chosen(there, options.get("stems"), "this model"), template, format
        )
        outputs = {stem: Path(out) / name for stem, name in names.items()}
    wanted = {stem: outputs[stem] for stem in there if stem in outputs}
    if len(wanted) < len(outputs):
        raise ValueError(f"outputs are for {', '.join(outputs)}, but stems are {', '.join(there)}")
    writers = plan_writers(reader, wanted, depth=depth, bitrate=bitrate, force=force)
    files = list(dict.fromkeys(writers.values()))
    separator = fit(method, reader)
    if isinstance(files[0], StemFile) and not separator.spec.complete:
        raise EncodeError("The stems of this model do not add up to the song", "choose another --format")
    done = 0

    def write(stems: Samples) -> None:
        nonlocal done
        if isinstance(files[0], StemFile):
            files[0].write_tracks(stems.sum(axis=0), stems)
        else:
            for name, stem in zip(separator.spec.stems, stems, strict=True):
                if name in writers:
                    writers[name].write(stem)
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
            peaks=_peaks(writers),
            elapsed_seconds=time.monotonic() - began,
            warnings=[*reader.warnings, *files[0].warnings, *_clipping(writers, gain_db)],
            how=separator.spec.how,
        )
        results.append(result)
        if finished:
            finished(result, {file.path: file.part for file in files})

    with together(files, complete):
        _separate(reader, separator, gain_db, write)
    return results[0]


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


def split_to_stream(
    reader: Reader | RawReader,
    stem: str,
    stream: BinaryIO,
    *,
    separator: Method,
    raw: Raw | None = None,
    depth: str = "same",
    gain_db: float = 0.0,
    progress: Callable[[int, int | None], None] | None = None,
) -> SplitResult:
    """Write one stem to a stream as it is made: plain samples if `raw` says of what kind, else a WAV file.

    Raises:
        DecodeError: the sound cannot be read.
        EncodeError: it has another sample rate or number of channels than `raw`.
        BrokenPipeError: nobody reads the stream any more.
    """
    began = time.monotonic()
    depth = reader.depth if depth == "same" else depth
    form = raw or Raw(reader.sample_rate, reader.channels, "f32" if depth == "32f" else f"s{depth}")
    if (form.sample_rate, form.channels) != (reader.sample_rate, reader.channels):
        same = Raw(reader.sample_rate, reader.channels, form.samples)
        raise EncodeError(
            f"`{shown(reader.path)}` has no samples of `{form}`", f"ask for them as --raw {same}"
        )
    outlet = Outlet(stream, form, wav=raw is None, frames=reader.frames)
    fitted = fit(separator, reader)
    place, done = fitted.spec.stems.index(stem), 0

    def write(stems: Samples) -> None:
        nonlocal done
        outlet.write(stems[place])
        done += stems.shape[-1]
        if progress:
            progress(done, reader.frames_estimate)

    _separate(reader, fitted, gain_db, write)
    outlet.finish()
    peaks = {stem: outlet.peak}
    warnings = list(reader.warnings)
    if form.depth != "32f":
        warnings += _too_loud(peaks, gain_db, "were clipped")
    return SplitResult(
        input=reader.path,
        outputs={},
        sample_rate=reader.sample_rate,
        channels=reader.channels,
        frames=done,
        peaks=peaks,
        elapsed_seconds=time.monotonic() - began,
        warnings=warnings,
        how=fitted.spec.how,
    )


def plan_writers(
    reader: Reader,
    outputs: Mapping[str, Path],
    *,
    depth: str = "same",
    bitrate: str | None = None,
    force: bool = False,
) -> dict[str, Writer]:
    """Return the writers of a track's stems, none of them open yet; refuse here what cannot be done.

    It is the same writer for all of them if they share a stem file.

    Raises:
        EncodeError: a stem cannot be held by the format, or would replace the track itself.
        OutputExists: a stem is there already, and `force` is not given.
    """
    for path in outputs.values():
        if os.path.exists(path) and path.samefile(reader.path):
            raise EncodeError(f"`{path}` would replace the track itself", "choose another folder with --out")
    shared = set(outputs.values())
    if len(shared) == 1 and (path := shared.pop()).name.endswith(SUFFIX):
        file = StemFile(
            path,
            list(outputs),
            sample_rate=reader.sample_rate,
            channels=reader.channels,
            bitrate=bitrate,
            tags_from=reader.path,
            force=force,
        )
        return dict.fromkeys(outputs, file)
    return {
        name: Writer(
            path,
            sample_rate=reader.sample_rate,
            channels=reader.channels,
            depth=depth_for(reader, path) if depth == "same" else depth,
            bitrate=bitrate,
            frames=reader.frames_estimate,
            tags_from=reader.path,
            title_suffix=name,
            force=force,
        )
        for name, path in outputs.items()
    }


def depth_for(reader: Reader, path: Path) -> str:
    """Return the depth for a file as deep as its track."""
    return "24" if (path.suffix.lower(), reader.depth) == (".flac", "32f") else reader.depth


def _peaks(writers: Mapping[str, Writer]) -> dict[str, float]:
    return {
        name: writer.peaks[name] if isinstance(writer, StemFile) else writer.peak
        for name, writer in writers.items()
    }


def _clipping(writers: Mapping[str, Writer], gain_db: float) -> list[str]:
    """Say which stems are louder than full scale, and what would help."""
    file = next(iter(writers.values()))
    if file.format == "wav" and not file.clips:  # floating point holds it, for whoever asked for that
        return []
    peaks = file.peaks if isinstance(file, StemFile) else _peaks(writers)
    return _too_loud(
        peaks, gain_db, "were clipped" if file.clips else "will be clipped where they are played"
    )


def _too_loud(peaks: Mapping[str, float], gain_db: float, what: str) -> list[str]:
    loud = {name: peak for name, peak in peaks.items() if peak > 1}
    if not loud:
        return []
    excess_db = math.ceil(200 * math.log10(max(loud.values()))) / 10
    return [
        f"{' and '.join(loud)} went up to {excess_db:.1f} dB above full scale and {what}; lower all stems "
        f"with --gain {gain_db - excess_db:.1f}, or keep them whole with --format wav --depth 32f"
    ]


def refuse_both(separator: Method | None, options: Mapping[str, Any]) -> None:
    """Raise TypeError for options beside a separator, which has been loaded with its own."""
    if separator is not None and options:
        raise TypeError(f"{', '.join(options)}: choose these when loading the separator")


def separate_stream(separator: Separator, blocks: Iterable[Samples], sample_rate: int) -> Iterator[Samples]:
    """Yield stems `(stem, channel, time)` of blocks `(channel, time)` at their own sample rate.

    Where the separator works at another rate, what resampling loses (all above half the lower rate) goes in
    equal parts to all stems of a complete set, so that they still add up, and exactly as long as the blocks.
    """
    inner = separator.spec.sample_rate
    if sample_rate == inner:
        yield from separate_blocks(separator, blocks)
        return

    blocks = iter(blocks)
    first = next(blocks, None)
    if first is None:
        return
    held = first[:, :0]

    def remember(block: Samples) -> Samples:
        nonlocal held
        held = np.concatenate([held, block], axis=-1)
        return block

    names, channels = len(separator.spec.stems), len(first)
    mixture = resample(map(remember, chain([first], blocks)), sample_rate, inner, channels)
    flat = (stems.reshape(names * channels, -1) for stems in separate_blocks(separator, mixture))
    for piece in chain(resample(flat, inner, sample_rate, names * channels), [None]):
        if piece is None:  # what rounding to whole samples left over
            piece = np.zeros((names * channels, held.shape[-1]), np.float32)
        piece = piece[:, : held.shape[-1]]
        stems = piece.reshape(names, channels, -1)
        original, held = held[:, : piece.shape[-1]], held[:, piece.shape[-1] :]
        if separator.spec.complete:
            stems = stems + (original - stems.sum(axis=0)) / names
        yield stems
