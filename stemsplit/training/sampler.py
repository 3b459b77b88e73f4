"""Training examples: excerpts of songs, mixed anew each time."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stemsplit.datasets.songs import CHANNELS, Song, SongSource, find_songs
from stemsplit.dsp.stft import Floats, Stft
from stemsplit.errors import DecodeError, UnknownStem
from stemsplit.separation.separator import Samples
from stemsplit.training.augment import Augmentation, Image, Warp

CPU = torch.device("cpu")
Parts = TypeVar("Parts", Samples, Tensor)

TRIES = 20
"""How often at most an example is drawn until its first stem sounds."""
AUDIBLE = 1e-5
"""Mean square (-50 dB of full scale) above which it does."""
SPARSE = 256
"""Of so many samples one is looked at to see whether there is any sound."""
DECODERS = min(8, os.cpu_count() or 1)
"""Songs decoded at once."""
DECODED = "decoded"
"""Where in its folder a run keeps the songs, ready to be mapped into memory."""
HELD_OUT = 10
"""One song in so many is kept to validate on where none has been set aside."""


def splits(data: Sequence[str], stems: Sequence[str]) -> dict[str, list[SongSource]]:
    """Return the songs to learn from, `train`, and those to judge by, `valid`; `data` as `find_songs` has it.

    Where no data has validation songs, every tenth training song is kept for that, and one at least.

    Raises:
        DecodeError: there are no songs.
        UnknownStem: no training song has one of the stems alone.
    """
    train, valid = find_songs(data, "train", stems), find_songs(data, "valid", stems, required=False)
    if not valid:
        valid, train = train[::HELD_OUT], [song for i, song in enumerate(train) if i % HELD_OUT]
    if not train:
        raise DecodeError("There is only one song, and it is kept for validation", "add another one")
    alone = {sound.holds for source in train for sound in source.sounds}
    for stem in stems:
        if (stem,) not in alone:
            there = ", ".join(" and ".join(names) for names in sorted(alone))
            raise UnknownStem(
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
    with ThreadPoolExecutor(DECODERS) as pool:
        for song in pool.map(lambda source: _map_song(source, sample_rate, cache), sources):
            songs.append(song)
            progress(len(songs), len(sources))
    return songs


def _map_song(source: SongSource, sample_rate: int, cache: Path) -> Song:
    key = hashlib.sha256(repr((source.state, sample_rate)).encode()).hexdigest()[:16]
    path = cache / f"{key}.npy"
    if not path.exists():
        _decode(source, sample_rate, path)
    return Song(source.name, np.load(path, mmap_mode="c"), source.known)


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

    mixture: Tensor
    """`(example, channel, ...)`."""
    stems: Tensor
    """`(example, stem, channel, ...)`; they add up to the mixture but for what is no stem's."""
    known: Tensor
    """`(example, stem)`: false where a stem could not be told from another one."""


@dataclass(frozen=True)
class Cut:
    """A place in a part of a song, and how it is changed: `time` samples, if the song has so many."""

    song: Song
    row: int
    start: int
    time: int
    swapped: bool
    warp: Warp

    def of(self, parts: Parts) -> Parts:
        """Return the samples `(channel, time)` of the song's `parts`, wherever these are."""
        excerpt: Parts = parts[self.row, :, self.start : self.start + self.time]
        return excerpt

    @cached_property
    def power(self) -> float:
        """The mean square of some of them, enough to tell what sounds; nought only in silence."""
        return float(np.square(self.of(self.song.parts)[:, ::SPARSE], dtype=np.float32).mean())


@dataclass(frozen=True)
class Drawn:
    """What an example is to be made of."""

    cuts: Sequence[Cut]
    known: tuple[bool, ...]
    factors: Floats
    """`(part, bin)`, or `(part, 1)` for all bins, that the cuts are multiplied by."""
    image: Image


