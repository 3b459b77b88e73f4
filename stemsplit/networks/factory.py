"""Creating networks by name, with random weights or a model's weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemsplit.errors import BadWeights
from stemsplit.networks.info import NetworkInfo
from stemsplit.networks.registry import find

if TYPE_CHECKING:
    from torch import Tensor

    from stemsplit.networks.base import Network


def source(network: str) -> bytes:
    """Return a network's configuration name and the source code of all modules that it may use."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return find(network).config.encode() + b"".join(file.read_bytes() for file in files)


def make(network: str, stems: int, **changes: Any) -> Network:
    """Return a network with random weights; `changes` override fields of its configuration.

    Raises:
        TypeError: the configuration has no such field.
    """
    entry = find(network)
    module = import_module(f".{entry.module}", __package__)
    config = getattr(module, entry.config) if entry.config else module.Config()
    made: Network = getattr(module, entry.name)(stems, replace(config, **changes))
    return made


def build(network: str, tensors: Mapping[str, Mapping[str, Tensor]], stems: int = 1) -> list[Network]:
    """Return a network with weights for each part of a model, each with outputs for `stems` stems.

    Raises:
        BadWeights: no network has this name, the weights do not fit it, or its outputs are not finite.
    """
    entry = find(network)
    networks = []
    for part, state in tensors.items():
        built = make(network, stems)
        try:
            built.load_state_dict(state)
        except RuntimeError as error:
            raise BadWeights(
                f"The weights of `{part}` do not fit {network}", "get a fresh copy of the file"
            ) from error
        _check_numbers(built.eval(), entry, part)
        networks.append(built)
    return networks


def _check_numbers(network: Network, entry: NetworkInfo, part: str) -> None:
    """Refuse weights that cause a division by zero or an overflow for silence or very loud input."""
    import torch

    length = entry.context.whole_strides(2 * entry.context.frames + 1)
    views, *bins = entry.input_shape
    extremes = torch.tensor([0.0, 1e4] if entry.predicts_waveforms else [-12.0, 35.0])
    extremes = extremes.reshape(2, *[1] * (2 + len(bins))).expand(2, views, length, *bins)
    with torch.inference_mode():
        if not torch.isfinite(network(extremes)).all():
            raise BadWeights(
                f"The weights of `{part}` do not give finite outputs", "get a fresh copy of the file"
            )
