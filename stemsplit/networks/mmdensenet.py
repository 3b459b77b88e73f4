"""MMDenseNet: MDenseNets for the lower half, the upper half and the whole of the spectrum.

N. Takahashi and Y. Mitsufuji, "Multi-scale multi-band DenseNets for audio source separation", IEEE Workshop
on Applications of Signal Processing to Audio and Acoustics (WASPAA), 2017, arXiv:1706.09588: section 2.3 and
the columns low, high and full of Table 1. A kernel shared by all frequencies must fit patterns of low and
high frequencies alike. Here each half has its own kernels, and the lower half, with more energy, has more.
The halves' feature maps are concatenated along frequency, then with the full band's along channels, as input
of a last dense block. For input, output and dense blocks, see `mdensenet.py`. The paper's MMDenseNet+ is this
network, trained with augmentation and followed by a multichannel Wiener filter; neither is in this module.

Not specified by the paper, or different here:

* As in `mdensenet.py`: log magnitudes in, blocks that output their last layer, uneven padding, ratios out.
* The last blocks output 16 channels in the lower half and 10 in the upper half, which cannot be concatenated
  along frequency. A 1 x 1 convolution maps the upper half's 10 channels to 16.
* A network for one stem has 270,100 parameters. The quoted number is about 0.3 million, and no other reading
  of Table 1 comes near it (see `mdensenet.py`).
* `JOINT` is one network for four stems. It has the paper's sizes except in the last block, which has the
  paper's number of channels for each stem.
* `SMALL` is for training on CPUs, where the finest resolution costs most, because of memory bandwidth rather
  than multiplications. At that resolution it has one to two layers (the paper: two to four) and a k of 8, the
  number of values in a CPU vector. Each coarser resolution costs a quarter as much, so there the lower half
  keeps most of its layers and channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stemsplit.networks.base import RatioNetwork
from stemsplit.networks.mdensenet import BINS, CHANNELS, STRIDE, Column, Head, Trunk, whole_blocks


@dataclass(frozen=True)
class Config:
    """The paper's sizes."""

    low: Column = Column(growth=(14, 16, 16, 16, 16, 16, 16))
    high: Column = Column(kernel=(3, 3), growth=(10,) * 7, layers=(3,) * 7)
    full: Column = Column(growth=(6,) * 7, layers=(2, 2, 2, 4, 2, 2, 2))
    last_growth: int = 4
    last_layers: int = 2

    @property
    def context_frames(self) -> int:
        """Frames on either side that an output depends on."""
        columns = (self.low, self.high, self.full)
        return max(column.context_frames for column in columns) + self.last_layers


JOINT = Config(last_growth=16)
SMALL = Config(
    low=Column(first=8, growth=(8, 16, 16, 24, 16, 16, 8), layers=(2, 3, 4, 4, 4, 3, 2)),
    high=Column(first=8, kernel=(3, 3), growth=(8,) * 7, layers=(1, 1, 1, 2, 1, 1, 1)),
    full=Column(first=8, growth=(8,) * 7, layers=(1, 2, 2, 4, 2, 2, 1)),
    last_growth=8,
)


class MMDenseNet(RatioNetwork):
    """Maps log magnitudes to ratios of the stems' magnitudes to the mixture's."""

    bins = BINS
    channels = CHANNELS
    stride = STRIDE

    def __init__(self, stems: int, config: Config | None = None) -> None:
        super().__init__(stems, bins=BINS)
        self.config = config = config or Config()
        self.context_frames = config.context_frames
        self.low, self.high, self.full = Trunk(config.low), Trunk(config.high), Trunk(config.full)
        alike = self.low.channels == self.high.channels
        self.widen = nn.Identity() if alike else nn.Conv2d(self.high.channels, self.low.channels, 1)
        inputs = self.low.channels + self.full.channels
        self.head = Head(inputs, config.last_growth, config.last_layers, stems)

    def forward(self, features: Tensor, *, margin: int = 0, frame_stride: int = 1) -> Tensor:
        """Map features `(example, channel, frame, bin)` to ratios `(example, stem, channel, frame, bin)`."""
        x = whole_blocks((features - self.mean) / self.deviation)
        low, high = x.chunk(2, dim=3)
        halves = torch.cat([self.low(low), self.widen(self.high(high))], dim=3)
        ratios: Tensor = self.head(torch.cat([halves, self.full(x)], dim=1))
        return ratios[..., : features.shape[2], :]
