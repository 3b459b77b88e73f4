"""Training examples: excerpts of songs, mixed anew each time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DecodeError
from ..songs import Song, known_stems, load_song, song_folders, stem_files
from ..stft import Stft, magnitude


def map_songs(folder: Path, split: str, stems: Sequence[str], *, sample_rate: int, cache: Path) -> list[Song]:
    """Return the songs of `folder/split`, decoded once into `cache` and mapped into memory from there.

    Raises:
        DecodeError: there is no song, or a stem cannot be decoded.
    """
    cache.mkdir(parents=True, exist_ok=True)
    songs = [_map_song(path, stems, sample_rate, cache) for path in song_folders(folder, split, stems)]
    for row, stem in enumerate(stems):
        if not any(song.known[row] for song in songs):
            raise DecodeError(
                f"No song in `{folder / split}` has {stem} alone", "add one, or leave it out of --stems"
            )
    return songs


def _map_song(path: Path, stems: Sequence[str], sample_rate: int, cache: Path) -> Song:
    held = stem_files(path, stems)
    facts = [(str(file), file.stat().st_size, file.stat().st_mtime_ns, names) for file, names in held.items()]
    key = hashlib.sha256(repr((facts, tuple(stems), sample_rate)).encode()).hexdigest()[:16]
    array = cache / f"{key}.npy"
    if not array.exists():
        part = array.with_suffix(".part.npy")
        # float16 rounds 66 dB below each sample: less than what lossy stems have lost already.
        np.save(part, load_song(path, stems, sample_rate).parts.astype(np.float16))
        part.replace(array)
    return Song(path.name, np.load(array, mmap_mode="r"), known_stems(held, stems))


@dataclass(frozen=True)
class Batch:
    """Magnitudes of some examples: `mixture` `(example, frame, bin)`, `stems` `(example, stem, frame, bin)`.

    `known` `(example, stem)` is false where a stem could not be told from another one.
    """

    mixture: NDArray[np.float32]
    stems: NDArray[np.float32]
    known: NDArray[np.bool_]


@dataclass(frozen=True)
class Examples:
    """An endless, reproducible stream of batches: number and seed alone decide what is in a batch."""

    songs: Sequence[Song]
    stft: Stft
    bins: int
    frames: int
    size: int
    seed: int = 0
    across: float = 0.6
    """Share of examples whose stems come from different songs."""

    def __call__(self, number: int) -> Batch:
        """Return batch `number`."""
        rng = np.random.default_rng((self.seed, number))
        mixed = [self._example(rng) for _ in range(self.size)]
        return Batch(
            np.stack([mixture for mixture, _, _ in mixed]),
            np.stack([stems for _, stems, _ in mixed]),
            np.stack([known for _, _, known in mixed]),
        )

    def _example(
        self, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
        time = self.stft.samples(self.frames)
        stems = len(self.songs[0].known)
        # With what belongs to no stem, unless it is always mixed up with stems.
        rows = range(stems + any(all(song.known) for song in self.songs))
        if rng.random() < self.across:
            signal = np.concatenate(
                [self._cut(self._draw(rng, row), slice(row, row + 1), rng, time) for row in rows]
            )
            spread, known = 6.0, np.ones(stems, bool)
        else:
            song = self._draw(rng)
            signal = self._cut(song, slice(None), rng, time)
            spread, known = 2.0, np.array(song.known)
        gains_db = rng.normal(0, spread, len(signal)) + rng.uniform(-15, 3)
        signal = signal * (10 ** (gains_db / 20)).astype(np.float32)[:, None, None]
        spectra = self.stft.transform(signal)[..., : self.bins]
        return magnitude(spectra.sum(axis=0)), magnitude(spectra)[:stems], known

    def _draw(self, rng: np.random.Generator, row: int | None = None) -> Song:
        """Draw a song; long ones more often, but not in proportion: short excerpts are where variety is."""
        songs = self.songs
        if row is not None:
            songs = [song for song in songs if (*song.known, all(song.known))[row]]
        weights = np.sqrt([song.length for song in songs])
        return songs[rng.choice(len(songs), p=weights / weights.sum())]

    def _cut(self, song: Song, rows: slice, rng: np.random.Generator, time: int) -> NDArray[np.float32]:
        """Cut a random excerpt `(stem, channel, time)` of some stems, channels swapped half of the time."""
        start = rng.integers(0, max(1, song.length - time))
        excerpt = song.parts[rows, :, start : start + time].astype(np.float32)
        excerpt = np.pad(excerpt, ((0, 0), (0, 0), (0, time - excerpt.shape[-1])))
        return excerpt[:, ::-1] if rng.random() < 0.5 else excerpt