@dataclass(frozen=True)
class Examples:
    """An endless, reproducible stream of batches: number and seed alone decide what is in a batch.

    Each is of `size` examples of `frames` frames, with the lowest `bins` bins of their spectra; without an
    `stft` they are waveforms, and frames are samples. They are made on the `device` that learns from them,
    where all songs are kept then.
    """

    songs: Sequence[Song]
    stft: Stft | None
    bins: int
    frames: int
    size: int
    seed: int = 0
    augmentation: Augmentation = Augmentation()
    device: torch.device = CPU

    def __call__(self, number: int) -> Batch:
        """Return batch `number`."""
        rng = np.random.default_rng((self.seed, number))
        size, stems = self.size, len(self.songs[0].known)
        kind = torch.complex64 if self.stft else torch.float32
        mixture = torch.empty((size, CHANNELS, *self._grid), dtype=kind, device=self.device)
        parts = torch.zeros((size, stems + 1, CHANNELS, *self._grid), dtype=kind, device=self.device)
        drawn = [self._draw_example(rng) for _ in range(size)]
        factors = self._moved(np.stack([each.factors for each in drawn]))
        for example, each in enumerate(drawn):
            for cut in each.cuts:
                torch.mul(self._signal(cut), factors[example, cut.row], out=parts[example, cut.row])
            each.image.apply(parts[example])
            torch.sum(parts[example], dim=0, out=mixture[example])
            self.augmentation.add_noise(rng, self.stft, mixture[example])
        return Batch(mixture, parts[:, :stems], self._moved(np.array([each.known for each in drawn])))

    def as_they_are(self) -> Examples:
        """Return examples of the same songs without any changes, from the same copies on the device."""
        plain = replace(self, augmentation=Augmentation.none())
        plain.__dict__["_there"] = self._there  # where `cached_property` looks first
        return plain

    def _moved(self, values: NDArray[Any]) -> Tensor:
        """Return an array on the device, without waiting for what is being computed there."""
        tensor = torch.from_numpy(values)
        if self.device.type != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)

    @property
    def _grid(self) -> tuple[int, ...]:
        return (self.frames, self.bins) if self.stft else (self.frames,)

    def _draw_example(self, rng: np.random.Generator) -> Drawn:
        for _ in range(TRIES if rng.random() < self.augmentation.voiced else 1):
            cuts, known, across = self._cuts(rng)
            if any(cut.row == 0 and cut.power > AUDIBLE for cut in cuts):
                break
        rows = {cut.row for cut in cuts}
        audible = np.array([row in rows for row in range(len(known) + 1)])
        factors = self.augmentation.factors(rng, audible, self._grid[-1], across=across)
        return Drawn(cuts, known, factors, self.augmentation.image(rng))

    def _signal(self, cut: Cut) -> Tensor:
        """Return what a cut is made into, `(channel, ...)`."""
        excerpt = cut.of(self._there[id(cut.song)]).float()
        excerpt = F.pad(excerpt, (0, cut.time - excerpt.shape[-1]))
        if cut.swapped:
            excerpt = excerpt.flip(0)
        if self.stft:
            return cut.warp.transform(self.stft, excerpt)[..., : self.bins]
        return cut.warp.resample(excerpt, self.frames)

    @cached_property
    def _there(self) -> dict[int, Tensor]:
        """The parts of each song on the device; on a processor they stay in their files."""
        return {id(song): torch.from_numpy(song.parts).to(self.device) for song in self.songs}

    def _cuts(self, rng: np.random.Generator) -> tuple[list[Cut], tuple[bool, ...], bool]:
        """Draw places of parts that sound there, which stems are known, and whether songs are mixed."""
        rows = range(len(self.songs[0].known) + 1)
        across = bool(rng.random() < self.augmentation.across)
        if across:
            # What belongs to no stem is left out where it is always mixed up with stems.
            drawn = [self._cut(self._draw(rng, row), [row], rng) for row in rows if self._pools[row][0]]
            return [cut for cuts in drawn for cut in cuts], (True,) * (len(rows) - 1), True
        song = self._draw(rng)
        return self._cut(song, rows, rng), song.known, False

    @cached_property
    def _pools(self) -> list[tuple[list[Song], NDArray[np.float64]]]:
        """The songs that have a part alone, and their odds added up, for each part; at last all songs.

        Long songs are drawn more often, but not in proportion: short excerpts are where variety is.
        """
        parts = range(len(self.songs[0].known) + 1)
        alone = [[song for song in self.songs if (*song.known, all(song.known))[part]] for part in parts]
        pools = [*alone, list(self.songs)]
        weights = [np.sqrt([song.length for song in pool]) for pool in pools]
        return [(pool, weight.cumsum() / weight.sum()) for pool, weight in zip(pools, weights, strict=True)]

    def _draw(self, rng: np.random.Generator, pool: int = -1) -> Song:
        songs, odds = self._pools[pool]
        return songs[np.searchsorted(odds[:-1], rng.random(), side="right")]

    def _cut(self, song: Song, rows: Sequence[int], rng: np.random.Generator) -> list[Cut]:
        """Return one place in those of a song's parts that are not silent there."""
        warp = self.augmentation.warp(rng)
        time = warp.samples(self.stft, self.frames) if self.stft else math.ceil(self.frames * warp.pitch)
        start = int(rng.integers(max(1, song.length - time + 1)))
        swapped = bool(rng.random() < self.augmentation.swap)
        cuts = [Cut(song, row, start, time, swapped, warp) for row in rows]
        return [cut for cut in cuts if cut.power > 0]
