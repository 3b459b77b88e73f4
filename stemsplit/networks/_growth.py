"""Weights of a small band transformer for a larger one, which then computes the same."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

ADDED = ("together.weight", "narrow.weight", "narrow.bias")
"""What a block adds to its input is zero if these are."""


def grown(own: Mapping[str, Tensor], given: Mapping[str, Tensor], *, pair: int) -> dict[str, Tensor]:
    """Return the `given` weights in the shapes of a network's `own`, where these have more blocks or views.

    New blocks add nothing, and the weights of new views are zero. Whatever else differs is left as it is.
    """
    added = {
        key: torch.zeros_like(tensor) if key.endswith(ADDED) else tensor
        for key, tensor in own.items()
        if key.startswith(("across.", "along.")) and key not in given
    }
    return added | {key: _with_views(key, tensor, own.get(key), pair) for key, tensor in given.items()}


def _with_views(key: str, given: Tensor, own: Tensor | None, pair: int) -> Tensor:
    """Return weights with zeros for further views, which are the last ones of each band, and of each bin."""
    if own is None or own.shape == given.shape or not key.endswith("weight"):
        return given
    if key.startswith("split."):  # (band, view and position, feature)
        return _padded(given, own, 1)
    if key.startswith("details."):  # (map, bin of a pair and view, 3, 3)
        given, own = (torch.unflatten(weight, 1, (pair, -1)) for weight in (given, own))
        return _padded(given, own, 2).flatten(1, 2)
    return given


def _padded(given: Tensor, own: Tensor, axis: int) -> Tensor:
    padded = torch.zeros_like(own)
    padded.narrow(axis, 0, given.shape[axis]).copy_(given)
    return padded
