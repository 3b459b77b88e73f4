"""The binary-mask CNN: a small convolutional network that predicts which bins of a spectrum belong to a stem.

O. Tkachuk, "Development of a sound source separation system based on machine learning methods", Lviv
Polytechnic National University. The input is 25 frames of 513 log magnitudes. The output, for each bin of
the middle frame, is the probability that the binary mask B = (S > T * M) is 1, for the stem's magnitude S and
the mixture's magnitude M. There is one network per stem, with 323,233 parameters each.

Not specified by the paper, and chosen here: the slope of the leaky ReLU (0.01), the dropout rates (none: it
was better without, see `docs/research/training.md`), `same` padding (the parameter counts demand it), and the
scaling of the input, which is a fixed mean and deviation per bin, measured on the training data.

Overlapping windows share almost all of their work. `forward_windows` computes each window by itself and is
the reference; `forward_frames` gives the same numbers for consecutive windows, several times faster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stemsplit.networks.base import Network

PARAMETERS = 323_233
BINS = 513
FRAMES = 25
STEPS = (1, 3)
"""Supported distances between masked frames, in frames."""


@dataclass(frozen=True)
class Config:
    """What the paper leaves open; the dropout rates affect only training."""

    negative_slope: float = 0.01
    dropout: float = 0.0
    dropout_dense: float = 0.0


class BinaryMaskCNN(Network):
    """Maps log magnitudes of 25 frames to logits of the middle frame's binary mask."""

    bins = BINS
    context_frames = FRAMES // 2
    """Context frames on either side of the masked frame."""

    def __init__(self, stems: int = 1, config: Config | None = None) -> None:
        super().__init__(stems, bins=BINS)
        if stems != 1:
            raise ValueError(f"stems={stems}: this network is for one")
        self.config = config = config or Config()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 16, 3, padding=1)
        self.conv3 = nn.Conv2d(16, 64, 3, padding=1)
        self.conv4 = nn.Conv2d(64, 16, 3, padding=1)
        pooled = 16 * (FRAMES // 9) * (BINS // 9)
        self.dense = nn.Linear(pooled, 128)
        self.output = nn.Linear(128, BINS)
        self.drop = nn.Dropout(config.dropout)
        self.drop_dense = nn.Dropout(config.dropout_dense)
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4, self.dense):
            nn.init.kaiming_normal_(layer.weight, a=config.negative_slope)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor, *, margin: int = 0, frame_stride: int = 1) -> Tensor:
        """Return logits `(example, 1, 1, frame, bin)` for log magnitudes `(example, 1, frame, bin)`."""
        return self.forward_frames(features[:, 0], frame_stride)[:, None, None]

    def masks(self, outputs: Tensor) -> Tensor:
        """Return the sigmoid of the logits."""
        return torch.sigmoid(outputs)

    def forward_windows(self, windows: Tensor) -> Tensor:
        """Return logits `(window, bin)` for log magnitudes `(window, frame, bin)`, 25 frames each."""
        x = ((windows - self.mean) / self.deviation).unsqueeze(1)
        x = F.max_pool2d(self._leaky(self.conv2(self._leaky(self.conv1(x)))), 3)
        x = self.drop(x)
        x = F.max_pool2d(self._leaky(self.conv4(self._leaky(self.conv3(x)))), 3)
        return self._head(x)

    def forward_frames(self, frames: Tensor, step: int = 1) -> Tensor:
        """Return logits `(batch, window, bin)` of windows `step` frames apart, for `(batch, frame, bin)`.

        The windows have 25 frames; n of them cover (n - 1) * step + 25 frames. `step` is 1 or 3.

        Column j of a window that starts at frame t is at frame t + j. At a given frame, all windows have the
        same column, except next to the zero padding at a window's two ends. So each distinct column is
        computed once. A 3 x 3 convolution is the sum of three one-column convolutions (taps `a`, `b`, `c`,
        whose inputs are the previous, the same and the next column). At a window's ends, a tap is left out
        or its input is another column:

            layer   shared columns          first columns                 last column
            conv1   a + b + c               0: b + c                      24: a + b
            conv2   a + b + c               0: b' + c, 1: a' + b + c      23: a + b + c'
            pool    max of 3 neighbors      0                             7
            conv3   taps 3 frames apart     0: b' + c, 1: a' + b + c      6: a + b + c'
            conv4   taps 3 frames apart     0, 1, 2                       5

        where the input of a primed tap is a first or last column of the previous layer. Pooling with stride 3
        becomes a running maximum, after which adjacent columns of a window are three frames apart. With a
        `step` of 3, all windows pool the same columns, and the stride remains 3. Columns that pooling drops
        (24 in the first, 6 and 7 in the second) are never computed. This costs 13.3 M multiply-adds per
        window, or 6.1 M with a `step` of 3, instead of 88.3 M for a window by itself.
        """
        if step not in STEPS:
            raise ValueError(f"step={step} must be one of {STEPS}")
        count = (frames.shape[1] - FRAMES) // step + 1
        x = (frames - self.mean) / self.deviation
        x = x.unsqueeze(-1).permute(0, 3, 1, 2)  # (batch, channel, frame, bin), channels last in memory
        inner, first, last = self._pooled_once(x, count, step)
        return self._head(self._pooled_twice(inner, first, last, count, 3 // step))

    def _pooled_once(self, x: Tensor, count: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the columns after the first pooling: shared ones, and the first and last of each window."""

        def at(columns: Tensor, offset: int) -> Tensor:
            """Return, for each window, the column `offset` after its first one in `columns`."""
            return _cut(columns, offset, offset + (count - 1) * step + 1, step)

        weight, bias = self.conv1.weight, self.conv1.bias
        inner = self._leaky(_convolve(x, weight, bias))  # from column 1 on
        first = self._leaky(_convolve(x[:, :, : 1 - FRAMES + 1], weight[:, :, 1:], bias, step))
        last = self._leaky(_convolve(x[:, :, FRAMES - 2 :], weight[:, :, :2], bias, step))

        a, b, c = _taps(inner, self.conv2, "abc")
        first_a, first_b = _taps(first, self.conv2, "ab")
        (last_c,) = _taps(last, self.conv2, "c")
        # Leaky ReLU is monotonic: pooling before it gives the same result with less work.
        inner = _pool_bins(_cut(a, 0, -2) + _cut(b, 1, -1) + _cut(c, 2))  # from column 2 on
        first_two = _pool_bins(_larger(first_b + at(c, 0), first_a + at(b, 0) + at(c, 1)))
        last_one = _pool_bins(at(a, 21) + at(b, 22) + last_c)
        first = _larger(first_two, at(inner, 0))
        last = _larger(_larger(at(inner, 19), at(inner, 20)), last_one)
        # Maxima of three columns, from column 3 on.
        inner = _larger(_larger(*(_cut(inner, k, k - 5, step) for k in (1, 2))), _cut(inner, 3, -2, step))
        inner, first, last = (self.drop(self._activate(y, self.conv2)) for y in (inner, first, last))
        return inner, first, last

    def _pooled_twice(self, inner: Tensor, first: Tensor, last: Tensor, count: int, apart: int) -> Tensor:
        """Return `(batch, window, channel, pooled frame, bin)` for columns that are pooled once.

        Adjacent columns of a window are `apart` columns apart in `inner`.
        """

        def at(columns: Tensor, offset: int) -> Tensor:
            return _cut(columns, offset * apart, offset * apart + count)

        def neighbours(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
            """Return the sum of three taps, from the second column on."""
            return _cut(a, 0, -2 * apart) + _cut(b, apart, -apart) + _cut(c, 2 * apart)

        a, b, c = _taps(inner, self.conv3, "abc")  # from pooled column 1 on
        first_a, first_b = _taps(first, self.conv3, "ab")
        (last_c,) = _taps(last, self.conv3, "c")
        inner = neighbours(a, b, c)  # from pooled column 2 on
        first = first_b + at(c, 0)
        second = first_a + at(b, 0) + at(c, 1)
        last = at(a, 4) + at(b, 5) + last_c
        inner, first, second, last = (self._activate(y, self.conv3) for y in (inner, first, second, last))

        a, b, c = _taps(inner, self.conv4, "abc")
        first_a, first_b = _taps(first, self.conv4, "ab")
        second_a, second_b, second_c = _taps(second, self.conv4, "abc")
        (last_c,) = _taps(last, self.conv4, "c")
        inner = neighbours(a, b, c)  # from pooled column 3 on
        early = _larger(first_b + second_c, first_a + second_b + at(c, 0))
        early = _larger(early, second_a + at(b, 0) + at(c, 1))
        late = _larger(at(inner, 0), at(inner, 1))
        late = _larger(late, at(a, 2) + at(b, 3) + last_c)
        early, late = (self._activate(_pool_bins(y), self.conv4) for y in (early, late))
        return torch.stack([early, late], dim=3).transpose(1, 2)

    def _head(self, x: Tensor) -> Tensor:
        """Return logits `(..., bin)` for pooled activations `(..., channel, frame, bin)`."""
        x = self._leaky(self.dense(self.drop(x).flatten(-3)))
        logits: Tensor = self.output(self.drop_dense(x))
        return logits

    def _leaky(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.config.negative_slope)

    def _activate(self, x: Tensor, layer: nn.Conv2d) -> Tensor:
        """Add a layer's bias to `(batch, channel, frame, bin)` and apply the leaky ReLU."""
        assert layer.bias is not None
        return self._leaky(x + layer.bias.to(x.dtype)[:, None, None])


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None, step: int = 1) -> Tensor:
    """Convolve `(batch, channel, frame, bin)`, padded along bins only, at every `step`-th frame.

    Input and output are channels-last in memory, which makes convolutions twice as fast.
    """
    weight = weight.contiguous(memory_format=torch.channels_last)
    return F.conv2d(x, weight, bias, stride=(step, 1), padding=(0, 1))


def _taps(x: Tensor, layer: nn.Conv2d, names: str) -> tuple[Tensor, ...]:
    """Return each column's contribution to the next column (a), the same one (b) and the previous one (c)."""
    columns = dict(zip("abc", layer.weight.chunk(3, dim=2), strict=True))
    return tuple(_convolve(x, columns[name]) for name in names)


def _cut(x: Tensor, start: int, stop: int | None = None, step: int = 1) -> Tensor:
    """Slice the frames of `(batch, channel, frame, bin)`."""
    if not torch.is_grad_enabled():
        return x[:, :, start:stop:step]
    cut: Tensor = _Cut.apply(x, slice(start, stop, step))  # type: ignore[no-untyped-call]
    return cut


class _Cut(torch.autograd.Function):
    """A slice whose gradient is channels-last in memory, like its input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, frames: slice) -> Tensor:
        ctx.shape, ctx.frames = x.shape, frames
        return x[:, :, frames]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        batch, channels, count, bins = ctx.shape
        whole = gradient.new_zeros((batch, count, bins, channels)).permute(0, 3, 1, 2)
        whole[:, :, ctx.frames] = gradient
        return whole, None


def _pool_bins(x: Tensor) -> Tensor:
    return F.max_pool2d(x, (1, 3))


def _larger(a: Tensor, b: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return torch.maximum(a, b)
    larger: Tensor = _Larger.apply(a, b)  # type: ignore[no-untyped-call]
    return larger


class _Larger(torch.autograd.Function):
    """`torch.maximum` with a backward pass some ten times as fast; in a tie, `a` gets the whole gradient."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        # Floats instead of booleans, for which the CPU's vector instructions are not used.
        ctx.save_for_backward(torch.ge(a, b, out=torch.empty_like(a)))
        return torch.maximum(a, b)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        (first,) = ctx.saved_tensors
        to_first = gradient * first
        return to_first, gradient - to_first
