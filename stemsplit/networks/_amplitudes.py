"""Base classes of networks that estimate amplitudes, with their units and frequency bands."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stemsplit.networks.base import RatioNetwork

KNEE = 1 / 31.5
"""Corner frequency of the bands as a fraction of all bins, as on the mel scale: 700 Hz of 22,050 Hz.

Far below it, bands have equal widths; far above it, equal widths in log frequency.
"""

LEAK = 0.1
"""Negative slope of the last ReLU in training: otherwise inactive nodes would stay inactive."""
LOUDEST = 20.0
"""Upper limit of log amplitudes: 170 dB above usual is not music, and its square would soon overflow."""


def relative(features: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Return magnitudes `(example, channel, frame, bin)` in units of a loud but usual level of each bin.

    Without these units, the treble, 60 dB below the bass, would be learned last or never. Weight matrices
    could absorb them, so they change how fast a network trains, but not what it can represent.
    """
    return (features.float() - mean - deviation).clamp_max(LOUDEST).exp()


def last_relu(x: Tensor, *, training: bool) -> Tensor:
    """Apply the last ReLU, which is leaky in training (see `LEAK`)."""
    return F.leaky_relu(x, LEAK) if training else F.relu(x)


def together(x: Tensor) -> Tensor:
    """Flatten `(example, channel, frame, bin)` to `(example, frame, channel * bin)`."""
    return x.transpose(1, 2).flatten(2)


def band_means(bins: int, bands: int) -> Tensor:
    """Return the matrix `(bin, band)` that averages bins into mel-like bands of at least one bin each."""
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
    """Predicts the stems' amplitudes; the outputs are their ratios to the mixture's.

    With `bands`, `averaged` reduces bins to that many bands.
    """

    averages: Tensor

    def __init__(self, stems: int, *, bins: int, bands: int = 0) -> None:
        super().__init__(stems, bins=bins)
        self.bands = bands
        if bands:
            self.register_buffer("averages", band_means(bins, bands), persistent=False)

    def amplitudes(self, features: Tensor) -> Tensor:
        """Return the mixture's amplitudes for log magnitudes (see `relative`)."""
        return relative(features, self.mean, self.deviation)

    def averaged(self, x: Tensor) -> Tensor:
        """Average `(..., bin)` into bands; without bands, return all bins."""
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
    """An amplitude network whose first layer is a dilated convolution over frames.

    With bands, the input of `first` is averaged into bands, and `present` adds the frame itself in full.
    """

    first: nn.Conv1d
    present: nn.Linear

    def joined(self, mixture: Tensor) -> Tensor:
        """Return the first layer's output `(example, frame, node)` for `(example, channel, frame, bin)`."""
        frames = together(mixture)
        context = together(self.averaged(mixture)) if self.bands else frames
        x: Tensor = self.first(context.transpose(1, 2)).transpose(1, 2)
        return x + self.present(frames) if self.bands else x
