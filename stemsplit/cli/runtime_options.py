"""Options for the device and speed of a model, shared by all verbs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stemsplit.errors import StemsplitError

if TYPE_CHECKING:
    from stemsplit.audio.raw import RawFormat

_run = partial(typer.Option, rich_help_panel="Device and speed")

Mask = Annotated[
    Literal["soft", "binary", "wiener", "clean", "full"] | None,
    typer.Option(
        rich_help_panel="Separation",
        help="Masking method: soft (ratio masks), binary, wiener (multichannel Wiener filter), clean (less "
        "bleed, but thinner stems) or full (fuller stems, but more bleed). Default: the model's.",
    ),
]
Overlap = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=0.95,
        metavar="FRACTION",
        rich_help_panel="Separation",
        help="Overlap of segments: more is slower and slightly better. Default: 0.25 "
        "(segmented models only).",
    ),
]
Shifts = Annotated[
    int,
    typer.Option(
        min=1,
        max=100,
        metavar="N",
        rich_help_panel="Separation",
        help="Average N runs on time-shifted input: N times slower (segmented models only).",
    ),
]
Runtime = Annotated[
    Literal["auto", "torch", "openvino"],
    _run(help="Inference runtime. auto: openvino on a CPU if it is installed, otherwise torch."),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"],
    _run("--device", "-d", help="Device to run on. auto: a GPU if there is one, otherwise the CPU."),
]
Precision = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    _run(
        help="Compute precision. auto: bfloat16 where the hardware supports it, which is about twice "
        "as fast; otherwise float32."
    ),
]
Batch = Annotated[
    int | None, _run(min=1, metavar="N", help="Network inputs per batch. Default: depends on the device.")
]
Threads = Annotated[
    int | None, _run(min=1, metavar="N", help="Number of CPU cores to use. Default: all, up to 8.")
]
Workers = Annotated[
    int | None,
    _run(
        "--jobs",
        "-j",
        min=1,
        metavar="N",
        help="Tracks to split in parallel. Default: 1; with --ray, as many as the cluster has room for.",
    ),
]
Ray = Annotated[
    str | None,
    _run(
        metavar="ADDRESS",
        help="Distribute the tracks over a Ray cluster: HOST:PORT, `auto` or `local`.",
    ),
]
Gpus = Annotated[
    float,
    _run(
        "--gpus-per-worker",
        min=0.0,
        metavar="N",
        help="GPUs per Ray worker; a fraction such as 0.5 shares one GPU.",
    ),
]
Fast = Annotated[
    bool,
    _run(
        "--fast",
        metavar="",
        help="Faster, slightly worse: no Wiener filter, or networks on every third frame (some models only).",
    ),
]

Offline = Annotated[
    bool,
    _run(
        "--offline",
        metavar="",
        help="Never download weights: fail if a model of another package has none on disk.",
    ),
]


def raw_form(text: str | None) -> RawFormat | None:
    """Return the sample format that --raw describes. Raises BadParameter if it is invalid."""
    if text is None:
        return None
    from stemsplit.audio.raw import RawFormat

    try:
        return RawFormat.parse(text)
    except StemsplitError as problem:
        raise typer.BadParameter(f"--raw: {problem.message}; {problem.hint}") from problem
