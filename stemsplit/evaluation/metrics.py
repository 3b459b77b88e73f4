"""Measures of estimates: distortion ratios in dB, and the accuracy of masks.

These ratios are over a whole excerpt, with both channels together. They are NOT the BSSEval measures (Vincent
et al., 2006), which allow a filtered reference, nor museval's medians over one-second windows; for those, see
`bsseval`. Only `sdr` equals a museval measure: SDR with the whole excerpt as its window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stemsplit.separation.separator import Samples

Scores = dict[str, dict[str, float]]
"""Stem -> measure -> value."""


def sdr(reference: Samples, estimate: Samples) -> float:
    """Return the signal to distortion ratio in dB: 10 log10(sum r**2 / sum (r - e)**2) over all samples.

    Shapes: both `(channel, time)`. NaN for a silent reference, for which no ratio is defined.
    """
    return _ratio_db(reference, reference.astype(np.float64) - estimate)


def si_sdr(reference: Samples, estimate: Samples) -> float:
    """Return the scale-invariant ratio in dB (Le Roux et al., "SDR: half-baked or well done?", 2019, eq. 4).

    The reference is first scaled to the estimate, by one gain for all channels, so that the estimate's gain
    does not matter. Shapes: both `(channel, time)`. NaN for a silent reference.
    """
    reference = reference.astype(np.float64)
    energy = np.sum(reference**2)
    if energy == 0:
        return float("nan")
    target = np.sum(reference * estimate) / energy * reference
    return _ratio_db(target, target - estimate)


def si_snr(reference: Samples, estimate: Samples) -> float:
    """Return the scale-invariant signal to noise ratio in dB (Luo and Mesgarani, "TasNet", ICASSP 2018).

    It is `si_sdr` after each channel's mean over time is subtracted from reference and estimate, so that a
    constant offset lowers only SI-SDR. Shapes: both `(channel, time)`. NaN for a silent reference.
    """
    centred, found = (
        signal - signal.mean(axis=-1, dtype=np.float64, keepdims=True) for signal in (reference, estimate)
    )
    return si_sdr(centred, found)


def _ratio_db(signal: NDArray[np.float64] | Samples, error: NDArray[np.float64]) -> float:
    energy, distortion = np.sum(np.square(signal, dtype=np.float64)), np.sum(error**2)
    if energy == 0:
        return float("nan")
    return float("inf") if distortion == 0 else float(10 * np.log10(energy / distortion))


@dataclass(frozen=True)
class BinCounts:
    """Counts of the correct bins of a binary mask; the counts of several songs can be added."""

    inside: int
    """Number of bins in the true mask."""
    outside: int
    right_inside: int
    right_outside: int
    squared_error: float

    def __add__(self, other: BinCounts) -> BinCounts:
        return BinCounts(
            self.inside + other.inside,
            self.outside + other.outside,
            self.right_inside + other.right_inside,
            self.right_outside + other.right_outside,
            self.squared_error + other.squared_error,
        )

    def scores(self) -> dict[str, float]:
        """Return the accuracies, with equal weight for all bins.

        `accuracy` and `mse` are those of the paper (O. Tkachuk, Lviv Polytechnic). `base_rate` is the
        accuracy of an empty mask, which is high if the true mask has few ones. `balanced_accuracy` is the
        mean of the accuracies inside and outside the true mask.
        """
        bins = self.inside + self.outside
        sides = [(self.right_inside, self.inside), (self.right_outside, self.outside)]
        return {
            "accuracy": (self.right_inside + self.right_outside) / bins,
            "mse": self.squared_error / bins,
            "base_rate": self.outside / bins,
            "balanced_accuracy": float(np.mean([right / count for right, count in sides if count])),
        }


def count_bins(probabilities: Samples, target: NDArray[np.bool_]) -> BinCounts:
    """Return the counts for the binary mask of probabilities `(frame, bin)` above 0.5."""
    right = (probabilities > 0.5) == target
    inside, right_inside = int(target.sum()), int(right[target].sum())
    return BinCounts(
        inside=inside,
        outside=target.size - inside,
        right_inside=right_inside,
        right_outside=int(right.sum()) - right_inside,
        squared_error=float(np.sum(np.square(probabilities - target), dtype=np.float64)),
    )
