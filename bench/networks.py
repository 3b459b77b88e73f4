"""Compare all shipped models and all spatial methods; write `bench/NETWORKS.md` and `pareto.png`.

    python bench/networks.py [--costs] DATA [NAME ...]

Scores are computed as by `stemsplit evaluate --museval` on the validation and test songs of DATA, which takes
one or two minutes per name on two cores. Costs are measured afterwards, which requires an idle machine;
`--costs` measures only them. Models and methods that are not named keep their figures from the last run
(`networks.json`).
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from stemsplit.datasets.songs import find_songs
from stemsplit.evaluation import tables
from stemsplit.evaluation.bsseval import Pool
from stemsplit.evaluation.evaluate import SAMPLE_RATE, EvaluationPlan, SongScores
from stemsplit.networks import factory, registry
from stemsplit.options import RuntimeOptions
from stemsplit.runtime import cores
from stemsplit.runtime.torch_runtime import AllStems
from stemsplit.separation.stream import separate_stream
from stemsplit.zoo import store
from stemsplit.zoo.card import ModelCard
from stemsplit.zoo.catalogue import spatial_methods
from stemsplit.zoo.loading import load_separator
from stemsplit.zoo.ref import ModelRef
from stemsplit.zoo.variants import Ensemble, Trained

HERE = Path(__file__).parent
KEPT = HERE / "networks.json"
SPLITS = ("valid", "test")
STEMS = ("vocals", "drums", "bass", "other")
MEASURES = {
    "sdr_db": "SDR over each whole excerpt",
    "museval_sdr_db": "SDR, BSSEval v4",
    "museval_sir_db": "SIR, BSSEval v4",
    "museval_sar_db": "SAR, BSSEval v4",
}
MEANS = ("band-transformer+mmdensenet-joint",)
FIRST = "binary-mask-cnn"
"""The model whose STFT the ideal masks use."""
REFERENCES = ("mixture", "ideal binary", "ideal ratio", "ideal wiener")
SECONDS = 30

HEAD = """# Comparison of networks and spatial methods

Written by `python bench/networks.py DATA`, with the weights in `models/`. The sources of spatial methods have
no names: each stem is compared with the nearest source, a choice that requires the true stems."""
COSTS = """## Cost

On {cores} CPU cores ({cpu}), float32: {seconds} s of stereo, all stems, without reading and
writing files. Multiply-adds are billions per second of stereo."""
ELSEWHERE = """## Published

For whole songs of other data sets, measured with museval: not comparable with the tables above. DSD100:
Takahashi and Mitsufuji 2017, table 2. MUSDB18: Lluís, Pons and Serra 2019, table 2."""
PUBLISHED = {
    "DeepNMF (DSD100)": (2.75, 2.11, 1.88, 2.64),
    "NUG (DSD100)": (4.55, 3.89, 2.72, 3.18),
    "FNN (DSD100)": (4.47, 3.75, 2.54, 2.92),
    "BLSTM (DSD100)": (4.86, 4.00, 2.89, 3.24),
    "BLEND (DSD100)": (5.23, 4.13, 2.98, 3.52),
    "MDenseNet (DSD100)": (4.91, 4.37, 2.74, 3.33),
    "MMDenseNet (DSD100)": (6.00, 5.37, 3.91, 3.81),
    "MMDenseNet+ (DSD100)": (6.06, 5.19, 4.13, 4.37),
    "DeepConvSep, 44.1 kHz (MUSDB18)": (2.37, 3.14, 0.17, -2.13),
    "Wavenet, 4 stacks (MUSDB18)": (3.35, 4.13, 2.49, 0.41),
    "Wavenet, 4 stacks and L_d (MUSDB18)": (3.05, 4.09, 2.23, -0.19),
}
ELSEWHERE_FAST = {
    "open-unmix (umxhq)": (5.41, 8.2),
    "HT Demucs": (7.52, 1.2),
    "xumx-sliCQ-v2, realtime": (4.07, 21.0),
    "MobileNet sub-band, 0.3 M (vocals alone)": (7.2, 6.1),
}
"""Published mean SDR over stems on MUSDB18's test songs, and speed as a multiple of real time. The first two
speeds are from `bench/run.py`, the others are published: for four minutes on a Ryzen 5950X, one on an i7."""


def scores(data: str, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return medians over songs, see `stemsplit evaluate`: name -> split -> system -> stem -> measure.

    The outer loop is over songs, because BSSEval's matrices depend on the song only, and are cached.
    """
    plans = {}
    for name in names:
        measured = REFERENCES[1:] if name == FIRST else ()
        plans[name] = EvaluationPlan.of(
            ModelRef.parse(name), RuntimeOptions(), oracles=measured, mixture=name == FIRST
        )
    found: dict[str, list[SongScores]] = {name: [] for name in names}
    with Pool(cores(), SAMPLE_RATE) as pool:
        for split in SPLITS:
            for source in find_songs([data], split, STEMS):
                print(split, source.name, flush=True)
                song = source.load(SAMPLE_RATE)
                for name in names:
                    found[name].append(plans[name].measure(split, song, pool))
    each = {name: tables.by_split(songs) for name, songs in found.items()}
    return {name: {split: tables.medians(songs) for split, songs in each[name].items()} for name in names}


