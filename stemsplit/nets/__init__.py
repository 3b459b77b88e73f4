"""Networks by name: one paper, one file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadWeights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Entry:
    """What can be known of a network without importing torch."""

    module: str
    name: str
    bins: int
    reach: int
    """Frames that the network hears on either side of the one it masks."""


REGISTRY = {"binary-mask-cnn": Entry("binary_mask_cnn", "BinaryMaskCNN", bins=513, reach=12)}


def find(network: str) -> Entry:
    """Return what is known of a network.

    Raises:
        BadWeights: no network has this name.
    """
    if network not in REGISTRY:
        raise BadWeights(
            f"These weights are for `{network}`, which this version does not have", "upgrade stemsplit"
        )
    return REGISTRY[network]


def source(network: str) -> bytes:
    """Return the program text of a network."""
    return (Path(__file__).parent / f"{REGISTRY[network].module}.py").read_bytes()


def build(network: str, tensors: Mapping[str, Mapping[str, Tensor]]) -> list[Any]:
    """Return one network a stem, with its weights.

    Raises:
        BadWeights: no network has this name, or its layers are of another shape.
    """
    entry = find(network)
    kind = getattr(import_module(f".{entry.module}", __package__), entry.name)
    networks = []
    for stem, state in tensors.items():
        built = kind()
        try:
            built.load_state_dict(state)
        except RuntimeError as error:
            raise BadWeights(f"The weights of `{stem}` do not fit {network}", "get the file again") from error
        _check_numbers(built, entry, stem)
        networks.append(built)
    return networks


def _check_numbers(network: Any, entry: Entry, stem: str) -> None:
    """Refuse weights that divide by zero, or grow beyond what a float holds, at silence or at great noise."""
    import torch

    extremes = torch.tensor([-12.0, 35.0])[:, None, None].expand(2, 2 * entry.reach + 1, entry.bins)
    with torch.inference_mode():
        if not torch.isfinite(network(extremes)).all():
            raise BadWeights(f"The weights of `{stem}` do not end in numbers", "get the file again")
