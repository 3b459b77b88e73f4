"""Songs with known stems, for training and evaluation.

A data folder has the layout SPLIT/SONG/STEM.EXT, with one audio file per stem; songs can be at any depth,
e.g. SPLIT/ALBUM/SONG. Hidden folders, and files that are not audio files, are ignored. A stem without a file
is silent. A file with several stems is named after all of them (`other_and_bass.ogg`): it is part of the
mixture, but these stems are unknown. Files with other names are also part of the mixture. A file called
`mixture` is ignored, because it is assumed to be the sum.

`musdb18:DIR` is MUSDB18 as distributed: `DIR/{train,test}/SONG.stem.mp4`, or for MUSDB18-HQ one folder per
song with one WAV file per stem. Its validation songs are in the `train` folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from stemsplit.audio.formats import SUFFIXES
from stemsplit.audio.reader import Reader, resample
from stemsplit.errors import DecodeError, UnknownStem
from stemsplit.missing import no_stem
from stemsplit.separation.separator import Samples

CHANNELS = 2
MUSDB18 = "musdb18:"
"""Prefix of a data folder in the layout of MUSDB18."""
MUSDB18_TRACKS = ("mixture", "drums", "bass", "other", "vocals")
"""The content of the audio tracks of a `.stem.mp4`."""
MUSDB18_STEMS = ("vocals", "drums", "bass", "other")
MUSDB18_FOLDERS = {"train": "train", "valid": "train", "test": "test"}
MUSDB18_VALID = frozenset(
    {
        "ANiMAL - Rockshow",
        "Actions - One Minute Smile",
        "Alexander Ross - Goodbye Bolero",
        "Clara Berry And Wooldog - Waltz For My Victims",
        "Fergessen - Nos Palpitants",
        "James May - On The Line",
        "Johnny Lokke - Promises & Lies",
        "Leaf - Summerghost",
        "Meaxic - Take A Step",
        "Patrick Talbot - A Reason To Leave",
        "Skelpolu - Human Mistakes",
        "Traffic Experiment - Sirens",
        "Triviul - Angelsaint",
        "Young Griffo - Pennies",
    }
)
"""The songs of the training folder that are used for validation in publications."""


@dataclass(frozen=True)
class Song:
    """A song: `parts` `(stem + 1, channel, time)`; the last part is the residual.

    `known[i]` is False if stem i is part of the residual. `data` is the index of the song's data folder.
    """

    name: str
    parts: Samples
    known: tuple[bool, ...]
    data: int = 0

    @property
    def length(self) -> int:
        """Number of samples in time."""
        return int(self.parts.shape[-1])

    @property
    def mixture(self) -> Samples:
        """The sum of all parts, `(channel, time)`."""
        mixture: Samples = self.parts.sum(axis=0)
        return mixture

    def with_width(self, width: float) -> Song:
        """Return the song with the side signal of all parts scaled by a factor; 0 makes it mono."""
        if width == 1:
            return self
        mid = self.parts.mean(axis=1, keepdims=True)
        return replace(self, parts=mid + np.float32(width) * (self.parts - mid))


@dataclass(frozen=True)
class Sound:
    """One audio track of a file, and the names of its content: one stem, or several mixed ones."""

    path: Path
    holds: tuple[str, ...]
    track: int = 0

    def decode(self, sample_rate: int) -> Samples:
        """Return the decoded samples `(channel, time)`, mono or stereo."""
        reader = Reader(self.path, track=self.track)
        blocks = list(resample(reader, reader.sample_rate, sample_rate, reader.channels))
        return np.concatenate(blocks, axis=-1)


@dataclass(frozen=True)
class SongSource:
    """The files of a song, which are opened and decoded only when needed."""

    name: str
    stems: tuple[str, ...]
    sounds: tuple[Sound, ...]
    data: int = 0
    """The index of the song's data folder."""

    @property
    def known(self) -> tuple[bool, ...]:
        """For each stem, whether it is separate from all other stems."""
        together = {name for sound in self.sounds if len(sound.holds) > 1 for name in sound.holds}
        return tuple(name not in together for name in self.stems)

    @property
    def state(self) -> tuple[object, ...]:
        """Everything that the decoded samples depend on (stems, files, sizes, times), for cache keys."""
        facts = [(sound, sound.path.stat()) for sound in self.sounds]
        files = [(str(s.path), s.track, s.holds, stat.st_size, stat.st_mtime_ns) for s, stat in facts]
        return self.stems, tuple(files)

    def part(self, row: int, sample_rate: int) -> Samples:
        """Return one of `Song.parts`, `(channel, time)`, as long as its longest file; empty without files.

        Raises:
            DecodeError: a file cannot be decoded.
        """
        part = np.zeros((CHANNELS, 0), np.float32)
        for sound in self.sounds:
            if self._row(sound) == row:
                signal = sound.decode(sample_rate)
                part = np.pad(part, ((0, 0), (0, max(0, signal.shape[-1] - part.shape[-1]))))
                part[:, : signal.shape[-1]] += signal
        return part

    def _row(self, sound: Sound) -> int:
        single = len(sound.holds) == 1 and sound.holds[0] in self.stems
        return self.stems.index(sound.holds[0]) if single else len(self.stems)

    def load(self, sample_rate: int) -> Song:
        """Return the decoded song, in stereo.

        Raises:
            DecodeError: a file cannot be decoded.
        """
        signals = [self.part(row, sample_rate) for row in range(len(self.stems) + 1)]
        parts = np.zeros((len(signals), CHANNELS, max(signal.shape[-1] for signal in signals)), np.float32)
        for part, signal in zip(parts, signals, strict=True):
            part[:, : signal.shape[-1]] = signal
        return Song(self.name, parts, self.known, self.data)


