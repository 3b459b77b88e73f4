"""The options of a practice track, and parsers for their texts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from stemsplit.errors import UsageError

TEMPO_RANGE = (0.25, 3.0)
"""Relative to the original tempo."""
MOST_SEMITONES = 12.0
USUAL_TIMES = 4
"""Default number of passes of a loop."""
CLICK_DB = -9.0
_NUMBER = r"\d+(?:\.\d+)?"
_NOTES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_TEMPO_HINT = "write `80%` of the song's tempo, or `96bpm`"
_KEY_HINT = "write semitones such as -2, or a key such as `Am`, `F#` or `Eb minor`"
_LOOP_HINT = "write where it starts and ends, in minutes and seconds: `1:02-1:30`"


@dataclass(frozen=True)
class Key:
    """A key: the pitch class of its tonic, C being 0, and its mode."""

    tonic: int
    minor: bool

    @property
    def _signature(self) -> int:
        """The tonic of the major key with the same notes."""
        return (self.tonic + 3 * self.minor) % 12

    def semitones_to(self, other: Key) -> int:
        """Return the smallest shift to the notes of another key, from -5 to 6; A minor counts as C major."""
        return (other._signature - self._signature + 5) % 12 - 5


@dataclass(frozen=True)
class PracticeOptions:
    """The changes to make to a song.

    Raises:
        UsageError: options contradict each other.
    """

    mix: str = ""
    """The levels of stems, see `mixer.parse`."""
    tempo: float | None = None
    """Relative to the song's tempo."""
    tempo_bpm: float | None = None
    """In beats per minute, instead of `tempo`."""
    semitones: float = 0.0
    key: Key | None = None
    """Key to transpose to, instead of `semitones`."""
    from_key: Key | None = None
    """The song's key. Default: it is detected."""
    loop: tuple[float, float | None] | None = None
    """Start and end in seconds; None is the end of the song."""
    times: int | None = None
    snap: bool = False
    ramp: tuple[float, float] | None = None
    """Tempo factors of the first and the last pass."""
    click: bool = False
    """Whether the metronome plays during the music."""
    click_sound: str = "beep"
    """Sound of the metronome and the count-in, see `clicks.SOUNDS`."""
    click_db: float = CLICK_DB
    """Peak of the clicks, relative to full scale."""
    count_in: int = 0
    """In bars."""
    bpm: float | None = None
    """The song's tempo. Default: it is detected."""
    first_beat: float | None = None
    """Time in seconds of a beat of the song that begins a bar."""
    meter: int | None = None
    """Beats per bar."""
    beats: Path | None = None
    """The file to write the beats of the output to, as Audacity labels."""

    def __post_init__(self) -> None:
        if self.first_beat is not None and self.bpm is None:
            raise UsageError("--first-beat needs a tempo", "give --bpm, too")
        if self.snap and self.loop is None:
            raise UsageError("--snap is for a loop", "give --loop, too")

    @property
    def needs_beats(self) -> bool:
        """Whether the song's beats are needed."""
        return any((self.click, self.count_in, self.tempo_bpm, self.beats, self.snap))

    @property
    def tracks_beats(self) -> bool:
        """Whether the beats must be tracked in the song."""
        return self.needs_beats and (self.bpm is None or self.first_beat is None)

    @property
    def detects_key(self) -> bool:
        """Whether the song's key must be found."""
        return self.key is not None and self.from_key is None

    @property
    def stretches(self) -> bool:
        """Whether the tempo or the key may change."""
        return self.tempo not in (None, 1.0) or any((self.tempo_bpm, self.ramp, self.semitones, self.key))

    @property
    def passes(self) -> int:
        """How many times the loop, or the song, is played."""
        if self.times is not None:
            return self.times
        return 1 if self.loop is None and self.ramp is None else USUAL_TIMES


def checked_rate(rate: float) -> float:
    """Return a rate. Raises UsageError if it is too slow or too fast."""
    if not TEMPO_RANGE[0] <= rate <= TEMPO_RANGE[1]:
        slowest, fastest = (f"{100 * share:g}%" for share in TEMPO_RANGE)
        raise UsageError(
            f"A tempo of {100 * rate:.4g}% is out of range", f"the range is {slowest} to {fastest}"
        )
    return rate


def parse_tempo(text: str) -> tuple[float | None, float | None]:
    """Return a tempo relative to the song's, or in beats per minute; the other one is None."""
    match = re.fullmatch(rf"({_NUMBER})\s*(%|bpm)", text.strip().lower())
    if not match:
        raise UsageError(f"`{text}` is not a tempo", _TEMPO_HINT)
    if match[2] == "%":
        return checked_rate(float(match[1]) / 100), None
    if not float(match[1]):
        raise UsageError("A tempo of 0 bpm is out of range", _TEMPO_HINT)
    return None, float(match[1])


def parse_ramp(text: str) -> tuple[float, float]:
    """Return the first and the last tempo factor, from `70%-100%`."""
    match = re.fullmatch(rf"({_NUMBER})\s*%?\s*-\s*({_NUMBER})\s*%", text.strip())
    if not match:
        raise UsageError(f"`{text}` is not a ramp", "write the first and the last tempo, as in `70%-100%`")
    return checked_rate(float(match[1]) / 100), checked_rate(float(match[2]) / 100)


def parse_shift(text: str) -> tuple[float, Key | None]:
    """Return semitones, or a key to transpose to, from `-2` or `Am`."""
    if re.fullmatch(rf"[+-]?{_NUMBER}", text.strip()):
        semitones = float(text)
        if abs(semitones) > MOST_SEMITONES:
            raise UsageError(
                f"{semitones:g} semitones are out of range", f"transpose by {MOST_SEMITONES:g} at most"
            )
        return semitones, None
    return 0.0, parse_key(text)


def parse_key(text: str) -> Key:
    """Return a key, such as `Am`, `F#`, `Bb major` or `c# minor`."""
    match = re.fullmatch(r"([A-Ga-g])([#♯b♭]?)\s*(|m|min|minor|maj|major)", text.strip())
    if not match:
        raise UsageError(f"`{text}` is not a key", _KEY_HINT)
    shift = {"": 0, "#": 1, "♯": 1}.get(match[2], -1)
    return Key((_NOTES[match[1].upper()] + shift) % 12, match[3].startswith("mi") or match[3] == "m")


def parse_loop(text: str) -> tuple[float, float | None]:
    """Return the start and the end in seconds, from `1:02-1:30.5`, `62-90` or `1:02-` (to the end)."""
    start, dash, stop = text.replace("\N{EN DASH}", "-").partition("-")
    if not dash:
        raise UsageError(f"`{text}` is not a loop", _LOOP_HINT)
    first, last = _seconds(start, text), _seconds(stop, text) if stop.strip() else None
    if last is not None and last <= first:
        raise UsageError(f"The loop `{text}` ends before it starts", _LOOP_HINT)
    return first, last


def _seconds(text: str, whole: str) -> float:
    match = re.fullmatch(rf"(?:(?:(\d+):)?(\d+):)?({_NUMBER})", text.strip())
    if not match:
        raise UsageError(f"`{whole}` is not a loop", _LOOP_HINT)
    return 3600 * int(match[1] or 0) + 60 * int(match[2] or 0) + float(match[3])


def clock(seconds: float) -> str:
    """Return a time as `1:02.500`, as loops are written."""
    minutes, rest = divmod(round(1000 * seconds), 60_000)
    return f"{minutes}:{rest // 1000:02}.{rest % 1000:03}"
