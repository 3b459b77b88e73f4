"""A practice track: a song that is split, mixed, stretched, transposed and looped, with clicks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from stemsplit.analysis import labels
from stemsplit.analysis.music import NO_MUSIC, Music, MusicAnalyser
from stemsplit.audio.loudness import Peaks
from stemsplit.audio.reader import Block, Reader, Signal
from stemsplit.errors import StemsplitError, UsageError
from stemsplit.files.claims import claim
from stemsplit.files.parts import refuse_to_replace
from stemsplit.options import Options
from stemsplit.practice import stretch
from stemsplit.practice.clicks import Metronome
from stemsplit.practice.grid import grid
from stemsplit.practice.groups import Group, groups
from stemsplit.practice.layout import layout, needed
from stemsplit.practice.options import PracticeOptions, parse_key
from stemsplit.practice.passes import Passes
from stemsplit.practice.timeline import Timeline
from stemsplit.remix.mixer import parse
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
class PracticeResult:
    """The outcome: facts about the song, and about the track made from it."""

    input: Path
    output: Path
    sample_rate: int
    channels: int
    frames: int
    loop: tuple[float, float]
    """Start and end in the song, in seconds."""
    tempi: list[float]
    """Tempo of each pass, relative to the song's."""
    semitones: float
    bpm: float | None
    """The song's tempo, if it was needed."""
    bpm_confidence: float
    key: str | None
    """The song's key, if it was detected."""
    key_confidence: float
    gain_db: float
    """Gain of the whole output, if it would exceed both full scale and the song's own peaks."""
    beats: Path | None
    warnings: list[str]


def practise(
    source: Path,
    wanted: PracticeOptions,
    out: Path,
    options: Options = DEFAULT_OPTIONS,
    *,
    progress: Callable[[float], None] = lambda share: None,
) -> PracticeResult:
    """Write a practice track of a song, which is split with `options`, or of a folder with its stems.

    Memory does not grow with the song's length: its sound is kept in temporary files. `progress` is called
    with the fraction of the work done. Of `options.output`, only `depth`, `bitrate` and `force` are used.

    Raises:
        DecodeError, EncodeError: a file cannot be read or written.
        UsageError: the options do not suit the song.
        StemsplitError: no beats or key were found, or an error from loading the model.
    """
    _check(source, wanted, out, options)
    options, start = needed(source, wanted, options)
    song = open_song(source, options)
    reader = song.reader
    chosen = groups(parse(wanted.mix, song.stems), song.stems, reader.sample_rate)
    signal = Signal(reader.sample_rate, reader.channels)
    # This first writer raises errors early that the one below would raise after all the work.
    writer_of(song, out, signal, options.output, "practice")
    steps = _Steps(progress, split=not source.is_dir())
    with claim([out]), temporary_file(out) as mixed, temporary_file(out) as rendered:
        kept = Store(mixed, len(chosen) * reader.channels)
        before, music = _keep(song, chosen, kept, wanted, steps.first)
        seconds = kept.frames / reader.sample_rate
        beats = grid(wanted, music.beats, start, seconds) if wanted.needs_beats else None
        semitones = _semitones(wanted, music)
        plan = layout(source, wanted, kept, reader.sample_rate, start, beats)
        passes = Passes(plan, reader.sample_rate, Store(rendered, reader.channels))
        for done in passes.render(kept, chosen, semitones):
            steps.second(done / passes.frames)
        track = partial(_with_clicks, passes, plan, wanted, reader.sample_rate)
        gain = limiting_gain(before, _peaks(track(), reader))
        signal = replace(signal, frames=plan.frames)
        writer = writer_of(song, out, signal, options.output, "practice")
        slower = any(each.rate != 1 for each in plan.passes)
        writer.untrue_tags = ["bpm"] * slower + ["initialkey"] * (semitones != 0)
        write(writer, track(), gain, lambda frames: steps.third(frames / plan.frames))
    if wanted.beats:
        _write_beats(wanted.beats, plan, reader.sample_rate, force=options.output.force)
    first, stop = (start + frame / reader.sample_rate for frame in plan.loop)
    return PracticeResult(
        input=source,
        output=out,
        sample_rate=writer.sample_rate,
        channels=reader.channels,
        frames=writer.frames_written,
        loop=(first, stop),
        tempi=[each.rate for each in plan.passes],
        semitones=semitones,
        bpm=beats.bpm if beats else None,
        bpm_confidence=beats.confidence if beats else 0.0,
        key=music.key if wanted.detects_key else None,
        key_confidence=music.key_confidence if wanted.detects_key else 0.0,
        gain_db=20 * math.log10(gain),
        beats=wanted.beats,
        warnings=[*dict.fromkeys(reader.warnings), *writer.warnings],
    )


