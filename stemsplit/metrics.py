"""How good an estimate is: distortion ratios in dB, and the accuracy of masks.

These are the plain ratios over a whole excerpt. They are NOT the BSSEval measures (Vincent et al., 2006),
which forgive a filtering of the reference, nor museval's medians over one-second frames: the figures of
papers that use those are not comparable with these.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .separator import Samples


def sdr(reference: Samples, estimate: Samples) -> float:
    """Return the signal to distortion ratio in dB: 10 log10(sum r**2 / sum (r - e)**2) over all samples.

    Shapes: both `(channel, time)`. NaN for a silent reference, for which no ratio is defined.
    """
    return _ratio_db(reference, reference.astype(np.float64) - estimate)


def si_sdr(reference: Samples, estimate: Samples) -> float:
    """Return the scale-invariant ratio in dB (Le Roux et al., "SDR: half-baked or well done?", 2019, eq. 4).

    The reference is first scaled to fit the estimate best, so that a wrong gain costs nothing. Shapes:
    both `(channel, time)`. NaN for a silent reference.
    """
    reference = reference.astype(np.float64)
    energy = np.sum(reference**2)
    if energy == 0:
        return float("nan")
    target = np.sum(reference * estimate) / energy * reference
    return _ratio_db(target, target - estimate)


def _ratio_db(signal: NDArray[np.float64] | Samples, error: NDArray[np.float64]) -> float:
    energy, distortion = np.sum(np.square(signal, dtype=np.float64)), np.sum(error**2)
    if energy == 0:
        return float("nan")
    return float("inf") if distortion == 0 else float(10 * np.log10(energy / distortion))


def mask_scores(probabilities: Samples, target: NDArray[np.bool_]) -> dict[str, float]:
    """Return how well probabilities `(frame, bin)` tell a binary mask, over all bins alike.

    `accuracy` and `mse` are the paper's. `base_rate` is the accuracy of an empty mask,
    and `balanced_accuracy` the mean of the accuracies inside and outside of the mask: a mask
    with few ones is easy to tell accurately.
    """
    right = (probabilities > 0.5) == target
    inside = float(right[target].mean()) if target.any() else float("nan")
    outside = float(right[~target].mean()) if not target.all() else float("nan")
    return {
        "accuracy": float(right.mean()),
        "mse": float(np.mean(np.square(probabilities - target))),
        "base_rate": 1 - float(target.mean()),
        "balanced_accuracy": float(np.nanmean([inside, outside])),
    }
