"""Beats, key, chords and sections of a recording, from its stems or from the mixture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stemsplit.analysis import harmony
from stemsplit.analysis.beats import Beats, find_beats
from stemsplit.analysis.chords import Chords, find_chords, labels
from stemsplit.analysis.frames import RATE, Onsets, Pitches
from stemsplit.analysis.key import MIXTURE_CHORD_WEIGHT, find_key
from stemsplit.analysis.labels import Label
from stemsplit.analysis.sections import find_sections
from stemsplit.audio.rates import RateConverter
from stemsplit.audio.reader import Block
from stemsplit.audio.stem_folder import MIXTURE, Passes, StemSet

DRUMS, BASS, VOICES = ("drums", "percussion"), ("bass",), ("vocals", "lead", "backing", "choir", "speech")
"""Prefixes of the names of such stems."""
STEP_SECONDS = 0.5
"""Interval between chords if there are no beats."""
BARS = (4, 3)
FEWEST_CHANGES = 8
LEAST_REGULAR = 0.5
"""Minimum regularity of chord changes to find bars, from 0 (any beat) to 1 (the same beat of each bar)."""


@dataclass(frozen=True, eq=False)
class Music:
    """The beats, key, chords and sections of a recording."""

    beats: Beats | None
    key: str | None
    """Such as `F# minor`."""
    key_confidence: float
    """Margin over the second best key, from 0 to 1."""
    chords: tuple[Label, ...]
    """Such as `F#m`, `G7`, or `N` for no chord."""
    sections: tuple[Label, ...]
    """`A`, `B` and so on; equal labels mean similar sections."""

    @property
    def bpm(self) -> float | None:
        """The mean tempo."""
        return self.beats.bpm if self.beats else None

    @property
    def tags(self) -> dict[str, str]:
        """Tempo and key as tag values: `128` or `97.5`, and `F#m`; missing values are left out."""
        found = {}
        if self.bpm is not None:
            found["bpm"] = f"{round(self.bpm, 1):g}"
        if self.key is not None:
            found["initialkey"] = self.key.replace(" minor", "m").replace(" major", "")
        return found


NO_MUSIC = Music(None, None, 0.0, (), ())


class MusicAnalyser:
    """Analyzes stems that arrive in blocks, in memory that hardly grows.

    Tempo and beats come from the drums, key and chords from everything but drums and voices, with the root
    from the bass. A single sound with another name, such as `mixture`, is used for everything: beats from
    drum-like onsets, key and chords from sustained pitches.
    """

    def __init__(self, names: Sequence[str], sample_rate: int) -> None:
        drums = [index for index, name in enumerate(names) if name.startswith(DRUMS)]
        voices = [index for index, name in enumerate(names) if name.startswith(VOICES)]
        bass = [index for index, name in enumerate(names) if name.startswith(BASS)]
        every = list(range(len(names)))
        pitched = [index for index in every if index not in (*drums, *voices)]
        rest = [index for index in pitched if index not in bass]
        pitched = pitched or [index for index in every if index not in drums] or every
        self._parts = {
            "drums": drums or [index for index in every if index not in voices] or every,
            "all": every,
            "bass": bass if bass and rest else pitched,
            "rest": rest or pitched,
        }
        self.sounds = len(names)
        self._rate, self._frames = sample_rate, 0
        converters = {tuple(part): RateConverter(sample_rate, RATE, 1) for part in self._parts.values()}
        self._converters = converters
        self._onsets = {"drums": Onsets(of_drums=not drums), "all": Onsets()}
        self._separate = self._parts["rest"] != self._parts["bass"]
        self._mixed = not drums and not self._separate
        self._pitches = {tuple(self._parts[name]): Pitches() for name in ("bass", "rest")}

    def add(self, sounds: Block) -> None:
        """Append a block `(sound, channel, time)`."""
        self._frames += sounds.shape[-1]
        self._take(sounds.mean(axis=1), last=False)

    def _take(self, sounds: Block, *, last: bool) -> None:
        converted = {
            part: converter.push(sounds[list(part)].sum(axis=0, keepdims=True), last=last)[0]
            for part, converter in self._converters.items()
        }
        for name, onsets in self._onsets.items():
            onsets.add(converted[tuple(self._parts[name])])
        for part, pitches in self._pitches.items():
            pitches.add(converted[part])

    def finish(self, *, sections: bool = True) -> Music:
        """Return the results, with or without sections, which take more memory."""
        self._take(np.zeros((self.sounds, 0), np.float32), last=True)
        seconds = self._frames / self._rate
        drums, every = (self._onsets[name].envelopes() for name in ("drums", "all"))
        beats = find_beats(drums, every)
        bounds = _bounds(beats, seconds)
        if len(bounds) < 2:
            return NO_MUSIC
        rest, bass = (
            harmony.semitones(self._pitches[tuple(self._parts[n])].spectra()) for n in ("rest", "bass")
        )
        if self._mixed:
            rest = bass = harmony.lasting(rest)
        chords = find_chords(rest, bass if self._separate else None, bounds)
        key, confidence = self._key(chords, rest, bounds)
        beats = _with_bars(beats, chords.names, len(bounds))
        music = Music(beats, key, confidence, labels(chords.names, bounds), ())
        if not sections:
            return music
        played = np.hstack(
            [chords.chroma, _levels(drums, bounds), _loudness(rest, bounds), _loudness(bass, bounds)]
        )
        starts, letters = find_sections(played)
        starts = _on_downbeats(starts, beats, len(bounds))
        edges = [*bounds[starts].tolist(), seconds]
        return replace(music, sections=tuple(map(Label, edges, edges[1:], letters)))

    def _key(
        self, chords: Chords, rest: NDArray[np.float64], bounds: NDArray[np.float64]
    ) -> tuple[str | None, float]:
        """Return the key and its confidence; for a mixture, bass counts more, and chords count less."""
        lengths = np.diff(bounds)
        if not self._mixed:
            return find_key(chords.chroma, chords.names, lengths)
        chroma = harmony.chroma(harmony.salience(harmony.during(rest, bounds)), harmony.ALL)
        return find_key(chroma, chords.names, lengths, chord_weight=MIXTURE_CHORD_WEIGHT)


def analyse_mixture(blocks: Iterable[Block], sample_rate: int, *, sections: bool = True) -> Music:
    """Analyze a recording in blocks `(channel, time)`, see `MusicAnalyser`."""
    analyser = MusicAnalyser([MIXTURE], sample_rate)
    for block in blocks:
        analyser.add(block[np.newaxis])
    return analyser.finish(sections=sections)


def analyse_stems(stems: StemSet, progress: Callable[[float], None] = lambda share: None) -> Music:
    """Analyze stems, or their mixture if there is one and no stem has drums.

    `progress` is called with the fraction that is done, from 0 to 1.

    Raises:
        DecodeError: a stem cannot be read.
    """
    passes = Passes(1, stems.frames, progress)
    mixture = stems.original()
    if mixture and not any(name.startswith(DRUMS) for name in stems.stems):
        passes = Passes(1, stems.frames * mixture.sample_rate / stems.sample_rate, progress)
        return analyse_mixture(passes.watch(mixture), mixture.sample_rate)
    analyser = MusicAnalyser(list(stems.stems), stems.sample_rate)
    for block in passes.watch(stems.blocks()):
        analyser.add(block)
    return analyser.finish()


def _bounds(beats: Beats | None, seconds: float) -> NDArray[np.float64]:
    """Return the start, the beats and the end of a recording, in seconds."""
    if not beats:
        return np.append(np.arange(0, seconds, STEP_SECONDS), seconds)
    times = beats.times_seconds
    inner = times[(times > 0) & (times < seconds)]
    return np.concatenate([[0.0], inner, [seconds]])


def _levels(onsets: NDArray[np.float64], bounds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the onset strength per beat `(beat, range)`, as features for sections."""
    edges = np.searchsorted(Onsets.seconds(np.arange(len(onsets), dtype=np.float64)), bounds)
    sums = np.concatenate([np.zeros((1, onsets.shape[1])), np.cumsum(onsets, axis=0)])
    means = (sums[edges[1:]] - sums[edges[:-1]]) / np.maximum(np.diff(edges), 1)[:, None]
    return _scaled(np.sqrt(means))


