"""The interface of networks for runtimes and training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


class Network(nn.Module):
    """The methods that runtimes and training call, with defaults for all except `forward`.

    `forward(features, *, margin=0, frame_stride=1)` maps `(example, view, position, ...)` to outputs
    `(example, stem, channel, position, ...)`; positions are frames, followed by bins, or samples. `margin`
    positions at either end are context only: a network may leave out their outputs. With a `frame_stride`,
    which few networks support, there are outputs for every such frame only.

    With `bins` there are buffers `mean` and `deviation` of each bin, which belong to the weights; `forward`
    standardises its input by them.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, stems: int, *, bins: int = 0) -> None:
        super().__init__()
        self.stems, self.standardised = stems, bins > 0
        if bins:
            self.register_buffer("mean", torch.zeros(bins))
            self.register_buffer("deviation", torch.ones(bins))

    def masks(self, outputs: Tensor) -> Tensor:
        """Return masks from 0 to 1 for outputs in float32. Default: the outputs, which suits waveforms."""
        return outputs

    def prepare(self, features: Tensor) -> Tensor:
        """Return the input of `scores`, computed in float32 whatever the precision of the rest."""
        return features

    def scores(self, prepared: Tensor, *, margin: int = 0) -> Tensor:
        """Return the outputs of `forward` for prepared features, without those of the margin."""
        outputs: Tensor = self(prepared, margin=margin)
        return outputs

    def start_from(self, tensors: Mapping[str, Tensor]) -> None:
        """Load weights to train on from: this network's, or those of a smaller one if that can be done.

        Raises:
            RuntimeError: they do not fit.
        """
        self.load_state_dict(tensors)

    @torch.no_grad()
    def normalize(self, mean: Tensor, deviation: Tensor) -> None:
        """Standardise the input by the mean and deviation of each bin."""
        self.mean.copy_(mean)
        self.deviation.copy_(deviation)

    def fit_weight(self, examples: Iterable[tuple[Tensor, Tensor]]) -> Tensor | None:
        """Fit what gradients do not train, on features and true ratios of validation examples."""


class RatioNetwork(Network):
    """A network whose outputs are ratios of magnitudes, which masks bound by one."""

    def masks(self, outputs: Tensor) -> Tensor:
        """Return masks of the same shape: the ratios, within 0 and 1."""
        return outputs.clamp(0, 1)
