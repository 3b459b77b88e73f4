"""Which rule makes the best masks of a model's probabilities: SDR on the validation split.

    python bench/masks.py DATA [MODEL]

The default in a model's card comes from this table. The test split is not for choosing. `alone` is what
`--stems` with one or some of the stems does: each mask against its own complement.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial

import numpy as np

from stemsplit.datasets import songs
from stemsplit.dsp import masks
from stemsplit.evaluation import evaluate
from stemsplit.evaluation.metrics import Scores
from stemsplit.evaluation.shared_network import separate_by_rules
from stemsplit.options import RuntimeOptions
from stemsplit.separation.masking import MaskSeparator
from stemsplit.zoo.variants import Trained

POWERS = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)
WIENER_FRAMES = (32, 64, 128)


def main() -> None:
    """Print medians and means over the songs of each rule's SDR, and their mean over the stems."""
    data, model = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "binary-mask-cnn"
    ref = Trained.find(model)
    card, plain = ref.card, ref.load(RuntimeOptions())
    assert isinstance(plain, MaskSeparator)
    joint = partial(masks.matrix_scaled_softmax, scaling=np.array(card.combination, np.float32))
    rules = {"binary": partial(masks.binary, complete=True)}
    rules |= {f"soft, power {power:g}": partial(masks.soft, complete=True, power=power) for power in POWERS}
    rules |= {f"alone, power {power:g}": partial(masks.soft, complete=False, power=power) for power in POWERS}
    rules["joint"] = joint
    plan = replace(plain.plan, wiener_context_frames=0)
    separators = {name: replace(plain, plan=plan, rule=rule) for name, rule in rules.items()}
    for frames in WIENER_FRAMES:
        filtered = replace(plan, wiener_context_frames=frames)
        separators[f"joint, Wiener {frames}"] = replace(plain, plan=filtered, rule=joint)
    found: dict[str, list[Scores]] = {name: [] for name in separators}
    for source in songs.find_songs([data], "valid", card.stems):
        song = source.load(card.sample_rate)
        for name, stems in separate_by_rules(separators, song)[0].items():
            found[name].append(evaluate.score_stems(song, stems, card.stems))
    print("| SDR, dB: median (mean) | " + " | ".join(card.stems) + " | all |")
    print("|---|" + "--:|" * (len(card.stems) + 1))
    for name, scores in found.items():
        cells = []
        both = [evaluate.summarise(scores, how) for how in (np.median, np.mean)]
        for stem in card.stems:
            median, mean = (each[stem]["sdr_db"] for each in both)
            cells.append(f"{median:.2f} ({mean:.2f})")
        overall = [np.mean([each[stem]["sdr_db"] for stem in card.stems]) for each in both]
        print(f"| {name} | {' | '.join(cells)} | {overall[0]:.2f} ({overall[1]:.2f}) |")


if __name__ == "__main__":
    main()