def find_songs(
    data: Sequence[str], split: str, stems: Sequence[str], *, required: bool = True
) -> list[SongSource]:
    """Return the songs of a split in all of `data`, in order; each is `DIR` or `musdb18:DIR`.

    Raises:
        DecodeError: a folder is missing, a song has no stem or lacks a file, or no folder has this split
            although it is `required`.
        UnknownStem: no song has any of the stems.
    """
    found: list[SongSource] = []
    for number, entry in enumerate(data):
        folder = Path(entry.removeprefix(MUSDB18))
        if not folder.is_dir():
            raise DecodeError(f"No such folder: `{folder}`", f"data is DIR or {MUSDB18}DIR")
        if entry.startswith(MUSDB18):
            songs = _musdb18_songs(folder, split, stems)
        else:
            below = folder / split
            songs = [song for path in _folders(below) for song in _folder_songs(path, below, stems)]
        found += [replace(song, data=number) for song in songs]
    if not found and not required:
        return []
    if not found:
        raise DecodeError(
            f"No songs of split `{split}` in {' or '.join(f'`{entry}`' for entry in data)}",
            f"put one folder per song into DIR/{split}, with files such as {stems[0]}.wav",
        )
    held = {name for song in found for sound in song.sounds for name in sound.holds}
    if not held.intersection(stems):
        raise UnknownStem(
            f"No song of split `{split}` has any of {', '.join(stems)}, but {', '.join(sorted(held)[:9])}",
            f"name the files {', '.join(f'{name}.wav' for name in stems)}",
        )
    return found


def stems_in(data: Sequence[str], splits: Sequence[str]) -> set[str]:
    """Return the names of all stems in the data. Raises DecodeError if a folder has none."""
    found: set[str] = set()
    for entry in data:
        if entry.startswith(MUSDB18):
            found.update(MUSDB18_STEMS)
            continue
        for folder in (Path(entry, split) for split in splits):
            songs = [song for path in _folders(folder) for song in _folder_songs(path, folder, MUSDB18_STEMS)]
            found.update(name for song in songs for sound in song.sounds for name in sound.holds)
    return found


