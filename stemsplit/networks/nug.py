"""NUG: one fully connected network that estimates the spectra of all sources at once.

A. A. Nugraha, A. Liutkus, E. Vincent, "Multichannel music separation with deep neural networks", EUSIPCO
2016, pp. 1748-1752, and the same, "Multichannel audio source separation with deep neural networks", IEEE/ACM
Transactions on Audio, Speech, and Language Processing 24 (9), 2016, pp. 1652-1664.

The input is the root mean square of the mixture over channels, in a frame and in context frames on either
side. ReLU layers output the square root of each source's power spectral density in the frame, for all sources
together. In the papers, these estimates initialize an expectation-maximization algorithm that estimates each
source's spatial covariance, and further networks refine its estimates in turn. Here there is only the first
network, followed by the engine's multichannel Wiener filter, which is one iteration of that algorithm
(Duong's). The loss is the squared error of the square roots: of the papers' losses, the one that needs no
lower limit on power.

Not specified by the papers (only abstracts and descriptions by others were available), or different here:

* There is only the first network, and one iteration of the algorithm, as described above.
* The papers reduce the concatenated frames by principal component analysis. Here the first layer takes all of
  them: it can absorb any linear map before it.
* Two context frames on either side and three hidden layers are from memory of the papers. The 2050 hidden
  nodes, twice the bins, are a choice.
* Context frames are `spacing` frames apart, so that they do not overlap at n_fft / hop_length = 4. The papers
  skip frames too, at an overlap of one half.
* Instead of standardized inputs and outputs, amplitudes are divided by a loud but typical level of their bin
  (see `_amplitudes.relative`), so that zero stays zero.
* In training the last ReLU is leaky, because otherwise inactive nodes would stay inactive.
* `SMALL` has 384 hidden nodes. Context frames are averaged into 64 bands; the frame itself keeps all bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from stemsplit.networks._amplitudes import ContextNetwork

OPEN = 0.1
"""Initial bias of the last layer."""


@dataclass(frozen=True)
class Config:
    """Close to the papers' sizes; `SMALL` has others."""

    bins: int = 1025
    channels: int = 1
    layers: int = 3
    """Hidden layers."""
    hidden: int = 2050
    context: int = 2
    """Context frames on either side."""
    spacing: int = 4
    """Distance in frames from one of the concatenated frames to the next."""
    bands: int = 0
    """Bands into which context frames are averaged; 0: all bins are used."""

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
        """Map features `(example, channel, frame, bin)` to ratios `(example, stem, channel, frame, bin)`."""
        mixture = self.amplitudes(features)
        x = self.joined(mixture)
        for layer in self.dense:
            x = layer(F.relu(x))
        return self.ratios(x, mixture)
