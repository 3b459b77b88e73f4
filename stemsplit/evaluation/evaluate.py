"""Scores of separators on songs whose stems are known."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from stemsplit import spatial
from stemsplit.datasets.songs import MUSDB18_STEMS, Song
from stemsplit.dsp.features import magnitude
from stemsplit.dsp.masks import interpolate_frames
from stemsplit.dsp.stft import Stft
from stemsplit.errors import TooFewPositions
from stemsplit.evaluation.bsseval import Pool
from stemsplit.evaluation.metrics import BinCounts, Scores, count_bins, sdr, si_sdr, si_snr
from stemsplit.evaluation.oracles import Oracle, all_oracles
from stemsplit.networks import registry
from stemsplit.options import DEFAULT_RUNTIME, RuntimeOptions
from stemsplit.separation.masking import MaskSeparator
from stemsplit.separation.plan import MaskPlan
from stemsplit.separation.separator import FittedMethod, Method, Samples, Spec
from stemsplit.separation.stream import separate_blocks, separate_stream
from stemsplit.zoo.loading import load_method, load_network, read_cards
from stemsplit.zoo.store import ModelCard

MEAN = "mean"
"""What stands in the place of a mask for the mean of several models."""
SAMPLE_RATE = 44_100
"""That all songs are measured at, whatever a separator works at."""


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
    """What is measured: a model, the mixture if asked for, and oracles.

    `separators` are one of any kind, or one model's masks by several rules, which share one network that runs
    once a song; `threshold` is T of the binary mask that it learnt. What a method that is fitted to each song
    finds has no names: each of the `stems` gets what is nearest to it.
    """

    stems: tuple[str, ...]
    separators: Mapping[str, Method]
    oracles: Mapping[str, Oracle]
    threshold: float
    mixture: bool = True

    def measure(self, split: str, song: Song, pool: Pool | None = None) -> SongScores:
        """Return a song's scores; those of BSSEval are added to them by the time the `pool` closes."""
        result = SongScores(split, song.name)
        masking = {name: each for name, each in self.separators.items() if isinstance(each, MaskSeparator)}
        if masking:
            estimates, probabilities = separated(masking, song)
            first = next(iter(masking.values()))
            result.bins.update(score_bins(song, first, probabilities, self.threshold))
        else:
            estimates = {name: _separated(each, song) for name, each in self.separators.items()}
        heard = audible(song)
        names = [self.stems[index] for index in heard]
        for system, stems in self._all(song, estimates):
            scores = score_stems(song, stems, self.stems)
            result.systems[system] = scores
            if pool and names:
                pool.measure(scores, song.parts[heard], stems[heard])
        if masking:
            result.systems["bins"] = {
                name: result.bins[name].scores() for name in names if name in result.bins
            }
        return result

    def _all(self, song: Song, estimates: Mapping[str, Samples]) -> Iterator[tuple[str, Samples]]:
        yield from estimates.items()
        if self.mixture:
            yield "mixture", unprocessed(song)
        for name, oracle in self.oracles.items():
            yield name, oracle(song)


def card_of(model: str | os.PathLike[str]) -> ModelCard:
    """Return what a trained model says of itself, or what it would say for a method fitted to each song.

    Raises:
        UnknownModel, BadWeights: as `weights.read_card`.
    """
    if model not in spatial.METHODS:
        card, *others = read_cards(model)
        if not others:
            return card
        parameters = card.parameters + sum(other.parameters for other in others)
        return replace(card, name=str(model), parameters=parameters, mask=MEAN, scores={})
    return ModelCard(
        name=str(model),
        title=spatial.METHODS[str(model)].title,
        network="",
        stems=MUSDB18_STEMS,
        sample_rate=SAMPLE_RATE,
        n_fft=Stft.n_fft,
        hop_length=Stft.hop_length,
        parameters=0,
        mask="by place",
        mask_power=1.0,
        threshold=0.5,
        data="",
        licence="",
        commit="",
        seed=0,
    )


