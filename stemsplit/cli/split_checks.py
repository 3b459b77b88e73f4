"""Checks of the options of `stemsplit split` that do not depend on tracks or models."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from stemsplit.cli.split_run import Run


def refuse_values(gpus_per_worker: float, duration: float | None, gain: float) -> None:
    """Raise BadParameter for values out of range."""
    if gpus_per_worker > 1 and gpus_per_worker % 1:
        raise typer.BadParameter("--gpus-per-worker takes a whole number of GPUs, or a fraction of one")
    if duration == 0:
        raise typer.BadParameter("--duration must be more than 0")
    if not -60 <= gain <= 60:
        raise typer.BadParameter("--gain takes -60 to 60 dB")


def refuse_pipes(run: Run, from_file: str | None, out: str) -> None:
    """Raise BadParameter for combinations that standard streams and remote folders do not support."""
    from stemsplit.files import remote

    stdin = "-" in run.tracks
    if not run.tracks:
        raise typer.BadParameter("no tracks given")
    if stdin and sys.stdin.isatty():
        raise typer.BadParameter("the track - needs piped or redirected input: play | stemsplit -")
    if run.ray and stdin:
        raise typer.BadParameter("--ray works on files only, not on standard input")
    if stdin and from_file == "-":
        raise typer.BadParameter("standard input cannot be both a track and a list of tracks")
    if run.raw and not (run.stdout or stdin):
        raise typer.BadParameter("--raw needs the track `-` or --stdout")
    if not run.ray and remote.is_remote(out):
        raise typer.BadParameter(
            "--out takes addresses such as s3://bucket/music only with --ray (`--ray local` will do)"
        )
