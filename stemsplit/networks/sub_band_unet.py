"""A small U-Net on folded bands that gives all stems' masks at once, in stereo.

It puts together what made small separators good:

- the spectrum's bands are folded on top of each other, as channels of an image of 256 positions: H. Liu,
  L. Xie, J. Wu, G. Yang, "Channel-wise subband input for better voice and accompaniment separation on high
  resolution music", Interspeech 2020;
- its blocks are two convolutions over time and frequency with a bottlenecked linear layer over all of a
  frame's frequencies in between: W. Choi, M. Kim, J. Chung, D. Lee, S. Jung, "Investigating U-Nets with
  various intermediate blocks for spectrogram-based singing voice separation", ISMIR 2020 (TFC-TDF, section
  3), in the order of M. Kim, J. H. Lee, "Sound demixing challenge 2023 technical report: TFC-TDF-UNet v3".

Done otherwise here: the bands are of unlike width. What is below 5.5 kHz keeps its 11 Hz bins, as harmonics
need; above, two and then four bins share a position, where 43 Hz are still finer than what others work with.
Its input is log magnitudes of left, right, mid and side, for mid and side tell what is in the middle from
what is only as loud on both sides. It gives a mask for each channel and stem, a softmax over stems, so that
stems add up by themselves. The deepest convolutions are dilated in time. Normalisation is by batch, whose
statistics are constants once it is trained: what it gives at a time depends on 3.4 s to either side alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stemsplit.networks._sides import with_side
from stemsplit.networks.base import Network

BANDS = ((0, 256, 1), (256, 512, 1), (512, 1024, 2), (1024, 2048, 4))
"""First bin, end, and how many bins share a position."""
BINS = 2048
POSITIONS = 256
CHANNELS = 2
VIEWS = 4


@dataclass(frozen=True)
class Config:
    """Sizes of the network."""

    widths: tuple[int, ...] = (24, 48, 80, 112)
    """Channels at each scale, of which each has half the frames and positions of the one before."""
    dilations: tuple[int, ...] = (1, 2, 4)
    """In time, of the blocks at the last scale."""
    bottleneck: int = 8
    """How many times fewer units than positions the linear layers have in between."""
    deepest_bottleneck: int = 2
    """The same at the last scale, where positions are few."""

    @property
    def stride(self) -> int:
        """Frames that an input must begin at a multiple of, for equal masks."""
        return 1 << (len(self.widths) - 1)

    @property
    def context_frames(self) -> int:
        """Frames on either side that a mask depends on: a block reaches two frames of its scale."""
        shallow = sum(2 * 2 << scale for scale in range(len(self.widths) - 1))
        return shallow + self.stride * (2 * sum(self.dilations)) + self.stride - 1


class SubBandUNet(Network):
    """Maps log magnitudes of left, right, mid and side to scores of the stems in each channel."""

    def __init__(self, stems: int, config: Config | None = None) -> None:
        super().__init__(stems, bins=BINS)
        self.config = config = config or Config()
        *shallow, deepest = config.widths
        wider = config.widths[1:]
        self.first = nn.Conv2d(VIEWS * len(BANDS), shallow[0], 1)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        self.grow, self.up = nn.ModuleList(), nn.ModuleList()
        for scale, (width, next_width) in enumerate(zip(shallow, wider, strict=True)):
            positions = POSITIONS >> scale
            self.down.append(_Block(width, width, positions, config.bottleneck))
            self.shrink.append(nn.Conv2d(width, next_width, 2, stride=2))
            self.grow.append(nn.ConvTranspose2d(next_width, width, 2, stride=2))
            self.up.append(_Block(2 * width, width, positions, config.bottleneck))
        positions = POSITIONS >> len(shallow)
        self.deepest = nn.ModuleList(
            _Block(deepest, deepest, positions, config.deepest_bottleneck, dilation)
            for dilation in config.dilations
        )
        self.norm = nn.BatchNorm2d(shallow[0])
        self.last = nn.Conv2d(shallow[0], len(BANDS) * stems * CHANNELS, 1)

    def forward(self, features: Tensor, *, margin: int = 0, frame_stride: int = 1) -> Tensor:
        """Return scores `(example, stem, channel, frame, bin)` for `(example, view, frame, bin)`."""
        frames = features.shape[2]
        x = _fold((with_side(features) - self.mean) / self.deviation)
        x = F.pad(x, (0, 0, 0, -frames % self.config.stride)).contiguous(memory_format=torch.channels_last)
        x = self.first(x)
        skipped = []
        for block, shrink in zip(self.down, self.shrink, strict=True):
            x = block(x)
            skipped.append(x)
            x = shrink(x)
        for block in self.deepest:
            x = block(x)
        for block, grow in zip(reversed(self.up), reversed(self.grow), strict=True):
            x = block(torch.cat([grow(x), skipped.pop()], dim=1))
        x = self.last(F.relu(self.norm(x)))[:, :, :frames]
        x = _unfold(x)
        return x.reshape(len(x), self.stems, CHANNELS, frames, BINS)

    def masks(self, outputs: Tensor) -> Tensor:
        """Return the masks, which sum to one over the stems."""
        return outputs.softmax(dim=1)


class _Block(nn.Module):
    """Two convolutions, with a linear layer over frequency in between, beside a way around them."""

    def __init__(self, channels: int, width: int, positions: int, bottleneck: int, dilation: int = 1) -> None:
        super().__init__()
        self.skip = nn.Conv2d(channels, width, 1) if channels != width else nn.Identity()
        self.norm1, self.conv1 = nn.BatchNorm2d(channels), _convolution(channels, width, dilation)
        self.frequencies = _Frequencies(width, positions, positions // bottleneck)
        self.norm2, self.conv2 = nn.BatchNorm2d(width), _convolution(width, width, dilation)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.norm1(x)))
        y = y + self.frequencies(y)
        found: Tensor = self.conv2(F.relu(self.norm2(y))) + self.skip(x)
        return found


def _convolution(channels: int, width: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 3, padding=(dilation, 1), dilation=(dilation, 1), bias=False)


class _Frequencies(nn.Module):
    """Two linear layers over the positions of a frame, the same for all channels, with few units between."""

    def __init__(self, width: int, positions: int, units: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.inward = nn.Parameter(torch.randn(units, positions) * math.sqrt(2 / positions))
        self.outward = nn.Parameter(torch.randn(positions, units) * math.sqrt(2 / units))

    def forward(self, x: Tensor) -> Tensor:
        x = _across(self.inward, F.relu(self.norm1(x)))
        return _across(self.outward, F.relu(self.norm2(x)))


def _across(weight: Tensor, x: Tensor) -> Tensor:
    """Multiply positions of `(example, channel, frame, position)`, which in memory have channels last."""
    return torch.matmul(weight, x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _fold(x: Tensor) -> Tensor:
    """Return `(example, band and view, frame, position)` of `(example, view, frame, bin)`."""
    bands = [F.avg_pool2d(x[..., start:stop], (1, shared)) for start, stop, shared in BANDS]
    return torch.cat(bands, dim=1)


def _unfold(x: Tensor) -> Tensor:
    """Return `(example, ..., frame, bin)` of `(example, band and ..., frame, position)`."""
    bands = x.chunk(len(BANDS), dim=1)
    wide = [band.repeat_interleave(shared, -1) for band, (_, _, shared) in zip(bands, BANDS, strict=True)]
    return torch.cat(wide, dim=-1)
