"""From what a user names to what separates: the networks, masks and stems of a model."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stemsplit import spatial
from stemsplit.defaults import DEFAULT_MODEL
from stemsplit.dsp import masks
from stemsplit.dsp.stft import Stft
from stemsplit.errors import BadWeights, UnknownStem, UsageError
from stemsplit.missing import no_stem
from stemsplit.networks import registry
from stemsplit.options import DEFAULT_RUNTIME, RuntimeKeywords, RuntimeOptions
from stemsplit.runtime import Runtime, start
from stemsplit.separation.compose import Ensemble, WithResidual
from stemsplit.separation.masking import MaskSeparator
from stemsplit.separation.plan import MaskPlan
from stemsplit.separation.separator import Execution, Method, Samples, Separator
from stemsplit.separation.waveform import WaveformSeparator
from stemsplit.zoo import store

if TYPE_CHECKING:
    from typing_extensions import Unpack

REST = "accompaniment"
MASKS = ("soft", "binary", "wiener")
WIENER_SECONDS = 0.75
"""The Wiener filter's context on either side. Twice as far was hardly better."""


def load_separator(
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    stems: Sequence[str] | None = None,
    two_stems: str | None = None,
    mask: str | None = None,
    **running: Unpack[RuntimeKeywords],
) -> Separator:
    """Return a model ready to separate.

    Only the networks of the `stems` asked for are loaded and run. With all of them the masks add up to one;
    with some, each stem's mask stands on its own, unless one network gives all. `two_stems` gives one stem
    and everything but it. Further options are those of `RuntimeOptions`: runtime, device, precision, batch,
    threads, fast.

    Raises:
        UnknownModel: there is no such model.
        BadWeights: the weights file is damaged.
        DeviceUnavailable: the device or runtime asked for is not there.
        UsageError: the model has no such stem, or no such mask.
    """
    wanted = _asked_for(stems, two_stems)
    separator = load_network(model, stems=wanted, mask=mask, running=RuntimeOptions(**running))
    return separator if two_stems is None else WithResidual(separator, REST)


def load_method(
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    stems: Sequence[str] | None = None,
    two_stems: str | None = None,
    mask: str | None = None,
    sources: int | None = None,
    azimuths: Sequence[float] = (),
    **running: Unpack[RuntimeKeywords],
) -> Method:
    """Return what separates: a trained model, or one of `spatial.METHODS` that is fitted to each track.

    The latter finds `sources` of them, or those at `azimuths`, in degrees from -45 (left) to 45 (right), and
    a rest. For the former, options are those of `load_separator`.

    Raises:
        StemsplitError: whatever `load_separator` raises, or the method knows no such option.
    """
    if str(model) in spatial.METHODS:
        if two_stems or mask:
            raise UsageError(f"{model} has no two stems, and masks of its own", "choose --stems")
        stem_names(model, stems=stems, sources=sources, azimuths=azimuths)
        return spatial.build(str(model), sources, azimuths)
    if sources is not None or azimuths:
        methods = ", ".join(spatial.METHODS)
        raise UsageError(f"`{model}` was trained for its stems", f"--sources and --azimuth are for {methods}")
    return load_separator(model, stems=stems, two_stems=two_stems, mask=mask, **running)


def stem_names(
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    stems: Sequence[str] | None = None,
    two_stems: str | None = None,
    sources: int | None = None,
    azimuths: Sequence[float] = (),
) -> tuple[str, ...]:
    """Return the stems that `load_method` would give, or raise what it would, without loading anything."""
    if str(model) in spatial.METHODS:
        return chosen(spatial.build(str(model), sources, azimuths).stems, stems, str(model))
    names = _wanted(read_cards(model)[0], _asked_for(stems, two_stems))
    return names if two_stems is None else (*names, REST)


def read_cards(model: str | os.PathLike[str]) -> list[store.ModelCard]:
    """Return the cards of a model, or of the several whose mean is meant.

    Raises:
        UsageError: their stems or sample rates differ.
        UnknownModel, BadWeights: see `weights.read_card`.
    """
    cards = [store.read_card(name) for name in store.members(model)]
    for card in cards:
        if (card.stems, card.sample_rate) != (cards[0].stems, cards[0].sample_rate):
            raise UsageError(
                f"{cards[0].name} and {card.name} have other stems, or work at other sample rates",
                "choose models that are alike in both, see `stemsplit models`",
            )
    return cards


def _asked_for(stems: Sequence[str] | None, two_stems: str | None) -> Sequence[str] | None:
    if two_stems is not None and stems is not None:
        raise UsageError("Both some stems and two stems were asked for", "choose one of them")
    return stems if two_stems is None else [two_stems]


def _wanted(card: store.ModelCard, stems: Sequence[str] | None) -> tuple[str, ...]:
    return chosen(card.stems, stems, card.name)


