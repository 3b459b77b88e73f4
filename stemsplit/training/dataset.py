"""Training examples: excerpts of songs, mixed anew each time."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

import numpy as np
from numpy.typing import NDArray

from ..errors import DecodeError
from ..songs import CHANNELS, Song, SongSource, find_songs
from ..stft import Floats, Spectra, Stft
from .augment import Augmentation, Warp

Signals = Floats | Spectra

TRIES = 20
"""How often at most an example is drawn until its first stem sounds."""
AUDIBLE = 1e-5
"""Mean square (-50 dB of full scale) above which it does."""
DECODED = "decoded"
"""Where in its folder a run keeps the songs, ready to be mapped into memory."""
HELD_OUT = 10
"""One song in so many is kept to validate on where none has been set aside."""


def splits(data: Sequence[str], stems: Sequence[str]) -> dict[str, list[SongSource]]:
    """Return the songs to learn from, `train`, and those to judge by, `valid`; `data` as `find_songs` has it.

    Where no data has validation songs, every tenth training song is kept for that, and one at least.

    Raises:
        DecodeError: there are no songs, or only one, or none has a stem alone.
    """
    train, valid = find_songs(data, "train", stems), find_songs(data, "valid", stems, required=False)
    if not valid:
        valid, train = train[::HELD_OUT], [song for i, song in enumerate(train) if i % HELD_OUT]
    alone = {sound.holds for source in train for sound in source.sounds}
    for stem in stems:
        if (stem,) not in alone:
            there = ", ".join(" and ".join(names) for names in sorted(alone)) or "one song only"
            raise DecodeError(
                f"No song to learn from has {stem} alone; there is {there}",
                "add some, or choose other --stems",
            )
    return {"train": train, "valid": valid}


def map_songs(
    sources: Sequence[SongSource],
    *,
    sample_rate: int,
    cache: Path,
    progress: Callable[[int, int], None] = lambda done, songs: None,
) -> list[Song]:
    """Return songs, decoded once into `cache` and mapped into memory from there.

    `progress` is told how many songs are done, of how many.

    Raises:
        DecodeError: a stem cannot be decoded.
    """
    cache.mkdir(parents=True, exist_ok=True)
    songs = []
    for source in sources:
        songs.append(_map_song(source, sample_rate, cache))
        progress(len(songs), len(sources))
    return songs


def _map_song(source: SongSource, sample_rate: int, cache: Path) -> Song:
    key = hashlib.sha256(repr((source.state, sample_rate)).encode()).hexdigest()[:16]
    path = cache / f"{key}.npy"
    if not path.exists():
        _decode(source, sample_rate, path)
    return Song(source.name, np.load(path, mmap_mode="r"), source.known)


def _decode(source: SongSource, sample_rate: int, path: Path) -> None:
    """Write a song's parts into a file, with one of them at a time in memory."""
    lengths = []
    with TemporaryFile(dir=path.parent) as signals, TemporaryDirectory(dir=path.parent) as folder:
        # How long the longest is comes out only in the end.
        for row in range(len(source.stems) + 1):
            signal = source.part(row, sample_rate)
            # float16 rounds 66 dB below each sample: less than what lossy stems have lost already.
            signal.astype(np.float16).tofile(signals)
            lengths.append(signal.shape[-1])
        signals.seek(0)
        part = Path(folder, path.name)
        shape = (len(lengths), CHANNELS, max(lengths))
        parts = np.lib.format.open_memmap(part, "w+", np.float16, shape)
        for row, length in enumerate(lengths):
            signal = np.fromfile(signals, np.float16, CHANNELS * length)
            parts[row, :, :length] = signal.reshape(CHANNELS, length)
        parts.flush()
        del parts  # Windows renames no file that is mapped
        part.replace(path)


@dataclass(frozen=True)
class Batch:
    """Some examples, of each of which a network hears the mixture and is told the stems.

    Both are spectra, with `frame, bin` for the dots, or waveforms, with `time`.
    """

    mixture: Signals
    """`(example, channel, ...)`."""
    stems: Signals
    """`(example, stem, channel, ...)`; they add up to the mixture but for what is no stem's."""
    known: NDArray[np.bool_]
    """`(example, stem)`: false where a stem could not be told from another one."""


