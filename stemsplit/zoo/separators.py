"""Loading a trained model: from card and weights file to a separator."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from stemsplit.dsp import masks
from stemsplit.dsp.stft import Stft
from stemsplit.errors import BadWeights, UsageError
from stemsplit.networks import registry
from stemsplit.options import RuntimeOptions
from stemsplit.runtime import Networks, Runtime, start
from stemsplit.separation.masking import MaskSeparator
from stemsplit.separation.plan import MaskPlan
from stemsplit.separation.separator import Execution, Samples
from stemsplit.separation.waveform import WaveformSeparator
from stemsplit.zoo import store
from stemsplit.zoo.card import MASK_POWERS, MASKS, ModelCard

WIENER_SECONDS = 0.75
"""Context of the Wiener filter on either side. Twice as much was hardly better."""
WIENER_STRIDE = 4
"""Frames that share positions in the Wiener filter."""


def load(
    card: ModelCard, path: Path, stems: tuple[str, ...], mask: str | None, running: RuntimeOptions
) -> MaskSeparator | WaveformSeparator:
    """Return a separator for some stems of a model; `mask` is one of MASKS, or None for the default.

    Raises:
        BadWeights: the weights file is damaged.
        DeviceUnavailable: the device or runtime does not exist.
        UsageError: the model cannot apply this mask.
    """
    card, running = as_run(card, mask, running)
    if not registry.find(card.network).predicts_waveforms:
        return _load_masks(card, path, stems, mask or card.mask, running)
    if mask:
        raise UsageError(f"{card.name} does not use masks", "leave out --mask")
    return _load_waveforms(card, path, stems, running)


def as_run(card: ModelCard, mask: str | None, running: RuntimeOptions) -> tuple[ModelCard, RuntimeOptions]:
    """Return the card and options to run: `fast` leaves out the Wiener filter if no frames can be skipped.

    Raises:
        UsageError: `fast` and this filter are both requested.
    """
    if card.mask != "wiener" or running.frame_stride in registry.find(card.network).frame_strides:
        return card, running
    if mask == "wiener":
        raise UsageError("--fast leaves out the Wiener filter", "leave out --fast or --mask wiener")
    return replace(card, mask="soft"), replace(running, fast=False)


def _load_waveforms(
    card: ModelCard, path: Path, stems: tuple[str, ...], running: RuntimeOptions
) -> WaveformSeparator:
    network, runtime = registry.find(card.network), _start(card, path, stems, running)
    return WaveformSeparator(
        stems=stems,
        sample_rate=card.sample_rate,
        context=network.context.frames,
        network=runtime,
        stem_indices=_stem_indices(card, stems),
        channels=network.channels,
        stride=network.context.stride,
        complete=stems == card.stems and card.complete,
        execution=_execution(runtime, running),
    )


def _load_masks(
    card: ModelCard, path: Path, stems: tuple[str, ...], mask: str, running: RuntimeOptions
) -> MaskSeparator:
    if mask not in MASKS:
        raise UsageError(f"No mask called `{mask}`", f"choose one of {', '.join(MASKS)}")
    mask, power = (card.mask, MASK_POWERS[mask]) if mask in MASK_POWERS else (mask, 1.0)
    network = registry.find(card.network)
    masked = card.stems if network.joint else stems
    whole = masked == card.stems and card.complete
    if mask == "wiener" and not whole:
        raise UsageError("The Wiener filter needs all stems", "choose --mask soft")
    if network.bins > card.n_fft // 2 + 1:
        raise BadWeights(f"{card.name} has too few bins for its network", "get a fresh copy of the file")
    runtime = _start(card, path, stems, running)
    return MaskSeparator(
        stems=stems,
        sample_rate=card.sample_rate,
        plan=mask_plan(card, mask, running),
        bins=network.bins,
        network=runtime,
        rule=_rule(card, mask, power, complete=whole),
        input=network.input,
        complete=whole and stems == card.stems,
        stem_indices=_stem_indices(card, stems),
        execution=_execution(runtime, running),
    )


def mask_plan(card: ModelCard, mask: str, running: RuntimeOptions) -> MaskPlan:
    """Return the plan of the frames that the network, and the Wiener filter if any, need around a segment."""
    network = registry.find(card.network)
    stft, stride = Stft(card.n_fft, card.hop_length), network.context.stride
    plan = MaskPlan(stft, network.context.frames, stride, frame_stride=running.frame_stride)
    if mask != "wiener":
        return plan
    runs = round(WIENER_SECONDS * card.sample_rate / card.hop_length / WIENER_STRIDE)
    return replace(
        plan,
        stride=math.lcm(stride, WIENER_STRIDE),
        wiener_context_frames=runs * WIENER_STRIDE,
        wiener_stride=WIENER_STRIDE,
    )


def _start(card: ModelCard, path: Path, stems: tuple[str, ...], running: RuntimeOptions) -> Runtime:
    """Return the loaded networks for some stems of a model."""
    network = registry.find(card.network)
    parts = network.parts(stems)
    each = len(card.stems) if network.joint else 1
    networks = Networks(card.network, parts, each, partial(store.load, path, parts), path.read_bytes)
    return start(running, networks)


def _execution(runtime: Runtime, running: RuntimeOptions) -> Execution:
    how = f"{runtime.name} on {runtime.device} in {runtime.precision}"
    # A track that shares the threads with others is cut into fewer segments, which need less context.
    return Execution(runtime.batch, max(1, runtime.workers // running.jobs), how)


def _stem_indices(card: ModelCard, stems: tuple[str, ...]) -> tuple[int, ...]:
    """Return the index of each stem in the networks' output."""
    output = card.stems if registry.find(card.network).joint else stems
    return tuple(output.index(name) for name in stems)


def _rule(card: ModelCard, mask: str, power: float, *, complete: bool) -> Callable[[Samples], Samples]:
    """Return the function from probabilities to masks; masks of a `complete` set of stems sum to one."""
    if mask == "binary":
        return partial(masks.binary, complete=complete)
    if complete and card.combination:
        scaling = np.array(card.combination, np.float32)
        return partial(masks.matrix_scaled_softmax, scaling=scaling, power=power)
    return partial(masks.soft, complete=complete, power=power * card.mask_power)
