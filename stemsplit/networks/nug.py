"""NUG: one fully connected network that estimates the spectra of all sources at once.

A. A. Nugraha, A. Liutkus, E. Vincent, "Multichannel music separation with deep neural networks", EUSIPCO
2016, pp. 1748-1752, and the same, "Multichannel audio source separation with deep neural networks", IEEE/ACM
Transactions on Audio, Speech, and Language Processing 24 (9), 2016, pp. 1652-1664.

Its input is the root of the mixture's mean power over channels, in a frame and in some frames before and
after it; ReLU layers give the root of each source's power spectral density in the frame, all sources
together. In the papers these start an expectation-maximization algorithm that finds each source's spatial
covariance, and whose estimates further networks refine, in turn. Here there is this first network only, and
the engine's multichannel Wiener filter, one iteration of that algorithm (Duong's), comes after it. The loss
is the squared error of the roots, the one of several that the papers try that needs no floor below powers.

Left open by the papers (of which only abstracts and descriptions by others were at hand), or done otherwise:

* No network after the first, and one iteration of the algorithm, as said.
* The papers reduce the concatenated frames by principal components. Here the first layer reads all of them:
  it holds any linear map that came before it.
* Sizes: two frames to either side and three hidden layers are from memory of the papers; 2050 hidden nodes,
  twice the bins, are a choice.
* Context frames are `spacing` frames apart, so that they do not overlap at n_fft / hop = 4: the papers skip
  frames too, at an overlap of one half.
* Amplitudes are counted in units of what is usual in their bin (see `_amplitudes.relative`), in place of
  standardised inputs and outputs: the zero stays where it is.
* In training the last ReLU is leaky, because otherwise inactive nodes would stay inactive.
* `SMALL` has 384 hidden nodes, and takes its context frames in 64 bands, the frame itself in full.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from stemsplit.networks._amplitudes import ContextNetwork

OPEN = 0.1
"""What the last layer answers at first."""


@dataclass(frozen=True)
class Config:
    """Near the papers' sizes; `SMALL` has others."""

    bins: int = 1025
    channels: int = 1
    layers: int = 3
    """Hidden layers."""
    hidden: int = 2050
    context: int = 2
    """Frames to either side that are concatenated."""
    spacing: int = 4
    """How many frames lie from one of the concatenated frames to the next."""
    bands: int = 0
    """Bands that the context frames are averaged into; 0: all of their bins are used."""

    @property
    def context_frames(self) -> int:
        """Frames on either side that an output depends on."""
        return self.context * self.spacing


SMALL = Config(hidden=384, bands=64)
BINS = Config.bins
CHANNELS = Config.channels
CONTEXT_FRAMES = Config().context_frames


class NUG(ContextNetwork):
    """Maps log magnitudes to ratios of all stems' amplitudes to the mixture's."""

    def __init__(self, stems: int, config: Config | None = None) -> None:
        config = config or Config()
        super().__init__(stems, bins=config.bins, bands=config.bands)
        self.config = config
        present = config.channels * config.bins
        around = config.channels * (config.bands or config.bins)
        taps = 2 * config.context + 1
        self.first = nn.Conv1d(
            around, config.hidden, taps, dilation=config.spacing, padding=config.context_frames
        )
        if config.bands:
            self.present = nn.Linear(present, config.hidden, bias=False)
        inner = (nn.Linear(config.hidden, config.hidden) for _ in range(config.layers - 1))
        output = nn.Linear(config.hidden, stems * present)
        self.dense = nn.ModuleList([*inner, output])
        for layer in (*self.dense[:-1], output):
            assert isinstance(layer, nn.Linear)
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        nn.init.constant_(output.bias, OPEN)

    def forward(self, features: Tensor, *, margin: int = 0, frame_stride: int = 1) -> Tensor:
        """Return ratios `(example, stem, channel, frame, bin)` for logs `(example, channel, frame, bin)`."""
        mixture = self.amplitudes(features)
        x = self.joined(mixture)
        for layer in self.dense:
            x = layer(F.relu(x))
        return self.ratios(x, mixture)
