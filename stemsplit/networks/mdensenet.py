"""MDenseNet: dense blocks at several resolutions, from full resolution down to an eighth and back.

N. Takahashi and Y. Mitsufuji, "Multi-scale multi-band DenseNets for audio source separation", IEEE Workshop
on Applications of Signal Processing to Audio and Acoustics (WASPAA), 2017, arXiv:1706.09588: section 2.2 and
the right-most column of Table 1. The input is two channels of 1024 bins (n_fft 2048, without the highest
bin). The output is a stem's magnitudes in both channels, divided by the mixture's. Layer l of a dense block
takes the block's input and the outputs of all earlier layers, x_l = H_l([x_l-1, ..., x_0]), where H is batch
normalization, ReLU and a 3 x 3 convolution. Each of the L layers outputs k channels. Between blocks, pooling
halves the resolution or a transposed convolution doubles it. On the way up, a skip connection concatenates
the output of the block with the same resolution.

Not specified by the paper, or different here:

* A block outputs only the k channels of its last layer; the table does not say. This gives 121,030
  parameters (MMDenseNet: 270,100). With all L * k channels it would be 0.29 million (0.64 million), with the
  block's input as well 3.6 million (7.8 million). Only 270,100 is near the 0.3 million quoted for MMDenseNet.
* Pooling is average pooling, without a 1 x 1 convolution before it: the table has none, and a block's k
  channels need no compression. Transposed convolutions keep the number of channels.
* Kernels of even size, 3 x 4 and 1 x 2, are padded by one bin more above than below.
* The input is log magnitudes, standardized per bin, instead of magnitudes. Magnitudes are close to zero in
  almost all bins, and batch normalization does not change that.
* The last convolution and ReLU output the ratio of magnitudes, not a magnitude that is divided by the
  mixture's. Both can represent the same function, but a ratio starts as an equal share per stem instead of
  noise, and its errors are small in quiet bins.
* For several stems, the last convolution has two channels per stem.
* `SMALL` has 8 channels at the finest resolution, which costs most, and up to 24 at coarser ones. Its last
  block has 8 channels, which four stems share.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stemsplit.networks.base import RatioNetwork

BINS = 1024
CHANNELS = 2
STRIDE = 8
"""The network halves the number of frames three times."""


@dataclass(frozen=True)
class Column:
    """A column of Table 1: from the first convolution to the seventh dense block."""

    first: int = 32
    """Channels of the first convolution."""
    kernel: tuple[int, int] = (3, 4)
    """Kernel of the first convolution: frames and bins."""
    growth: tuple[int, ...] = (12,) * 7
    """k of each dense block."""
    layers: tuple[int, ...] = (4,) * 7
    """L of each dense block."""

    @property
    def context_frames(self) -> int:
        """Frames on either side that an output depends on; a layer at 1/8 resolution adds 8 frames."""
        scales = (1, 2, 4, 8, 4, 2, 1)
        convolved = sum(scale * count for scale, count in zip(scales, self.layers, strict=True))
        return self.kernel[0] // 2 + convolved + STRIDE - 1


@dataclass(frozen=True)
class Config:
    """The paper's sizes."""

    column: Column = Column()
    last_growth: int = 4
    last_layers: int = 2

    @property
    def context_frames(self) -> int:
        """Frames on either side that an output depends on."""
        return self.column.context_frames + self.last_layers


SMALL = Config(
    Column(first=8, growth=(8, 16, 16, 24, 16, 16, 8), layers=(2, 2, 3, 4, 3, 2, 2)), last_growth=8
)


