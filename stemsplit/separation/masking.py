"""Separation by masks that a network predicts from the mixture's magnitudes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from stemsplit.dsp.features import log_magnitude, magnitudes
from stemsplit.dsp.input_features import InputFeatures
from stemsplit.dsp.masks import extend_to_full_band, interpolate_frames, match_channels
from stemsplit.dsp.stft import Spectra, Stft
from stemsplit.dsp.wiener import wiener
from stemsplit.separation.plan import MaskPlan
from stemsplit.separation.separator import Execution, Samples, Spec


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
        return Spec(
            stems=self.stems,
            sample_rate=self.sample_rate,
            context=self.plan.context_samples,
            stride=self.plan.stride_samples,
            complete=self.complete,
            segment=self.plan.segment_samples(self.execution.batch),
            workers=self.execution.workers,
            how=self.execution.how,
        )

    def separate(self, window: Samples) -> Samples:
        """Return stems `(stem, channel, time)` of the segment in the middle of a window."""
        plan, context = self.plan, self.spec.context
        segment = window[:, context : window.shape[-1] - context]
        masks, spectra = self._masks_and_spectra(window)
        stems = np.empty((len(self.stems), *segment.shape), np.float32)
        # A complete set sums to the mixture, so the last stem needs no inverse transform.
        inverted = stems[:-1] if self.complete else stems
        wanted = (self.stem_indices or range(len(masks)))[: len(inverted)]
        if plan.wiener_context_frames:
            masked: Iterable[Spectra] = wiener(
                masks, spectra, plan.wiener_context_frames, wanted, stride=plan.wiener_stride
            )
        else:
            masked = (masks[index] * spectra for index in wanted)
        for stem, estimate in zip(inverted, masked, strict=True):
            stem[:] = self.stft.inverse(estimate)[:, plan.stem_start :][:, : segment.shape[-1]]
        if self.complete:
            stems[-1] = segment - inverted.sum(axis=0)
        return stems

    def masks(self, window: Samples) -> Samples:
        """Return masks `(stem, channel, frame, bin)` of the segment in the middle of a window.

        Frames are centered on every `hop_length`-th sample of the segment, from its first sample. There is
        one channel if all channels share a mask.
        """
        masks, _ = self._masks_and_spectra(window)
        return masks[list(self.stem_indices) or slice(None), :, self.plan.centred(window.shape[-1])]

    def _masks_and_spectra(self, window: Samples) -> tuple[Samples, Spectra]:
        """Return masks of all stems for the frames around the segment, and the spectra of these frames."""
        spectra = self.stft.transform(window)
        masks = self.rule(self.probabilities(spectra))
        spectra = spectra[:, self.plan.context : self.plan.context + masks.shape[2]]
        return extend_to_full_band(match_channels(masks, spectra), self.stft.bins), spectra

    def probabilities(self, spectra: Spectra) -> Samples:
        """Return the network's predictions for each bin, `(stem, channel, frame, bin)`.

        Shapes: spectra `(channel, frame + 2 * context, bin)`.
        """
        features = log_magnitude(magnitudes(spectra[..., : self.bins], self.input))
        return interpolate_frames(self.network(features), self.plan.frame_stride)
