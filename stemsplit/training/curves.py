"""Learning curves: loss and accuracy against steps. matplotlib is imported in the function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stemsplit.files.claims import writing

PANELS = {"loss": ("loss", "loss"), "accuracy, weighted by magnitude": ("accuracy", "weighted_accuracy")}
"""Title -> name of the measure in training and in validation."""
SDR = {"loss": ("loss", "loss"), "SDR, dB, in validation": ("", "sdr_db")}
"""The same for signal losses, which have no accuracy."""


def draw(entries: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write learning curves as PNG, one panel per measure and one color per stem.

    Thin lines are training, thick lines validation, with a dot at the best. `entries` are the log's.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    stems = list(dict.fromkeys(stem for entry in entries for stem in entry["loss"]))
    validated = [entry for entry in entries if "valid" in entry]
    handles = []
    panels = PANELS if any(entry["accuracy"] for entry in entries) else SDR
    for axes, (title, (train, valid)) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        for number, stem in enumerate(stems):
            colour = colormaps["tab10"](number % 10)
            if train:
                axes.plot(*_series(entries, train, stem), color=colour, linewidth=0.8, alpha=0.5)
            steps, values = _series(validated, "valid", stem, valid)
            (line,) = axes.plot(steps, values, color=colour, linewidth=2, label=stem)
            best = _best(validated, stem)
            axes.plot(*_series(best, "valid", stem, valid), "o", color=colour)
            handles.append(line)
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
    figure.suptitle("thin: training, thick: validation, dot: lowest validation loss", fontsize="small")
    figure.legend(handles=handles[: len(stems)], loc="outside lower center", ncols=4, frameon=False)
    with writing(path) as part:
        figure.savefig(part, dpi=120, format="png")


def _series(
    entries: Sequence[Mapping[str, Any]], key: str, stem: str, measure: str | None = None
) -> tuple[list[int], list[float]]:
    """Return the steps at which a stem has a value, and the values."""
    found = [(entry["step"], entry[key][stem]) for entry in entries if stem in entry[key]]
    values = [value if measure is None else value[measure] for _, value in found]
    return [step for step, _ in found], values


def _best(validated: Sequence[Mapping[str, Any]], stem: str) -> Sequence[Mapping[str, Any]]:
    known = [entry for entry in validated if stem in entry["valid"]]
    return sorted(known, key=lambda entry: entry["valid"][stem]["loss"])[:1]
