"""Key estimation from chroma and chords."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from stemsplit.analysis.chords import KINDS, NAMES

# fmt: off
PROFILES = {
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}
# fmt: on
"""Key profiles, from the tonic up: C. Krumhansl, "Cognitive foundations of musical pitch", 1990."""
CHORDS: Mapping[str, Mapping[tuple[int, str], float]] = {
    "major": {
        **{(0, ""): 1.0, (7, "7"): 0.8, (7, ""): 0.7, (5, ""): 0.6, (0, "7"): 0.6, (9, "m"): 0.5},
        **{(2, "m"): 0.4, (5, "7"): 0.4, (4, "m"): 0.3, (10, ""): 0.1},
    },
    "minor": {
        **{(0, "m"): 1.0, (7, "7"): 0.8, (5, "m"): 0.6, (7, ""): 0.5, (8, ""): 0.5, (3, ""): 0.5},
        **{(10, ""): 0.45, (7, "m"): 0.4, (5, "7"): 0.2},
    },
}
"""How common a chord is in a key, by its root in semitones above the tonic, and its kind."""
CHORD_WEIGHT, MIXTURE_CHORD_WEIGHT = 1.5, 0.5
"""Weight of the chord score relative to the profile match; a mixture's chords are less reliable."""


def find_key(
    chroma: NDArray[np.float64],
    names: list[str],
    lengths: NDArray[np.float64],
    *,
    chord_weight: float = CHORD_WEIGHT,
) -> tuple[str | None, float]:
    """Return the key and the confidence, from 0 to 1; the key is None for unpitched sound.

    `chroma` is `(beat, 12)`; `names` and `lengths` are the chord and the duration of each beat. The chord
    score has the weight `chord_weight` relative to the profile match.
    """
    mean = chroma.T @ lengths
    if not mean.any() or np.ptp(mean) == 0:
        return None, 0.0
    lasted = np.zeros((len(KINDS), 12))
    for name, length in zip(names, lengths, strict=True):
        if name[:-1] in NAMES or name in NAMES:
            root = name if name in NAMES else name[:-1]
            lasted[list(KINDS).index(name.removeprefix(root)), NAMES.index(root)] += length
    lasted /= max(float(lasted.sum()), 1e-9)
    fits = {}
    for mode, profile in PROFILES.items():
        for tonic, name in enumerate(NAMES):
            fit = float(np.corrcoef(np.roll(profile, tonic), mean)[0, 1])
            usual = sum(
                weight * lasted[list(KINDS).index(kind), (tonic + degree) % 12]
                for (degree, kind), weight in CHORDS[mode].items()
            )
            fits[f"{name} {mode}"] = fit + chord_weight * float(usual)
    best, second = sorted(fits, key=lambda name: -fits[name])[:2]
    return best, max(0.0, min(1.0, 3 * (fits[best] - fits[second])))
