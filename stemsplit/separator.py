"""What a separator is to the engine: `Spec`, the protocols `Separator` and `Estimator`; and masking ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .masks import extend, wiener
from .stft import Stft, log_magnitude, magnitude

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Spec:
    """All that the engine needs to know of a separator.

    `context` is how many samples on either side an output sample depends on, and `grid` what the start of
    a segment must be a multiple of, for streamed output to equal the whole file's; both in samples.
    """

    stems: tuple[str, ...]
    sample_rate: int
    context: int
    grid: int
    complete: bool = True
    """Whether the stems add up to the mixture."""

    def __post_init__(self) -> None:
        if not self.stems or len(set(self.stems)) < len(self.stems):
            raise ValueError(f"stems={self.stems} must be one or more different names")
        if self.sample_rate < 1 or self.grid < 1 or self.context < 0 or self.context % self.grid:
            raise ValueError(f"context={self.context} must be a multiple of grid={self.grid}")


class Separator(Protocol):
    """Separates sound: pure and deterministic; silence is assumed on either side of what it is given."""

    @property
    def spec(self) -> Spec:
        """What the engine needs to know."""

    def separate(self, mixture: Samples) -> Samples:
        """Return stems `(stem, channel, time)` of a mixture `(channel, time)` at `spec.sample_rate`."""


class Estimator(Protocol):
    """A method that must hear the whole mixture before it separates any of it."""

    def fit(self, mixture: Iterable[Samples]) -> Separator:
        """Return a separator for a mixture given as blocks `(channel, time)`, which may be iterated again."""


@dataclass(frozen=True)
class MaskSeparator:
    """Multiplies the mixture's spectrum by a mask a stem.

    `network` maps log magnitudes `(frame + 2 * reach, bin)` to probabilities `(stem, frame, bin)` of the bins
    up to `bins`; `rule` turns these into masks. A mask is the same for all channels, so a stem keeps the
    mixture's place in the stereo image, and mono stays mono; unless `places`, the number of frames to either
    side that a Wiener filter finds the stems' own places from, is more than none.
    """

    stems: tuple[str, ...]
    sample_rate: int
    stft: Stft
    bins: int
    reach: int
    network: Callable[[Samples], Samples]
    rule: Callable[[Samples], Samples]
    complete: bool = True
    places: int = 0

    @property
    def spec(self) -> Spec:
        """The context is what network and filter hear, and a frame: analysis and synthesis overlap there."""
        hop_length = self.stft.hop_length
        context = self.stft.n_fft + (self.reach + self.places) * hop_length
        return Spec(self.stems, self.sample_rate, context, hop_length, self.complete)

    def separate(self, mixture: Samples) -> Samples:
        """Return stems `(stem, channel, time)` of a mixture `(channel, time)`."""
        time = mixture.shape[-1]
        pad = self.spec.context
        spectra = self.stft.transform(np.pad(mixture, ((0, 0), (pad, pad))))
        probabilities = self.probabilities(magnitude(spectra[..., : self.bins]))
        masks = extend(self.rule(probabilities), self.stft.bins)
        spectra = spectra[:, self.reach : self.reach + masks.shape[1]]
        stems = np.empty((len(self.stems), *mixture.shape), np.float32)
        start = pad - self.reach * self.stft.hop_length
        masked = wiener(masks, spectra, self.places) if self.places else (mask * spectra for mask in masks)
        for stem, estimate in zip(stems, masked, strict=True):
            stem[:] = self.stft.inverse(estimate)[:, start : start + time]
        return stems

    def probabilities(self, magnitudes: Samples) -> Samples:
        """Return the network's word on each bin, `(stem, frame, bin)`.

        Shapes: magnitudes `(frame + 2 * reach, bin)`, of the first `bins` bins.
        """
        return self.network(log_magnitude(magnitudes))


@dataclass(frozen=True)
class WithRest:
    """A separator that gives one stem more: the mixture without all the others."""

    separator: Separator
    name: str

    @property
    def spec(self) -> Spec:
        """The separator's own, with the stem added."""
        spec = self.separator.spec
        return Spec((*spec.stems, self.name), spec.sample_rate, spec.context, spec.grid)

    def separate(self, mixture: Samples) -> Samples:
        """Return stems `(stem, channel, time)` of a mixture `(channel, time)`."""
        stems = self.separator.separate(mixture)
        return np.concatenate([stems, (mixture - stems.sum(axis=0))[None]])
