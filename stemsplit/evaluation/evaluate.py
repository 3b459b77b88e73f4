"""Scores of separators on songs with known stems."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from stemsplit.datasets.songs import MUSDB18_STEMS, Song
from stemsplit.dsp.features import magnitude
from stemsplit.errors import TooFewPositions
from stemsplit.evaluation.bleed import bleed_scores
from stemsplit.evaluation.bsseval import Pool
from stemsplit.evaluation.metrics import BinCounts, Scores, count_bins, sdr, si_sdr, si_snr
from stemsplit.evaluation.oracles import Oracle, all_oracles
from stemsplit.evaluation.shared_network import separate_by_rules
from stemsplit.options import RuntimeOptions
from stemsplit.separation.masking import MaskSeparator
from stemsplit.separation.separator import AnySeparator, FittedMethod, Method, Samples
from stemsplit.separation.stream import separate_stream
from stemsplit.zoo.ref import ModelRef

SAMPLE_RATE = 44_100
"""The sample rate in Hz of all measurements, regardless of the separator's."""


@dataclass(frozen=True)
class SongScores:
    """All scores of one song."""

    split: str
    song: str
    systems: dict[str, Scores] = field(default_factory=dict)
    """System (a kind of mask, mixture, oracle; `bins` for mask accuracy) -> stem -> measure."""
    bins: dict[str, BinCounts] = field(default_factory=dict)
    """Mask accuracy of each known stem, including silent ones."""


@dataclass(frozen=True)
class EvaluationPlan:
    """The systems to measure: a model, the mixture (optional), and oracles.

    `separators` are one separator of any kind, or one model with several masking methods, whose network runs
    once per song. `threshold` is T of the binary mask that it was trained for. The sources of spatial methods
    have no names: each of the `stems` is compared with its best match.
    """

    name: str
    stems: tuple[str, ...]
    separators: Mapping[str, Method]
    oracles: Mapping[str, Oracle]
    threshold: float
    mixture: bool = True
    blind: bool = False
    added: tuple[str, ...] = ()
    """Stems of the model that no song has; their estimates are added to `other`."""

    @classmethod
    def of(
        cls,
        ref: ModelRef,
        running: RuntimeOptions,
        *,
        masks: Sequence[str] = (),
        oracles: Sequence[str] = (),
        mixture: bool = True,
        held: Collection[str] | None = None,
    ) -> EvaluationPlan:
        """Load a model, and plan its evaluation.

        `held` are the stems that the songs have, see `stems_of`. `masks` replace the default of a model that
        has masks. `oracles` are names from `oracles.all_oracles`.

        Raises:
            StemsplitError: see `ModelRef.load`.
        """
        if ref.masks:
            separators = {mask: ref.load(running, mask=mask) for mask in masks or [ref.system]}
        else:
            separators = {ref.system: ref.load(running, mask=next(iter(masks), None))}
        ideal = all_oracles(ref.stft, ref.bins, ref.threshold)
        chosen = {name: ideal[name] for name in oracles}
        stems = stems_of(ref, held)
        added = () if ref.blind else tuple(name for name in ref.stems if name not in stems)
        return cls(ref.name, stems, separators, chosen, ref.threshold, mixture, ref.blind, added)

    def measure(self, split: str, song: Song, pool: Pool | None = None) -> SongScores:
        """Return the scores of a song; BSSEval scores are added before the `pool` closes."""
        result = SongScores(split, song.name)
        masking = {name: each for name, each in self.separators.items() if isinstance(each, MaskSeparator)}
        if masking:
            estimates, probabilities = separate_by_rules(masking, song)
            first = next(iter(masking.values()))
            result.bins.update(score_bins(song, first, probabilities, self.threshold))
        else:
            estimates = {name: self._separated(each, song) for name, each in self.separators.items()}
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

    def _separated(self, method: Method, song: Song) -> Samples:
        if self.blind and isinstance(method, FittedMethod):
            return assigned(song, sources(method, song))
        if isinstance(method, FittedMethod):
            method = method.fit([song.mixture], SAMPLE_RATE)
        estimates = dict(zip(method.spec.stems, separated(method, song), strict=True))
        for name in self.added:
            estimates["other"] = estimates["other"] + estimates[name]
        return np.stack([estimates[name] for name in self.stems])

    def _all(self, song: Song, estimates: Mapping[str, Samples]) -> Iterator[tuple[str, Samples]]:
        yield from estimates.items()
        if self.mixture:
            yield "mixture", unprocessed(song)
        for name, oracle in self.oracles.items():
            yield name, oracle(song)


