"""What a person sees: errors, remarks and progress on stderr; results, for programs too, on stdout."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import threading
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from stemsplit.errors import StemsplitError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from rich.progress import Progress

    from stemsplit.audio import Reader
    from stemsplit.batch import Job
    from stemsplit.pipeline import SplitResult


def printable(text: str) -> str:
    """Replace what a terminal may take as a command, or cannot show."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def count_stems(names: Collection[str]) -> str:
    """Return `1 stem`, `4 stems`."""
    return f"{len(names)} stem{'s' if len(names) != 1 else ''}"


def say(text: str) -> None:
    """Write to stderr."""
    typer.echo(printable(text), err=True)


def error(problem: StemsplitError) -> None:
    """Say what went wrong, and what to do about it."""
    say(f"error: {problem.message}" + (f"\n\nhint: {problem.hint}" if problem.hint else ""))


def event(**fields: Any) -> None:
    """Write one JSON object, in ASCII, as one line to stdout."""
    typer.echo(json.dumps(_finite(fields), default=str))


def _finite(value: Any) -> Any:
    """Replace what JSON has no number for by null."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Report:
    """How a run over several tracks went, told as it goes."""

    def __init__(self, *, quiet: bool, verbose: bool, json: bool) -> None:
        self.quiet, self.verbose, self.json = quiet, verbose, json
        self.successes = self.skips = self.failures = 0
        self._one_at_a_time = threading.RLock()

    def remark(self, text: str, *, detail: bool = False) -> None:
        """Say something unless asked to be quiet; a detail, only if asked to be verbose."""
        if not self.quiet and (self.verbose or not detail):
            say(text)

    @contextlib.contextmanager
    def failing(self, track: Path) -> Iterator[None]:
        """Tell of the user's error inside, and go on behind it."""
        try:
            yield
        except StemsplitError as problem:
            self.failed(problem, track)

    def failed(self, problem: StemsplitError, track: Path | None = None) -> None:
        """Tell why a track, or the whole run, failed."""
        with self._one_at_a_time:
            self.failures += 1
            error(problem)
            if self.json:
                which = {"event": "error"} if track is None else {"event": "track", "input": track}
                event(**which, status="error", code=problem.code, message=problem.message, hint=problem.hint)

    def plan(self, todo: Mapping[Job, Reader]) -> None:
        """Tell what would be written: the path of each stem."""
        for job, reader in todo.items():
            if self.json:
                frames = reader.frames_estimate
                seconds = None if frames is None else frames / reader.sample_rate
                event(event="plan", input=job.track.path, seconds=seconds, outputs=job.outputs)
            else:
                self.paths(job.outputs)

    def skipped(self, job: Job) -> None:
        """Tell of a track that is done already."""
        self.skips += 1
        self.remark(f"{job.track.path.name}: done already")
        if self.json:
            event(event="track", input=job.track.path, status="skipped", outputs=job.outputs)

    def end(self, tracks: int) -> None:
        """Sum up."""
        done = {"done": self.successes, "skipped": self.skips, "failed": self.failures}
        if self.json:
            event(event="summary", **done)
        elif tracks > 1:
            self.remark(", ".join(f"{count} {what}" for what, count in done.items() if count))

    def paths(self, outputs: Mapping[str, Path]) -> None:
        """Print where the stems are."""
        for path in outputs.values():
            typer.echo(os.fsencode(path))  # as bytes: not every file name is text

    def done(self, result: SplitResult) -> None:
        """Tell what was written."""
        with self._one_at_a_time:
            self.successes += 1
            self._tell(result)

    def _tell(self, result: SplitResult) -> None:
        seconds, outputs = result.elapsed_seconds, result.outputs
        times = result.frames / result.sample_rate / seconds
        for warning in result.warnings:
            self.remark(f"warning: {warning}")
        speed = f"{seconds:.1f} s ({times:.1f} x real time)"
        self.remark(f"{result.input.name}: {count_stems(outputs)} in {speed}")
        peaks = ", ".join(f"{stem} {peak:.3f}" for stem, peak in result.peaks.items())
        rate = f"{result.frames} frames at {result.sample_rate} Hz in {result.channels} channels"
        self.remark(f"  {rate}\n  peaks: {peaks}", detail=True)
        if not self.json:
            self.paths(outputs)
            return
        fields = asdict(result) | {"times_real_time": round(times, 2)}
        peak = fields.pop("peaks")
        fields["outputs"] = {stem: {"path": path, "peak": peak[stem]} for stem, path in outputs.items()}
        event(event="track", status="ok", **fields)


class Bars:
    """Shows on stderr how far each track is, where that is a terminal and one wants to see it."""

    def __init__(self, *, enabled: bool) -> None:
        self._progress: Progress | None = None
        if not (enabled and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"):
            return
        from rich import progress as part
        from rich.console import Console

        # stdout stays what it is: rich would send it to this console, that is, to stderr.
        self._progress = part.Progress(
            part.TextColumn("{task.description}", markup=False),
            part.BarColumn(bar_width=20),
            part.TaskProgressColumn(),
            part.TimeElapsedColumn(),
            part.TimeRemainingColumn(),
            part.TextColumn("{task.fields[speed]}"),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=False,
        )

    def __enter__(self) -> Bars:
        if self._progress:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress:
            self._progress.stop()

    @contextlib.contextmanager
    def of(self, title: str, reader: Reader) -> Iterator[Callable[[int, int | None], None]]:
        """Show a track's bar, and give the function that moves it."""
        bars = self._progress
        if bars is None:
            yield lambda done, total: None
            return
        from rich.text import Text

        label = Text(title)
        label.truncate(max(10, bars.console.width - 50), overflow="ellipsis")  # the other columns take 50
        task = bars.add_task(label.plain, total=reader.frames_estimate, speed="")
        began = time.monotonic()

        def update(done: int, _: int | None) -> None:
            speed = done / reader.sample_rate / (time.monotonic() - began)
            bars.update(task, completed=done, speed=f"{speed:.1f} x")

        try:
            yield update
        finally:
            bars.remove_task(task)
