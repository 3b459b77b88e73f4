"""The binary-mask CNN: a small image network that says which bins of a spectrum belong to a stem.

O. Tkachuk, "Development of a sound source separation system based on machine learning methods", Lviv
Polytechnic National University. It reads 25 frames of 513 log magnitudes and predicts, for the frame
in the middle, the probability that each bin belongs to the stem: the binary mask B = (S > T * M) for a
stem's magnitude S in a mixture's magnitude M. One network a stem, 323,233 parameters each.

Left open by the paper and chosen here: the slope of the leaky ReLU (0.01), the dropout rate (0.1 after
each pooling, 0.3 before the output), `same` padding (the parameter counts demand it), and the scaling
of the input, which is a fixed mean and deviation a bin, measured on the training data.

Windows share almost all of their work. `forward` computes window after window and is the reference;
`forward_frames` gives the same numbers for a run of consecutive windows, several times faster.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PARAMETERS = 323_233
BINS = 513
FRAMES = 25


@dataclass(frozen=True)
class Config:
    """What the paper leaves open; the dropout rates matter to training only."""

    negative_slope: float = 0.01
    dropout: float = 0.1
    dropout_dense: float = 0.3


class BinaryMaskCNN(nn.Module):
    """Log magnitudes of 25 frames in, logits of the middle frame's binary mask out."""

    bins = BINS
    reach = FRAMES // 2
    """Frames that the network hears on either side of the one it masks."""
    mean: Tensor
    deviation: Tensor

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config = config or Config()
        self.register_buffer("mean", torch.zeros(BINS))
        self.register_buffer("deviation", torch.ones(BINS))
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

    def forward(self, windows: Tensor) -> Tensor:
        """Return logits `(window, bin)` for log magnitudes `(window, frame, bin)`, 25 frames each."""
        x = ((windows - self.mean) / self.deviation).unsqueeze(1)
        x = F.max_pool2d(self._leaky(self.conv2(self._leaky(self.conv1(x)))), 3)
        x = self.drop(x)
        x = F.max_pool2d(self._leaky(self.conv4(self._leaky(self.conv3(x)))), 3)
        return self._head(x)

    def forward_frames(self, frames: Tensor) -> Tensor:
        """Return logits `(batch, frame, bin)` for `(batch, frame + 24, bin)`: every window of a run at once.

        Column j of a window that starts at frame t sees frame t + j, whichever window it is in; only
        columns next to the zero padding at a window's two ends differ. So each distinct column is
        computed once. A 3 x 3 convolution is the sum of three one-column convolutions (taps `a`, `b`, `c`
        for the column before, the column itself and the one after), and a window's end only leaves out
        a tap or takes it from another column:

            layer   shared columns          first columns                 last column
            conv1   a + b + c               0: b + c                      24: a + b
            conv2   a + b + c               0: b + c, 1: a' + b + c       23: a + b + c'
            pool    max of 3 neighbours     0                             7
            conv3   taps 3 frames apart     0: b' + c, 1: a' + b + c      6: a + b + c'
            conv4   taps 3 frames apart     0, 1, 2                       5

        where a tap with a prime reads a first or last column of the layer before. Pooling in steps of three
        becomes a running maximum, after which neighbours lie three frames apart. Columns that the
        pooling drops (24, then 6 and 7) are never computed. This costs 13.3 M multiply-adds a frame where
        a window alone costs 88.3 M.
        """
        count = frames.shape[1] - 2 * self.reach

        def at(columns: Tensor, offset: int) -> Tensor:
            """The column `offset` further on than the first, for each window."""
            return columns[:, :, offset : offset + count]

        x = ((frames - self.mean) / self.deviation).unsqueeze(1)
        weight, bias = self.conv1.weight, self.conv1.bias
        inner = self._leaky(F.conv2d(x, weight, bias, padding=(0, 1)))  # from column 1 on
        first = self._leaky(F.conv2d(x[:, :, : count + 1], weight[:, :, 1:], bias, padding=(0, 1)))
        last = self._leaky(F.conv2d(x[:, :, -count - 1 :], weight[:, :, :2], bias, padding=(0, 1)))

        a, b, c = _taps(inner, self.conv2, "abc")
        first_a, first_b = _taps(first, self.conv2, "ab")
        (last_c,) = _taps(last, self.conv2, "c")
        # Leaky ReLU never changes which of two numbers is larger: pooling first leaves it less to do.
        inner = _pool_bins(a[:, :, :-2] + b[:, :, 1:-1] + c[:, :, 2:])  # from column 2 on
        first_two = _pool_bins(torch.maximum(first_b + at(c, 0), first_a + at(b, 0) + at(c, 1)))
        last_one = _pool_bins(at(a, 21) + at(b, 22) + last_c)
        first = torch.maximum(first_two, at(inner, 0))
        last = torch.maximum(torch.maximum(at(inner, 19), at(inner, 20)), last_one)
        inner = inner[:, :, 1 : count + 18]  # from column 3 on, pooled from three by three
        inner = torch.maximum(torch.maximum(inner[:, :, :-2], inner[:, :, 1:-1]), inner[:, :, 2:])
        inner, first, last = (self._activate(y, self.conv2) for y in (inner, first, last))

        a, b, c = _taps(self.drop(inner), self.conv3, "abc")  # from pooled column 1 on, 3 frames a column
        first_a, first_b = _taps(self.drop(first), self.conv3, "ab")
        (last_c,) = _taps(self.drop(last), self.conv3, "c")
        inner = a[:, :, :-6] + b[:, :, 3:-3] + c[:, :, 6:]  # from pooled column 2 on
        first = first_b + at(c, 0)
        second = first_a + at(b, 0) + at(c, 3)
        last = at(a, 12) + at(b, 15) + last_c
        inner, first, second, last = (self._activate(y, self.conv3) for y in (inner, first, second, last))

        a, b, c = _taps(inner, self.conv4, "abc")
        first_a, first_b = _taps(first, self.conv4, "ab")
        second_a, second_b, second_c = _taps(second, self.conv4, "abc")
        (last_c,) = _taps(last, self.conv4, "c")
        inner = a[:, :, :-6] + b[:, :, 3:-3] + c[:, :, 6:]  # from pooled column 3 on
        early = torch.maximum(first_b + second_c, first_a + second_b + at(c, 0))
        early = torch.maximum(early, second_a + at(b, 0) + at(c, 3))
        late = torch.maximum(at(inner, 0), at(inner, 3))
        late = torch.maximum(late, at(a, 6) + at(b, 9) + last_c)
        x = torch.stack([early, late], dim=3)  # (batch, channel, window, pooled frame, bin)
        x = self._activate(F.max_pool3d(x, (1, 1, 3)), self.conv4)
        x = self._head(x.transpose(1, 2).flatten(0, 1))
        return x.view(-1, count, BINS)

    def _head(self, x: Tensor) -> Tensor:
        """Return logits `(window, bin)` for pooled activations `(window, channel, frame, bin)`."""
        x = self._leaky(self.dense(self.drop(x).flatten(1)))
        logits: Tensor = self.output(self.drop_dense(x))
        return logits

    def _leaky(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.config.negative_slope)

    def _activate(self, x: Tensor, layer: nn.Conv2d) -> Tensor:
        """Add a layer's bias `(channel,)` to `(batch, channel, ...)` and apply the leaky ReLU."""
        assert layer.bias is not None
        return self._leaky(x + layer.bias.view(-1, *[1] * (x.ndim - 2)))


def _taps(x: Tensor, layer: nn.Conv2d, names: str) -> tuple[Tensor, ...]:
    """Return what a column gives to the column after it (a), itself (b) and the one before it (c)."""
    weight = torch.cat([layer.weight[:, :, "abc".index(name) : "abc".index(name) + 1] for name in names])
    return F.conv2d(x, weight, padding=(0, 1)).chunk(len(names), dim=1)


def _pool_bins(x: Tensor) -> Tensor:
    return F.max_pool2d(x, (1, 3))