def systems_of(
    model: str | os.PathLike[str],
    *,
    masks: Sequence[str] = (),
    oracles: Sequence[str] = (),
    mixture: bool = True,
    running: RuntimeOptions = DEFAULT_RUNTIME,
) -> Systems:
    """Return a model, or a method that is fitted to each song, and what to compare it with.

    `masks` are rules for the masks of a model that has any, in place of its default; `oracles` those of
    `oracles.all_oracles` that are wanted.

    Raises:
        StemsplitError: as `pipeline.load_method`.
    """
    card, bins, separators = card_of(model), 0, dict[str, Method]()
    first = next(iter(masks), None)
    if model in spatial.METHODS:
        separators[card.mask] = load_method(model, mask=first)
    elif card.mask == MEAN or registry.find(card.network).hears_waves:
        separators[card.mask] = load_network(model, mask=first, running=running)
    else:
        bins = registry.find(card.network).bins
        rules = masks or [card.mask]
        separators |= {rule: load_network(model, mask=rule, running=running) for rule in rules}
    stft = Stft(card.n_fft, card.hop_length)
    ideal = all_oracles(stft, bins or stft.bins, card.threshold)
    return Systems(card.stems, separators, {name: ideal[name] for name in oracles}, card.threshold, mixture)


@dataclass
class Once:
    """A network that runs once for the same features several times in a row, or for the middle of them."""

    network: Callable[[Samples], Samples]
    plan: MaskPlan
    features: Samples = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))
    probabilities: Samples = field(default_factory=lambda: np.zeros((0, 0, 0, 0), np.float32))

    def __call__(self, features: Samples) -> Samples:
        """Return the network's probabilities `(stem, channel, output, bin)`."""
        frames = features.shape[1]
        edge = max(0, self.features.shape[1] - frames) // 2
        if not np.array_equal(features, self.features[:, edge : edge + frames]):
            self.features, self.probabilities, edge = features, self.network(features), 0
        first = edge // self.plan.frame_stride
        return self.probabilities[:, :, first:][:, :, : self.plan.outputs(frames)]


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
    probabilities `(stem, frame, bin)`, means over channels, are of the frames that lie in the song whole.
    """
    # The widest first: what the others ask the network is the middle of what it has asked.
    order = sorted(separators, key=lambda name: -separators[name].spec.context)
    widest = separators[order[0]]
    once = Once(widest.network, widest.plan)
    streams = [
        separate_blocks(
            Widened(replace(separators[name], network=once), widest.spec), [song.mixture], workers=1
        )
        for name in order
    ]
    pieces: dict[str, list[Samples]] = {name: [] for name in separators}
    seen: list[Samples] = []
    plan = widest.plan
    for segments in zip(*streams, strict=True):  # in step, for the network's last answer to be of this one
        for name, stems in zip(order, segments, strict=True):
            pieces[name].append(stems)
        frames = -(-segments[0].shape[-1] // plan.stft.hop_length)
        found = once.probabilities.mean(axis=1)
        seen.append(interpolate_frames(found, plan.frame_stride)[:, plan.edge :][:, :frames])
    probabilities = np.concatenate(seen, axis=1)[:, : plan.stft.frames(song.length)]
    return {name: np.concatenate(kept, axis=-1) for name, kept in pieces.items()}, probabilities


def _separated(method: Method, song: Song) -> Samples:
    if isinstance(method, FittedMethod):
        return assigned(song, sources(method, song))
    return np.concatenate(list(separate_stream(method, [song.mixture], SAMPLE_RATE)), axis=-1)


def sources(method: FittedMethod, song: Song) -> Samples:
    """Return as many sources `(source, channel, time)` as a method can tell apart in a song.

    Where that are fewer than it was asked for, it is asked for those; the only one there is is the mixture.
    """
    try:
        fitted = method.fit([song.mixture], SAMPLE_RATE)
    except TooFewPositions as error:
        if error.found < 2:
            return song.mixture[None]
        fewer: Any = method  # a dataclass, of which no protocol can speak
        return sources(replace(fewer, sources=error.found), song)
    return _separated(fitted, song)


def assigned(song: Song, found: Samples) -> Samples:
    """Return for each stem of a song one of the sources found `(source, channel, time)`, all of them others.

    The choice is the one with the highest sum of SDR: the best case for a method that gives no names. Where
    there are more stems than sources, each gets the best, though another may have it, too.
    """
    heard = audible(song)
    ratios = np.array([[sdr(song.parts[stem], source) for source in found] for stem in heard])
    chosen = np.zeros(len(song.known), int)
    if len(found) >= len(heard):
        rows, sources = linear_sum_assignment(ratios, maximize=True)
        chosen[[heard[row] for row in rows]] = sources
    else:
        chosen[heard] = ratios.argmax(axis=1)
    return found[chosen]


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
