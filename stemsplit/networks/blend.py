"""BLEND: a weighted sum of the outputs of a feed-forward and a recurrent network.

S. Uhlich, M. Porcu, F. Giron, M. Enenkl, T. Kemp, N. Takahashi, Y. Mitsufuji, "Improving music source
separation based on deep neural networks through data augmentation and network blending", ICASSP 2017,
pp. 261-265, network blending: the raw outputs of both networks are combined linearly,

    estimate = (1 - weight) * FNN + weight * BLSTM,

before the multichannel Wiener filter. The networks are the ones in `fnn` and `blstm`. They train separately:
each network gets a random half of every batch. So there is one loss for both, and no gradient flows from one
to the other. `fit_weight` finds the weights afterwards.

Not specified by the paper (whose text was not at hand), or different here:

* The initial weight is 0.75: others report that the paper's weight of the FNN is 0.25. The paper has one
  weight for all instruments; here each stem has its own.
* `fit_weight` minimizes the squared error of amplitudes on validation examples.
* Both networks have the same input: two channels, the same bins.
* `SMALL` blends the small networks, which are mono and have outputs for all stems.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from stemsplit.networks import blstm, fnn
from stemsplit.networks.base import RatioNetwork


@dataclass(frozen=True)
class Config:
    """The configurations of both networks, which must have the same channels and bins."""

    fnn: fnn.Config = fnn.Config(bins=1025, channels=2, hidden=1025)
    blstm: blstm.Config = blstm.Config()
    weight: float = 0.75
    """Initial weight of the recurrent network."""

    @property
    def bins(self) -> int:
        """Bins of both networks' input."""
        return self.blstm.bins

    @property
    def channels(self) -> int:
        """Channels of both networks' input."""
        return self.blstm.channels

    @property
    def context_frames(self) -> int:
        """Frames on either side that an output depends on."""
        return max(self.fnn.context_frames, self.blstm.context_frames)


SMALL = Config(fnn.SMALL, blstm.SMALL)
BINS = Config().bins
CHANNELS = Config().channels
CONTEXT_FRAMES = Config().context_frames


class Blend(RatioNetwork):
    """Maps log magnitudes to ratios of the stems' amplitudes to the mixture's."""

    weight: Tensor

    def __init__(self, stems: int, config: Config | None = None) -> None:
        config = config or Config()
        super().__init__(stems, bins=config.bins)
        self.config = config
        if (config.fnn.bins, config.fnn.channels) != (config.bins, config.channels):
            raise ValueError("both networks must have the same bins and channels")
        self.fnn = fnn.FNN(stems, config.fnn)
        self.blstm = blstm.BLSTM(stems, config.blstm)
        for half in (self.fnn, self.blstm):  # shared, and stored only once
            half.register_buffer("mean", self.mean, persistent=False)
            half.register_buffer("deviation", self.deviation, persistent=False)
        self.register_buffer("weight", torch.full((stems,), config.weight))

    def forward(self, features: Tensor, *, margin: int = 0, frame_stride: int = 1) -> Tensor:
        """Return ratios `(example, stem, channel, frame, bin)` for logs `(example, channel, frame, bin)`."""
        self._share()
        if self.training:
            return self._by_one_each(features)
        feed_forward, recurrent = self.halves(features)
        weight = self.weight[:, None, None, None]
        return (1 - weight) * feed_forward + weight * recurrent

    def halves(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs of the feed-forward and of the recurrent network."""
        self._share()
        return self.fnn(features), self.blstm(features)

    def _share(self) -> None:
        """Share the mean and deviation with both networks again: a new device or precision makes copies."""
        for half in (self.fnn, self.blstm):
            half.mean, half.deviation = self.mean, self.deviation

    def _by_one_each(self, features: Tensor) -> Tensor:
        """Run one network on a random half of the examples, and the other on the rest."""
        count = len(features)
        order = torch.randperm(count, device=features.device)
        odd = int(torch.randint(2, ())) if count % 2 else 0
        parts = order[: count // 2 + odd], order[count // 2 + odd :]
        networks = (self.fnn, self.blstm)
        answers = [
            network(features[part]) for network, part in zip(networks, parts, strict=True) if len(part)
        ]
        return torch.cat(answers)[order.argsort()]

    @torch.no_grad()
    def fit_weight(self, examples: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        """Set and return the weights `(stem,)` in [0, 1] that minimize the squared error of amplitudes.

        `examples` are batches of features `(example, channel, frame, bin)` and target ratios of the stems'
        magnitudes to the mixture's, `(example, stem, channel, frame, bin)`. Call this in evaluation mode. A
        stem for which both networks have equal outputs keeps its weight.
        """
        products, squares = torch.zeros_like(self.weight).double(), torch.zeros_like(self.weight).double()
        for features, truth in examples:
            mixture = features.float().exp().unsqueeze(1)
            feed_forward, recurrent = self.halves(features)
            difference = ((recurrent - feed_forward) * mixture).double()
            missing = ((truth - feed_forward) * mixture).double()
            products += (missing * difference).sum(dim=(0, 2, 3, 4))
            squares += difference.square().sum(dim=(0, 2, 3, 4))
        fitted = (products / squares.clamp_min(1e-30)).clamp(0, 1).to(self.weight)
        self.weight.copy_(torch.where(squares > 0, fitted, self.weight))
        return self.weight