def summary(songs: Sequence[SongSource]) -> str:
    """Return a summary: the number of songs, missing stems, and files that are not stems.

    It reveals misnamed files: they become part of the mixture, and the missing stems count as silent.
    """
    stems = songs[0].stems
    held = [{name for sound in song.sounds for name in sound.holds} for song in songs]
    parts = [f"{len(songs)} songs"]
    for stem in stems:
        if lacking := sum(stem not in names for names in held):
            parts.append(f"{lacking} without {stem}")
    if others := sorted(set().union(*held).difference(stems)):
        parts.append(f"in the mixture alone: {', '.join(others[:5])}{' ...' if len(others) > 5 else ''}")
    return "; ".join(parts)


def _folders(path: Path) -> list[Path]:
    """Return the folders in a folder, except hidden ones and links to parent folders."""
    if not path.is_dir():
        return []
    above = {path.resolve(), *path.resolve().parents}
    found = (each for each in path.iterdir() if each.name[0] != "." and each.is_dir())
    return sorted(each for each in found if each.resolve() not in above)


def _folder_songs(
    path: Path, split: Path, stems: Sequence[str], *, in_song: bool = False
) -> list[SongSource]:
    """Return the songs in a folder and below it.

    A folder inside a song's folder is another song only if it contains one of the stems.

    Raises:
        DecodeError: there are no songs.
    """
    sounds = _sounds(path)
    held = {name for sound in sounds for name in sound.holds}
    songs = []
    if held.intersection(stems) or sounds and not in_song:
        songs.append(SongSource(path.relative_to(split).as_posix(), tuple(stems), sounds))
    for folder in _folders(path):
        songs += _folder_songs(folder, split, stems, in_song=in_song or bool(sounds))
    if not songs and not in_song:
        raise DecodeError(f"No stems in `{path}`", f"name them {', '.join(f'{name}.wav' for name in stems)}")
    return songs


def _sounds(path: Path) -> tuple[Sound, ...]:
    """Return the sounds directly in a folder, without the mixture."""
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.name[0] != ".")
    names = {file: file.stem.lower() for file in files if file.is_file()}
    return tuple(Sound(file, tuple(name.split("_and_"))) for file, name in names.items() if name != "mixture")


def _musdb18_songs(folder: Path, split: str, stems: Sequence[str]) -> list[SongSource]:
    for stem in stems:
        if stem not in MUSDB18_TRACKS[1:]:
            raise no_stem(stem, MUSDB18_TRACKS[1:], "in MUSDB18")
    if split not in MUSDB18_FOLDERS:
        raise DecodeError(f"MUSDB18 has no split `{split}`", f"its splits are {', '.join(MUSDB18_FOLDERS)}")
    sources: dict[str, SongSource] = {}
    for path in sorted((folder / MUSDB18_FOLDERS[split]).glob("[!.]*")):
        name = path.name.removesuffix(".stem.mp4")
        of_split = split == "test" or (split == "valid") == (name in MUSDB18_VALID)
        if of_split and (path.is_dir() or path.name != name):
            sources.setdefault(name, SongSource(name, tuple(stems), _musdb18_sounds(path)))
    return list(sources.values())


def _musdb18_sounds(path: Path) -> tuple[Sound, ...]:
    """Return the parts of a MUSDB18 song: audio tracks of one file, or the files in a folder."""
    tracks = list(enumerate(MUSDB18_TRACKS))[1:]  # without the mixture
    if path.is_dir():
        sounds = [Sound(path / f"{name}.wav", (name,)) for _, name in tracks]
    else:
        sounds = [Sound(path, (name,), track) for track, name in tracks]
    for sound in sounds:
        if not sound.path.is_file():
            raise DecodeError(f"No such file: `{sound.path}`", f"{MUSDB18}DIR needs all stems of each song")
    return tuple(sounds)