def stems_of(ref: ModelRef, held: Collection[str] | None = None) -> tuple[str, ...]:
    """Return the stems to measure: the model's, or those of MUSDB18 if its stems have no fixed names.

    If a model without masks has a stem `other`, stems that neither MUSDB18 nor any song (`held`) has are left
    out, because in these songs they are a part of `other`.
    """
    if ref.blind:
        return MUSDB18_STEMS
    if held is None or ref.masks or "other" not in ref.stems:
        return ref.stems
    return tuple(name for name in ref.stems if name in held or name in MUSDB18_STEMS)


def separated(separator: AnySeparator, song: Song) -> Samples:
    """Return the stems `(stem, channel, time)` of a song."""
    return np.concatenate(list(separate_stream(separator, [song.mixture], SAMPLE_RATE)), axis=-1)


def sources(method: FittedMethod, song: Song) -> Samples:
    """Return all sources `(source, channel, time)` that a method can separate in a song.

    If it finds fewer positions than sources, it runs again with that number. For fewer than two, the only
    source is the mixture.
    """
    try:
        fitted = method.fit([song.mixture], SAMPLE_RATE)
    except TooFewPositions as error:
        if error.found < 2:
            return song.mixture[None]
        fewer: Any = method  # a dataclass, which a protocol cannot express
        return sources(replace(fewer, sources=error.found), song)
    return separated(fitted, song)


def assigned(song: Song, found: Samples) -> Samples:
    """Return one of the sources `(source, channel, time)` for each stem of a song, each source once.

    The assignment has the highest total SDR: the best case for a method whose sources have no names. If there
    are more stems than sources, each stem gets its best source, and stems can share one.
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
    """Return the mixture as the estimate of every stem: the baseline of any separator."""
    return np.broadcast_to(song.mixture, (len(song.known), *song.mixture.shape))


def audible(song: Song) -> list[int]:
    """Return the indices of known stems that are not silent, for which ratios are defined."""
    return [index for index, known in enumerate(song.known) if known and song.parts[index].any()]


def score_stems(song: Song, estimates: Samples, names: Iterable[str]) -> Scores:
    """Return the ratios of each stem's estimate, without stems that are silent or unknown.

    Shapes: estimates `(stem, channel, time)`.
    """
    measures = {"sdr_db": sdr, "si_sdr_db": si_sdr, "si_snr_db": si_snr}
    stems = list(names)
    return {
        stems[index]: {
            **{name: measure(song.parts[index], estimates[index]) for name, measure in measures.items()},
            **bleed_scores(song.parts[index], estimates[index], SAMPLE_RATE),
        }
        for index in audible(song)
    }


def score_bins(
    song: Song, separator: MaskSeparator, probabilities: Samples, threshold: float
) -> dict[str, BinCounts]:
    """Return the accuracy of each known stem's binary mask, over frames entirely within the song.

    The true mask is B = (S > T * M) with T the `threshold`; it is empty for a silent stem. Shapes:
    probabilities `(stem, frame, bin)`.
    """

    def magnitudes(signal: Samples) -> Samples:
        return magnitude(separator.stft.transform(signal)[..., : separator.bins])

    least = np.float32(threshold) * magnitudes(song.mixture)
    if not least.size:  # the song is shorter than a frame
        return {}
    return {
        name: count_bins(found, magnitudes(part) > least)
        for name, found, part, known in zip(
            separator.stems, probabilities, song.parts, song.known, strict=False
        )
        if known
    }


def summarise(songs: Iterable[Scores], how: Callable[[NDArray[np.float64]], float]) -> Scores:
    """Return each stem's measures, summarized by `how` (median or mean) over the songs that have them."""
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
    """Return the mask accuracy over the pooled bins of all songs, as in the paper."""
    total: dict[str, BinCounts] = {}
    for song in songs:
        for stem, counts in song.bins.items():
            total[stem] = total[stem] + counts if stem in total else counts
    return {stem: counts.scores() for stem, counts in total.items()}
