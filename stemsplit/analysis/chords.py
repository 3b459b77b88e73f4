"""Chord recognition: major, minor, dominant seventh or none, for each beat.

Chroma is matched to chord templates with overtones, and a hidden Markov model smooths the chords, as in
M. Mauch, "Automatic chord transcription from audio using computational models of musical context", 2010.
The bass indicates the root.
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
"""Number of partials of a note, and the amplitude ratio of successive partials."""
FIT, ROOT, CHANGE = 20.0, 3.0, 4.0
"""In nats of log likelihood: a perfect match, the bass on the root, and the cost of a chord change."""
ALIKE = 0.55
"""Template match assigned to no chord, below the match of any chord with its own notes."""
SILENT = 0.03
"""Magnitude relative to the loudest pitch, below which there is no chord."""


class Chords(NamedTuple):
    """The chords of a recording."""

    names: list[str]
    """One of `LABELS` for each beat."""
    chroma: NDArray[np.float64]
    """Chroma `(beat, 12)` of the chords' pitch range."""


def find_chords(
    rest: NDArray[np.float64], bass: NDArray[np.float64] | None, bounds: NDArray[np.float64]
) -> Chords:
    """Return the chords between `bounds` in seconds, such as beats.

    `rest` are the magnitudes `(frame, semitone)` of the instruments that play chords, including the bass if
    no `bass` is given.
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
    """Return chords with start and end; equal chords on successive beats are merged."""
    edges = [index for index in range(len(names)) if not index or names[index] != names[index - 1]]
    ends = [*edges[1:], len(names)]
    times = bounds.tolist()
    return tuple(
        Label(times[start], times[end], names[start]) for start, end in zip(edges, ends, strict=True)
    )


def _templates() -> NDArray[np.float64]:
    """Return the chroma templates `(chord, 12)` of all chords."""
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
    """Return the path with the best sum of fits minus the cost of its changes (Viterbi)."""
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
