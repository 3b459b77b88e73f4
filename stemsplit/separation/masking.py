"""Separation by masks that a network predicts from the mixture's magnitudes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np

from stemsplit.dsp.features import log_magnitude, magnitudes
from stemsplit.dsp.input_features import InputFeatures
from stemsplit.dsp.masks import extend_to_full_band, interpolate_frames, match_channels
from stemsplit.dsp.stft import Spectra, Stft
from stemsplit.dsp.wiener import wiener
from stemsplit.separation.plan import FRAMES_AHEAD, STREAM_FRAMES, MaskPlan
from stemsplit.separation.separator import Execution, Samples, Spec


@runtime_checkable
class NetworkInParts(Protocol):
    """A network that runs on a stream of features in parts of a batch of frames."""

    def __call__(self, features: Samples) -> Samples:
        """Return probabilities for features, as in `MaskSeparator`."""

    def stream(self, parts: Iterable[Samples]) -> Iterator[Samples]:
        """Yield probabilities for consecutive features. They are valid until the next ones."""


@dataclass(frozen=True)
class MaskSeparator:
    """Multiplies the mixture's spectrum by one mask per stem.

    `network` maps log magnitudes `(view, frame + 2 * context, bin)` to probabilities `(stem, channel, frame,
    bin)` for every `frame_stride`-th frame and the lowest `bins` bins; `rule` turns these into masks. If all
    channels share a mask, a stem keeps the mixture's position in the stereo image, unless the plan has a
    Wiener filter, which estimates a position for each stem. Mono stays mono. There can be masks for more
    stems than requested: a joint network predicts all stems, and the filter needs them.
    """

    stems: tuple[str, ...]
    sample_rate: int
    plan: MaskPlan
    bins: int
    network: Callable[[Samples], Samples]
    rule: Callable[[Samples], Samples]
    input: InputFeatures = InputFeatures.RMS
    complete: bool = True
    stem_indices: tuple[int, ...] = ()
    """Indices of the stems among the masks; empty if both are the same."""
    execution: Execution = Execution()

    @property
    def stft(self) -> Stft:
        """The transform whose spectra are masked."""
        return self.plan.stft

    @cached_property
    def spec(self) -> Spec:
        """The context covers the network and filter input for all frames that overlap a segment."""
        plan, stride = self.plan, self.plan.stride_samples
        execution = self.execution
        segment = shortest = longest = plan.segment_samples(execution.batch)
        if isinstance(self.network, NetworkInParts):
            shortest = segment // 2 // stride * stride
            segment = plan.stream_samples(execution.batch)
            frames = max(STREAM_FRAMES, FRAMES_AHEAD // execution.workers)
            longest = plan.stream_samples(execution.batch, frames)
        return Spec(
            stems=self.stems,
            sample_rate=self.sample_rate,
            context=plan.context_samples,
            stride=stride,
            complete=self.complete,
            segment=segment,
            shortest=shortest,
            longest=longest,
            workers=execution.workers,
            how=execution.how,
        )

    def separate(self, window: Samples) -> Samples:
        """Return stems `(stem, channel, time)` of the segment in the middle of a window."""
        return np.concatenate(list(self.pieces(window)), axis=-1)

    def pieces(self, window: Samples) -> Iterator[Samples]:
        """Yield stems `(stem, channel, time)` of the same segment in consecutive pieces."""
        plan, context, stft = self.plan, self.spec.context, self.stft
        segment = window[:, context : window.shape[-1] - context]
        # A complete set sums to the mixture, so the last stem needs no inverse transform.
        inverted = len(self.stems) - self.complete
        start, held = -plan.stem_start, np.zeros((inverted, len(window), 0), np.float32)
        filtered, around = plan.wiener_context_frames > 0, 2 * plan.wiener_context_frames
        parts = self._masked(window, shared=filtered)
        for masks, spectra in _overlapping(parts, around, plan.wiener_stride):
            wanted = (self.stem_indices or range(len(masks)))[:inverted]
            if filtered:
                estimates: Iterable[Spectra] = wiener(
                    masks, spectra, plan.wiener_context_frames, wanted, stride=plan.wiener_stride
                )
            else:
                estimates = (masks[index] * spectra for index in wanted)
            frames = spectra.shape[1] - around
            sound = np.empty((inverted, len(window), stft.samples(frames)), np.float32)
            for stem, estimate in zip(sound, estimates, strict=True):
                stem[:] = stft.inverse(estimate)
            sound[..., : held.shape[-1]] += held
            done = frames * stft.hop_length  # later frames begin here
            yield from self._within(segment, sound[..., :done], start)
            start, held = start + done, sound[..., done:]
        yield from self._within(segment, held, start)

    def _within(self, segment: Samples, sound: Samples, start: int) -> Iterator[Samples]:
        """Yield the part of stems that lies in a segment, if any; they begin at its sample `start`."""
        first, last = max(0, -start), min(sound.shape[-1], segment.shape[-1] - start)
        if first < last:
            stems = sound[..., first:last]
            if self.complete:
                rest = segment[:, start + first : start + last] - stems.sum(axis=0)
                stems = np.concatenate([stems, rest[None]])
            yield stems

    def masks(self, window: Samples) -> Samples:
        """Return masks `(stem, channel, frame, bin)` of the segment in the middle of a window.

        Frames are centered on every `hop_length`-th sample of the segment, from its first sample. There is
        one channel if all channels share a mask.
        """
        masks = np.concatenate([masks for masks, _ in self._masked(window)], axis=2)
        return masks[list(self.stem_indices) or slice(None), :, self.plan.centred(window.shape[-1])]

    def _masked(self, window: Samples, *, shared: bool = False) -> Iterator[tuple[Samples, Spectra]]:
        """Yield masks of all stems for consecutive frames around the segment, and the spectra of the frames.

        If `shared`, there is one mask for all channels: their mean.
        """
        for probabilities, spectra in self._predicted(window):
            masks = self.rule(probabilities)
            masks = masks.mean(axis=1, keepdims=True) if shared else match_channels(masks, spectra)
            yield extend_to_full_band(masks, self.stft.bins), spectra

    def _predicted(self, window: Samples) -> Iterator[tuple[Samples, Spectra]]:
        """Yield probabilities `(stem, channel, frame, bin)`, and the spectra of their frames."""
        if not isinstance(self.network, NetworkInParts):
            spectra = self.stft.transform(window)
            probabilities = self.probabilities(spectra)
            yield probabilities, spectra[:, self.plan.context :][:, : probabilities.shape[2]]
            return
        waiting = np.zeros((len(window), 0, self.stft.bins), np.complex64)

        def features() -> Iterator[Samples]:
            nonlocal waiting
            for spectra in self._spectra(window):
                waiting = np.concatenate([waiting, spectra], axis=1)
                yield self._features(spectra)

        begin = self.plan.context
        for probabilities in self.network.stream(features()):
            frames = probabilities.shape[2]
            yield probabilities, waiting[:, begin : begin + frames]
            waiting, begin = waiting[:, begin + frames :], 0

    def _spectra(self, window: Samples) -> Iterator[Spectra]:
        """Yield the spectra of a window in parts of a batch of frames."""
        stft, batch = self.stft, self.execution.batch
        for start in range(0, stft.frames(window.shape[-1]), batch):
            yield stft.transform(window[:, start * stft.hop_length :][:, : stft.samples(batch)])

    def _features(self, spectra: Spectra) -> Samples:
        return log_magnitude(magnitudes(spectra[..., : self.bins], self.input))

    def probabilities(self, spectra: Spectra) -> Samples:
        """Return the network's predictions for each bin, `(stem, channel, frame, bin)`.

        Shapes: spectra `(channel, frame + 2 * context, bin)`.
        """
        return interpolate_frames(self.network(self._features(spectra)), self.plan.frame_stride)


def _overlapping(
    parts: Iterable[tuple[Samples, Spectra]], frames: int, multiple: int
) -> Iterator[tuple[Samples, Spectra]]:
    """Yield masks and spectra, each with the last `frames` frames of those before.

    The number of frames is a multiple of `multiple`, which divides `frames`; remaining ones are dropped.
    """
    held: tuple[Samples, Spectra] | None = None
    for part in parts:
        masks, spectra = part
        if held and frames:
            masks, spectra = (np.concatenate(both, axis=-2) for both in zip(held, part, strict=True))
        count = spectra.shape[1] // multiple * multiple
        held = masks[:, :, max(0, count - frames) :], spectra[:, max(0, count - frames) :]
        if count > frames:
            yield masks[:, :, :count], spectra[:, :count]
