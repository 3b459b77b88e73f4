"""FNN: fully connected layers that turn the mixture's amplitudes into an instrument's.

S. Uhlich, F. Giron, Y. Mitsufuji, "Deep neural network based instrument extraction from music", ICASSP 2015,
pp. 2135-2139: section 2.1 and figure 1 (the network), section 3 (its sizes). Used again, for DSD100, in
S. Uhlich, M. Porcu, F. Giron, M. Enenkl, T. Kemp, N. Takahashi, Y. Mitsufuji, "Improving music source
separation based on deep neural networks through data augmentation and network blending", ICASSP 2017.

The input is the amplitudes of a frame and of C = 3 non-overlapping context frames on either side. They are
divided by the frames' mean Euclidean norm gamma, so that loudness does not matter. A stack of K = 5 layers
x -> max(W x + b, 0), including the last, with L = 513 nodes each, outputs the instrument's amplitudes in the
frame, in units of gamma. There is one network per instrument, with 2,897,424 parameters (from the paper's
sizes; it states no count). The loss is the sum of squared errors of amplitudes.

Concatenating frames and multiplying them by a matrix is a dilated convolution over frames. It is implemented
as one here, so that frames are not copied for each output that depends on them.

Not specified by the paper, or different here:

* The paper's mixtures are mono, at 32 kHz, in frames of 1024 samples with a rectangular window. Here the
  transform is the engine's, and context frames are `spacing` = n_fft / hop_length apart, without overlap.
* Amplitudes are divided by a loud but typical level of their bin (see `_amplitudes.relative`). The weights
  could absorb this scaling; it only helps Adam. gamma is the mean of the frames' root mean squares.
* The paper adds one layer at a time, each initialized with a least-squares solution, and trains with L-BFGS.
  Here all layers train at once, from the identity: the paper's "baseline initialization", for every layer.
* In training the last ReLU is leaky, because otherwise inactive nodes would stay inactive.
* Frames before the beginning and after the end are zero.
* The sizes of 2017 may differ (the text was not available).
* `SMALL` is one network for all stems, with 256 hidden nodes. Its context frames are averaged into 64 bands:
  with 1025 bins and as many hidden nodes, the first layer alone would have 7.4 million parameters. Its bins
  end at 16 kHz (n_fft 2048 at 44.1 kHz).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stemsplit.networks._amplitudes import ContextNetwork

OPEN = 0.1
"""Initial bias of the last layer if the sizes do not allow an identity."""
NOISE = 0.1
"""Scale of the random weights added to the initial identity, relative to the usual scale."""


@dataclass(frozen=True)
class Config:
    """The paper's sizes; `SMALL` has others."""

    bins: int = 513
    channels: int = 1
    layers: int = 5
    hidden: int = 513
    """Nodes of each layer except the last, which has one per stem, channel and bin."""
    context: int = 3
    """C: context frames on either side."""
    spacing: int = 4
    """Distance in frames from one of the concatenated frames to the next."""
    bands: int = 0
    """Bands into which context frames are averaged; 0: all bins are used."""

    @property
    def context_frames(self) -> int:
        """Frames on either side that an output depends on."""
        return self.context * self.spacing


SMALL = Config(bins=744, hidden=256, bands=64)
BINS = Config.bins
CHANNELS = Config.channels
CONTEXT_FRAMES = Config().context_frames


class FNN(ContextNetwork):
    """Maps log magnitudes to ratios of the stems' amplitudes to the mixture's."""

    def __init__(self, stems: int, config: Config | None = None) -> None:
        config = config or Config()
        super().__init__(stems, bins=config.bins, bands=config.bands)
        self.config = config
        present = config.channels * config.bins
        around = config.channels * (config.bands or config.bins)
        taps = 2 * config.context + 1
        self.first = nn.Conv1d(
            around, config.hidden, taps, dilation=config.spacing, padding=config.context_frames, bias=False
        )
        self.bias = nn.Parameter(torch.zeros(config.hidden))
        if config.bands:
            self.present = nn.Linear(present, config.hidden, bias=False)
        sizes = [config.hidden] * (config.layers - 1) + [stems * present]
        self.dense = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))
        self._initialise(identity=config.hidden == present)

    @torch.no_grad()
    def _initialise(self, *, identity: bool) -> None:
        """Initialize as the identity (output = mixture) plus some noise, if the sizes allow it."""
        dense = [layer for layer in self.dense if isinstance(layer, nn.Linear)]
        for layer in dense:
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        if not identity:
            nn.init.constant_(dense[-1].bias, OPEN)
            return
        one = torch.eye(self.config.hidden)
        self.first.weight.mul_(NOISE)
        self.first.weight[:, :, self.config.context] += one
        for layer in dense:
            layer.weight.mul_(NOISE)
            layer.weight += one.repeat(len(layer.weight) // len(one), 1)

    def forward(self, features: Tensor, *, margin: int = 0, frame_stride: int = 1) -> Tensor:
        """Map features `(example, channel, frame, bin)` to ratios `(example, stem, channel, frame, bin)`."""
        mixture = self.amplitudes(features)
        gamma = self._gamma(mixture)
        # Each output frame has its own gamma, so it divides the sums instead of the input.
        x = self.joined(mixture).float() / gamma.unsqueeze(-1) + self.bias
        for layer in self.dense:
            x = layer(F.relu(x))
        return self.ratios(x, mixture / gamma[:, None, :, None])

    def _gamma(self, mixture: Tensor) -> Tensor:
        """Return the mean of the root mean squares of a frame and its context, `(example, frame)`."""
        spacing, context = self.config.spacing, self.config.context_frames
        norms = mixture.square().mean(dim=(1, 3)).sqrt()
        count = norms.shape[1]
        padded = F.pad(norms, (context, context))
        shifted = [padded[:, start : start + count] for start in range(0, 2 * context + 1, spacing)]
        return torch.stack(shifted).mean(dim=0)
