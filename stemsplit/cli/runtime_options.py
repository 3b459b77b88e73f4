"""The options that say where a model runs, the same for every verb."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stemsplit.errors import StemsplitError

if TYPE_CHECKING:
    from stemsplit.audio.raw import RawFormat

_run = partial(typer.Option, rich_help_panel="How to run")

Overlap = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=0.95,
        metavar="FRACTION",
        rich_help_panel="How to split",
        help="Of segments, for models that work in these: more is slower and slightly better. Default: 0.25.",
    ),
]
Shifts = Annotated[
    int,
    typer.Option(
        min=1,
        max=100,
        metavar="N",
        rich_help_panel="How to split",
        help="Average N runs over shifted segments, for models that work in these: N times slower.",
    ),
]
Runtime = Annotated[
    Literal["auto", "torch", "openvino"],
    _run(help="What runs the networks. Default: openvino on a CPU, where it is installed."),
]
Device = Annotated[Literal["auto", "cpu", "cuda", "mps"], _run("--device", "-d", help="Where they run.")]
Precision = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    _run(help="Default: bfloat16 where the hardware has it, which is twice as fast; float32 elsewhere."),
]
Batch = Annotated[int | None, _run(min=1, metavar="N", help="How much at once; else what suits the device.")]
Threads = Annotated[int | None, _run(min=1, metavar="N", help="CPU cores to use. Default: all, up to eight.")]
Workers = Annotated[
    int | None,
    _run(
        "--jobs",
        "-j",
        min=1,
        metavar="N",
        help="Tracks side by side; else one, or what Ray has room for.",
    ),
]
Ray = Annotated[
    str | None,
    _run(
        metavar="ADDRESS",
        help="Share the work out over a Ray cluster: HOST:PORT, `auto`, or `local`.",
    ),
]
Gpus = Annotated[
    float,
    _run(
        "--gpus-per-worker",
        min=0.0,
        metavar="N",
        help="GPUs for each Ray worker: 1, or a share such as 0.5.",
    ),
]
Fast = Annotated[
    bool,
    _run(
        "--fast",
        metavar="",
        help="Run the networks on every second or third frame: faster, slightly worse. Not for all models.",
    ),
]

Offline = Annotated[
    bool,
    _run(
        "--offline",
        metavar="",
        help="Download nothing: refuse models of other packages whose weights are not there.",
    ),
]


def raw_form(text: str | None) -> RawFormat | None:
    """Return the form of samples that --raw names. Raises BadParameter if it is none."""
    if text is None:
        return None
    from stemsplit.audio.raw import RawFormat

    try:
        return RawFormat.parse(text)
    except StemsplitError as problem:
        raise typer.BadParameter(f"--raw: {problem.message}; {problem.hint}") from problem
