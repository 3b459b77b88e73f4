"""Fits the weights of a band transformer to another one, which initially has nearly the same outputs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

ADDED = ("together.weight", "narrow.weight", "narrow.bias")
"""If these are zero, a block is the identity."""


def grown(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the `given` weights for the blocks, views and refinements of a network's `own` weights.

    New blocks are identities, and the weights of new views are zero. Offsets of bands that the network does
    not refine are left out. Other mismatches are left for `load_state_dict` to report.
    """
    added = {
        key: torch.zeros_like(tensor) if key.endswith(ADDED) else tensor
        for key, tensor in own.items()
        if key.startswith(("across.", "along.")) and key not in given
    }
    kept = {
        key: _with_views(tensor, own[key]) if key.startswith("split.") and key in own else tensor
        for key, tensor in given.items()
        if key in own or ".offsets." not in key
    }
    return added | kept


def _with_views(given: Tensor, own: Tensor) -> Tensor:
    """Return weights `(band, view and position, feature)` with zeros for additional views, which are last."""
    missing = own.shape[1] - given.shape[1]
    return torch.nn.functional.pad(given, (0, 0, 0, missing)) if missing > 0 else given
