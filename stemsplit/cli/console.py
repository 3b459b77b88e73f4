"""Output for users and programs: errors, messages and progress on stderr, results on stdout."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import threading
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

import typer

from stemsplit.errors import InternalError, Interrupted, StemsplitError, failure
from stemsplit.files.scratch import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    from rich.progress import Progress

    from stemsplit.audio.raw import RawReader
    from stemsplit.audio.reader import Reader
    from stemsplit.batch.discovery import Track
    from stemsplit.batch.plan import Job
    from stemsplit.pipeline import SplitResult

SCHEMA = 1
"""Version of events.schema.json, for --json: increased when the meaning of a field changes."""
EVERY_SECONDS = 1.0
"""Minimum interval between the progress events of --json."""


_ours: TextIO | None = None
_bars: Progress | None = None
"""The progress bars, while they are shown."""


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Reserve stdout for this program's output; output of libraries goes to stderr."""
    global _ours
    _ours = sys.stdout
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _ours = None


@contextlib.contextmanager
def above(bars: Progress) -> Iterator[None]:
    """Print all messages through rich, which redraws the progress bars below them."""
    global _bars
    _bars = bars
    try:
        yield
    finally:
        _bars = None


def printable(text: str) -> str:
    """Replace characters that a terminal cannot show, or could interpret as commands."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def count_stems(names: Collection[str]) -> str:
    """Return the number of stems as text, such as `4 stems`."""
    return f"{len(names)} stem{'s' if len(names) != 1 else ''}"


def meter(peak: float) -> str:
    """Return a peak as a text bar from -48 dBFS to full scale, and in dBFS."""
    decibels = 20 * math.log10(peak) if peak else -math.inf
    filled = round(max(0.0, min(1.0, 1 + decibels / 48)) * 24)
    return f"{'#' * filled:.<24} {decibels:6.1f} dBFS"


def say(text: str) -> None:
    """Write to stderr."""
    if _bars:
        # rich draws the bars under this lock, but prints without it: threads would erase each other's lines.
        with _bars.live._lock:
            _bars.console.print(printable(text), soft_wrap=True, markup=False, emoji=False, highlight=False)
    else:
        # sys.stderr, not click's own stream: rich replaces sys.stderr while `stemsplit train` shows a table.
        typer.echo(printable(text), file=sys.stderr, err=True)


def _to_stdout(line: bytes, end: bytes = b"\n") -> None:
    """Write a line to stdout; in a terminal with progress bars, above them."""
    if _bars and (_ours or sys.stdout).isatty():
        say(os.fsdecode(line))
    else:
        typer.echo(line + end, file=_ours, nl=False)


def error(problem: StemsplitError) -> None:
    """Print an error and its hint."""
    say(f"error: {problem.message}" + (f"\n\nhint: {problem.hint}" if problem.hint else ""))


def event(**fields: Any) -> None:
    """Write one JSON object, in ASCII, as one line to stdout."""
    _to_stdout(json.dumps(_finite(fields), default=str).encode())


def error_event(problem: StemsplitError, **which: Any) -> None:
    """Write an error as a JSON object."""
    event(**which, status="error", code=problem.code, message=problem.message, hint=problem.hint)


def _finite(value: Any) -> Any:
    """Replace NaN and infinity with None, which becomes null in JSON."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Report:
    """Reports on a run over several tracks while it is in progress."""

    def __init__(self, *, quiet: bool, verbose: bool, json: bool, print0: bool = False) -> None:
        self.quiet, self.verbose, self.json = quiet, verbose, json
        self._path_end = b"\0" if print0 else b"\n"
        self.successes = self.skips = self.failures = 0
        self._one_at_a_time = threading.RLock()

    def remark(self, text: str, *, detail: bool = False) -> None:
        """Print a message unless `quiet`; a detail only if `verbose`."""
        if not self.quiet and (self.verbose or not detail):
            say(text)

    @contextlib.contextmanager
    def failing(self, track: Track | Path) -> Iterator[None]:
        """Report any exception raised inside, including bugs, and continue."""
        try:
            yield
        except Exception as problem:
            self.failed(failure(problem, track), track)

    def failed(self, problem: StemsplitError, track: Track | Path | str | None = None) -> None:
        """Report the failure of a track, or of the whole run."""
        with self._one_at_a_time:
            self.failures += 1
            error(problem)
            if isinstance(problem, InternalError):
                self.remark(problem.traceback, detail=True)
            if self.json:
                which = {"event": "error"} if track is None else {"event": "track", "input": track}
                error_event(problem, **which)

    def start(self, tracks: int) -> None:
        """Emit the first event, with the number of tracks."""
        if self.json:
            from stemsplit.defaults import VERSION

            event(event="start", schema=SCHEMA, version=VERSION, tracks=tracks)

    def plan(self, todo: Iterable[Job], readers: Mapping[Job, Reader]) -> None:
        """Emit the paths of each track's stems."""
        if self.json:
            for job in todo:
                seconds = seconds_of(readers[job]) if job in readers else None
                event(event="plan", input=job.track, seconds=seconds, outputs=job.outputs)

    def skipped(self, job: Job, beside: Mapping[str, Path] | None = None) -> None:
        """Report a track that is already done, and its sidecar files, `beside`."""
        with self._one_at_a_time:
            self.skips += 1
            self.remark(f"{job.track}: already done")
            if self.json:
                event(event="track", status="skipped", input=job.track, outputs=job.outputs, **beside or {})
            else:
                self.paths({**job.outputs, **(beside or {})})

    def progress(self, job: Job, reader: Reader) -> Callable[..., None]:
        """Return a function `(frames done, phase)` that emits a track's progress events for --json."""
        told = time.monotonic()

        def tell(done: float, phase: str = "split") -> None:
            nonlocal told
            now = time.monotonic()
            if self.json and now - told >= EVERY_SECONDS:
                told = now
                with self._one_at_a_time:
                    total = seconds_of(reader)
                    event(
                        event="progress",
                        input=job.track,
                        phase=phase,
                        done_seconds=done / reader.sample_rate,
                        seconds=total,
                    )

        return tell

    def interrupted(self, tracks: int, *, go_on: str) -> None:
        """Report that the run ends early, and the command to resume it, `go_on`."""
        left = tracks - self.successes - self.skips - self.failures
        problem = Interrupted("interrupted")
        if tracks > 1:
            problem = Interrupted(f"interrupted: {left} of {tracks} tracks are left", f"resume with {go_on}")
        say(f"{problem.message}" + (f"\n\nhint: {problem.hint}" if problem.hint else ""))
        if self.json:
            error_event(problem, event="error")
            self.end(tracks)

    def end(self, tracks: int) -> None:
        """Print a summary."""
        done = {"done": self.successes, "skipped": self.skips, "failed": self.failures}
        if self.json:
            event(event="summary", **done)
        elif tracks > 1:
            self.remark(", ".join(f"{count} {what}" for what, count in done.items() if count))

    def paths(self, outputs: Mapping[str, Path]) -> None:
        """Print the paths of the stems."""
        for path in dict.fromkeys(outputs.values()):
            # As bytes: file names can be invalid text.
            _to_stdout(os.fsencode(str(path)), self._path_end)

    def done(self, track: Track, result: SplitResult, beside: Mapping[str, Path] | None = None) -> None:
        """Report the files that were written, and the sidecar files, `beside`."""
        with self._one_at_a_time:
            self.successes += 1
            self._tell(track, result, beside or {})

    def summarise(self, result: SplitResult) -> None:
        """Print a summary of a track's result."""
        seconds = result.elapsed_seconds
        times = result.frames / result.sample_rate / seconds
        for warning in result.warnings:
            self.remark(f"warning: {warning}")
        speed = f"{seconds:.1f} s ({times:.1f} x real time)"
        self.remark(f"{shown(result.input)}: {count_stems(result.peaks)} in {speed}")
        rate = f"{result.frames} frames at {result.sample_rate} Hz in {result.channels} channels"
        meters = "".join(f"\n  {stem:14}{meter(peak)}" for stem, peak in result.peaks.items())
        self.remark(f"  {rate}{meters}", detail=True)

    def _tell(self, track: Track, result: SplitResult, beside: Mapping[str, Path]) -> None:
        self.summarise(result)
        outputs = result.outputs
        if not self.json:
            self.paths({**outputs, **beside})
            return
        times = result.frames / result.sample_rate / result.elapsed_seconds
        fields = asdict(result) | {"input": track, "times_real_time": round(times, 2)}
        peaks, sha256 = fields.pop("peaks"), fields.pop("sha256")
        fields["outputs"] = {
            stem: {"path": path, "frames": result.frames, "peak": peaks[stem]}
            | ({"sha256": sha256[stem]} if stem in sha256 else {})
            for stem, path in outputs.items()
        }
        event(event="track", status="ok", **fields, **beside)


def seconds_of(reader: Reader | RawReader) -> float | None:
    """Return the duration of a track in seconds, or None if it is unknown."""
    frames = reader.frames_estimate
    return None if frames is None else frames / reader.sample_rate
