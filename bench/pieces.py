"""Pieces with known tempo, beats, key, chords and sections: MIDI, rendered stem by stem with fluidsynth.

There are twelve styles. The seed determines tempo, key, chord progressions, instruments and how loosely the
band plays.
"""

from __future__ import annotations

import functools
import random
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pretty_midi
import soundfile

from stemsplit.audio.reader import Reader

SAMPLE_RATE = 44_100
TAIL_SECONDS = 1.5
NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
INTERVALS = {"": (0, 4, 7), "m": (0, 3, 7), "7": (0, 4, 7, 10), "maj7": (0, 4, 7, 11), "m7": (0, 3, 7, 10)}
CLASSES = {"": "", "maj7": "", "m": "m", "m7": "m", "7": "7"}
"""Class of each chord quality: major, minor or seventh."""
KICK, SNARE, STICK, HAT, OPEN, RIDE, CRASH, PEDAL, TOM = 36, 38, 37, 42, 46, 51, 49, 44, 45

# A chord is a root in semitones above the tonic and a quality. Each word is a bar; commas divide a bar.
MAJOR = (
    "0 7 9m 5",
    "9m 5 0 7",
    "0 9m 5 7",
    "0 5 7 5",
    "0 5 0 7 9m 5 7 0",
    "0 4m 5 7",
    "0 2m 5 7",
    "0 10 5 0",
    "5 7 4m 9m 5 7 0 0",
)
MINOR = (
    "0m 8 3 10",
    "0m 5m 7 0m",
    "0m 10 8 7",
    "0m 5m 10 3 8 5m 7 0m",
    "0m 8 10 0m",
    "0m 3 10 5m",
    "0m 7m 8 10",
)
JAZZ = (
    "2m7 77 0maj7 97",
    "0maj7 9m7 2m7 77",
    "2m7,77 0maj7 5m7,107 3maj7",
    "4m7 97 2m7 77 0maj7 57 0maj7 0maj7",
)
JAZZ_MINOR = ("0m7 5m7 27 77", "5m7 107 3maj7 8maj7 27 77 0m7 0m7")
BLUES = ("07 07 07 07 57 57 07 07 77 57 07 77",)
BLUES_MINOR = ("0m 0m 0m 0m 5m 5m 0m 0m 8 77 0m 0m",)
DOO_WOP = ("0 9m 5 77", "0 9m 2m 77", "0 07 5 5m 0 77 0 0")


@dataclass(frozen=True)
class Style:
    """How a band plays; `swing` is the position in a beat where its second half starts, from 0 to 1."""

    name: str
    bpm: tuple[int, int]
    drums: dict[int, str]
    """One line per drum; one character per half, third or quarter of a beat: `x` loud, `o` soft, `.` rest."""
    bass: str
    """Per half or third of a beat: `r` root, `5` fifth, `o` octave, `3` third, `-` hold, `.` rest."""
    comp: str
    """Per half or third of a beat: `x` strike, `-` hold, `.` rest."""
    programs: tuple[int, int, int]
    """General MIDI programs of bass, chords and melody."""
    major: tuple[str, ...] = MAJOR
    minor: tuple[str, ...] = MINOR
    beats: int = 4
    swing: float = 0.5


