"""Scores of separators on songs whose stems are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from .bsseval import Pool
from .masks import between
from .metrics import BinCounts, Scores, count_bins, sdr, si_sdr, si_snr
from .oracles import Oracle
from .separator import MaskSeparator, Samples, Spec
from .songs import Song
from .stft import magnitude
from .stream import separate_blocks


@dataclass(frozen=True)
class SongScores:
    """All that was measured on one song."""

    split: str
    song: str
    systems: dict[str, Scores] = field(default_factory=dict)
    """System (a kind of mask, mixture, an oracle; `bins` for the mask accuracy) to stem to measure."""
    bins: dict[str, BinCounts] = field(default_factory=dict)
    """Of each stem that is known, silent ones among them."""


@dataclass(frozen=True)
class Systems:
    """What is measured: one model's masks by several rules, the mixture if asked for, and oracles.

    `separators` share one network, which runs once a song; `threshold` is T of the binary mask that it
    learnt.
    """

    separators: Mapping[str, MaskSeparator]
    oracles: Mapping[str, Oracle]
    threshold: float
    mixture: bool = True

    def measure(self, split: str, song: Song, pool: Pool | None = None) -> SongScores:
        """Return a song's scores; those of BSSEval are added to them by the time the `pool` closes."""
        separator = next(iter(self.separators.values()))
        estimates, probabilities = separated(self.separators, song)
        result = SongScores(split, song.name)
        result.bins.update(score_bins(song, separator, probabilities, self.threshold))
        heard = audible(song)
        names = [separator.stems[index] for index in heard]
        for system, stems in self._all(song, estimates):
            scores = score_stems(song, stems, separator.stems)
            result.systems[system] = scores
            if pool and names:
                pool.measure(scores, song.parts[heard], stems[heard])
        result.systems["bins"] = {name: result.bins[name].scores() for name in names if name in result.bins}
        return result

    def _all(self, song: Song, estimates: Mapping[str, Samples]) -> Iterator[tuple[str, Samples]]:
        yield from estimates.items()
        if self.mixture:
            yield "mixture", unprocessed(song)
        for name, oracle in self.oracles.items():
            yield name, oracle(song)


@dataclass
class Once:
    """A network that runs once for the same features several times in a row, or for the middle of them."""

    network: Callable[[Samples], Samples]
    reach: int
    step: int
    features: Samples = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    probabilities: Samples = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))

    def __call__(self, features: Samples) -> Samples:
        """Return the network's probabilities `(stem, frame, bin)`, of every `step`-th frame."""
        edge = max(0, len(self.features) - len(features)) // 2
        if not np.array_equal(features, self.features[edge : edge + len(features)]):
            self.features, self.probabilities, edge = features, self.network(features), 0
        count = (len(features) - 2 * self.reach - 1) // self.step + 1
        return self.probabilities[:, edge // self.step :][:, :count]


@dataclass(frozen=True)
class Widened:
    """A separator that is given more context than it needs, one segment at a time."""

    separator: MaskSeparator
    spec: Spec

    def separate(self, window: Samples) -> Samples:
        """Return stems `(stem, channel, time)` of the segment in the middle of a window."""
        edge = self.spec.context - self.separator.spec.context
        return self.separator.separate(window[:, edge : window.shape[-1] - edge])


def separated(separators: Mapping[str, MaskSeparator], song: Song) -> tuple[dict[str, Samples], Samples]:
    """Return each separator's stems `(stem, channel, time)` of a song, and their network's probabilities.

    The separators differ in nothing but what they do with the probabilities, and the network runs once. The
    probabilities `(stem, frame, bin)` are of the frames that lie in the song whole.
    """
    # The widest first: what the others ask the network is the middle of what it has asked.
    order = sorted(separators, key=lambda name: -separators[name].spec.context)
    widest = separators[order[0]]
    once = Once(widest.network, widest.reach, widest.step)
    streams = [
        separate_blocks(
            Widened(replace(separators[name], network=once), widest.spec), [song.mixture], workers=1
        )
        for name in order
    ]
    pieces: dict[str, list[Samples]] = {name: [] for name in separators}
    seen: list[Samples] = []
    hop_length = widest.stft.hop_length
    lead = widest.spec.context // hop_length - widest.reach
    for segments in zip(*streams, strict=True):  # in step, for the network's last answer to be of this one
        for name, stems in zip(order, segments, strict=True):
            pieces[name].append(stems)
        frames = -(-segments[0].shape[-1] // hop_length)
        seen.append(between(once.probabilities, widest.step)[:, lead : lead + frames])
    probabilities = np.concatenate(seen, axis=1)[:, : widest.stft.frames(song.length)]
    return {name: np.concatenate(kept, axis=-1) for name, kept in pieces.items()}, probabilities


def unprocessed(song: Song) -> Samples:
    """Return the mixture for every stem: what any separator must beat."""
    return np.broadcast_to(song.mixture, (len(song.known), *song.mixture.shape))


def audible(song: Song) -> list[int]:
    """Return which stems are known and not silent: those that have a ratio."""
    return [index for index, known in enumerate(song.known) if known and song.parts[index].any()]


def score_stems(song: Song, estimates: Samples, names: Iterable[str]) -> Scores:
    """Return the ratios of each stem's estimate, leaving out stems that are silent or not known.

    Shapes: estimates `(stem, channel, time)`.
    """
    measures = {"sdr_db": sdr, "si_sdr_db": si_sdr, "si_snr_db": si_snr}
    stems = list(names)
    return {
        stems[index]: {
            name: measure(song.parts[index], estimates[index]) for name, measure in measures.items()
        }
        for index in audible(song)
    }


def score_bins(
    song: Song, separator: MaskSeparator, probabilities: Samples, threshold: float
) -> dict[str, BinCounts]:
    """Return how each known stem's binary mask did over the frames that lie in the song whole.

    The true mask is B = (S > T * M), T being the `threshold`; a silent stem's is empty. Shapes: probabilities
    `(stem, frame, bin)`.
    """

    def magnitudes(signal: Samples) -> Samples:
        return magnitude(separator.stft.transform(signal)[..., : separator.bins])

    least = np.float32(threshold) * magnitudes(song.mixture)
    if not least.size:  # shorter than a frame
        return {}
    return {
        name: count_bins(found, magnitudes(part) > least)
        for name, found, part, known in zip(
            separator.stems, probabilities, song.parts, song.known, strict=False
        )
        if known
    }


def summarise(songs: Iterable[Scores], how: Callable[[NDArray[np.float64]], float]) -> Scores:
    """Return each stem's measures over the songs that have them, summed up by `how`: median, mean."""
    collected: dict[str, dict[str, list[float]]] = {}
    for scores in songs:
        for stem, measures in scores.items():
            for measure, value in measures.items():
                if not np.isnan(value):
                    collected.setdefault(stem, {}).setdefault(measure, []).append(value)
    return {
        stem: {measure: float(how(np.array(values))) for measure, values in measures.items()}
        for stem, measures in collected.items()
    }


def pooled(songs: Iterable[SongScores]) -> Scores:
    """Return the mask accuracy over the bins of all songs together, as the paper's, and not song by song."""
    total: dict[str, BinCounts] = {}
    for song in songs:
        for stem, counts in song.bins.items():
            total[stem] = total[stem] + counts if stem in total else counts
    return {stem: counts.scores() for stem, counts in total.items()}
