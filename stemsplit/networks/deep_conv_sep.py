"""DeepConvSep: a convolutional autoencoder of a third of a second at a time, a decoder for each stem.

P. Chandna, M. Miron, J. Janer and E. Gomez, "Monoaural audio source separation using deep convolutional
neural networks", International Conference on Latent Variable Analysis and Signal Separation (LVA/ICA), 2017:
section 3, with the authors' program, github.com/MTG/DeepConvSep, examples/dsd100. Its input is 30 frames of
513 magnitudes, one channel: 50 vertical filters of one frame and all bins (timbre), 30 horizontal ones of 15
frames (how it moves), and a dense layer of 128 numbers, the bottleneck. From these a dense layer for each
stem and the two convolutions backwards, with the encoder's own weights, give the stem's magnitudes after a
ReLU; their share in the sum over stems is the stem's mask.

Not specified by the paper, or different here:

* The paper's fourth stem, `other`, is only pushed away from: its distance from the three other estimates is
  taken off the loss. In the program its branch is wired to the dense layer of the second stem (`l_fc12`), so
  that both are the same but for one bias. Here every stem has a branch of its own and counts alike.
* A network for one stem has a second branch for all the rest: a share needs something to be a share of.
* The paper has 30 horizontal filters, the program 50: the paper's number here. The paper's number of
  parameters is not known to us; these are 357,482 for four stems.
* The lowest 513 bins of n_fft 2048 and hop 512 in place of all 513 of n_fft 1024: the program's hop, so that
  30 frames are as long as there (0.35 s), twice as fine in frequency, up to 11 kHz.
* Excerpts begin every STRIDE = 15 frames, and each frame is the cross-fade of the masks of the two that
  hold it (the program fades over 25 of 30 frames when it separates, at three times the cost). Beyond the
  ends of the input there is silence.
* Each bias is added once: the program's layers have two. Magnitudes are scaled so that a full-scale sine is
  2.4, which is what it is in the program (1024 / 4 / sqrt(1024) * 0.3); an equal share is added to each
  stem's magnitude, where the program has random numbers of 1e-8, so that masks of nothing are equal.
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
"""Frames of one input."""
STRIDE = BLOCK // 2
"""Frames from one excerpt to the next."""
CONTEXT_FRAMES = BLOCK - 1


@dataclass(frozen=True)
class Config:
    """The paper's sizes."""

    vertical: int = 50
    horizontal: int = 30
    frames: int = 15
    """The length of the horizontal filters."""
    bottleneck: int = 128
    scale: float = 2.4
    """What a full-scale sine is to the network."""
    share: float = 1e-5
    """What is added to each stem's magnitude."""


class DeepConvSep(RatioNetwork):
    """Maps log magnitudes to shares of the stems."""

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
        # An excerpt's encoding is a cut of everything's: excerpts share the two convolutions.
        x = self.horizontal(self.vertical(x).transpose(1, 2)).unfold(2, self.encoded, STRIDE)
        x = F.relu(self.bottleneck(x.transpose(1, 2).flatten(2)))
        decoded = torch.stack([F.relu(branch(x)) for branch in self.branches], dim=1)
        return self._join(self._shares(decoded))[:, : self.stems, None, :frames]

    def _shares(self, decoded: Tensor) -> Tensor:
        """Return shares `(example, stem, excerpt, frame, bin)` of what the dense layers gave."""
        examples, branches, excerpts, _ = decoded.shape
        x = decoded.reshape(-1, self.config.horizontal, self.encoded)
        x = F.conv_transpose1d(x, self.horizontal.weight).transpose(1, 2)
        x = F.linear(x, self.vertical.weight.t()).float()
        x = x.reshape(examples, branches, excerpts, BLOCK, BINS)
        x = F.relu(x + self.bias[:, None, None, None]) + self.config.share
        return x / x.sum(dim=1, keepdim=True)

    def _join(self, shares: Tensor) -> Tensor:
        """Fade excerpts into `(example, stem, frame, bin)`, without the frames before the input."""
        shares = shares * self.fade[:, None]
        joined = shares[:, :, :-1, STRIDE:] + shares[:, :, 1:, :STRIDE]
        return joined.flatten(2, 3)
