"""Pictures of scores. matplotlib is imported in the functions: it takes a second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from .errors import EncodeError, StemsplitError


def check() -> None:
    """Raise early what a picture would raise late.

    Raises:
        StemsplitError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise StemsplitError("matplotlib is not installed", "pip install 'stemsplit[train]'")


def box_plot(
    path: Path,
    values: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    groups: Sequence[str],
    title: str,
    label: str,
) -> None:
    """Write a picture of boxes, one a system beside one another in each group (a stem).

    `values` are system to group to the values of all songs. A box goes from the first to the third quartile
    with a line at the median, its whiskers to the last values within 1.5 times its height, as is usual.

    Raises:
        StemsplitError: matplotlib is not installed.
        EncodeError: the file cannot be written, or its suffix is of no format that matplotlib writes.
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
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise EncodeError(f"Cannot write `{path}`: {error}", "choose another --plot, a PNG") from error


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if np.isfinite(value)]
