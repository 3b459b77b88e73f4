"""Extends the weights of a band transformer to a larger one that initially has the same outputs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

ADDED = ("together.weight", "narrow.weight", "narrow.bias")
"""If these are zero, a block is the identity."""


def grown(own: Mapping[str, Tensor], given: Mapping[str, Tensor], *, pair: int) -> dict[str, Tensor]:
    """Return the `given` weights, extended to the blocks and views of a network's `own` weights.

    New blocks are identities, and the weights of new views are zero. Other mismatches are left for
    `load_state_dict` to report.
    """
    added = {
        key: torch.zeros_like(tensor) if key.endswith(ADDED) else tensor
        for key, tensor in own.items()
        if key.startswith(("across.", "along.")) and key not in given
    }
    return added | {key: _with_views(key, tensor, own.get(key), pair) for key, tensor in given.items()}


def _with_views(key: str, given: Tensor, own: Tensor | None, pair: int) -> Tensor:
    """Return weights with zeros for additional views, which come last in each band and position."""
    if own is None or own.shape == given.shape or not key.endswith("weight"):
        return given
    if key.startswith("split."):  # (band, view and position, feature)
        return _padded(given, own, 1)
    if key.startswith("details."):  # (map, position of a pair and view, 3, 3)
        given, own = (torch.unflatten(weight, 1, (pair, -1)) for weight in (given, own))
        return _padded(given, own, 2).flatten(1, 2)
    return given


def _padded(given: Tensor, own: Tensor, axis: int) -> Tensor:
    padded = torch.zeros_like(own)
    padded.narrow(axis, 0, given.shape[axis]).copy_(given)
    return padded
