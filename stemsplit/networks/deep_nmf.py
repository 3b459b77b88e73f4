"""DeepNMF: the iterations of non-negative matrix factorization, unfolded into the layers of a network.

J. Le Roux, J. R. Hershey, F. Weninger, "Deep NMF for speech separation", ICASSP 2015, pp. 66-70.

The input is magnitudes M of T stacked frames, so a basis is a patch of a spectrogram. Layer k updates the
activations H of the bases W of all sources. H starts out uniform:

    H <- H * (W_k^T (M / (W_k H))) / (W_k^T 1 + sparsity),

which reduces the Kullback-Leibler divergence of M from W H, plus `sparsity` times the L1 norm of H. The last
C layers have their own bases; the layers before share theirs. The final layer reconstructs each source's
current frame, V_s = W_s H_s. A source's share of the mixture is V_s / sum(V_s), a Wiener filter. The loss is
the squared error of the filtered magnitudes. One network models all sources. A network for one stem also has
bases for the residual, and outputs only the stem's share.

Magnitudes are first divided by their mean over the T frames, which does not change the shares.

Not specified by the paper (of which the abstract and the introduction were at hand), or different here:

* The paper keeps its bases non-negative with multiplicative back-propagation updates. Here they are
  exponentials of the parameters. Plain Adam trains these, and its steps are multiplicative for the bases too.
  Each stacked basis has a Euclidean norm of one.
* Sizes are from memory: 100 bases per source, T = 9 frames of which the current one is the last, 25 layers, a
  sparsity of 5. C = 3 is one of the values that the paper compares.
* The paper initializes its bases with sparse NMF on each source alone; here they are random.
* Initial activations are all equal; the paper draws them at random.
* Magnitudes are relative to the usual level of their bin, so that the treble counts in the divergence too.
* Two channels are processed separately.
* `SMALL` stacks 7 frames, 3 before and 3 after the current one, in 128 bands, and reconstructs all bins. It
  has 64 bases per source, 10 layers and C = 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stemsplit.networks._amplitudes import AmplitudeNetwork

TINY = 1e-6
"""Added to magnitudes with a mean of one, to avoid division by zero."""


@dataclass(frozen=True)
class Config:
    """Near the paper's sizes; `SMALL` has others."""

    bins: int = 1025
    channels: int = 1
    bases: int = 100
    """Per source."""
    before: int = 8
    """Frames before the current one that a basis spans."""
    after: int = 0
    """Frames after the current one that a basis spans."""
    layers: int = 25
    """K: updates of the activations."""
    untied: int = 3
    """C: number of layers at the end, including the reconstruction, that have their own bases."""
    sparsity: float = 5.0
    bands: int = 0
    """Bands that frames are averaged into before the updates; 0: all bins are used."""

    @property
    def context_frames(self) -> int:
        """Frames on either side that an output depends on."""
        return max(self.before, self.after)


SMALL = Config(bases=64, before=3, after=3, layers=10, untied=4, bands=128)
BINS = Config.bins
CHANNELS = Config.channels
CONTEXT_FRAMES = Config().context_frames


class DeepNMF(AmplitudeNetwork):
    """Maps log magnitudes to the stems' shares of the mixture."""

    def __init__(self, stems: int, config: Config | None = None) -> None:
        config = config or Config()
        super().__init__(stems, bins=config.bins, bands=config.bands)
        self.config = config
        self.sources = max(stems, 2)
        count = self.sources * config.bases
        stacked = (config.before + 1 + config.after) * (config.bands or config.bins)
        tied = config.layers - max(config.untied - 1, 0)
        self.uses = [0] * tied + list(range(1, config.layers - tied + 1))
        """Index of the set of bases for each update."""
        self.analysis = nn.ParameterList(torch.randn(stacked, count) for _ in range(self.uses[-1] + 1))
        self.synthesis = nn.Parameter(torch.randn(config.bins, count))

    def forward(self, features: Tensor, *, margin: int = 0, frame_stride: int = 1) -> Tensor:
        """Return shares `(example, stem, channel, frame, bin)` for logs `(example, channel, frame, bin)`."""
        magnitudes = self.amplitudes(features)
        activations = self._activations(self._stack(magnitudes))
        bases = (self.synthesis - self.synthesis.logsumexp(dim=0)).exp()
        of_sources = bases.reshape(len(bases), self.sources, -1).permute(1, 2, 0)
        split = activations.reshape(*activations.shape[:3], self.sources, -1).permute(0, 3, 1, 2, 4)
        rebuilt = (split @ of_sources.unsqueeze(1)).float() + TINY / self.config.bins
        shares: Tensor = rebuilt / rebuilt.sum(dim=1, keepdim=True)
        return shares[:, : self.stems]

    def _stack(self, magnitudes: Tensor) -> Tensor:
        """Stack each frame with its context, with a mean of one: `(example, channel, frame, stacked)`."""
        before, after = self.config.before, self.config.after
        count = magnitudes.shape[2]
        padded = F.pad(self.averaged(magnitudes).float(), (0, 0, before, after))
        stack = torch.cat([padded[:, :, k : k + count] for k in range(before + 1 + after)], dim=-1)
        return stack / stack.mean(dim=-1, keepdim=True) + TINY

    def _activations(self, stack: Tensor) -> Tensor:
        """Return the activations after all updates, `(example, channel, frame, basis)`."""
        sets = [(bases - bases.mul(2).logsumexp(dim=0) / 2).exp() for bases in self.analysis]
        sums = [bases.sum(dim=0) + self.config.sparsity for bases in sets]
        rows, count = sets[0].shape
        activations = stack.new_full((*stack.shape[:3], count), rows**0.5 / count)
        for use in self.uses:
            modelled = (activations @ sets[use].T).float() + TINY
            activations = activations * ((stack / modelled) @ sets[use]).float() / sums[use]
        return activations
