"""Evaluate separation by position like the authors of PROJET: four stems, panned and then also delayed.

    python bench/panning.py DATA [SONGS]

The data are SONGS songs of the validation split and as many of the test split. Their four stems are made
mono, shuffled, and panned by level to angles around the center: 10, 20 and 30 degrees apart without delays;
then 20 degrees apart, with the right channels delayed by -1.5, -0.5, 0.5 and 1.5 times 2, 4 and 8 samples, in
random order. Methods are given only the number of sources, four. Estimates are assigned to stems so that the
total SDR is highest. ICA finds two sources, and each stem is compared with the better one. The results are
`PANNING.md` and `panning.png` in this folder.

The authors used 30 seconds of each of 50 songs of MSD100. Here, shorter songs are used completely.
"""

from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # one process per core, below

import sys
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from stemsplit import runtime, spatial
from stemsplit.datasets.songs import Song, find_songs
from stemsplit.dsp.stft import Stft
from stemsplit.errors import StemsplitError
from stemsplit.evaluation.bsseval import MEASURES, bss_eval
from stemsplit.evaluation.metrics import sdr
from stemsplit.evaluation.oracles import IdealMask, IdealWiener, Oracle, ideal_ratio
from stemsplit.separation.separator import Samples
from stemsplit.separation.stream import separate_blocks

RATE = 44_100
SECONDS = 30
STEMS = ("vocals", "drums", "bass", "other")
CONDITIONS = ((10, 0), (20, 0), (30, 0), (20, 2), (20, 4), (20, 8))
"""Degrees between the sources, and samples between their delays."""
STFT = Stft(4096, 1024)
ORACLES: dict[str, Oracle] = {
    "ideal binary mask": IdealMask(STFT, STFT.bins, lambda stems, _: stems == stems.max(axis=0)),
    "ideal ratio mask": IdealMask(STFT, STFT.bins, ideal_ratio),
    "ideal Wiener filter": IdealWiener(STFT),
}
SHOWN = dict(zip(MEASURES, ("SDR", "ISR", "SIR", "SAR"), strict=True))
Scores = dict[str, list[dict[str, float]]]
HERE = Path(__file__).parent


def images(parts: Samples, degrees: float, delay: int, seed: int) -> Samples:
    """Return stereo images `(stem, channel, time)` of the stems of a song, at random positions."""
    rng = np.random.default_rng(seed)
    places = np.array([-1.5, -0.5, 0.5, 1.5])
    angles = np.radians(45 + degrees * rng.permutation(places))
    delays = np.rint(delay * rng.permutation(places)).astype(int)
    mono = parts.mean(axis=1)
    later = np.stack([np.roll(stem, samples) for stem, samples in zip(mono, delays, strict=True)])
    gains = np.cos(angles)[:, None], np.sin(angles)[:, None]
    return np.stack([gains[0] * mono, gains[1] * later], axis=1).astype(np.float32)


def matched(truth: Samples, found: Samples) -> Samples:
    """Return an estimate for each stem: assigned one to one, or the best one if there are fewer."""
    ratios = np.array([[sdr(stem, estimate) for estimate in found] for stem in truth])
    if len(found) < len(truth):
        best: Samples = found[ratios.argmax(axis=1)]
    else:
        best = found[linear_sum_assignment(ratios, maximize=True)[1]]
    return best


def by_method(name: str, mixture: Samples) -> Samples:
    """Return a method's estimates for a mixture, or copies of the mixture if it cannot find the sources."""
    try:
        separator = spatial.build(name).fit([mixture], RATE)
    except StemsplitError as problem:
        print(f"{name}: {problem.message}", flush=True)
        return np.repeat(mixture[None], len(STEMS), axis=0)
    return np.concatenate(list(separate_blocks(separator, [mixture])), axis=-1)


