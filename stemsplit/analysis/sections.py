"""The sections of a song, found from repetition and novelty.

After J. Serrà, M. Müller, P. Grosche and J. Arcos, "Unsupervised music structure annotation by time series
structure features and segment similarity", 2014.
"""

from __future__ import annotations

import math
import string

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

CONTEXT = 8
"""Number of beats in each compared window."""
BLUR = 6.0
"""Standard deviation in beats of the Gaussian blur over time."""
SHORTEST = 12
"""Minimum length of a section in beats."""
NOVEL = 0.4
"""Minimum novelty at a section start, relative to the maximum."""
MOST_COMPARED = 1500
"""Maximum size of the similarity matrix; in longer recordings, several beats are averaged into one."""
ALIKE = 0.86
"""Minimum mean cosine similarity of sections with the same label."""


def find_sections(features: Array) -> tuple[list[int], list[str]]:
    """Return the beats at which sections begin, and their labels, `A`, `B` and so on.

    `features` are `(beat, feature)`. Sections with the same label are similar.
    """
    count = len(features)
    if count < 2 * SHORTEST:
        return ([0], ["A"]) if count else ([], [])
    if count > MOST_COMPARED:
        edges = np.arange(0, count, math.ceil(count / MOST_COMPARED))
        means = np.add.reduceat(features, edges) / np.diff(edges, append=count)[:, None]
        starts, letters = find_sections(means)
        return edges[starts].tolist(), letters
    alike = _similarity(features)
    starts = _starts(_novelty(alike))
    return starts, _labels(alike, [*starts, count])


def _similarity(features: Array) -> Array:
    """Return the cosine similarity of beats and their context, from -1 to 1."""
    centred = features - features.mean(axis=0)
    padded = np.pad(centred, ((CONTEXT // 2, CONTEXT - 1 - CONTEXT // 2), (0, 0)), mode="edge")
    stacked = np.lib.stride_tricks.sliding_window_view(padded, CONTEXT, axis=0).reshape(len(features), -1)
    rows = stacked / np.maximum(np.linalg.norm(stacked, axis=1, keepdims=True), 1e-9)
    return np.asarray(rows @ rows.T, np.float64)


def _novelty(alike: Array) -> Array:
    """Return the change of the recurrence pattern at each beat, relative to the maximum."""
    count = len(alike)
    neighbours = max(4, count // 20)
    limits = np.partition(alike, -neighbours, axis=1)[:, -neighbours, None]
    recurs = ((alike >= limits) & (alike >= limits.T)).astype(np.float64)
    by_lag = np.stack([np.roll(recurs[beat], -beat) for beat in range(count)])
    reach = round(3 * BLUR)
    bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / BLUR) ** 2)
    padded = np.pad(by_lag, ((reach, reach), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(bell), axis=0)
    blurred = windows @ (bell / bell.sum())
    blurred = 0.25 * np.roll(blurred, 1, axis=1) + 0.5 * blurred + 0.25 * np.roll(blurred, -1, axis=1)
    steps = np.linalg.norm(np.diff(blurred, axis=0, prepend=blurred[:1]), axis=1)
    return np.asarray(steps / max(float(steps.max()), 1e-9), np.float64)


def _starts(novelty: Array) -> list[int]:
    """Return 0 and the highest novelty peaks, at least `SHORTEST` beats apart."""
    found = [0]
    for beat in np.argsort(-novelty).tolist():
        around = novelty[max(0, beat - SHORTEST // 2) : beat + SHORTEST // 2 + 1]
        apart = min(abs(beat - other) for other in [*found, len(novelty)]) >= SHORTEST
        if apart and novelty[beat] == around.max() and novelty[beat] > NOVEL:
            found.append(beat)
    return sorted(found)


def _labels(alike: Array, edges: list[int]) -> list[str]:
    """Return the label of each section: the label of the most similar kind, or a new one."""
    kinds: list[tuple[int, int]] = []
    found = []
    for start, end in zip(edges, edges[1:], strict=False):
        fits = [_best_diagonal(alike[start:end, first:last]) for first, last in kinds]
        if fits and max(fits) >= ALIKE:
            found.append(fits.index(max(fits)))
        else:
            found.append(len(kinds))
            kinds.append((start, end))
    letters = string.ascii_uppercase
    return [letters[kind % 26] * (1 + kind // 26) for kind in found]


def _best_diagonal(alike: Array) -> float:
    """Return the similarity of two sections at the best time shift."""
    rows, columns = alike.shape
    least = max(1, 2 * min(rows, columns) // 3)
    shifts = range(least - rows, columns - least + 1)
    return max((float(np.diagonal(alike, shift).mean()) for shift in shifts), default=0.0)