def cost(model: Trained | Ensemble) -> dict[str, Any]:
    """Return the parameters, the multiply-adds per second and the speed of a model or an ensemble."""
    members = model.members if isinstance(model, Ensemble) else (model,)
    cards = [member.card for member in members if isinstance(member, Trained)]
    separator = load_separator(model.text, device="cpu", precision="float32")
    noise = np.random.default_rng(0).standard_normal((2, SECONDS * SAMPLE_RATE)).astype(np.float32)
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        for _ in separate_stream(separator, [0.1 * noise], SAMPLE_RATE, frames=noise.shape[-1]):
            pass
        seconds.append(time.monotonic() - began)
    hours = [card.recipe.get("trained_hours") for card in cards]
    return {
        "parameters": sum(card.parameters for card in cards),
        "multiply_adds_a_second": sum(map(multiply_adds, cards)),
        "x_real_time": SECONDS / min(seconds),
        "runtime": separator.spec.how,
        "trained_hours": " + ".join("-" if each is None else str(each) for each in hours),
    }


def multiply_adds(card: ModelCard) -> float:
    """Return the multiply-adds of a model's networks per second of stereo."""
    entry = registry.find(card.network)
    parts = entry.parts(card.stems)
    networks = factory.build(card.network, store.load(card.name, parts), len(card.stems) // len(parts))
    views, *bins = entry.input_shape
    features = torch.zeros(1, views, entry.batch + 2 * entry.context.frames, *bins)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        AllStems(networks, entry.context)(features)
    rate = card.sample_rate / (1 if entry.predicts_waveforms else card.hop_length)
    channels = 2 if entry.predicts_waveforms and entry.channels == 1 else 1
    return channels * float(counter.get_total_flops()) / 2 / entry.batch * rate


def table(heading: str, rows: dict[str, list[str]], columns: tuple[str, ...]) -> str:
    """Return a table in markdown."""
    lines = [
        [heading, *columns],
        ["---", *["--:"] * len(columns)],
        *([name, *row] for name, row in rows.items()),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(facts: dict[str, Any]) -> str:
    """Return the page with all tables."""
    models, references = facts["models"], facts["references"]
    costs = {
        name: [
            f"{each['cost']['parameters']:,}",
            f"{each['cost']['multiply_adds_a_second'] / 1e9:.2f}",
            f"{each['cost']['x_real_time']:.1f}",
            each["cost"]["trained_hours"],
        ]
        for name, each in models.items()
        if each["cost"]
    }
    parts = [HEAD, COSTS.format(cores=facts["cores"], cpu=facts["processor"], seconds=SECONDS)]
    parts.append(table("model", costs, ("parameters", "multiply-adds", "x real time", "hours trained")))
    for split, (measure, text) in itertools.product(SPLITS, MEASURES.items()):
        rows = {name: _cells(each["scores"][split][each["system"]], measure) for name, each in models.items()}
        rows |= {name: _cells(references[split][name], measure) for name in REFERENCES}
        rows = dict(sorted(rows.items(), key=lambda row: -float(row[1][-1])))
        parts += [f"## {split}: {text}, dB", table("", rows, (*STEMS, "mean"))]
    published = {name: [f"{value:.2f}" for value in row] for name, row in PUBLISHED.items()}
    parts += [ELSEWHERE, table("SDR, dB", published, STEMS)]
    return "\n\n".join(parts) + "\n"


def pareto(path: Path, facts: dict[str, Any]) -> None:
    """Plot the quality of each model on the validation songs against its speed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()

    def mark(name: str, speed: float, sdr: float, look: str, above: float = 4) -> None:
        axes.plot(speed, sdr, look)
        axes.annotate(name, (speed, sdr), xytext=(6, above), textcoords="offset points", fontsize=8)

    points = {
        name: (each["cost"]["x_real_time"], _mean(each["scores"]["valid"][each["system"]], "sdr_db"))
        for name, each in facts["models"].items()
        if each["cost"]
    }
    front = sorted(
        (speed, sdr)
        for speed, sdr in points.values()
        if not any(s >= speed and d >= sdr and (s, d) != (speed, sdr) for s, d in points.values())
    )
    for name, point in points.items():
        mark(name, *point, "C0o", above=4 if point in front else -11)
    axes.plot(*zip(*front, strict=True), "C0-", alpha=0.4)
    for name, (sdr, speed) in ELSEWHERE_FAST.items():
        mark(f"{name}: other data", speed, sdr, "C7s")
    for name in REFERENCES[1:]:
        sdr = _mean(facts["references"]["valid"][name], "sdr_db")
        axes.axhline(sdr, color="grey", linestyle=":")
        above = "top" if name == "ideal binary" else "bottom"  # avoid overlap with another label
        side = ("axes fraction", "data")
        axes.annotate(name, (0.99, sdr), xycoords=side, ha="right", va=above, fontsize=8)
    axes.set(
        xscale="log",
        xlim=(0.8, 200),
        ylim=(0, None),
        xlabel=f"x real time, {facts['cores']} cores of {facts['processor']}, float32",
        ylabel="mean over stems of the median SDR on the validation songs, dB",
    )
    axes.xaxis.set_major_formatter("{x:g}")
    figure.savefig(path, dpi=110)


def _mean(found: dict[str, Any], measure: str) -> float:
    return float(np.mean([found[stem][measure] for stem in STEMS]))


def _cells(found: dict[str, Any], measure: str) -> list[str]:
    return [f"{value:.2f}" for value in (*(found[stem][measure] for stem in STEMS), _mean(found, measure))]


def main() -> None:
    """Measure the named models, or all, and write the tables."""
    arguments = argparse.ArgumentParser(description="Measure models and methods.")
    arguments.add_argument("--costs", action="store_true", help="keep the scores of the last run")
    arguments.add_argument("data")
    arguments.add_argument("names", nargs="*", metavar="NAME")
    options = arguments.parse_args()
    there = [*MEANS, *store.available(), *(method.name for method in spatial_methods())]
    names = options.names or there
    facts = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {"models": {}}
    if not options.costs:
        _keep_scores(facts, scores(options.data, names))
        _write(facts)
    for name, model in ((name, ModelRef.parse(name)) for name in names):
        if isinstance(model, Trained | Ensemble):
            facts["models"][name]["cost"] = cost(model)
    facts["models"] = {name: facts["models"][name] for name in there if name in facts["models"]}
    facts["cores"], facts["processor"] = cores(), _processor()
    _write(facts)
    (HERE / "NETWORKS.md").write_text(page(facts), encoding="utf-8")
    pareto(HERE / "pareto.png", facts)


def _keep_scores(facts: dict[str, Any], measured: dict[str, dict[str, Any]]) -> None:
    for name, found in measured.items():
        if name == FIRST:
            facts["references"] = {
                split: {system: found[split].pop(system) for system in REFERENCES} for split in SPLITS
            }
        system = ModelRef.parse(name).system
        kept = facts["models"].setdefault(name, {"cost": None})
        kept |= {"system": system, "scores": {split: {system: found[split][system]} for split in SPLITS}}


def _write(facts: dict[str, Any]) -> None:
    KEPT.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()
