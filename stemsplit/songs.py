"""Songs whose stems are known, for training and evaluation.

A data folder holds SPLIT/SONG/STEM.EXT, one sound file a stem. A stem without a file is silent. A file that
holds several stems together is named after all of them (`other_and_bass.ogg`): it counts in the
mixture, and those stems are not known. Files with other names count in the mixture too, but for one called
`mixture`, which is taken to be their sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .audio import SUFFIXES, Reader, resample
from .errors import DecodeError
from .separator import Samples

CHANNELS = 2


@dataclass(frozen=True)
class Song:
    """One song: `parts` `(stem + 1, channel, time)`, the last of which is all that is no single stem.

    `known[i]` is false where stem i is in that last part.
    """

    name: str
    parts: Samples
    known: tuple[bool, ...]

    @property
    def length(self) -> int:
        """Number of samples in time."""
        return int(self.parts.shape[-1])

    @property
    def mixture(self) -> Samples:
        """The sum of all parts, `(channel, time)`."""
        mixture: Samples = self.parts.sum(axis=0)
        return mixture


def song_folders(folder: Path, split: str, stems: Sequence[str]) -> list[Path]:
    """Return the folders of a split's songs, in order.

    Raises:
        DecodeError: there is none.
    """
    paths = sorted(path for path in (folder / split).glob("*") if path.is_dir())
    if not paths:
        raise DecodeError(
            f"No songs in `{folder / split}`", f"put one folder a song there, with files like {stems[0]}.wav"
        )
    return paths


def stem_files(path: Path, stems: Sequence[str]) -> dict[Path, list[str]]:
    """Return the sound files in a song's folder, and which stems each of them holds.

    Raises:
        DecodeError: there is no stem.
    """
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.name[0] != ".")
    held = {
        file: [name for name in file.stem.split("_and_") if name in stems]
        for file in files
        if file.stem != "mixture"
    }
    if not any(held.values()):
        raise DecodeError(f"No stems in `{path}`", f"name them {', '.join(f'{name}.wav' for name in stems)}")
    return held


def known_stems(held: Mapping[Path, Sequence[str]], stems: Sequence[str]) -> tuple[bool, ...]:
    """Return for each stem whether no file holds it together with another one."""
    together = {name for names in held.values() if len(names) > 1 for name in names}
    return tuple(name not in together for name in stems)


def load_song(path: Path, stems: Sequence[str], sample_rate: int) -> Song:
    """Return the song in a folder, decoded and in stereo.

    Raises:
        DecodeError: a stem cannot be decoded, or there is none.
    """
    held = stem_files(path, stems)
    signals = {file: _decode(file, sample_rate) for file in held}
    length = max(signal.shape[-1] for signal in signals.values())
    parts = np.zeros((len(stems) + 1, CHANNELS, length), np.float32)
    for file, signal in signals.items():
        row = stems.index(held[file][0]) if len(held[file]) == 1 else len(stems)
        parts[row, :, : signal.shape[-1]] += signal
    return Song(path.name, parts, known_stems(held, stems))


def _decode(file: Path, sample_rate: int) -> Samples:
    """Return a file's samples, one channel or two, at a sample rate."""
    reader = Reader(file)
    blocks = list(resample(reader, reader.sample_rate, sample_rate, reader.channels))
    return np.concatenate(blocks, axis=-1)