STYLES = (
    Style(
        "pop",
        (96, 132),
        {KICK: "x...x.x.", SNARE: "..x...x.", HAT: "xoxoxoxo"},
        "rrrrrrrr",
        "x---x-x-",
        (33, 27, 80),
    ),
    Style(
        "ballad",
        (60, 76),
        {KICK: "x.......x..x....", SNARE: "....x.......x...", HAT: "x.o.x.o.x.o.x.o."},
        "r---r-5-",
        "x-x-x-x-",
        (35, 0, 73),
    ),
    Style(
        "house",
        (120, 128),
        {KICK: "x.x.x.x.", SNARE: "..x...x.", OPEN: ".x.x.x.x"},
        ".r.r.r.o",
        "x..x..x.",
        (38, 89, 81),
        minor=MINOR,
    ),
    Style(
        "hip-hop",
        (84, 96),
        {KICK: "x......x..x.....", SNARE: "....x.......x...", HAT: "x.x.x.x.x.x.xox."},
        "r--r--.r",
        "x-------",
        (38, 4, 11),
    ),
    Style(
        "drum and bass",
        (168, 176),
        {KICK: "x........x......", SNARE: "..x...x.", HAT: "xxxxxxxx"},
        "r-------",
        "x-------",
        (39, 50, 62),
    ),
    Style(
        "jazz",
        (120, 184),
        {RIDE: "x.xox.xo", PEDAL: "..x...x.", KICK: "o.o.o.o.", SNARE: ".....o.."},
        "r.3.5.3.",
        "x..x....",
        (32, 0, 66),
        JAZZ,
        JAZZ_MINOR,
        swing=0.66,
    ),
    Style(
        "shuffle",
        (92, 126),
        {KICK: "x...x...", SNARE: "..x...x.", HAT: "xoxoxoxo"},
        "r353.5o5",
        "x.x.x.x.",
        (33, 26, 65),
        BLUES,
        BLUES_MINOR,
        swing=0.66,
    ),
    Style(
        "bossa nova",
        (116, 140),
        {KICK: "x..xx..x", STICK: "x..x..x.", HAT: "oooooooo"},
        "r--55--r",
        "x..x.x..",
        (32, 24, 73),
        JAZZ,
        JAZZ_MINOR,
    ),
    Style(
        "reggae",
        (70, 84),
        {KICK: "....x...", STICK: "....x...", HAT: "x.xox.xo"},
        "r.r5..r.",
        "..x...x.",
        (33, 16, 22),
    ),
    Style(
        "waltz",
        (96, 150),
        {KICK: "x.....", STICK: "..x.x.", HAT: "x.o.o."},
        "r-----",
        "..x.x.",
        (32, 21, 40),
        beats=3,
    ),
    Style(
        "funk",
        (98, 112),
        {KICK: "x..x......x.x...", SNARE: "....x..o.o..x..o", HAT: "xoxoxoxoxoxoxoxo"},
        "r.ro..5r",
        "..x..x..",
        (36, 28, 56),
        ("07 07 57 07", "0 10 5 0", "2m7 77"),
        ("0m7 57", "0m7 0m7 5m7 77"),
    ),
    Style(
        "slow twelve-eight",
        (58, 70),
        {KICK: "x.....", SNARE: "...x..", HAT: "xxxxxx"},
        "r--5--",
        "xxxxxx",
        (32, 0, 52),
        DOO_WOP,
        MINOR,
        beats=2,
    ),
)


@dataclass(frozen=True)
class Piece:
    """The stems of a piece, `(time,)` by name, and its ground truth."""

    name: str
    stems: dict[str, np.ndarray]
    bpm: float
    beats: np.ndarray
    key: str
    chords: list[tuple[float, float, str]]
    """Start and end in seconds, and a name such as `F#m`, `G7`, or `N` for none."""
    sections: list[float]
    """The times when the chord progression changes to another one, in seconds."""


def write(style: Style, seed: int, folder: Path, soundfont: Path) -> Piece:
    """Write and render a piece."""
    rng = random.Random(f"{style.name} {seed}")
    bpm = float(rng.randint(*style.bpm))
    tonic, minor = rng.randrange(12), rng.random() < 0.45
    bars, marks = _form(style, rng, minor)
    count = len(bars) * style.beats
    beats = 0.5 + np.concatenate([[0], np.cumsum(60 / (bpm * _drift(count, rng)))])
    band = _Band(style, rng, beats)
    chords: list[tuple[float, float, str]] = [(0.0, float(beats[0]), "N")]
    for bar, harmony in enumerate(bars):
        band.bar(bar, tonic, harmony)
        share = style.beats // max(1, len(harmony))
        starts = [bar * style.beats + share * index for index in range(len(harmony))] or [bar * style.beats]
        ends = [*starts[1:], (bar + 1) * style.beats]
        names = [f"{NAMES[(tonic + degree) % 12]}{CLASSES[kind]}" for degree, kind in harmony] or ["N"]
        chords += [
            (float(beats[a]), float(beats[b]), name) for a, b, name in zip(starts, ends, names, strict=True)
        ]
    end = beats[-1] + TAIL_SECONDS
    stems = {name: _render(track, end, folder, soundfont) for name, track in band.tracks().items()}
    sections = [float(beats[bar * style.beats]) for bar in marks]
    key = f"{NAMES[tonic]} {'minor' if minor else 'major'}"
    return Piece(
        f"{style.name} {seed}", stems, 60 / float(np.median(np.diff(beats))), beats, key, chords, sections
    )


