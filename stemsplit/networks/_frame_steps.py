"""Helpers for networks that run only on every `step`-th frame and interpolate the outputs in between.

Steps are counted from the first input frame, so an input must begin at a multiple of the step.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stemsplit.dsp.features import FLOOR


def context_frames(steps: int, *, step: int, seen: int) -> int:
    """Return the frames on either side that interpolated outputs depend on.

    The network itself depends on `steps` steps on either side, and on the first `seen` frames of each. A
    frame between two steps depends on both: they are up to `step - 1` frames away, and the last step of the
    context has `seen - 1` more frames.
    """
    return steps * step + (step - 1) + (seen - 1)


def in_steps(features: Tensor, *, step: int, seen: int) -> Tensor:
    """Return the first `seen` frames of each step, `(example * seen, view, step, bin)`.

    The last step is padded with silence. Shapes: features `(example, view, frame, bin)`.
    """
    padded = F.pad(features, (0, 0, 0, -features.shape[2] % step), value=math.log(FLOOR))
    steps = torch.unflatten(padded, 2, (-1, step))[:, :, :, :seen]
    return steps.permute(0, 3, 1, 2, 4).flatten(0, 1)


def as_views(x: Tensor, silent: Tensor, *, seen: int) -> tuple[Tensor, Tensor]:
    """Return the frames of each step as additional views, and whether all of them are silent.

    Shapes: x `(example * seen, view, step, position)` as in `in_steps`, silent `(example * seen, step)`.
    """
    return torch.unflatten(x, 0, (-1, seen)).flatten(1, 2), torch.unflatten(silent, 0, (-1, seen)).all(1)


def steps_around(frames: int, *, step: int, margin: int) -> int:
    """Return how many steps at either end are not needed to interpolate the frames outside `margin`."""
    last = math.ceil((frames - 1 - margin) / step)
    return max(0, min(margin // step, frames // step - 1 - last))


def interpolated(outputs: Tensor, *, step: int) -> Tensor:
    """Return outputs `(example, stem, channel, frame, bin)` of all frames, by linear interpolation.

    Frames after the last step repeat its outputs.
    """
    last = outputs[:, :, :, -1:]
    rise = torch.cat([outputs[:, :, :, 1:], last], 3) - outputs
    between = [outputs + frame / step * rise for frame in range(1, step)]
    return torch.stack([outputs, *between], 4).flatten(3, 4)