def _check(source: Path, wanted: PracticeOptions, out: Path, options: Options) -> None:
    """Raise errors early that do not depend on the song."""
    if wanted == PracticeOptions(click_sound=wanted.click_sound, click_db=wanted.click_db):
        raise UsageError("Nothing is to be changed", "choose a change: `stemsplit help practice` lists them")
    check_output(source, out)
    if wanted.beats:
        refuse_to_replace(wanted.beats, force=options.output.force)
    if wanted.stretches:
        stretch.check()


class _Steps:
    """The progress of keeping the stems, rendering them, and writing the result."""

    def __init__(self, progress: Callable[[float], None], *, split: bool) -> None:
        ends = (0.0, 0.8, 0.95, 1.0) if split else (0.0, 0.2, 0.8, 1.0)
        self.first, self.second, self.third = (
            partial(self._move, progress, begin, end) for begin, end in itertools.pairwise(ends)
        )

    @staticmethod
    def _move(progress: Callable[[float], None], begin: float, end: float, share: float) -> None:
        progress(begin + (end - begin) * min(1.0, share))


def _semitones(wanted: PracticeOptions, music: Music) -> float:
    """Return the transposition. Raises StemsplitError if the song's key is needed but was not found."""
    if wanted.key is None:
        return wanted.semitones
    if wanted.from_key:
        return wanted.from_key.semitones_to(wanted.key)
    if music.key is None:
        raise StemsplitError("No key was found", "give the key of the song with --from-key")
    return parse_key(music.key).semitones_to(wanted.key)


def _keep(
    song: Song,
    chosen: Sequence[Group],
    kept: Store,
    wanted: PracticeOptions,
    progress: Callable[[float], None],
) -> tuple[Peaks, Music]:
    """Mix the stems of each group and keep them; return the song's peaks, and its beats and key if needed."""
    reader = song.reader
    peaks = Peaks(reader.sample_rate, reader.channels)
    analyser = None
    if wanted.tracks_beats or wanted.detects_key:
        analyser = MusicAnalyser(song.stems, reader.sample_rate)
    for stems in song.blocks():
        peaks.add(stems.sum(axis=0))
        if analyser:
            analyser.add(stems)
        kept.append(np.concatenate([group.mixer.mix(stems) for group in chosen]))
        progress(kept.frames / (reader.frames_estimate or kept.frames))
    peaks.finish()
    return peaks, analyser.finish(sections=False) if analyser else NO_MUSIC


def _peaks(blocks: Iterable[Block], reader: Reader) -> Peaks:
    peaks = Peaks(reader.sample_rate, reader.channels)
    for block in blocks:
        peaks.add(block)
    peaks.finish()
    return peaks


def _with_clicks(
    passes: Passes, plan: Timeline, wanted: PracticeOptions, sample_rate: int
) -> Iterator[Block]:
    clicks = [click for click in plan.clicks if wanted.click or click.counts_in]
    metronome = Metronome(clicks, wanted.click_sound, wanted.click_db, sample_rate)
    position = 0
    for block in passes.blocks():
        yield metronome.added(block, position)
        position += block.shape[1]


def _write_beats(path: Path, plan: Timeline, sample_rate: int, *, force: bool) -> None:
    """Write the beats of the output as Audacity labels."""
    found = []
    for click in plan.clicks:
        seconds, text = click.frame / sample_rate, str(click.number or "beat")
        found.append(labels.Label(seconds, seconds, f"count {text}" if click.counts_in else text))
    labels.write(path, found, force=force)