def chosen(there: tuple[str, ...], stems: Sequence[str] | None, model: str) -> tuple[str, ...]:
    """Return the stems asked for in the order of the model's, which are all unless some are named."""
    if isinstance(stems, str):
        raise ValueError(f"stems must be a list of names, got {stems!r}")
    wanted = there if stems is None else tuple(stems)
    if not wanted:
        raise UnknownStem("No stems were asked for", f"choose from {', '.join(there)}")
    for name in wanted:
        if name not in there:
            raise no_stem(name, there, f"in {model}")
    return tuple(name for name in there if name in wanted)


def load_network(
    model: str | os.PathLike[str],
    *,
    stems: Sequence[str] | None = None,
    mask: str | None = None,
    running: RuntimeOptions = DEFAULT_RUNTIME,
) -> MaskSeparator | WaveformSeparator | Ensemble:
    """Return a trained model, or the mean of several, as `load_separator` does."""
    card, *others = read_cards(model)
    if others:
        members = store.members(model)
        return Ensemble(
            tuple(load_network(each, stems=stems, mask=mask, running=running) for each in members)
        )
    if not registry.find(card.network).hears_waves:
        return load_masks(model, stems=stems, mask=mask, running=running)
    if mask:
        raise UsageError(f"{card.name} gives the stems themselves, without masks", "leave out --mask")
    return _load_waves(model, card, _wanted(card, stems), running)


def _load_waves(
    model: str | os.PathLike[str], card: store.ModelCard, wanted: tuple[str, ...], running: RuntimeOptions
) -> WaveformSeparator:
    network = registry.find(card.network)
    runtime = _start(card, store.find(model), wanted, running)
    return WaveformSeparator(
        stems=wanted,
        sample_rate=card.sample_rate,
        context=network.reach,
        network=runtime,
        stem_indices=_stem_indices(card, wanted),
        channels=network.channels,
        stride=network.grid,
        complete=wanted == card.stems and card.complete,
        execution=_execution(runtime),
    )


def load_masks(
    model: str | os.PathLike[str],
    *,
    stems: Sequence[str] | None = None,
    mask: str | None = None,
    running: RuntimeOptions = DEFAULT_RUNTIME,
) -> MaskSeparator:
    """Return a model that works by masks, as `load_separator` does."""
    card = store.read_card(model)
    wanted = _wanted(card, stems)
    mask = mask or card.mask
    if mask not in MASKS:
        raise UsageError(f"No mask called `{mask}`", f"choose one of {', '.join(MASKS)}")
    network = registry.find(card.network)
    masked = card.stems if network.joint else wanted
    whole = masked == card.stems and card.complete
    if mask == "wiener" and not whole:
        raise UsageError("The Wiener filter needs all stems of a song", "choose --mask soft")
    if network.bins > card.n_fft // 2 + 1:
        raise BadWeights(f"{card.name} has too few bins for its network", "get the file again")
    runtime = _start(card, store.find(model), wanted, running)
    return MaskSeparator(
        stems=wanted,
        sample_rate=card.sample_rate,
        plan=mask_plan(card, mask, running),
        bins=network.bins,
        network=runtime,
        rule=_rule(card, mask, complete=whole),
        input=network.views,
        complete=whole and wanted == card.stems,
        stem_indices=_stem_indices(card, wanted),
        execution=_execution(runtime),
    )


def mask_plan(card: store.ModelCard, mask: str, running: RuntimeOptions = DEFAULT_RUNTIME) -> MaskPlan:
    """Return which frames a model's network needs around a segment, and the filter of the mask, if any."""
    network = registry.find(card.network)
    wiener_frames = round(WIENER_SECONDS * card.sample_rate / card.hop_length) if mask == "wiener" else 0
    stft = Stft(card.n_fft, card.hop_length)
    return MaskPlan(stft, network.reach, network.grid, wiener_frames, running.frame_stride)


def _start(card: store.ModelCard, path: Path, stems: tuple[str, ...], running: RuntimeOptions) -> Runtime:
    """Return the networks of some of a model's stems, ready to run."""
    network = registry.find(card.network)
    parts = network.parts(stems)
    each = len(card.stems) if network.joint else 1
    return start(running, card.network, partial(store.load, path, parts), path.read_bytes, parts, each)


def _execution(runtime: Runtime) -> Execution:
    how = f"{runtime.name} on {runtime.device} in {runtime.precision}"
    return Execution(runtime.batch, runtime.workers, how)


def _stem_indices(card: store.ModelCard, wanted: tuple[str, ...]) -> tuple[int, ...]:
    """Return the indices of the wanted stems among those that the networks give."""
    there = card.stems if registry.find(card.network).joint else wanted
    return tuple(there.index(name) for name in wanted)


def _rule(card: store.ModelCard, mask: str, *, complete: bool) -> Callable[[Samples], Samples]:
    """Return how probabilities become masks, which add up to one if they are of a `complete` set of stems."""
    if mask == "binary":
        return partial(masks.binary, complete=complete)
    if complete and card.combination:
        return partial(masks.matrix_scaled_softmax, combination=np.array(card.combination, np.float32))
    return partial(masks.soft, complete=complete, power=card.mask_power)
