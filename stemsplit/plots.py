"""Plots of scores and positions; matplotlib is imported on first use, because that takes a second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stemsplit.defaults import install_extra
from stemsplit.errors import EncodeError, StemsplitError
from stemsplit.files.claims import writing
from stemsplit.spatial import adress, duet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from stemsplit.spatial.scan import Survey


def check() -> None:
    """Check that matplotlib is installed, before any work is done.

    Raises:
        StemsplitError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise StemsplitError("matplotlib is not installed", install_extra("plot"))


def box_plot(
    path: Path,
    values: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    groups: Sequence[str],
    title: str,
    label: str,
) -> None:
    """Write a box plot, with one box per system in each group (a stem).

    `values` maps system to group to the values of all songs. Boxes span the quartiles, with a line at the
    median; whiskers reach the outermost values within 1.5 interquartile ranges of the box.

    Raises:
        StemsplitError: matplotlib is not installed.
        EncodeError: the file cannot be written, or matplotlib does not support its format.
    """
    check()
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width = 0.8 / max(1, len(values))
    figure = Figure(figsize=(2 + 2 * len(groups), 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    handles = []
    for number, found in enumerate(values.values()):
        shift = (number - (len(values) - 1) / 2) * width
        boxes = axes.boxplot(
            [_finite(found.get(group, [])) for group in groups],
            positions=[place + shift for place in range(len(groups))],
            widths=0.85 * width,
            patch_artist=True,
            medianprops={"color": "black"},
            flierprops={"marker": ".", "markersize": 4},
        )
        for box in boxes["boxes"]:
            box.set_facecolor(colormaps["tab10"](number % 10))
        handles.append(boxes["boxes"][0])
    axes.set_xticks(range(len(groups)), groups)
    axes.set_xlim(-0.5, len(groups) - 0.5)
    axes.set(title=title, ylabel=label)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(handles, list(values), loc="outside lower center", ncols=len(values), frameon=False)
    _save(figure, path)


def positions(path: Path, survey: Survey, *, title: str) -> None:
    """Plot the positions of sources: energy by azimuth, and weight by azimuth and delay.

    Raises:
        StemsplitError: matplotlib is not installed.
        EncodeError: the file cannot be written.
    """
    check()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 9), layout="constrained")
    FigureCanvasAgg(figure)
    line, plane = figure.subplots(2, height_ratios=[2, 3])
    angles, heights = adress.angles(), 100 * survey.azimugram
    line.fill_between(angles, heights, alpha=0.5)
    line.plot(survey.azimuths, np.interp(survey.azimuths, angles, heights), "rv")
    for azimuth in survey.azimuths:
        line.annotate(
            f"{azimuth:.0f}",
            (azimuth, np.interp(azimuth, angles, heights)),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
        )
    line.set(
        title=title,
        xlabel="azimuth, degrees (-45 left, 45 right)",
        ylabel="energy, %",
        xlim=(-45, 45),
        ylim=(0, 1.15 * heights.max()),
        xticks=range(-45, 46, 15),
    )
    image = plane.pcolormesh(
        duet.angles(), duet.delays(), np.sqrt(survey.histogram.T), cmap="magma", rasterized=True
    )
    plane.plot(*np.array(survey.pairs).reshape(-1, 2).T, "o", mfc="none", mec="cyan", ms=12)
    plane.set(
        xlabel="azimuth, degrees", ylabel="delay of the right channel, samples", xticks=range(-45, 46, 15)
    )
    figure.colorbar(image, ax=plane, label="root of the weight")
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    try:
        with writing(path) as part:
            figure.savefig(part, dpi=150, format=path.suffix.lstrip(".") or "png")
    except ValueError as error:  # matplotlib does not support the file format
        raise EncodeError(f"Cannot write `{path}`: {error}", "use --plot FILE.png") from error


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if np.isfinite(value)]
