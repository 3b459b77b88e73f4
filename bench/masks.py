"""Compare the rules that turn a model's probabilities into masks, by scores on the validation split.

    python bench/masks.py DATA [MODEL]

The defaults in model cards are chosen from these tables, never on the test split. For a model with calibrated
masks, `alone` is what `--stems` with only some of the stems does: each mask is normalized against its
complement. For other models, the table shows how the power of soft masks trades bleed for fullness.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
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
    """Print SDR by stem, and the means over the stems of SDR, bleedless and fullness, for each rule."""
    data, model = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "binary-mask-cnn"
    ref = Trained.find(model)
    card, plain = ref.card, ref.load(RuntimeOptions())
    assert isinstance(plain, MaskSeparator)
    separators = _calibrated(plain, card.combination) if card.combination else _powers(plain)
    found: dict[str, list[Scores]] = {name: [] for name in separators}
    for source in songs.find_songs([data], "valid", card.stems):
        song = source.load(card.sample_rate)
        for name, stems in separate_by_rules(separators, song)[0].items():
            found[name].append(evaluate.score_stems(song, stems, card.stems))
    columns = [*card.stems, "all", "bleedless", "fullness"]
    print("| median (mean) | " + " | ".join(columns) + " |")
    print("|---|" + "--:|" * len(columns))
    for name, scores in found.items():
        both = [evaluate.summarise(scores, how) for how in (np.median, np.mean)]
        cells = [_cell([each[stem]["sdr_db"] for each in both]) for stem in card.stems]
        for measure in ("sdr_db", "bleedless", "fullness"):
            cells.append(
                _cell([float(np.mean([each[stem][measure] for stem in card.stems])) for each in both])
            )
        print(f"| {name} | {' | '.join(cells)} |")


def _calibrated(plain: MaskSeparator, combination: object) -> Mapping[str, MaskSeparator]:
    """Return separators for the rules of a model with calibrated masks."""
    joint = partial(masks.matrix_scaled_softmax, scaling=np.array(combination, np.float32))
    rules = {"binary": partial(masks.binary, complete=True)}
    rules |= {f"soft, power {power:g}": partial(masks.soft, complete=True, power=power) for power in POWERS}
    rules |= {f"alone, power {power:g}": partial(masks.soft, complete=False, power=power) for power in POWERS}
    rules["joint"] = joint
    plan = replace(plain.plan, wiener_context_frames=0)
    separators = {name: replace(plain, plan=plan, rule=rule) for name, rule in rules.items()}
    for frames in WIENER_FRAMES:
        filtered = replace(plan, wiener_context_frames=frames)
        separators[f"joint, Wiener {frames}"] = replace(plain, plan=filtered, rule=joint)
    return separators


def _powers(plain: MaskSeparator) -> Mapping[str, MaskSeparator]:
    """Return separators for powers of soft masks, and also with the model's Wiener filter if it has one."""
    plans = {"soft": replace(plain.plan, wiener_context_frames=0), "Wiener": plain.plan}
    return {
        f"{name}, power {power:g}": replace(
            plain, plan=plan, rule=partial(masks.soft, complete=True, power=power)
        )
        for name, plan in plans.items()
        if name == "soft" or plan.wiener_context_frames
        for power in POWERS
    }


def _cell(values: list[float]) -> str:
    median, mean = values
    return f"{median:.2f} ({mean:.2f})"


if __name__ == "__main__":
    main()
