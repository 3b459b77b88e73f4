"""BLSTM: three bidirectional recurrent layers that turn the mixture's amplitudes into an instrument's.

S. Uhlich, M. Porcu, F. Giron, M. Enenkl, T. Kemp, N. Takahashi, Y. Mitsufuji, "Improving music source
separation based on deep neural networks through data augmentation and network blending", ICASSP 2017,
pp. 261-265, the recurrent network; its sizes as its authors describe their entry UHL1 to the campaign
SiSEC 2018: "three BLSTM layers, each having 500 cells. For each instrument, a network is trained which
predicts the target instrument amplitude from the mixture amplitude" (n_fft 4096, hop 1024).

Its input is the amplitudes of both channels, frame after frame, in both directions of time; a dense layer
with a ReLU gives the instrument's amplitudes. The loss is the sum of squared errors of amplitudes. The
paper's point is that it overfits unless examples are mixed anew, scaled and have their channels swapped.

Its memory has no end, but fades. The context is 96 frames, 1.1 s at a hop of 512. Measured after the tests'
training, with 16 cells per layer, when all that is further away becomes something else: a mask moved by 4e-6
at most; by 2e-5 where 64 frames were left, and by anything where 32 were (in faint bins a mask is a small
number divided by another). Weights that remember for longer can be trained.

Left open by the paper (whose text was not at hand), or done otherwise here:

* 500 cells per layer are taken to be 250 in each direction.
* Input: log magnitudes, standardised by the trainer's mean and deviation of each bin, since cells saturate.
  Output: amplitudes in units of what is usual in the bin and of how loud the frame is, so that they need not
  range over what the loudness of songs does.
* The dropout between layers and the weights' decay, which UHL1 tuned, are left to the recipe: none here.
* In training the last ReLU is leaky, because otherwise inactive nodes would stay inactive.
* n_fft 2048 (1025 bins), the engine's, is the default; 2049 bins are `Config(bins=2049)`.
* `SMALL` is one network for all stems: mono, 224 cells per layer, 744 bins (16 kHz at 44.1 kHz) of which it
  has the mean logarithms in 192 bands as its input.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stemsplit.networks._amplitudes import AmplitudeNetwork, together

OPEN = 0.1
"""What the dense layer answers at first."""


@dataclass(frozen=True)
class Config:
    """The paper's sizes; `SMALL` has others."""

    bins: int = 1025
    channels: int = 2
    layers: int = 3
    cells: int = 500
    """Of a layer, both directions together."""
    bands: int = 0
    """Bands whose mean logarithms are the input; 0: all bins are."""
    context_frames: int = 96
    """Frames on either side after which memory is taken to have faded."""


SMALL = Config(bins=744, channels=1, cells=224, bands=192)
BINS = Config.bins
CHANNELS = Config.channels
CONTEXT_FRAMES = Config.context_frames


class BLSTM(AmplitudeNetwork):
    """Maps log magnitudes to ratios of the stems' amplitudes to the mixture's."""

    def __init__(self, stems: int, config: Config | None = None) -> None:
        config = config or Config()
        super().__init__(stems, bins=config.bins, bands=config.bands)
        self.config = config
        self.recurrent = nn.LSTM(
            config.channels * (config.bands or config.bins),
            config.cells // 2,
            config.layers,
            batch_first=True,
            bidirectional=True,
        )
        self.dense = nn.Linear(config.cells // 2 * 2, stems * config.channels * config.bins)
        nn.init.constant_(self.dense.bias, OPEN)

    def forward(self, features: Tensor, *, margin: int = 0, frame_stride: int = 1) -> Tensor:
        """Return ratios `(example, stem, channel, frame, bin)` for logs `(example, channel, frame, bin)`."""
        mixture = self.amplitudes(features)
        standardised = (features.float() - self.mean) / self.deviation
        # Not every CPU library has recurrent layers in bfloat16.
        with torch.autocast(features.device.type, enabled=False):
            remembered, _ = self.recurrent(together(self.averaged(standardised)))
        x = self.dense(remembered)
        loudness = mixture.square().mean(dim=(1, 3), keepdim=True).sqrt()
        return self.ratios(x, mixture / loudness)
