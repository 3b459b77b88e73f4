"""Training examples: random mixtures of song excerpts."""

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
"""Maximum number of draws until the first stem of an example is audible."""
AUDIBLE = 1e-5
"""Mean square (-50 dB of full scale) above which a stem is audible."""
POWER_STRIDE = 256
"""Stride in samples for the estimate of an excerpt's power."""
DECODERS = min(8, os.cpu_count() or 1)
"""Number of songs to decode in parallel."""
DECODED = "decoded"
"""The folder of decoded songs in a run's folder."""
HELD_OUT = 10
"""Without validation songs, every tenth training song is used for validation."""


def splits(data: Sequence[str], stems: Sequence[str]) -> dict[str, list[SongSource]]:
    """Return the songs of the splits `train` and `valid`; for `data`, see `find_songs`.

    Without validation songs in any data, every tenth training song is used for validation, at least one.

    Raises:
        DecodeError: there are no songs.
        UnknownStem: a stem is not separate in any training song.
    """
    train, valid = find_songs(data, "train", stems), find_songs(data, "valid", stems, required=False)
    if not valid:
        valid, train = train[::HELD_OUT], [song for i, song in enumerate(train) if i % HELD_OUT]
    if not train:
        raise DecodeError("There is only one song, which is needed for validation", "add another one")
    alone = {sound.holds for source in train for sound in source.sounds}
    for stem in stems:
        if (stem,) not in alone:
            there = ", ".join(" and ".join(names) for names in sorted(alone))
            raise UnknownStem(
                f"No training song has {stem} as a separate stem; there is {there}",
                "add such songs, or choose other --stems",
            )
    return {"train": train, "valid": valid}


def map_songs(
    sources: Sequence[SongSource],
    *,
    sample_rate: int,
    cache: Path,
    progress: Callable[[int, int], None] = lambda done, songs: None,
) -> list[Song]:
    """Return songs, decoded once into `cache` and memory-mapped from there.

    `progress` is called with the number of songs done, and their total.

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
    return Song(source.name, np.load(path, mmap_mode="c"), source.known, source.data)


def _decode(source: SongSource, sample_rate: int, path: Path) -> None:
    """Write a song's parts into a file, one at a time to save memory."""
    lengths = []
    with TemporaryFile(dir=path.parent) as signals, TemporaryDirectory(dir=path.parent) as folder:
        # The length of the longest part is known only after all have been decoded.
        for row in range(len(source.stems) + 1):
            signal = source.part(row, sample_rate)
            # The rounding errors of float16 are 66 dB below each sample, less than those of lossy stems.
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
        del parts  # Windows cannot rename a mapped file
        part.replace(path)


@dataclass(frozen=True)
class Batch:
    """Mixtures and their stems, as spectra (with `frame, bin` for the dots) or waveforms (with `time`)."""

    mixture: Tensor
    """`(example, channel, ...)`."""
    stems: Tensor
    """`(example, stem, channel, ...)`; with the residual they sum to the mixture."""
    known: Tensor
    """`(example, stem)`: False if a stem is not separate."""

    def mono(self) -> Batch:
        """Return the same mixtures and stems in mono, with two equal channels."""
        mixture, stems = self.mixture.mean(1, True), self.stems.mean(2, True)
        return Batch(mixture.expand_as(self.mixture), stems.expand_as(self.stems), self.known)


@dataclass(frozen=True)
class Excerpt:
    """An excerpt of one part of a song, `time` samples or up to the song's end, and its augmentation."""

    song: Song
    row: int
    start: int
    time: int
    swapped: bool
    warp: Warp

    def of(self, parts: Parts) -> Parts:
        """Return the samples `(channel, time)` from the song's `parts`, on any device."""
        excerpt: Parts = parts[self.row, :, self.start : self.start + self.time]
        return excerpt

    @cached_property
    def power(self) -> float:
        """The mean square of every `POWER_STRIDE`-th sample."""
        return float(np.square(self.of(self.song.parts)[:, ::POWER_STRIDE], dtype=np.float32).mean())


@dataclass(frozen=True)
class ExamplePlan:
    """The random choices that define an example."""

    excerpts: Sequence[Excerpt]
    known: tuple[bool, ...]
    factors: Floats
    """The excerpts' gains, `(part, bin)`, or `(part, 1)` for all bins."""
    image: Image


