"""Scores of separators on songs whose stems are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .masks import extend
from .metrics import mask_scores, sdr, si_sdr
from .separator import MaskSeparator, Samples, Separator
from .songs import Song
from .stft import Stft, magnitude
from .stream import separate_blocks

Scores = dict[str, dict[str, float]]
"""Stem to measure to value."""


def separated(separator: Separator, song: Song) -> Samples:
    """Return the separator's stems `(stem, channel, time)` of a song."""
    return np.concatenate(list(separate_blocks(separator, [song.mixture])), axis=-1)


def unprocessed(song: Song) -> Samples:
    """Return the mixture for every stem: what any separator must beat."""
    return np.broadcast_to(song.mixture, (len(song.known), *song.mixture.shape))


@dataclass(frozen=True)
class Oracle:
    """The stems that masks made from the true stems give: about the best that masks can do.

    `ideal` maps magnitudes of stems `(stem, frame, bin)` and of the mixture `(frame, bin)` to masks; they
    are extended above `bins` like a network's.
    """

    stft: Stft
    bins: int
    ideal: Callable[[Samples, Samples], Samples]

    def __call__(self, song: Song) -> Samples:
        """Return the stems `(stem, channel, time)` of a song."""
        n_fft, time = self.stft.n_fft, song.length
        padded = np.pad(song.parts, ((0, 0), (0, 0), (n_fft, n_fft)))
        spectra = self.stft.transform(padded.astype(np.float32))
        mixture = spectra.sum(axis=0)
        stems = magnitude(spectra[: len(song.known)])[..., : self.bins]
        masks = extend(self.ideal(stems, magnitude(mixture)[..., : self.bins]), self.stft.bins)
        return np.stack([self.stft.inverse(mask * mixture)[:, n_fft : n_fft + time] for mask in masks])


def oracles(separator: MaskSeparator, threshold: float) -> dict[str, Oracle]:
    """Return the oracles with a separator's own transform and band."""
    rules = {"ideal binary": ideal_binary(threshold), "ideal ratio": ideal_ratio}
    return {name: Oracle(separator.stft, separator.bins, rule) for name, rule in rules.items()}


def ideal_binary(threshold: float) -> Callable[[Samples, Samples], Samples]:
    """Return the rule for the mask that the network learns, B = (S > T * M)."""
    return lambda stems, mixture: (stems > threshold * mixture).astype(np.float32)


def ideal_ratio(stems: Samples, mixture: Samples) -> Samples:
    """Return the masks S / sum(S)."""
    masks: Samples = stems / np.maximum(stems.sum(axis=0), np.float32(1e-9))
    return masks


def score_stems(song: Song, estimates: Samples, names: Iterable[str]) -> Scores:
    """Return the ratios of each stem's estimate, leaving out stems that are silent or not known."""
    return {
        name: {"sdr_db": sdr(reference, estimate), "si_sdr_db": si_sdr(reference, estimate)}
        for name, reference, estimate, known in zip(names, song.parts, estimates, song.known, strict=False)
        if known and np.any(reference)
    }


def score_masks(song: Song, separator: MaskSeparator, threshold: float) -> Scores:
    """Return the accuracy of each stem's binary mask, over the frames that lie in the song whole.

    Stems that are silent or not known are left out.
    """
    stft, reach, bins = separator.stft, separator.reach, separator.bins
    spectra = stft.transform(song.parts.astype(np.float32))
    mixture = magnitude(spectra.sum(axis=0))[..., :bins]
    stems = magnitude(spectra[: len(song.known)])[..., :bins]
    probabilities = separator.probabilities(np.pad(mixture, ((reach, reach), (0, 0))))
    return {
        name: mask_scores(found, stem > threshold * mixture)
        for name, found, stem, known in zip(separator.stems, probabilities, stems, song.known, strict=True)
        if known and stem.any()
    }


def summarise(songs: Iterable[Scores], how: Callable[[NDArray[np.float64]], float]) -> Scores:
    """Return each stem's measures over all songs, summed up by `how`: median, mean."""
    collected: dict[str, dict[str, list[float]]] = {}
    for scores in songs:
        for stem, measures in scores.items():
            for measure, value in measures.items():
                collected.setdefault(stem, {}).setdefault(measure, []).append(value)
    return {
        stem: {measure: float(how(np.array(values))) for measure, values in measures.items()}
        for stem, measures in collected.items()
    }
