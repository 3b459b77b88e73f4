"""Chords: major, minor, seventh or none, for each beat.

Templates of the pitch classes of chords, with overtones, smoothed over time by a hidden Markov model, as in
M. Mauch, "Automatic chord transcription from audio using computational models of musical context", 2010.
The bass says which of the notes is the root.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stemsplit.analysis import harmony
from stemsplit.analysis.labels import Label

NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
KINDS = {"": (0, 4, 7), "m": (0, 3, 7), "7": (0, 4, 7, 10)}
NONE = "N"
LABELS = (*(f"{name}{kind}" for kind in KINDS for name in NAMES), NONE)
OVERTONES, DECAY = 6, 0.7
"""How many partials a note has, and how much weaker each is than the one before."""
FIT, ROOT, CHANGE = 20.0, 3.0, 4.0
"""What a full fit, the bass on the root, and a change of chord count for, in nepers of likelihood."""
ALIKE = 0.55
"""The fit of no chord: less than that of any chord to its own notes."""
SILENT = 0.03
"""Of the loudest: below that there is no chord."""


class Chords(NamedTuple):
    """The chords of a recording."""

    names: list[str]
    """One of `LABELS` for each beat."""
    chroma: NDArray[np.float64]
    """Pitch classes `(beat, 12)` of the chords' range."""


def find_chords(
    rest: NDArray[np.float64], bass: NDArray[np.float64] | None, bounds: NDArray[np.float64]
) -> Chords:
    """Return the chords between bounds in seconds, such as beats.

    `rest` has the magnitudes `(frame, semitone)` of instruments that play chords, and of the bass too if no
    `bass` is given.
    """
    during = harmony.during(rest, bounds)
    low = during if bass is None else harmony.during(bass, bounds)
    chroma = harmony.chroma(harmony.salience(during), harmony.MELODY)
    roots = harmony.chroma(harmony.salience(low), harmony.BASS)
    fits = np.full((len(chroma), len(LABELS)), FIT * ALIKE)
    fits[:, :-1] = FIT * chroma @ _templates().T
    if bass is not None:
        fits[:, :-1] += ROOT * np.tile(roots, len(KINDS))
        fits[:, -1] += 0.3 * ROOT
    silent = during.max(axis=1, initial=0) < SILENT * harmony.loudest(during)
    fits[silent | ~chroma.any(axis=1), -1] += FIT
    return Chords([LABELS[index] for index in _smoothest(fits)], chroma)


def labels(names: list[str], bounds: NDArray[np.float64]) -> tuple[Label, ...]:
    """Return chords with their start and end; those that last several beats are one."""
    edges = [index for index in range(len(names)) if not index or names[index] != names[index - 1]]
    ends = [*edges[1:], len(names)]
    times = bounds.tolist()
    return tuple(
        Label(times[start], times[end], names[start]) for start, end in zip(edges, ends, strict=True)
    )


def _templates() -> NDArray[np.float64]:
    """Return the pitch classes `(chord, 12)` of all chords."""
    found = np.zeros((len(KINDS), 12, 12))
    for kind, intervals in enumerate(KINDS.values()):
        for root in range(12):
            for interval in intervals:
                for partial in range(1, OVERTONES + 1):
                    pitch = round(root + interval + 12 * np.log2(partial)) % 12
                    found[kind, root, pitch] += DECAY ** (partial - 1)
    rows = found.reshape(-1, 12)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float64)


def _smoothest(fits: NDArray[np.float64]) -> list[int]:
    """Return the path with the best sum of fits, less the cost of its changes (Viterbi)."""
    if not len(fits):
        return []
    every = np.arange(fits.shape[1])
    best, came = fits[0], []
    for fit in fits[1:]:
        other = int(best.argmax())
        changed = best[other] - CHANGE
        came.append(np.where(changed > best, other, every))
        best = np.maximum(best, changed) + fit
    path = [int(best.argmax())]
    for origins in reversed(came):
        path.append(int(origins[path[-1]]))
    return path[::-1]
