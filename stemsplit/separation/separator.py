"""What a separator is to the engine: `Spec`, the protocols `Separator` and `Estimator`; and masking ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from stemsplit.dsp.masks import between, extend, for_channels, wiener
from stemsplit.dsp.stft import Spectra, Stft, log_magnitude, view

Samples = NDArray[np.float32]

SEGMENT_FRAMES = 450
"""About how many frames to separate at a time: at a hop of 512 five seconds, to keep all workers busy."""


@dataclass(frozen=True)
class Spec:
    """All that the engine needs to know of a separator.

    `context` is how many samples on either side a segment depends on, and `grid` what its start and length
    must be multiples of, for streamed output to equal the whole file's; both in samples.
    """

    stems: tuple[str, ...]
    sample_rate: int
    context: int
    grid: int
    complete: bool = True
    """Whether the stems add up to the mixture."""
    segment: int = 0
    """The samples that are best separated at a time; 0 where it does not matter."""
    workers: int = 1
    """How many segments are best separated side by side."""
    how: str = ""
    """What it runs on, in words."""

    def __post_init__(self) -> None:
        if not self.stems or len(set(self.stems)) < len(self.stems):
            raise ValueError(f"stems={self.stems} must be one or more different names")
        if self.sample_rate < 1 or self.grid < 1 or self.context < 0 or self.context % self.grid:
            raise ValueError(f"context={self.context} must be a multiple of grid={self.grid}")


class Separator(Protocol):
    """Separates sound: pure and deterministic, and several segments side by side if need be."""

    @property
    def spec(self) -> Spec:
        """What the engine needs to know."""

    def separate(self, window: Samples) -> Samples:
        """Return stems `(stem, channel, time)` of the segment in the middle of a window.

        Shapes: window `(channel, context + time + context)` at `spec.sample_rate`, on `spec.grid`.
        """


@runtime_checkable
class Estimator(Protocol):
    """A method that must hear the whole mixture before it separates any of it."""

    @property
    def stems(self) -> tuple[str, ...]:
        """The names of the stems that its separators give."""

    def fit(self, mixture: Iterable[Samples], sample_rate: int) -> Separator:
        """Return a separator for a mixture given as blocks `(channel, time)`, which may be iterated again."""


Method = Separator | Estimator
"""What separates: ready to, or to be fitted to each track first."""


def overlap(stft: Stft, *, reach: int = 0, grid: int = 1, step: int = 1, places: int = 0) -> tuple[int, int]:
    """Return how far around a segment masks are needed, in frames, and for how many more answers.

    The latter are what a network must be asked for beyond the one for every `step` frames of the segment. A
    network that reaches further begins to hear on its `grid`.
    """
    before = stft.n_fft // stft.hop_length - 1  # frames that begin before the segment and end in it
    after = 1 if step > 1 else 0  # the last answer lies beyond the last frame
    around = step * math.ceil((before + after + places) / step)
    around += -(reach + around) % grid
    return around, (2 * around - before - 1) // step + 1


@dataclass(frozen=True)
class MaskSeparator:
    """Multiplies the mixture's spectrum by a mask a stem.

    `network` maps log magnitudes `(view, frame + 2 * reach, bin)` to probabilities `(stem, channel, frame,
    bin)` of every `step`-th frame and the bins up to `bins`; `rule` turns these into masks. Where the network
    gives the same mask for all channels, a stem keeps the mixture's place in the stereo image; unless
    `places`, the number of frames to either side that a Wiener filter finds the stems' own places from, is
    more than none. Mono stays mono. There may be masks of more stems than are wanted: the filter needs all.
    """

    stems: tuple[str, ...]
    sample_rate: int
    stft: Stft
    bins: int
    reach: int
    network: Callable[[Samples], Samples]
    rule: Callable[[Samples], Samples]
    views: str = "power"
    """What the network hears, as `stft.view` has it."""
    grid: int = 1
    """Frames that what the network hears must begin at a multiple of."""
    complete: bool = True
    picked: tuple[int, ...] = ()
    """Where the stems are among those that there are masks of; empty where these are the same."""
    places: int = 0
    step: int = 1
    """The network is asked for every `step`-th frame; between them its answers are interpolated."""
    batch: int = 1
    """How many answers the network gives at a time: segments are made for whole batches."""
    workers: int = 1
    how: str = ""

    @cached_property
    def _overlap(self) -> tuple[int, int]:
        return overlap(self.stft, reach=self.reach, grid=self.grid, step=self.step, places=self.places)

    @cached_property
    def spec(self) -> Spec:
        """The context is what network and filter hear around the frames that overlap with a segment."""
        hop_length, grid = self.stft.hop_length, self.step * self.grid
        around, asked = self._overlap
        batches = max(1, round((SEGMENT_FRAMES / self.step + asked) / self.batch))
        fitting = (batches * self.batch - asked) * self.step // grid
        return Spec(
            stems=self.stems,
            sample_rate=self.sample_rate,
            context=(self.reach + around) * hop_length,
            grid=grid * hop_length,
            complete=self.complete,
            segment=max(1, fitting) * grid * hop_length,
            workers=self.workers,
            how=self.how,
        )

    def separate(self, window: Samples) -> Samples:
        """Return stems `(stem, channel, time)` of the segment in the middle of a window."""
        context = self.spec.context
        segment = window[:, context : window.shape[-1] - context]
        masks, spectra = self._masks_and_spectra(window)
        start = context - (self.reach + self.places) * self.stft.hop_length
        stems = np.empty((len(self.stems), *segment.shape), np.float32)
        # All stems of a complete set add up to the mixture, so that the last one needs no inverse of its own.
        inverted = stems[:-1] if self.complete else stems
        wanted = (self.picked or range(len(masks)))[: len(inverted)]
        if self.places:
            masked: Iterable[Spectra] = wiener(masks, spectra, self.places, wanted)
        else:
            masked = (masks[place] * spectra for place in wanted)
        for stem, estimate in zip(inverted, masked, strict=True):
            stem[:] = self.stft.inverse(estimate)[:, start : start + segment.shape[-1]]
        if self.complete:
            stems[-1] = segment - inverted.sum(axis=0)
        return stems

    def masks(self, window: Samples) -> Samples:
        """Return masks `(stem, channel, frame, bin)` of the segment in the middle of a window.

        Frames are centred on each `hop_length`-th sample of the segment, from its first sample. There is one
        channel where the masks are the same for all.
        """
        masks, _ = self._masks_and_spectra(window)
        around, _ = self._overlap
        first = around - self.stft.n_fft // 2 // self.stft.hop_length
        count = (window.shape[-1] - 2 * self.spec.context) // self.stft.hop_length
        return masks[list(self.picked) or slice(None), :, first : first + count]

    def _masks_and_spectra(self, window: Samples) -> tuple[Samples, Spectra]:
        """Return masks of all stems for the frames around the segment, and the spectra of these frames."""
        spectra = self.stft.transform(window)
        masks = self.rule(self.probabilities(spectra))
        spectra = spectra[:, self.reach : self.reach + masks.shape[2]]
        return extend(for_channels(masks, spectra), self.stft.bins), spectra

    def probabilities(self, spectra: Spectra) -> Samples:
        """Return the network's word on each bin, `(stem, channel, frame, bin)`.

        Shapes: spectra `(channel, frame + 2 * reach, bin)`.
        """
        features = log_magnitude(view(spectra[..., : self.bins], self.views))
        return between(self.network(features), self.step)


@dataclass(frozen=True)
class WaveformSeparator:
    """Asks a network for the stems' samples themselves.

    `network` maps a mixture `(channel, time + 2 * reach)` to stems `(stem, channel, time)`, with as many
    channels as it `channels` hears; or with one, each of them by itself. `picked` are the stems of the
    network's that are wanted.
    """

    stems: tuple[str, ...]
    sample_rate: int
    reach: int
    network: Callable[[Samples], Samples]
    picked: tuple[int, ...]
    channels: int = 2
    grid: int = 1
    complete: bool = True
    batch: int = 1
    """How many samples the network gives at a time."""
    workers: int = 1
    how: str = ""

    @cached_property
    def spec(self) -> Spec:
        """The context is what the network hears around a segment."""
        return Spec(
            stems=self.stems,
            sample_rate=self.sample_rate,
            context=math.ceil(self.reach / self.grid) * self.grid,
            grid=self.grid,
            complete=self.complete,
            segment=max(1, self.batch // self.grid) * self.grid,
            workers=self.workers,
            how=self.how,
        )

    def separate(self, window: Samples) -> Samples:
        """Return stems `(stem, channel, time)` of the segment in the middle of a window."""
        context, edge = self.spec.context, self.spec.context - self.reach
        segment = window[:, context : window.shape[-1] - context]
        heard = _grouped(window, self.channels)
        stems = np.stack([self.network(group)[..., edge:][..., : segment.shape[-1]] for group in heard])
        stems = stems[:, list(self.picked)].swapaxes(0, 1).reshape(len(self.stems), -1, segment.shape[-1])
        if len(window) < self.channels:
            stems = stems.mean(axis=1, keepdims=True)
        stems = stems[:, : len(window)]

        def near(there: NDArray[np.bool_]) -> NDArray[np.bool_]:
            return _near(there, self.reach)[edge:][: segment.shape[-1]]

        if len(window) == 2 == self.channels:  # what is the same left and right stays so
            stems = np.where(near(window[0] != window[1]), stems, stems.mean(axis=1, keepdims=True))
        # A network that hears nothing may still say something.
        found: Samples = np.where(near((window != 0).max(axis=0)), stems, np.float32(0))
        if self.complete:
            found[-1] = segment - found[:-1].sum(axis=0)
        return found


def _near(there: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Return for each place but the first and last `reach` whether there is any within `reach` of it."""
    counts = np.concatenate([[0], np.cumsum(there)])
    near: NDArray[np.bool_] = counts[2 * reach + 1 :] > counts[: -2 * reach - 1]
    return near


