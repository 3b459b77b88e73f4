"""Networks by name: one paper, one file."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..errors import BadWeights

if TYPE_CHECKING:
    from torch import Tensor

REGISTRY = {"binary-mask-cnn": ("binary_mask_cnn", "BinaryMaskCNN")}


def build(network: str, tensors: Mapping[str, Mapping[str, Tensor]]) -> list[Any]:
    """Return one network a stem, with its weights.

    Raises:
        BadWeights: no network has this name, or its layers are of another shape.
    """
    if network not in REGISTRY:
        raise BadWeights(
            f"These weights are for `{network}`, which this version does not have", "upgrade stemsplit"
        )
    module, name = REGISTRY[network]
    kind = getattr(import_module(f".{module}", __package__), name)
    networks = []
    for stem, state in tensors.items():
        built = kind()
        try:
            built.load_state_dict(state)
        except RuntimeError as error:
            raise BadWeights(f"The weights of `{stem}` do not fit {network}", "get the file again") from error
        networks.append(built)
    return networks