def _loudness(magnitudes: NDArray[np.float64], bounds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the pitched loudness per beat `(beat, 1)`, as a feature for sections."""
    during = harmony.during(magnitudes, bounds).sum(axis=1, keepdims=True)
    return _scaled(np.log1p(10 * during / max(float(during.max(initial=0)), 1e-9)))


def _scaled(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(0.5 * levels / np.maximum(levels.max(axis=0, initial=0), 1e-9), np.float64)


def _on_downbeats(starts: list[int], beats: Beats | None, bounds: int) -> list[int]:
    """Return section starts, moved to the nearest downbeats if bars are known; the first stays 0."""
    if not beats or not beats.beats_per_bar:
        return starts
    downbeats = bounds - 1 - len(beats.times_seconds) + np.flatnonzero(beats.downbeats)
    return [0, *(int(downbeats[np.abs(downbeats - start).argmin()]) for start in starts[1:])]


def _with_bars(beats: Beats | None, names: list[str], bounds: int) -> Beats | None:
    """Return beats with bars that begin at chord changes, if these are regular."""
    if beats is None:
        return None
    before = bounds - 1 - len(beats.times_seconds)  # the part before the first beat also has a chord
    changes = [index - before for index in range(1, len(names)) if names[index] != names[index - 1]]
    if len(changes) < FEWEST_CHANGES:
        return beats
    regular = {}
    for bar in BARS:
        counts = np.bincount(np.array(changes) % bar, minlength=bar)
        share = float(counts.max()) / len(changes)
        regular[bar] = ((share - 1 / bar) / (1 - 1 / bar), int(counts.argmax()))
    bar, (how, first) = max(regular.items(), key=lambda item: item[1])
    return replace(beats, beats_per_bar=bar, first_downbeat=first) if how >= LEAST_REGULAR else beats
