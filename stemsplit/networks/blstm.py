"""BLSTM: three bidirectional LSTM layers that predict an instrument's amplitudes from the mixture's.

S. Uhlich, M. Porcu, F. Giron, M. Enenkl, T. Kemp, N. Takahashi, Y. Mitsufuji, "Improving music source
separation based on deep neural networks through data augmentation and network blending", ICASSP 2017,
pp. 261-265, the recurrent network. The sizes are from its authors' description of their SiSEC 2018 entry
UHL1: "three BLSTM layers, each having 500 cells. For each instrument, a network is trained which predicts
the target instrument amplitude from the mixture amplitude" (n_fft 4096, hop 1024).

The input is the amplitudes of both channels, frame by frame; a dense layer with a ReLU outputs the
instrument's amplitudes. The loss is the sum of squared errors of amplitudes. The paper's point is that the
network overfits unless training mixes stems anew, scales them and swaps their channels.

The receptive field is unbounded, but the influence of distant frames fades. So the context is set to 96
frames, 1.1 s at a hop of 512. After the tests' training, with 16 cells per layer, replacing all input outside
the context changed masks by at most 4e-6. With 64 frames it was 2e-5, and with 32 it could be any amount (in
faint bins, a mask is a small number divided by another). Trained weights can have a longer memory.

Not specified by the paper (whose text was not at hand), or different here:

* 500 cells per layer are taken to be 250 in each direction.
* Input: log magnitudes, standardized by the trainer's mean and deviation of each bin, since cells saturate.
  Output: amplitudes relative to the usual level of the bin and to the level of the frame, so their range does
  not depend on how loud a song is.
* UHL1 tuned dropout between layers and weight decay. Here there is no dropout; the trainer sets the decay.
* In training the last ReLU is leaky, because otherwise inactive nodes would stay inactive.
* The default is the engine's n_fft of 2048 (1025 bins); for 2049 bins use `Config(bins=2049)`.
* `SMALL` is one network for all stems: mono, 224 cells per layer, 744 bins (16 kHz at 44.1 kHz). Its input is
  the mean log magnitudes of 192 bands.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stemsplit.networks._amplitudes import AmplitudeNetwork, together

OPEN = 0.1
"""Initial bias of the dense layer."""


@dataclass(frozen=True)
class Config:
    """The paper's sizes; `SMALL` has others."""

    bins: int = 1025
    channels: int = 2
    layers: int = 3
    cells: int = 500
    """Per layer, both directions together."""
    bands: int = 0
    """Bands whose mean log magnitudes are the input; 0: all bins."""
    context_frames: int = 96
    """Frames on either side beyond which the influence of the input is neglected."""


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