class MDenseNet(RatioNetwork):
    """Maps log magnitudes to ratios of the stems' magnitudes to the mixture's."""

    bins = BINS
    channels = CHANNELS
    stride = STRIDE

    def __init__(self, stems: int, config: Config | None = None) -> None:
        super().__init__(stems, bins=BINS)
        self.config = config = config or Config()
        self.context_frames = config.context_frames
        self.trunk = Trunk(config.column)
        self.head = Head(self.trunk.channels, config.last_growth, config.last_layers, stems)

    def forward(self, features: Tensor, *, margin: int = 0, frame_stride: int = 1) -> Tensor:
        """Map features `(example, channel, frame, bin)` to ratios `(example, stem, channel, frame, bin)`."""
        x = whole_blocks((features - self.mean) / self.deviation)
        ratios: Tensor = self.head(self.trunk(x))
        return ratios[..., : features.shape[2], :]


def whole_blocks(x: Tensor) -> Tensor:
    """Pad `(example, channel, frame, bin)` at the end to whole strides of frames, in channels-last format.

    On CPUs, channels-last convolutions are twice as fast.
    """
    x = F.pad(x, (0, 0, 0, -x.shape[2] % STRIDE))
    return x.contiguous(memory_format=torch.channels_last)


class Trunk(nn.Module):
    """A column of Table 1, from the first convolution to the seventh dense block."""

    def __init__(self, column: Column) -> None:
        super().__init__()
        first, growth = column.first, column.growth
        self.channels = growth[6]
        frames, bins = column.kernel
        self.padding = ((bins - 1) // 2, bins // 2, (frames - 1) // 2, frames // 2)
        self.convolution = nn.Conv2d(CHANNELS, first, column.kernel)
        inputs = [first, *growth[:3], *(growth[3 + i] + growth[2 - i] for i in range(3))]
        self.dense = nn.ModuleList(
            DenseBlock(*sizes) for sizes in zip(inputs, growth, column.layers, strict=True)
        )
        self.up = nn.ModuleList(nn.ConvTranspose2d(k, k, 2, stride=2) for k in growth[3:6])

    def forward(self, x: Tensor) -> Tensor:
        """Return `(example, channel, frame, bin)`; the input's frames and bins, multiples of 8, are kept."""
        x = self.convolution(F.pad(x, self.padding))
        kept = []
        for block in self.dense[:3]:
            x = block(x)
            kept.append(x)
            x = F.avg_pool2d(x, 2)
        x = self.dense[3](x)
        for up, block in zip(self.up, self.dense[4:], strict=True):
            x = block(torch.cat([up(x), kept.pop()], dim=1))
        return x


class DenseBlock(nn.Module):
    """Layers on the block's input and all earlier outputs; the block's output is the last layer's."""

    def __init__(self, inputs: int, growth: int, layers: int) -> None:
        super().__init__()
        counts = [inputs + i * growth for i in range(layers)]
        self.norms = nn.ModuleList(nn.BatchNorm2d(count) for count in counts)
        self.convolutions = nn.ModuleList(nn.Conv2d(count, growth, 3, padding=1) for count in counts)

    def forward(self, x: Tensor) -> Tensor:
        """Return `(example, channel, frame, bin)` with `growth` channels."""
        new = x
        for i, (norm, convolution) in enumerate(zip(self.norms, self.convolutions, strict=True)):
            x = torch.cat([x, new], dim=1) if i else x
            new = convolution(F.relu(norm(x), inplace=True))
        return new


class Head(nn.Module):
    """The last dense block and convolution, which output each stem's ratios."""

    def __init__(self, inputs: int, growth: int, layers: int, stems: int) -> None:
        super().__init__()
        self.stems = stems
        self.dense = DenseBlock(inputs, growth, layers)
        self.convolution = nn.Conv2d(growth, stems * CHANNELS, (1, 2))
        # A positive initial bias, so that the ReLU is not dead from the start.
        assert self.convolution.bias is not None
        nn.init.constant_(self.convolution.bias, 1 / max(stems, 2))

    def forward(self, x: Tensor) -> Tensor:
        """Return ratios `(example, stem, channel, frame, bin)` for `(example, channel, frame, bin)`."""
        x = F.relu(self.convolution(F.pad(self.dense(x), (0, 1))))
        examples, _, frames, bins = x.shape
        return x.float().reshape(examples, self.stems, CHANNELS, frames, bins)