def _grouped(window: Samples, channels: int) -> Samples:
    """Return a signal `(channel, time)` as `(group, channel, time)`; the last group may hold one twice."""
    missing = -len(window) % channels
    full = np.concatenate([window, window[-missing:]]) if missing else window
    return full.reshape(-1, channels, window.shape[-1])


@dataclass(frozen=True)
class SpectralSeparator:
    """Shares out the mixture's spectrum, each frame by itself.

    `share` maps spectra `(channel, frame, bin)` to those of the stems, `(stem, channel, frame, bin)`, which
    add up to them.
    """

    stems: tuple[str, ...]
    sample_rate: int
    stft: Stft
    share: Callable[[Spectra], Spectra]
    how: str = ""
    frames: int = 0
    """About how many frames to separate at a time; 0 where it does not matter."""

    @property
    def spec(self) -> Spec:
        """The context is as long as frames reach over the ends of a segment."""
        hop_length = self.stft.hop_length
        return Spec(
            stems=self.stems,
            sample_rate=self.sample_rate,
            context=self.stft.n_fft - hop_length,
            grid=hop_length,
            segment=self.frames * hop_length,
            how=self.how,
        )

    def separate(self, window: Samples) -> Samples:
        """Return stems `(stem, channel, time)` of the segment in the middle of a window."""
        context = self.spec.context
        segment = window[:, context : window.shape[-1] - context]
        shares = self.share(self.stft.transform(window))[:-1]
        stems = np.empty((len(self.stems), *segment.shape), np.float32)
        for stem, spectrum in zip(stems, shares, strict=False):
            stem[:] = self.stft.inverse(spectrum)[:, context : context + segment.shape[-1]]
        stems[-1] = segment - stems[:-1].sum(axis=0)  # no inverse of its own: they add up
        return stems


