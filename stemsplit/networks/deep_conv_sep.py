"""DeepConvSep: a convolutional autoencoder over a third of a second, with one decoder per stem.

P. Chandna, M. Miron, J. Janer and E. Gomez, "Monoaural audio source separation using deep convolutional
neural networks", International Conference on Latent Variable Analysis and Signal Separation (LVA/ICA), 2017:
section 3, with the authors' code, github.com/MTG/DeepConvSep, examples/dsd100. The input is 30 frames of 513
magnitudes, one channel. The encoder is 50 vertical filters of one frame and all bins (timbre), 30 horizontal
filters of 15 frames (evolution in time), and a dense layer of 128 features, the bottleneck. For each stem, a
dense layer and the two transposed convolutions, with the encoder's weights, output magnitudes after a ReLU.
A stem's share in the sum over stems is its mask.

Not specified by the paper, or different here:

* The paper's loss does not fit the fourth stem, `other`. It only pushes the three other estimates away from
  it, by subtracting their distance from the loss. In the authors' code, its branch uses the dense layer of
  the second stem (`l_fc12`), so these branches differ only in one bias. Here every stem has its own branch
  and counts equally.
* A network for one stem has a second branch, for the residual, because masks are shares of a sum.
* There are 30 horizontal filters, as in the paper; the authors' code has 50. The paper's number of parameters
  is not known to us; this network has 357,482 for four stems.
* The input is the lowest 513 bins of n_fft 2048 and hop 512 (up to 11 kHz) instead of all 513 of n_fft 1024,
  with twice the frequency resolution. The authors' code has the same hop, so 30 frames are 0.35 s in both.
* Excerpts begin every STRIDE = 15 frames. A frame's masks are cross-faded from the two excerpts that contain
  it (the authors' code fades over 25 of 30 frames at inference, at three times the cost). The input is padded
  with silence at both ends.
* Each bias is added once; layers in the authors' code have two. A full-scale sine has magnitude 2.4, as there
  (1024 / 4 / sqrt(1024) * 0.3). A constant is added to each stem's magnitude, so that the masks of silence
  are equal; the authors' code adds random numbers of 1e-8.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stemsplit.networks.base import RatioNetwork

BINS = 513
CHANNELS = 1
BLOCK = 30
"""Frames per excerpt."""
STRIDE = BLOCK // 2
"""Frames from one excerpt to the next."""
CONTEXT_FRAMES = BLOCK - 1


@dataclass(frozen=True)
class Config:
    """The paper's sizes."""

    vertical: int = 50
    horizontal: int = 30
    frames: int = 15
    """Length of the horizontal filters."""
    bottleneck: int = 128
    scale: float = 2.4
    """Magnitude of a full-scale sine at the network's input."""
    share: float = 1e-5
    """Constant added to each stem's magnitude."""


class DeepConvSep(RatioNetwork):
    """Maps log magnitudes to the stems' shares of the mixture."""

    bins = BINS
    channels = CHANNELS
    context_frames = CONTEXT_FRAMES
    stride = STRIDE

    def __init__(self, stems: int, config: Config | None = None) -> None:
        super().__init__(stems)
        self.config = config = config or Config()
        branches = max(stems, 2)
        self.encoded = BLOCK - config.frames + 1
        """Frames of an excerpt after the horizontal filters."""
        size = config.horizontal * self.encoded
        self.vertical = nn.Linear(BINS, config.vertical)
        self.horizontal = nn.Conv1d(config.vertical, config.horizontal, config.frames)
        self.bottleneck = nn.Linear(size, config.bottleneck)
        self.branches = nn.ModuleList(nn.Linear(config.bottleneck, size) for _ in range(branches))
        self.bias = nn.Parameter(torch.full((branches,), 0.01))
        fade = (torch.arange(BLOCK) + 0.5) / STRIDE
        self.register_buffer("fade", torch.minimum(fade, 2 - fade), persistent=False)
        self.fade: Tensor

    def forward(self, features: Tensor, *, margin: int = 0, frame_stride: int = 1) -> Tensor:
        """Return shares `(example, stem, 1, frame, bin)` for log magnitudes `(example, 1, frame, bin)`."""
        frames = features.shape[2]
        x = self.config.scale * features[:, 0].exp()
        x = F.pad(x, (0, 0, STRIDE, STRIDE + -frames % STRIDE))
        # The two convolutions run once on all frames; each excerpt is a slice of their output.
        x = self.horizontal(self.vertical(x).transpose(1, 2)).unfold(2, self.encoded, STRIDE)
        x = F.relu(self.bottleneck(x.transpose(1, 2).flatten(2)))
        decoded = torch.stack([F.relu(branch(x)) for branch in self.branches], dim=1)
        return self._join(self._shares(decoded))[:, : self.stems, None, :frames]

    def _shares(self, decoded: Tensor) -> Tensor:
        """Return shares `(example, stem, excerpt, frame, bin)` for the outputs of the dense layers."""
        examples, branches, excerpts, _ = decoded.shape
        x = decoded.reshape(-1, self.config.horizontal, self.encoded)
        x = F.conv_transpose1d(x, self.horizontal.weight).transpose(1, 2)
        x = F.linear(x, self.vertical.weight.t()).float()
        x = x.reshape(examples, branches, excerpts, BLOCK, BINS)
        x = F.relu(x + self.bias[:, None, None, None]) + self.config.share
        return x / x.sum(dim=1, keepdim=True)

    def _join(self, shares: Tensor) -> Tensor:
        """Cross-fade excerpts into `(example, stem, frame, bin)`, without the padding before the input."""
        shares = shares * self.fade[:, None]
        joined = shares[:, :, :-1, STRIDE:] + shares[:, :, 1:, :STRIDE]
        return joined.flatten(2, 3)
