"""Which rule makes the best masks of a model's probabilities: SDR on the validation split.

    python bench/masks.py DATA [MODEL]

The default in a model's card comes from this table. The test split is not for choosing. `alone` is what
`--stems` with one or some of the stems does: each mask against its own complement.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from stemsplit import evaluation, masks, songs, weights
from stemsplit.pipeline import load_masks

POWERS = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)
RULES = {"binary": partial(masks.binary, complete=True)}
RULES |= {f"soft, power {power:g}": partial(masks.soft, complete=True, power=power) for power in POWERS}
RULES |= {f"alone, power {power:g}": partial(masks.soft, complete=False, power=power) for power in POWERS}


def main() -> None:
    """Print medians and means over the songs of each rule's SDR, and their mean over the stems."""
    data, model = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "binary-mask-cnn"
    card = weights.read_card(model)
    separator = load_masks(model)
    found: dict[str, list[evaluation.Scores]] = {name: [] for name in RULES}
    remembered: dict[int, np.ndarray] = {}

    def once(features: np.ndarray) -> np.ndarray:
        key = hash(features.tobytes())
        if key not in remembered:
            remembered[key] = network(features)
        return remembered[key]

    network = separator.network
    for path in songs.song_folders(data, "valid", card.stems):
        song = songs.load_song(path, card.stems, card.sample_rate)
        mixture, remembered = song.mixture, {}
        for name, rule in RULES.items():
            with_rule = replace(separator, network=once, rule=rule)
            found[name].append(evaluation.score_stems(song, with_rule.separate(mixture), card.stems))
    print("| SDR, dB: median (mean) | " + " | ".join(card.stems) + " | all |")
    print("|---|" + "--:|" * (len(card.stems) + 1))
    for name, scores in found.items():
        cells = []
        both = [evaluation.summarise(scores, how) for how in (np.median, np.mean)]
        for stem in card.stems:
            median, mean = (each[stem]["sdr_db"] for each in both)
            cells.append(f"{median:.2f} ({mean:.2f})")
        overall = [np.mean([each[stem]["sdr_db"] for stem in card.stems]) for each in both]
        print(f"| {name} | {' | '.join(cells)} | {overall[0]:.2f} ({overall[1]:.2f}) |")


if __name__ == "__main__":
    main()