@dataclass(frozen=True)
class Mean:
    """The mean of what several separators give: where they err in different ways, it errs less than any."""

    separators: tuple[Separator, ...]
    """Of the same stems, in the same order, at the same sample rate."""

    @cached_property
    def spec(self) -> Spec:
        """The context is the longest that any of them needs, and the grid one that suits all."""
        specs = [separator.spec for separator in self.separators]
        grid = math.lcm(*(spec.grid for spec in specs))

        def on_grid(samples: int) -> int:
            return math.ceil(samples / grid) * grid

        return Spec(
            stems=specs[0].stems,
            sample_rate=specs[0].sample_rate,
            context=on_grid(max(spec.context for spec in specs)),
            grid=grid,
            complete=all(spec.complete for spec in specs),
            segment=on_grid(max(spec.segment for spec in specs)),
            workers=max(spec.workers for spec in specs),
            how=specs[0].how,
        )

    def separate(self, window: Samples) -> Samples:
        """Return stems `(stem, channel, time)` of the segment in the middle of a window."""
        stems = np.float32(0)
        for separator in self.separators:
            edge = self.spec.context - separator.spec.context
            stems = stems + separator.separate(window[:, edge : window.shape[-1] - edge])
        found: Samples = stems / np.float32(len(self.separators))
        return found


@dataclass(frozen=True)
class WithRest:
    """A separator that gives one stem more: the mixture without all the others."""

    separator: Separator
    name: str

    @property
    def spec(self) -> Spec:
        """The separator's own, with the stem added."""
        spec = self.separator.spec
        return replace(spec, stems=(*spec.stems, self.name), complete=True)

    def separate(self, window: Samples) -> Samples:
        """Return stems `(stem, channel, time)` of the segment in the middle of a window."""
        stems = self.separator.separate(window)
        context = self.separator.spec.context
        segment = window[:, context : window.shape[-1] - context]
        return np.concatenate([stems, (segment - stems.sum(axis=0))[None]])
