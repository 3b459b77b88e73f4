"""FNN: fully connected layers that turn the mixture's amplitudes into an instrument's.

S. Uhlich, F. Giron, Y. Mitsufuji, "Deep neural network based instrument extraction from music", ICASSP 2015,
pp. 2135-2139: section 2.1 and figure 1 (the network), section 3 (its sizes). Used again, for DSD100, in
S. Uhlich, M. Porcu, F. Giron, M. Enenkl, T. Kemp, N. Takahashi, Y. Mitsufuji, "Improving music source
separation based on deep neural networks through data augmentation and network blending", ICASSP 2017.

Its input is the amplitudes of a frame and of the C = 3 frames before and after it that do not overlap with
each other, divided by their mean Euclidean norm gamma, so that loudness does not matter. K = 5 layers x ->
max(W x + b, 0) of L = 513 nodes each, the last one too, give the instrument's amplitudes in the frame, in
units of gamma. One network per instrument: 2,897,424 parameters (as the paper's sizes have it; it states no
count). The loss is the sum of squared errors of amplitudes.

Concatenating frames and multiplying by a matrix is a convolution over frames, which is how it is done here:
each frame is read in once for all the frames that it is context to.

Not specified by the paper, or different here:

* The paper's mixtures are mono, at 32 kHz, in frames of 1024 samples and rectangular windows. Here it is
  whatever the engine's transform is: `spacing` frames apart is where frames do not overlap (n_fft / hop).
* Amplitudes are counted in units of what is usual in their bin, and gamma is a root mean square of these
  (see `_amplitudes.relative`). The matrices could hold those units: they only help Adam, which trains this.
* The paper grows the network layer by layer, each from a least-squares solution, by L-BFGS. Here all layers
  are trained at once, from the identity: the paper's "baseline initialization", for every layer.
* In training the last ReLU is leaky, because otherwise inactive nodes would stay inactive.
* Frames before the beginning and after the end are zero.
* The sizes of 2017 (the text was not at hand) may be others.
* `SMALL` is one network for all stems, with 256 hidden nodes, and its context frames are averaged into 64
  bands: 1025 bins would make eight million parameters of the first layer alone. Its bins end at 16 kHz (of
  n_fft 2048 at 44.1 kHz).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stemsplit.networks._amplitudes import ContextNetwork

OPEN = 0.1
"""What the last layer answers at first where no identity fits."""
NOISE = 0.1
"""What else a layer does at first than to be the identity, relative to a usual initialization."""


@dataclass(frozen=True)
class Config:
    """The paper's sizes; `SMALL` has others."""

    bins: int = 513
    channels: int = 1
    layers: int = 5
    hidden: int = 513
    """Nodes of all layers but the last, which has one for each stem, channel and bin."""
    context: int = 3
    """C: frames to either side that are concatenated."""
    spacing: int = 4
    """How many frames lie from one of the concatenated frames to the next."""
    bands: int = 0
    """Bands that the context frames are averaged into; 0: all of their bins are used."""

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
        """Begin as a network that answers with the mixture itself, and some noise, if the sizes allow it."""
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
        """Return ratios `(example, stem, channel, frame, bin)` for logs `(example, channel, frame, bin)`."""
        mixture = self.amplitudes(features)
        gamma = self._gamma(mixture)
        # The frames' norm differs from output to output, their sum does not: hence first the sum.
        x = self.joined(mixture).float() / gamma.unsqueeze(-1) + self.bias
        for layer in self.dense:
            x = layer(F.relu(x))
        return self.ratios(x, mixture / gamma[:, None, :, None])

    def _gamma(self, mixture: Tensor) -> Tensor:
        """Return how loud a frame and its context are, `(example, frame)`."""
        spacing, context = self.config.spacing, self.config.context_frames
        norms = mixture.square().mean(dim=(1, 3)).sqrt()
        count = norms.shape[1]
        padded = F.pad(norms, (context, context))
        shifted = [padded[:, start : start + count] for start in range(0, 2 * context + 1, spacing)]
        return torch.stack(shifted).mean(dim=0)
