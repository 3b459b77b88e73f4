"""The side signal of mono and narrow recordings, for networks with left, right, mid and side as input.

Their training songs were stereo, with a side signal 5 to 20 dB below the mid signal, and a mono recording has
none: its features are far from all that such a network was trained on, and its masks are hardly better than
chance. So the network is shown a side signal that is not there.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

DECIBEL = math.log(10) / 20
"""In natural logarithms of magnitudes."""
NARROW = -30 * DECIBEL
"""Level of the side signal relative to the mid signal, over all bins of a frame, that counts as narrow."""
RAISED = -10 * DECIBEL
"""Least level in each bin, in narrow frames; -8 and -14 dB were worse."""
SLOPE = 2.0
"""How many dB lower the least level is for each dB that a frame is wider than narrow."""


def with_side(features: Tensor) -> Tensor:
    """Return features with the side signal of narrow frames raised.

    In frames of the usual width only bins change whose side signal is 30 dB below the mid signal or further.

    Shapes: log magnitudes `(example, view, frame, bin)` of left, right, mid and side.
    """
    mid, side = features[:, 2:3], features[:, 3:4]
    width = (torch.logsumexp(2 * side, 3, True) - torch.logsumexp(2 * mid, 3, True)) / 2
    least = mid + RAISED - SLOPE * F.relu(width - NARROW)
    return torch.cat([features[:, :3], torch.maximum(side, least)], 1)
