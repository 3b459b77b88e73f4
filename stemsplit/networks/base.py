"""The interface of networks for runtimes and training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn


class Network(nn.Module):
    """The methods that runtimes and training call, with defaults for all except `forward`.

    `forward(features, *, margin=0, frame_stride=1)` maps `(example, view, position, ...)` to outputs
    `(example, stem, channel, position, ...)`. Positions are samples, or frames followed by a bin axis.
    `margin` positions at either end are context only: a network may leave out their outputs. With a
    `frame_stride`, which few networks support, there are outputs only for every `frame_stride`-th frame.

    With `bins`, the buffers `mean` and `deviation` hold one value per bin and belong to the weights.
    `forward` standardizes its input with them.
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
        """Return masks from 0 to 1 for float32 outputs. Default: the outputs, as for waveforms."""
        return outputs

    def prepare(self, features: Tensor) -> Tensor:
        """Return the input of `scores`, computed in float32 whatever the precision of the rest."""
        return features

    def scores(self, prepared: Tensor, *, margin: int = 0) -> Tensor:
        """Return the outputs of `forward` for prepared features, except for the margin."""
        outputs: Tensor = self(prepared, margin=margin)
        return outputs

    def start_from(self, tensors: Mapping[str, Tensor]) -> None:
        """Load weights to start training from: of this network or, where supported, of a smaller one.

        Raises:
            RuntimeError: they do not fit.
        """
        self.load_state_dict(tensors)

    @torch.no_grad()
    def normalize(self, mean: Tensor, deviation: Tensor) -> None:
        """Set the mean and deviation of each bin, by which the input is standardized."""
        self.mean.copy_(mean)
        self.deviation.copy_(deviation)

    def fit_weight(self, examples: Iterable[tuple[Tensor, Tensor]]) -> Tensor | None:
        """Fit weights that gradients do not train, on features and target ratios of validation examples."""


class StreamNetwork(Network, ABC):
    """A network that can also run on a stream of frames in parts, and then computes nothing twice."""

    @abstractmethod
    def past(self) -> list[Tensor]:
        """Return what `scores_after` needs of earlier frames at the start of a stream, after silence."""

    @abstractmethod
    def scores_after(self, past: Sequence[Tensor], prepared: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the scores of the stream so far that are not returned yet, and the `past` of the next call.

        All parts have the same length, and as many scores are returned. They are delayed by the context of
        the network (see `NetworkInfo`), and equal those of `scores` for the whole stream.
        """


class RatioNetwork(Network):
    """A network whose outputs are ratios of magnitudes, which masks bound by one."""

    def masks(self, outputs: Tensor) -> Tensor:
        """Return masks of the same shape: the ratios, clamped to [0, 1]."""
        return outputs.clamp(0, 1)