@dataclass(frozen=True)
class Examples:
    """An endless, reproducible stream of batches: number and seed alone decide what is in a batch.

    Each is of `size` examples of `frames` frames, with the lowest `bins` bins of their spectra; without an
    `stft` they are waveforms, and frames are samples.
    """

    songs: Sequence[Song]
    stft: Stft | None
    bins: int
    frames: int
    size: int
    seed: int = 0
    augmentation: Augmentation = Augmentation()

    def __call__(self, number: int) -> Batch:
        """Return batch `number`."""
        rng = np.random.default_rng((self.seed, number))
        size, stems = self.size, len(self.songs[0].known)
        kind = np.complex64 if self.stft else np.float32
        batch = Batch(
            np.empty((size, CHANNELS, *self._grid), kind),
            np.empty((size, stems, CHANNELS, *self._grid), kind),
            np.empty((size, stems), bool),
        )
        for example in range(size):
            parts, batch.known[example] = self._parts(rng)
            batch.stems[example] = parts[:stems]
            parts.sum(axis=0, out=batch.mixture[example])
            self.augmentation.add_noise(rng, self.stft, batch.mixture[example])
        return batch

    @property
    def _grid(self) -> tuple[int, ...]:
        return (self.frames, self.bins) if self.stft else (self.frames,)

    def _parts(self, rng: np.random.Generator) -> tuple[Signals, tuple[bool, ...]]:
        """Draw the signals `(stem + 1, channel, ...)` of an example, and which stems are known."""
        for _ in range(TRIES if rng.random() < self.augmentation.voiced else 1):
            excerpts, known, across = self._excerpts(rng)
            if 0 in excerpts and np.square(excerpts[0][0]).mean() > AUDIBLE:
                break
        parts = np.zeros((len(known) + 1, CHANNELS, *self._grid), np.complex64 if self.stft else np.float32)
        audible = np.array([row in excerpts for row in range(len(parts))])
        factors = self.augmentation.factors(rng, audible, self._grid[-1], across=across)
        for row, (excerpt, warp) in excerpts.items():
            if self.stft:
                signal: Signals = warp.transform(self.stft, excerpt, self.frames)[..., : self.bins]
            else:
                signal = warp.resample(excerpt, self.frames)
            np.multiply(signal, factors[row], out=parts[row])
        return parts, known

    def _excerpts(
        self, rng: np.random.Generator
    ) -> tuple[dict[int, tuple[Floats, Warp]], tuple[bool, ...], bool]:
        """Draw excerpts of parts, by their rows, which stems are known, and whether songs are mixed."""
        rows = range(len(self.songs[0].known) + 1)
        across = bool(rng.random() < self.augmentation.across)
        if across:
            # What belongs to no stem is left out where it is always mixed up with stems.
            cuts = [self._cut(self._draw(rng, row), [row], rng) for row in rows if self._pools[row][0]]
            excerpts = {row: excerpt for cut in cuts for row, excerpt in cut}
            known = (True,) * (len(rows) - 1)
        else:
            song = self._draw(rng)
            excerpts, known = dict(self._cut(song, rows, rng)), song.known
        return excerpts, known, across

    @cached_property
    def _pools(self) -> list[tuple[list[Song], NDArray[np.float64]]]:
        """The songs that have a part alone, and their odds, for each part; at last those of all songs.

        Long songs are drawn more often, but not in proportion: short excerpts are where variety is.
        """
        parts = range(len(self.songs[0].known) + 1)
        alone = [[song for song in self.songs if (*song.known, all(song.known))[part]] for part in parts]
        pools = [*alone, list(self.songs)]
        weights = [np.sqrt([song.length for song in pool]) for pool in pools]
        return [(pool, weight / weight.sum()) for pool, weight in zip(pools, weights, strict=True)]

    def _draw(self, rng: np.random.Generator, pool: int = -1) -> Song:
        songs, odds = self._pools[pool]
        return songs[rng.choice(len(songs), p=odds)]

    def _cut(
        self, song: Song, rows: Sequence[int], rng: np.random.Generator
    ) -> Iterator[tuple[int, tuple[Floats, Warp]]]:
        """Yield from one place in a song those of its parts `(channel, time)` that are not silent there."""
        warp = self.augmentation.warp(rng)
        time = warp.samples(self.stft, self.frames) if self.stft else math.ceil(self.frames * warp.pitch)
        start = rng.integers(max(1, song.length - time + 1))
        order = -1 if rng.random() < self.augmentation.swap else 1
        for row in rows:
            excerpt = song.parts[row, ::order, start : start + time].astype(np.float32)
            if excerpt.any():
                yield row, (np.pad(excerpt, ((0, 0), (0, time - excerpt.shape[-1]))), warp)
