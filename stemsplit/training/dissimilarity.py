"""The dissimilarity loss: an estimate shall not be like what it was separated from.

F. Lluís, J. Pons and X. Serra, "End-to-end music source separation: is it possible in the waveform domain?",
Interspeech 2019 (arXiv 1810.12187). Beside the mean absolute error of each stem s_i and its estimate e_i,

    L_d = -alpha / I sum_i mean |e_i - r_i|,    r_i = sum of all s_j with j other than i,

the mean over samples, I the number of stems. It is to be added to the error, as a mean over the I stems too.
The authors' code has it for the voice alone, r being the accompaniment, with alpha = 0.05, and nothing of the
kind for four stems.

For alpha below one the stem remains the best estimate of itself: a step away from it, towards or away from
the rest, costs more than the most that L_d gives back. At alpha = 1 any estimate beyond the stem is as good.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

ALPHA = 0.05


def dissimilarity(
    estimates: Tensor, stems: Tensor, alpha: float = ALPHA, counted: Sequence[int] | None = None
) -> Tensor:
    """Return L_d, a number that is never above zero, to be added to an absolute error.

    `counted` are the places of the stems whose estimates count, all of them by default; those of others add
    nothing, so that alpha stays relative to a stem's own part of the error.

    Shapes: estimates and stems `(example, stem, channel, time)`, all stems of the mixture.
    """
    if stems.shape[1] < 2:
        raise ValueError("dissimilarity needs two stems or more: there is nothing to be unlike")
    rest = stems.sum(1, keepdim=True) - stems
    distances = (estimates - rest).abs().mean(dim=(0, 2, 3))
    if counted is not None:
        distances = distances[list(counted)]
    return -alpha * distances.sum() / stems.shape[1]
