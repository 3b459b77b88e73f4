"""Layers for a spectrum that is split into bands: one layer per band, and convolutions over all of them.

Bands of one size share a batched matrix product, so they are described by their sizes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Bands = tuple[tuple[int, int, int], ...]
"""From the lowest frequency up: number of bands, positions per band (even), and bins per position."""


def positions_of(x: Tensor, bands: Bands) -> Tensor:
    """Average the bins that share a position: `(..., position)` for `(..., bin)`."""
    runs = torch.split(x, [count * size * shared for count, size, shared in bands], -1)
    shares = [shared for _, _, shared in bands]
    return torch.cat(
        [F.avg_pool2d(run, (1, n)) if n > 1 else run for run, n in zip(runs, shares, strict=True)], -1
    )


def tokens_of(x: Tensor, layers: Iterable[nn.Module], bands: Bands) -> Tensor:
    """Return tokens `(example, band, frame, feature)` for `(example, view, frame, position)`."""
    runs = torch.split(x, [count * size for count, size, _ in bands], -1)
    tokens = [
        layer(torch.unflatten(run, -1, (count, size)).permute(3, 0, 2, 1, 4).flatten(3))
        for layer, run, (count, size, _) in zip(layers, runs, bands, strict=True)
    ]
    return torch.cat(tokens).transpose(0, 1)


def interpolated(tokens: Tensor, *, step: int) -> Tensor:
    """Return tokens `(example, band, frame, feature)` of all frames for those of every `step`-th frame.

    They are interpolated linearly. Frames after the last token repeat it.
    """
    if step == 1:
        return tokens
    rise = torch.cat([tokens[:, :, 1:], tokens[:, :, -1:]], 2) - tokens
    return torch.stack([tokens + frame / step * rise for frame in range(step)], 3).flatten(2, 3)


def scores_of(
    details: Sequence[Tensor], known: Sequence[Tensor], layers: Iterable[nn.Module], bands: Bands
) -> Tensor:
    """Return scores `(example, score, frame, bin)`: sums of the details with weights from each band's layer.

    Shapes, for each entry of `bands`: details `(example, frame, position, detail)`, known `(band, example,
    frame, feature)`.
    """
    examples, frames, _, maps = details[0].shape
    scores = []
    for (count, size, shared), layer, tokens, run in zip(bands, layers, known, details, strict=True):
        y = torch.unflatten(layer(tokens), 3, (maps + size, -1)).permute(1, 2, 0, 3, 4).flatten(0, 2)
        weights, offsets = torch.split(y, [maps, size], 1)
        y = torch.baddbmm(offsets, run.reshape(-1, size, maps), weights)
        y = y.view(examples, frames, count * size, -1).permute(0, 3, 1, 2)
        scores.append(y.repeat_interleave(shared, 3) if shared > 1 else y)
    return torch.cat(scores, 3)


class BandLinear(nn.Module):
    """One linear layer per band, as a batched matrix product."""

    def __init__(self, bands: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(bands, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(bands, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(band, example, frame, input)` to `(band, example, frame, output)`."""
        return torch.unflatten(torch.baddbmm(self.bias, x.flatten(1, 2), self.weight), 1, x.shape[1:3])


class Refinement(nn.Module):
    """A residual block of two convolutions over detail maps, with offsets from each band in between.

    There are `details` maps of each of the `pair` adjacent positions that are processed as one.
    """

    band_of_pair: Tensor

    def __init__(self, bands: Bands, width: int, pair: int, details: int) -> None:
        super().__init__()
        maps = pair * details
        self.inner, self.outer = (nn.Conv2d(maps, maps, 3, padding=1) for _ in range(2))
        nn.init.zeros_(self.outer.weight)  # at first it adds only its bias
        self.offsets = nn.ModuleList(BandLinear(count, width, maps) for count, _, _ in bands)
        pairs = torch.tensor([size // pair for count, size, _ in bands for _ in range(count)])
        band_of_pair = torch.arange(len(pairs)).repeat_interleave(pairs)
        self.register_buffer("band_of_pair", band_of_pair, persistent=False)

    def forward(self, details: Tensor, known: Sequence[Tensor]) -> Tensor:
        """Refine details `(example, map, frame, pair)` with tokens `(band, example, frame, feature)`."""
        offsets = torch.cat([layer(tokens) for layer, tokens in zip(self.offsets, known, strict=True)])
        # In the order of a channels-last tensor, so that the convolution can add them.
        offsets = offsets.permute(1, 2, 0, 3).index_select(2, self.band_of_pair).permute(0, 3, 1, 2)
        added: Tensor = self.outer(F.relu(self.inner(details) + offsets))
        return details + added