def _form(style: Style, rng: random.Random, minor: bool) -> tuple[list[list[tuple[int, str]]], list[int]]:
    """Return the chords of each bar, and the first bars of sections.

    Two bars of drums, then alternating verse and chorus for about 50 s, then the tonic.
    """
    pool = style.minor if minor else style.major
    sections = [_progression(rng.choice(pool)) for _ in range(2)]
    wanted = 48 / (60 / sum(style.bpm) * 2 * style.beats)
    bars: list[list[tuple[int, str]]] = [[], []]
    marks = []
    for number in range(99):
        section = sections[number % 2]
        if len(bars) >= wanted:
            break
        if number == 0 or section != sections[1 - number % 2]:
            marks.append(len(bars))
        bars += section * max(1, 8 // len(section))
    return [*bars, [(0, "m" if minor else "")]], marks


def _progression(text: str) -> list[list[tuple[int, str]]]:
    found = []
    for bar in text.split():
        harmony = []
        for word in bar.split(","):
            # `77` is the seventh chord on the fifth, `107` the seventh chord on the minor seventh.
            digits = len(word) - len(word.lstrip("0123456789"))
            seventh = word[:digits] not in ("0", "1", "2", "3", "4", "5", "7", "8", "9", "10", "11")
            cut = digits - 1 if seventh and digits > 1 else digits
            harmony.append((int(word[:cut]), word[cut:]))
        found.append(harmony)
    return found


def _drift(count: int, rng: random.Random) -> np.ndarray:
    """Return the relative tempo of each beat: constant, or drifting by up to 4 %, as bands do."""
    if rng.random() < 0.6:
        return np.ones(count)
    knots = [1 + rng.uniform(-0.04, 0.04) for _ in range(5)]
    return np.interp(np.linspace(0, 4, count), range(5), knots)


class _Band:
    """Writes the notes of each bar."""

    def __init__(self, style: Style, rng: random.Random, beats: np.ndarray) -> None:
        self._style, self._rng, self._beats = style, rng, beats
        self._loose = rng.choice([0.003, 0.008, 0.015])
        shift = rng.choice([0, 0, 1])
        bass, chords, melody = style.programs
        self._drums = pretty_midi.Instrument(0, is_drum=True)
        self._bass = pretty_midi.Instrument(bass)
        self._chords = pretty_midi.Instrument(max(0, chords + shift))
        self._melody = pretty_midi.Instrument(melody)

    def tracks(self) -> dict[str, list[pretty_midi.Instrument]]:
        """Return the instruments of each stem."""
        return {"drums": [self._drums], "bass": [self._bass], "other": [self._chords, self._melody]}

    def bar(self, bar: int, tonic: int, harmony: list[tuple[int, str]]) -> None:
        """Write one bar."""
        first, beats = bar * self._style.beats, self._style.beats
        fill = bar % 8 == 7
        for drum, line in self._style.drums.items():
            for step, mark in enumerate(line):
                if mark != "." and not (fill and drum in (HAT, RIDE) and step > 0.75 * len(line)):
                    self._note(
                        self._drums, drum, first + step * beats / len(line), 0.1, 104 if mark == "x" else 62
                    )
        if bar % 8 == 0:
            self._note(self._drums, CRASH, first, 1, 90)
        if fill:
            for step in range(4):
                self._note(self._drums, TOM - step % 3, first + beats - 1 + step / 4, 0.1, 90)
        for index, (degree, kind) in enumerate(harmony):
            share = beats / len(harmony)
            self._chord(first + index * share, share, tonic + degree, INTERVALS[kind])

    def _chord(self, first: float, share: float, root: int, intervals: tuple[int, ...]) -> None:
        beats, rng = self._style.beats, self._rng
        halves = len(self._style.bass) / beats
        low = 28 + (root - 4) % 12
        offsets = {"r": 0, "5": 7, "o": 12, "3": intervals[1]}
        for step, held, mark in _runs(self._style.bass[: round(share * halves)]):
            self._note(self._bass, low + offsets[mark], first + step / halves, 0.92 * held / halves, 96)
        notes = [52 + (root + interval - 52) % 12 for interval in intervals]
        halves = len(self._style.comp) / beats
        for step, held, _ in _runs(self._style.comp[: round(share * halves)]):
            for note in notes:
                self._note(self._chords, note, first + step / halves, 0.9 * held / halves, 78)
        scale = sorted({(root + interval) % 12 for interval in intervals})
        when = 0.0
        while when < share - 0.01:
            length = min(rng.choice([0.5, 0.5, 1.0, 1.5]), share - when)
            if rng.random() < 0.6:
                # A chord tone on the beat; off the beat, often a note next to one.
                note = 72 + rng.choice(scale) + (0 if when % 1 == 0 else rng.choice([0, 0, 2, -1]))
                self._note(self._melody, note, first + when, 0.9 * length, 84)
            when += length

    def _note(self, to: pretty_midi.Instrument, pitch: int, beat: float, length: float, loud: int) -> None:
        start, end = self._time(beat), self._time(beat + length)
        start = max(0.0, start + self._rng.gauss(0, self._loose))
        velocity = min(127, max(20, loud + self._rng.randint(-8, 8)))
        to.notes.append(pretty_midi.Note(velocity, pitch, start, max(start + 0.05, end)))

    def _time(self, beat: float) -> float:
        whole = int(beat)
        part, swing = beat - whole, self._style.swing
        part = part * 2 * swing if part < 0.5 else swing + (part - 0.5) * 2 * (1 - swing)
        return float(np.interp(whole + part, range(len(self._beats)), self._beats)) + max(
            0.0, whole + part - len(self._beats) + 1
        )


def _runs(line: str) -> list[tuple[int, int, str]]:
    """Return the start, the length and the character of each note of a line."""
    found = []
    for step, mark in enumerate(line):
        if mark not in "-.":
            held = len(line[step + 1 :]) - len(line[step + 1 :].lstrip("-"))
            found.append((step, 1 + held, mark))
    return found


def _render(track: list[pretty_midi.Instrument], seconds: float, folder: Path, soundfont: Path) -> np.ndarray:
    midi = pretty_midi.PrettyMIDI(resolution=960, initial_tempo=120)
    midi.instruments.extend(track)
    score, sound = folder / "track.mid", folder / "track.wav"
    midi.write(str(score))
    command = ["fluidsynth", "-ni", "-q", "-g", "0.5", "-r", str(SAMPLE_RATE), "-O", "float", "-T", "wav"]
    subprocess.run([*command, "-F", sound, soundfont, score], check=True, capture_output=True)
    samples = soundfile.read(sound, dtype="float32")[0].mean(axis=1)
    frames = round(seconds * SAMPLE_RATE)
    return np.pad(samples, (0, max(0, frames - len(samples))))[:frames]


def vocals(data: Path, frames: int, seed: int) -> np.ndarray:
    """Return concatenated vocals `(time,)` of other songs, in their own keys and tempos."""
    return np.resize(_vocals(data, seed), frames)


@functools.cache
def _vocals(data: Path, seed: int) -> np.ndarray:
    paths = sorted(data.glob("*/vocals.*"))
    random.Random(seed).shuffle(paths)
    readers = [reader for reader in map(Reader, paths) if reader.sample_rate == SAMPLE_RATE]
    return np.concatenate([block.mean(axis=0) for reader in readers for block in reader])
