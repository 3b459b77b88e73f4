"""Networks that run on every `step`-th frame only, and interpolate their outputs for the frames between.

Frames are counted from the first of the input, so that it must begin at a multiple of the step.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stemsplit.dsp.features import FLOOR


def context_frames(steps: int, *, step: int, seen: int) -> int:
    """Return the frames on either side that interpolated outputs depend on.

    `steps` are those on either side that the network itself depends on, `seen` the frames of each step that
    are input. A frame just before the next step has the last step's context and `step - 1` frames; one just
    after a step depends on all frames of the next step's farthest one.
    """
    return steps * step + (step - 1) + (seen - 1)


def in_steps(features: Tensor, *, step: int, seen: int) -> Tensor:
    """Return the first `seen` frames of each step, `(example * seen, view, step, bin)`.

    What is missing of the last step is silence. Shapes: features `(example, view, frame, bin)`.
    """
    padded = F.pad(features, (0, 0, 0, -features.shape[2] % step), value=math.log(FLOOR))
    steps = torch.unflatten(padded, 2, (-1, step))[:, :, :, :seen]
    return steps.permute(0, 3, 1, 2, 4).flatten(0, 1)


def as_views(x: Tensor, silent: Tensor, *, seen: int) -> tuple[Tensor, Tensor]:
    """Return the frames of each step as further views of one, and whether all of them are silent.

    Shapes: x `(example * seen, view, step, position)` as in `in_steps`, silent `(example * seen, step)`.
    """
    return torch.unflatten(x, 0, (-1, seen)).flatten(1, 2), torch.unflatten(silent, 0, (-1, seen)).all(1)


def steps_around(frames: int, *, step: int, margin: int) -> int:
    """Return how many steps at either end no output depends on directly: those of `margin` frames at most."""
    last = math.ceil((frames - 1 - margin) / step)
    return max(0, min(margin // step, frames // step - 1 - last))


def interpolated(outputs: Tensor, *, step: int) -> Tensor:
    """Return outputs `(example, stem, channel, frame, bin)` of all frames, along straight lines.

    Those after the last step are the last step's own.
    """
    last = outputs[:, :, :, -1:]
    rise = torch.cat([outputs[:, :, :, 1:], last], 3) - outputs
    between = [outputs + frame / step * rise for frame in range(1, step)]
    return torch.stack([outputs, *between], 4).flatten(3, 4)