@dataclass(frozen=True)
class MixtureSampler:
    """An endless, reproducible stream of batches. A batch depends on its number and the seed only.

    A batch has `size` examples of `frames` frames, with the lowest `bins` bins of their spectra. Without an
    `stft`, examples are waveforms, and frames are samples. Examples are made on the training `device`, which
    holds all songs.
    """

    songs: Sequence[Song]
    stft: Stft | None
    bins: int
    frames: int
    size: int
    seed: int = 0
    augmentation: Augmentation = Augmentation()
    device: torch.device = CPU
    shares: tuple[float, ...] = ()
    """The share of examples from each data folder. Empty: only the songs' lengths decide."""

    def __call__(self, number: int) -> Batch:
        """Return batch `number`."""
        rng = np.random.default_rng((self.seed, number))
        size, stems = self.size, len(self.songs[0].known)
        kind = torch.complex64 if self.stft else torch.float32
        mixture = torch.empty((size, CHANNELS, *self._shape), dtype=kind, device=self.device)
        parts = torch.zeros((size, stems + 1, CHANNELS, *self._shape), dtype=kind, device=self.device)
        drawn = [self._draw_example(rng) for _ in range(size)]
        factors = self._to_device(np.stack([each.factors for each in drawn]))
        for example, each in enumerate(drawn):
            for excerpt in each.excerpts:
                torch.mul(
                    self._signal(excerpt), factors[example, excerpt.row], out=parts[example, excerpt.row]
                )
            each.image.apply(parts[example])
            torch.sum(parts[example], dim=0, out=mixture[example])
            self.augmentation.add_noise(rng, self.stft, mixture[example])
        return Batch(mixture, parts[:, :stems], self._to_device(np.array([each.known for each in drawn])))

    def unaugmented(self) -> MixtureSampler:
        """Return a sampler for the same songs without augmentation; both share the songs on the device."""
        plain = replace(self, augmentation=Augmentation.none())
        plain.__dict__["_parts_on_device"] = self._parts_on_device  # shared through `cached_property`
        return plain

    def _to_device(self, values: NDArray[Any]) -> Tensor:
        """Return an array as a tensor on the device, without waiting for its pending work."""
        tensor = torch.from_numpy(values)
        if self.device.type != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)

    @property
    def _shape(self) -> tuple[int, ...]:
        return (self.frames, self.bins) if self.stft else (self.frames,)

    def _draw_example(self, rng: np.random.Generator) -> ExamplePlan:
        for _ in range(TRIES if rng.random() < self.augmentation.voiced else 1):
            excerpts, known, across = self._draw_excerpts(rng)
            if any(excerpt.row == 0 and excerpt.power > AUDIBLE for excerpt in excerpts):
                break
        rows = {excerpt.row for excerpt in excerpts}
        audible = np.array([row in rows for row in range(len(known) + 1)])
        factors = self.augmentation.factors(rng, audible, self._shape[-1], across=across)
        return ExamplePlan(excerpts, known, factors, self.augmentation.image(rng))

    def _signal(self, excerpt: Excerpt) -> Tensor:
        """Return an excerpt's augmented spectra or waveform, `(channel, ...)`."""
        samples = excerpt.of(self._parts_on_device[id(excerpt.song)]).float()
        samples = F.pad(samples, (0, excerpt.time - samples.shape[-1]))
        if excerpt.swapped:
            samples = samples.flip(0)
        if self.stft:
            return excerpt.warp.transform(self.stft, samples)[..., : self.bins]
        return excerpt.warp.resample(samples, self.frames)

    @cached_property
    def _parts_on_device(self) -> dict[int, Tensor]:
        """The parts of each song on the device; on a CPU they stay memory-mapped."""
        return {id(song): torch.from_numpy(song.parts).to(self.device) for song in self.songs}

    def _draw_excerpts(self, rng: np.random.Generator) -> tuple[list[Excerpt], tuple[bool, ...], bool]:
        """Draw non-silent excerpts; return them, `known`, and whether they come from different songs."""
        rows = range(len(self.songs[0].known) + 1)
        across = bool(rng.random() < self.augmentation.across)
        if across:
            # There is no residual if no song has it separately.
            drawn = [
                self._excerpts_of(self._draw_song(rng, row), [row], rng)
                for row in rows
                if self._pools[row][0]
            ]
            return [excerpt for excerpts in drawn for excerpt in excerpts], (True,) * (len(rows) - 1), True
        song = self._draw_song(rng)
        return self._excerpts_of(song, rows, rng), song.known, False

    @cached_property
    def _pools(self) -> list[tuple[list[Song], NDArray[np.float64]]]:
        """For each part, the songs that have it separately, with cumulative probabilities; last, all songs.

        For variety, the probability grows with the square root of a song's length.
        """
        parts = range(len(self.songs[0].known) + 1)
        alone = [[song for song in self.songs if (*song.known, all(song.known))[part]] for part in parts]
        pools = [*alone, list(self.songs)]
        weights = [self._weights(pool) for pool in pools]
        return [(pool, weight.cumsum() / weight.sum()) for pool, weight in zip(pools, weights, strict=True)]

    def _weights(self, pool: Sequence[Song]) -> NDArray[np.float64]:
        weights = np.sqrt([song.length for song in pool])
        if self.shares and pool:
            data = np.array([song.data for song in pool])
            weights *= np.array(self.shares)[data] / np.bincount(data, weights)[data]
        return weights

    def _draw_song(self, rng: np.random.Generator, pool: int = -1) -> Song:
        songs, odds = self._pools[pool]
        return songs[np.searchsorted(odds[:-1], rng.random(), side="right")]

    def _excerpts_of(self, song: Song, rows: Sequence[int], rng: np.random.Generator) -> list[Excerpt]:
        """Draw a position in a song; return the non-silent excerpts of its parts."""
        warp = self.augmentation.warp(rng)
        time = warp.samples(self.stft, self.frames) if self.stft else math.ceil(self.frames * warp.pitch)
        start = int(rng.integers(max(1, song.length - time + 1)))
        swapped = bool(rng.random() < self.augmentation.swap)
        excerpts = [Excerpt(song, row, start, time, swapped, warp) for row in rows]
        return [excerpt for excerpt in excerpts if excerpt.power > 0]