def measure(parts: Samples, number: int, condition: tuple[int, int]) -> tuple[tuple[int, int], Scores]:
    """Return the scores of each system, stem by stem, on one song in one condition."""
    truth = images(parts, *condition, seed=number)
    mixture = truth.sum(axis=0)
    song = Song("panned", np.concatenate([truth, np.zeros_like(truth[:1])]), (True,) * len(truth))
    estimates = {"mixture": np.repeat(mixture[None], len(truth), axis=0)}
    estimates |= {name: matched(truth, by_method(name, mixture)) for name in spatial.METHODS}
    estimates |= {name: oracle(song) for name, oracle in ORACLES.items()}
    return condition, {
        name: list(bss_eval(STEMS, truth, found, RATE).values()) for name, found in estimates.items()
    }


def main() -> None:
    """Measure all songs in all conditions, and write the medians over all stems of all songs."""
    data, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 8
    songs = []
    for split in ("valid", "test"):
        found = (source.load(RATE) for source in find_songs([data], split, STEMS))
        whole = (song.parts[:4, :, : SECONDS * RATE] for song in found)
        songs += [parts for parts in whole if all(stem.any() for stem in parts)][:count]
    began = time.monotonic()
    tasks = [(parts, number, condition) for number, parts in enumerate(songs) for condition in CONDITIONS]
    collected: dict[tuple[int, int], Scores] = {condition: {} for condition in CONDITIONS}
    with get_context("spawn").Pool(runtime.cores()) as pool:
        for done, (condition, scores) in enumerate(pool.imap_unordered(_measure, tasks), 1):
            for name, stems in scores.items():
                collected[condition].setdefault(name, []).extend(stems)
            print(f"{done} of {len(tasks)}, {time.monotonic() - began:.0f} s", flush=True)
    (HERE / "PANNING.md").write_text(table(collected, len(songs)), encoding="utf-8")
    draw(collected, HERE / "panning.png")


def _measure(task: tuple[Samples, int, tuple[int, int]]) -> tuple[tuple[int, int], Scores]:
    return measure(*task)


def median(scores: list[dict[str, float]], measure: str) -> float:
    """Return the median over stems, without undefined values."""
    return float(np.nanmedian([stem[measure] for stem in scores]))


def label(condition: tuple[int, int]) -> str:
    """Return a label for a condition."""
    degrees, delay = condition
    return f"{degrees}°" + (f", {delay} samples" if delay else "")


def table(collected: dict[tuple[int, int], Scores], songs: int) -> str:
    """Return the page with one table per measure."""
    page = (HERE / "PANNING.md").read_text(encoding="utf-8").partition("\n## SDR")[0].rstrip()
    for measure, name in SHOWN.items():
        page += f"\n\n## {name}, dB: median over the four stems of {songs} songs\n\n"
        page += f"| | {' | '.join(map(label, CONDITIONS))} |\n|---|{'--:|' * len(CONDITIONS)}\n"
        for system in collected[CONDITIONS[0]]:
            cells = [f"{median(collected[condition][system], measure):.1f}" for condition in CONDITIONS]
            page += f"| {system} | {' | '.join(cells)} |\n"
        page = page.rstrip()
    return page + "\n"


def draw(collected: dict[tuple[int, int], Scores], path: Path) -> None:
    """Write a plot with one row per measure: over angle on the left, over delay on the right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 11), layout="constrained")
    FigureCanvasAgg(figure)
    measures = [measure for measure, name in SHOWN.items() if name != "SAR"]
    axes = figure.subplots(len(measures), 2, sharey="row")
    sides = (
        ("degrees between sources, no delays", [each for each in CONDITIONS if not each[1]], 0),
        ("samples between delays, 20 degrees", [each for each in CONDITIONS if each[0] == 20], 1),
    )
    for row, measure in zip(axes, measures, strict=True):
        for axis, (title, conditions, which) in zip(row, sides, strict=True):
            for system in collected[conditions[0]]:
                style = ":" if system.startswith("ideal") else "--" if system == "mixture" else "-"
                values = [median(collected[condition][system], measure) for condition in conditions]
                axis.plot([each[which] for each in conditions], values, style, marker="o", label=system)
            axis.set(xlabel=title, xticks=[each[which] for each in conditions])
            axis.grid(alpha=0.3)
        row[0].set_ylabel(f"{SHOWN[measure]}, dB")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
