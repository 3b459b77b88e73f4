"""The base of networks that estimate amplitudes: the units that they count in, and bands of bins."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stemsplit.networks.base import RatioNetwork

KNEE = 1 / 31.5
"""Where bands stop being equally wide and become equally wide in log frequency, as a share of all bins.

That of mel bands: 700 Hz of 22,050 Hz.
"""

LEAK = 0.1
"""The slope below zero of a last ReLU in training: otherwise inactive nodes would stay inactive."""
LOUDEST = 20.0
"""A logarithm: what is 170 dB louder than usual is no music, and its square would soon be infinite."""


def relative(features: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Return magnitudes `(example, channel, frame, bin)` in units of what is loud, but usual, in each bin.

    Without such units the treble, 60 dB below the bass, would be learned last or never. Matrices before and
    after could hold them as well: they do not change what a network can represent, but how fast it trains.
    """
    return (features.float() - mean - deviation).clamp_max(LOUDEST).exp()


def last_relu(x: Tensor, *, training: bool) -> Tensor:
    """Return amplitudes, which are never below zero; in training they may be, a little."""
    return F.leaky_relu(x, LEAK) if training else F.relu(x)


def together(x: Tensor) -> Tensor:
    """Return all that is in a frame side by side: `(example, frame, channel * bin)`."""
    return x.transpose(1, 2).flatten(2)


def band_means(bins: int, bands: int) -> Tensor:
    """Return the matrix `(bin, band)` that averages bins into mel-like bands, of one bin or more each."""
    knee = bins * KNEE
    top = math.log1p(bins / knee)
    edges = [0]
    for band in range(1, bands + 1):
        edge = round(knee * math.expm1(top * band / bands))
        edges.append(min(max(edge, edges[-1] + 1), bins - bands + band))
    matrix = torch.zeros(bins, bands)
    for band, (start, stop) in enumerate(zip(edges, edges[1:], strict=False)):
        matrix[start:stop, band] = 1 / (stop - start)
    return matrix


class AmplitudeNetwork(RatioNetwork):
    """Predicts the stems' amplitudes; its outputs are their ratios to the mixture's.

    With `bands`, context is averaged into them.
    """

    averages: Tensor

    def __init__(self, stems: int, *, bins: int, bands: int = 0) -> None:
        super().__init__(stems, bins=bins)
        self.bands = bands
        if bands:
            self.register_buffer("averages", band_means(bins, bands), persistent=False)

    def amplitudes(self, features: Tensor) -> Tensor:
        """Return the mixture's amplitudes for log magnitudes, see `relative`."""
        return relative(features, self.mean, self.deviation)

    def averaged(self, x: Tensor) -> Tensor:
        """Return the means of `(..., bin)` in bands; without bands all bins."""
        return x @ self.averages if self.bands else x

    def ratios(self, estimates: Tensor, mixture: Tensor) -> Tensor:
        """Return estimates divided by the mixture, `(example, stem, channel, frame, bin)`.

        Shapes: estimates `(example, frame, stem * channel * bin)`, mixture `(example, channel, frame, bin)`.
        """
        examples, channels, frames, bins = mixture.shape
        estimates = last_relu(estimates, training=self.training).float()
        split = estimates.reshape(examples, frames, self.stems, channels, bins).permute(0, 2, 3, 1, 4)
        return split / mixture.unsqueeze(1)


class ContextNetwork(AmplitudeNetwork):
    """An amplitude network whose first layer joins a frame with frames around it, some frames apart.

    Of bands, `first` takes the context in bands, and `present` the frame itself in full.
    """

    first: nn.Conv1d
    present: nn.Linear

    def joined(self, mixture: Tensor) -> Tensor:
        """Return the first layer's output `(example, frame, node)` for `(example, channel, frame, bin)`."""
        frames = together(mixture)
        context = together(self.averaged(mixture)) if self.bands else frames
        x: Tensor = self.first(context.transpose(1, 2)).transpose(1, 2)
        return x + self.present(frames) if self.bands else x
