"""MMDenseNet: MDenseNets for the lower half of the spectrum, for the upper half, and for all of it.

N. Takahashi and Y. Mitsufuji, "Multi-scale multi-band DenseNets for audio source separation", IEEE Workshop
on Applications of Signal Processing to Audio and Acoustics (WASPAA), 2017, arXiv:1706.09588: section 2.3 and
the columns low, high and full of Table 1. A kernel that is moved over all frequencies must do for patterns
of low and high ones alike; here each half has kernels of its own, more of them where there is more sound.
The halves are put together along frequency, and with what the network of the whole spectrum gives along
channels, for a last dense block. Input and output, dense blocks, and what is said of them there, are
those of `mdensenet.py`. MMDenseNet+ of the paper is this network, trained with augmentation and followed by a
multichannel Wiener filter: both are the program's to do, and no network's.

Not specified by the paper, or different here:

* All of `mdensenet.py`: logarithms in, blocks that give their last layer, uneven padding, ratios out.
* The lower half's last block gives 16 channels and the upper half's 10, which cannot be put together along
  frequency as they are: a 1 x 1 convolution makes 16 of the upper half's 10.
* 270,100 parameters for one stem: some 0.3 million are quoted, which no other reading of Table 1 comes near
  to (see `mdensenet.py`).
* `JOINT` is one network for four stems: of the paper's sizes, but for the last block, which has as many
  channels for each stem as the paper's has for its one.
* `SMALL` is made for training on CPUs, on which the finest resolution is what costs, and there the
  memory that goes past rather than the multiplications: one to two layers where the paper has two to four,
  and a k of eight, which is as many numbers as the CPU handles at once. Coarser resolutions cost a
  quarter each, so that the lower half keeps most of its layers and channels there.
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
    """Maps log magnitudes to magnitudes of stems divided by the mixture's."""

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
        """Return V / M `(example, stem, channel, frame, bin)` for logs `(example, channel, frame, bin)`."""
        x = whole_blocks((features - self.mean) / self.deviation)
        low, high = x.chunk(2, dim=3)
        halves = torch.cat([self.low(low), self.widen(self.high(high))], dim=3)
        ratios: Tensor = self.head(torch.cat([halves, self.full(x)], dim=1))
        return ratios[..., : features.shape[2], :]
