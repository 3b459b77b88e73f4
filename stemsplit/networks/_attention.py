"""Transformer blocks with rotary position embeddings, over an axis or within windows of it.

Rotary position embeddings: J. Su et al., "RoFormer: enhanced Transformer with rotary position embedding",
2021 (arXiv 2104.09864). On one thread, separate matrix products and a softmax are as fast as
`scaled_dot_product_attention`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FAR_BELOW = -1e4


class TransformerBlock(nn.Module):
    """Attention over one axis and a gated feed-forward layer of inner size `inner`, with skip connections.

    Windowed attention spans `window` frames on either side.
    """

    def __init__(self, width: int, *, heads: int, inner: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.norm = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width, bias=False)
        self.together = nn.Linear(width, width, bias=False)
        self.norm_wide = nn.LayerNorm(width)
        self.wide = nn.Linear(width, 2 * inner)
        self.narrow = nn.Linear(inner, width)

    def forward(
        self, x: Tensor, rotations: Tensor, mask: Tensor | None = None, *, inner: bool = False
    ) -> Tensor:
        """Map `(example, band, frame, feature)` to the same shape.

        Without a mask, the bands of each frame attend to each other. With one (see `window_mask`), each
        frame of a band attends to its own window and the two next to it. If `inner`, the first and the last
        window are only context: they are not returned, and are not in the mask.
        """
        x_normal = self.norm(x)
        if mask is None:
            y = self._across(x_normal, rotations)
        else:
            y = self._along(x_normal, rotations, mask, inner=inner)
        if inner:
            x = x[:, :, self.window : -self.window]
        x = x + self.together(y.flatten(3))
        x_normal = self.norm_wide(x)
        wide, gate = (  # two products are faster than one that must be split
            F.linear(x_normal, weight, bias)
            for weight, bias in zip(self.wide.weight.chunk(2), self.wide.bias.chunk(2), strict=True)
        )
        added: Tensor = self.narrow(wide * F.silu(gate))
        return x + added

    def _across(self, x: Tensor, rotations: Tensor) -> Tensor:
        """Return attention `(example, band, frame, head, feature)` across bands.

        A band's rotation is constant, so it is part of the band's weights.
        """
        y = torch.unflatten(x @ self._rotated(rotations.to(x.dtype)), -1, (3, self.heads, -1))
        queries, keys, values = y.permute(3, 0, 2, 4, 1, 5).unbind()
        y = (queries @ keys.transpose(-1, -2)).softmax(-1) @ values
        return y.permute(0, 3, 1, 2, 4)

    def _along(self, x: Tensor, rotations: Tensor, mask: Tensor, *, inner: bool) -> Tensor:
        """Return attention `(example, band, frame, head, feature)` along frames, within windows."""
        order = (3, 0, 1, 4, 2, 5)  # (example, band, head, frame, feature) each
        y = torch.unflatten(self.queries_keys_values(x), -1, (3, self.heads, -1))
        queries, keys, values = y.permute(order).unbind()
        y = torch.unflatten(F.linear(x, self._quarter_turned()), -1, (2, self.heads, -1))
        queries_turned, keys_turned = y.permute(order).unbind()
        cosines, sines = rotations.to(x.dtype).unbind()
        queries = (queries * cosines + queries_turned * sines) * queries.shape[-1] ** -0.5
        keys = keys * cosines + keys_turned * sines
        queries = torch.unflatten(queries, 3, (-1, self.window))
        if inner:
            queries = queries[:, :, :, 1:-1]
        keys, values = (_three_windows(y, self.window, padded=not inner) for y in (keys, values))
        y = (queries @ keys.transpose(-1, -2) + mask).softmax(-1) @ values
        return y.flatten(3, 4).transpose(2, 3)

    def _rotated(self, rotations: Tensor) -> Tensor:
        """Return weights `(position, feature, output)` of queries, keys and values for each position."""
        weight = torch.unflatten(self.queries_keys_values.weight, 0, (3, self.heads, -1))
        turned = torch.unflatten(self._quarter_turned(), 0, (2, self.heads, -1))
        cosines, sines = rotations[:, :, None, :, None].unbind()
        queries, keys = (weight[:2, None] * cosines + turned[:, None] * sines).unbind()
        values = weight[2].expand_as(keys)
        all_three = torch.stack([queries * weight.shape[2] ** -0.5, keys, values], 1)
        return all_three.flatten(1, 3).transpose(1, 2)

    def _quarter_turned(self) -> Tensor:
        """Return weights for queries and keys with each pair of features rotated by 90 degrees.

        Any rotation is a weighted sum of the original features and these, without slicing or concatenation.
        """
        weight = torch.unflatten(self.queries_keys_values.weight, 0, (3, self.heads, 2, -1))[:2]
        return torch.stack([-weight[:, :, 1], weight[:, :, 0]], 2).flatten(0, 3)


def _three_windows(x: Tensor, window: int, *, padded: bool = True) -> Tensor:
    """Return each window of `(example, row, head, position, feature)` joined with the two next to it.

    If not `padded`, the first and the last window are not returned.
    """
    x = torch.unflatten(F.pad(x, (0, 0, window, window)) if padded else x, 3, (-1, window))
    return torch.cat([x[:, :, :, :-2], x[:, :, :, 1:-1], x[:, :, :, 2:]], 4)


def window_mask(padded: int, frames: int, window: int, device: torch.device) -> Tensor:
    """Return `(window, query, key)`: 0 for keys within `window` frames, -infinity for others and padding."""
    queries = torch.arange(padded, device=device).view(-1, window, 1)
    keys = queries[:, :1] + torch.arange(-window, 2 * window, device=device)
    near = ((queries - keys).abs() <= window) & (keys >= 0) & (keys < frames)
    return torch.zeros(near.shape, device=device).masked_fill(~near, -torch.inf)


def silence_mask(silent: Tensor, padded: int, window: int) -> Tensor:
    """Return `(example, 1, 1, window, 1, key)`: 0 for keys of frames with sound, `FAR_BELOW` for silent ones.

    It is finite because a softmax over keys that are all -infinity is NaN.
    """
    mask = torch.zeros(silent.shape, device=silent.device).masked_fill(silent, FAR_BELOW)
    mask = F.pad(mask, (0, padded - silent.shape[1]))[:, None, None, :, None]
    return _three_windows(mask, window).transpose(-1, -2)


def rotary(positions: int, size: int, device: torch.device, *, step: int = 1) -> Tensor:
    """Return cosines and sines `(2, position, feature)`, computed in float64 to be exact at high positions.

    Each feature of the first half is paired with one of the second half. A pair is rotated by an angle
    proportional to `step` times the position.
    """
    pairs = torch.arange(size // 2, device=device, dtype=torch.float64)
    speeds = 10_000.0 ** (-2 / size * pairs)
    angles = (torch.arange(0, step * positions, step, device=device)[:, None] * speeds).repeat(1, 2)
    return torch.stack([angles.cos(), angles.sin()]).float()
