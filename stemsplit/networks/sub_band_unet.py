"""A small U-Net on folded bands that outputs the masks of all stems, in stereo.

It combines ideas that work well in small separators:

- bands of the spectrum are stacked as channels of a feature map with 256 positions: H. Liu, L. Xie, J. Wu,
  G. Yang, "Channel-wise subband input for better voice and accompaniment separation on high resolution
  music", Interspeech 2020;
- each block has two convolutions over time and frequency and, between them, a linear bottleneck over all
  frequencies of a frame: W. Choi, M. Kim, J. Chung, D. Lee, S. Jung, "Investigating U-Nets with various
  intermediate blocks for spectrogram-based singing voice separation", ISMIR 2020 (TFC-TDF, section 3), in the
  order of M. Kim, J. H. Lee, "Sound demixing challenge 2023 technical report: TFC-TDF-UNet v3".

Different here: the bands have unequal widths. Below 5.5 kHz a position is one bin of 11 Hz, to resolve
harmonics. Above, it is two bins (22 Hz), then four (43 Hz). The input is log magnitudes of left, right, mid
and side: mid and side distinguish sound in the center from sound that is merely as loud on both sides. The
output is one mask per channel and stem, with a softmax over stems, so that the stems sum to the mixture. The
deepest convolutions are dilated in time. Batch normalization has constant statistics in inference, so outputs
depend only on the 3.4 s on either side.
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
"""First bin, end, and number of bins per position."""
BINS = 2048
POSITIONS = 256
CHANNELS = 2
VIEWS = 4


@dataclass(frozen=True)
class Config:
    """Sizes of the network."""

    widths: tuple[int, ...] = (24, 48, 80, 112)
    """Channels at each scale; each scale halves the frames and positions."""
    dilations: tuple[int, ...] = (1, 2, 4)
    """Dilations in time of the blocks at the last scale."""
    bottleneck: int = 8
    """Number of positions per unit in the bottleneck of the linear layers."""
    deepest_bottleneck: int = 2
    """The same at the last scale, which has few positions."""

    @property
    def stride(self) -> int:
        """Inputs must start at a multiple of this many frames for equal masks."""
        return 1 << (len(self.widths) - 1)

    @property
    def context_frames(self) -> int:
        """Frames on either side that a mask depends on; each block adds two frames of its scale."""
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
    """Two convolutions with linear layers over frequency between them, and a skip connection."""

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
    """Two linear layers over the positions of a frame, with a bottleneck; all channels share them."""

    def __init__(self, width: int, positions: int, units: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.inward = nn.Parameter(torch.randn(units, positions) * math.sqrt(2 / positions))
        self.outward = nn.Parameter(torch.randn(positions, units) * math.sqrt(2 / units))

    def forward(self, x: Tensor) -> Tensor:
        x = _across(self.inward, F.relu(self.norm1(x)))
        return _across(self.outward, F.relu(self.norm2(x)))


def _across(weight: Tensor, x: Tensor) -> Tensor:
    """Multiply the positions of `(example, channel, frame, position)`, channels-last, by `weight`."""
    return torch.matmul(weight, x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _fold(x: Tensor) -> Tensor:
    """Return `(example, band and view, frame, position)` for `(example, view, frame, bin)`."""
    bands = [F.avg_pool2d(x[..., start:stop], (1, shared)) for start, stop, shared in BANDS]
    return torch.cat(bands, dim=1)


def _unfold(x: Tensor) -> Tensor:
    """Return `(example, ..., frame, bin)` for `(example, band and ..., frame, position)`."""
    bands = x.chunk(len(BANDS), dim=1)
    wide = [band.repeat_interleave(shared, -1) for band, (_, _, shared) in zip(bands, BANDS, strict=True)]
    return torch.cat(wide, dim=-1)
