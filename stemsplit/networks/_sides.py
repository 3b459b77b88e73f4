"""The side signal of mono and narrow recordings, for networks with left, right, mid and side as input.

These networks were trained on stereo songs, with a side signal 5 to 20 dB below the mid signal. A mono
recording has no side signal. Its features are far from the training data, and the masks are hardly better
than chance. So the network's input gets a side signal that the recording does not have.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

DECIBEL = math.log(10) / 20
"""One decibel in natural logarithms of magnitudes."""
NARROW = -30 * DECIBEL
"""Frames count as narrow up to this level of side relative to mid, over all bins."""
RAISED = -10 * DECIBEL
"""Minimum level of side relative to mid in each bin of narrow frames; -8 and -14 dB were worse."""
SLOPE = 2.0
"""How many dB the minimum falls for each dB by which a frame's side level exceeds `NARROW`."""


def with_side(features: Tensor) -> Tensor:
    """Return features with a raised side signal in narrow frames.

    In frames of usual width, only bins with a side signal at least 30 dB below the mid signal change.

    Shapes: log magnitudes `(example, view, frame, bin)` of left, right, mid and side.
    """
    mid, side = features[:, 2:3], features[:, 3:4]
    width = (torch.logsumexp(2 * side, 3, True) - torch.logsumexp(2 * mid, 3, True)) / 2
    least = mid + RAISED - SLOPE * F.relu(width - NARROW)
    return torch.cat([features[:, :3], torch.maximum(side, least)], 1)
