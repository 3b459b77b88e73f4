"""Runs `stemsplit split`: on this machine, on a Ray cluster, or to standard output."""

from __future__ import annotations

import difflib
import shlex
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from stemsplit.cli import console, signals, streams
from stemsplit.cli.bars import Bars
from stemsplit.errors import EncodeError, StemsplitError, failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemsplit.audio.raw import RawFormat, RawReader
    from stemsplit.audio.reader import Reader
    from stemsplit.batch.discovery import Found
    from stemsplit.batch.plan import BatchOptions, Job
    from stemsplit.batch.runner import BatchRunner
    from stemsplit.export.sidecars import Sidecars


@dataclass(frozen=True)
class Run:
    """The command-line options that are not part of `BatchOptions`."""

    tracks: Sequence[str]
    """Names of files and folders; `-` is standard input."""
    recursive: bool
    raw: RawFormat | None
    """The format of headerless PCM on standard input and output."""
    stdout: str | None
    """The stem to write to standard output."""
    sidecars: Sidecars
    jobs: int | None
    ray: str | None
    gpus_per_worker: float
    dry_run: bool

    def start(self, options: BatchOptions, report: console.Report) -> None:
        """Split the tracks. Raises typer.Exit with the exit status, except after writing to stdout."""
        from stemsplit.files.scratch import scratch_folder

        with ExitStack() as stack:
            folder = Path()
            if self.stdout or "-" in self.tracks:
                folder = Path(stack.enter_context(scratch_folder()))
            try:
                if self.stdout:
                    self._to_stdout(self.stdout, folder, options, report)
                    return
                found = self._find(folder, options)
                planned = _plan(found, options, report)
            except StemsplitError as problem:
                report.failed(problem)
                raise typer.Exit(problem.exit_status) from problem
            total = len(planned) + len(found.failures)
            report.start(total)
            for name, reason in found.failures:
                _did_you_mean(reason, name)
                report.failed(reason, name)
            try:
                self._split(planned, options, report)
            except KeyboardInterrupt as interrupt:
                report.interrupted(total, go_on=_command_to_go_on())
                raise typer.Exit(signals.status(interrupt)) from interrupt
        report.end(total)
        raise typer.Exit(1 if report.failures else 0)

    def _find(self, folder: Path, options: BatchOptions) -> Found:
        """Return the tracks; standard input is stored in `folder` as a file."""
        from stemsplit.audio.raw import spool
        from stemsplit.batch.discovery import Found, find_tracks

        kept = None
        if "-" in self.tracks:
            try:
                kept = spool(sys.stdin.buffer, folder, self.raw)
            except OSError as error:
                hint = "free some space, or choose another folder with TMPDIR"
                raise EncodeError(
                    f"Cannot keep standard input in `{folder}`: {error.strerror}", hint
                ) from error
        names = [str(kept) if name == "-" else name for name in self.tracks]
        found = find_tracks(
            names, recursive=self.recursive, leave_out=options.output.out, elsewhere=bool(self.ray)
        )
        tracks = [replace(track, label="-") if track.path == kept else track for track in found.tracks]
        return Found(tracks, found.failures)

    def _split(self, planned: list[Job], options: BatchOptions, report: console.Report) -> None:
        from stemsplit.batch.runner import BatchRunner
        from stemsplit.cli.split_here import SplitHere

        runner = BatchRunner(options)
        # With Ray, the workers check the tracks, because they can have other disks.
        opened = {} if self.ray else _open(runner, planned, report, self.sidecars)
        todo = planned if self.ray else list(opened)
        report.plan(todo, opened)
        if self.dry_run:
            for job in () if report.json else todo:
                report.paths({**job.outputs, **self.sidecars.paths(job.track.path, job.outputs)})
        elif self.ray:
            cluster = {"address": self.ray, "workers": self.jobs, "gpus": self.gpus_per_worker}
            _split_on_cluster(options, planned, report, cluster)
        elif todo:
            SplitHere(runner, opened, report, self.sidecars).start(self.jobs or 1)

    def _to_stdout(self, stem: str, folder: Path, options: BatchOptions, report: console.Report) -> None:
        """Write one stem of one track to standard output; headerless PCM and WAV are streamed."""
        from stemsplit import pipeline
        from stemsplit.missing import no_stem
        from stemsplit.output.plan import plan_stream

        if sys.stdout.isatty():
            raise typer.BadParameter("--stdout needs a pipe or a file: stemsplit ... | play")
        stdout = streams.sound()
        if stem not in options.names:
            raise no_stem(stem, options.names, "here")
        reader, path = self._open_one(stem, folder, options)
        method = options.load()
        with (
            Bars(enabled=not report.quiet) as bars,
            bars.of(f"{stem} of {self.tracks[0]}", reader) as update,
        ):
            if self.raw or options.output.format == "wav":
                outlet = plan_stream(reader, stdout, self.raw, options.output.depth)
                gain_db = options.split.gain_db
                result = pipeline.split_to_stream(
                    reader, stem, outlet, method, gain_db=gain_db, progress=update
                )
            else:
                result = pipeline.split_track(
                    reader.path,
                    options,
                    method,
                    outputs={stem: path},
                    progress=update,
                )
                with path.open("rb") as file:
                    shutil.copyfileobj(file, stdout)
                stdout.flush()
        report.summarise(result)

    def _open_one(self, stem: str, folder: Path, options: BatchOptions) -> tuple[Reader | RawReader, Path]:
        """Open the only track, and return its reader and a path for its stem."""
        from stemsplit.audio.raw import RawReader
        from stemsplit.batch.plan import Job
        from stemsplit.batch.runner import BatchRunner

        path = folder / f"{stem}.{options.output.format}"
        if self.raw and list(self.tracks) == ["-"]:
            part = {name: options.split.reading[name] for name in ("start_seconds", "duration_seconds")}
            return RawReader(sys.stdin.buffer, self.raw, **part), path
        tracks, failures = self._find(folder, options)
        if (count := len(tracks) + len(failures)) != 1:
            raise typer.BadParameter(f"--stdout takes one track, not {count}")
        for name, problem in failures:
            _did_you_mean(problem, name)
            raise problem
        return BatchRunner(options).open(Job(tracks[0], {stem: path})), path


def _plan(found: Found, options: BatchOptions, report: console.Report) -> list[Job]:
    """Return a job for each track, with a progress bar if tempo and key may have to be detected."""
    with (
        Bars(enabled=options.detects and not report.quiet) as bars,
        bars.counting(len(found.tracks), "tempo and key for {} names") as planned,
    ):
        return options.plan(found.tracks, planned)


def _open(
    runner: BatchRunner, planned: Sequence[Job], report: console.Report, sidecars: Sidecars
) -> dict[Job, Reader]:
    """Open all tracks before work that can take hours; report those that are done or cannot be split."""

    def look(job: Job) -> Reader | StemsplitError | None:
        try:
            return None if runner.is_done(job) else runner.open(job)
        except Exception as problem:
            return failure(problem, job.track)

    found = {}
    with ThreadPoolExecutor(8) as pool:
        for job, seen in zip(planned, pool.map(look, planned), strict=True):
            if seen is None:
                paths = sidecars.paths(job.track.path, job.outputs)
                there = {what: path for what, path in paths.items() if path.exists()}
                report.skipped(job, there)
                for path in (path for what, path in paths.items() if what not in there):
                    verbs = "`stemsplit daw` and `stemsplit report` work on the stems"
                    report.remark(f"{job.track}: no `{path}`; {verbs}")
            elif isinstance(seen, StemsplitError):
                report.failed(seen, job.track)
            else:
                found[job] = seen
    return found


def _split_on_cluster(
    options: BatchOptions, planned: Sequence[Job], report: console.Report, cluster: dict[str, Any]
) -> None:
    """Split the tracks on a cluster, whose machines also check the tracks."""
    from stemsplit.batch import ray_backend

    cpus = options.runtime.threads or 1
    try:
        with (
            Bars(enabled=not report.quiet) as bars,
            console.alone(),  # Ray reports lost machines on stdout
            bars.counting(len(planned)) as count,
        ):
            for job, outcome in ray_backend.run(options, planned, cpus=cpus, **cluster):
                if outcome is None:
                    report.skipped(job)
                elif isinstance(outcome, StemsplitError):
                    report.failed(outcome, job.track)
                else:
                    report.done(job.track, outcome)
                count()
    except StemsplitError as problem:
        report.failed(problem)


def _command_to_go_on() -> str:
    """Return the command that resumes an interrupted batch, or a description of it if it is long."""
    words = [word for word in sys.argv[1:] if word != "--skip-existing"]
    words.insert(words[:1] == ["split"], "--skip-existing")
    command = shlex.join(["stemsplit", *words])
    return f"`{command}`" if len(command) < 500 else "the same command and --skip-existing"


def _did_you_mean(problem: StemsplitError, name: str) -> None:
    from stemsplit.cli import VERBS

    near = difflib.get_close_matches(name, VERBS, n=1, cutoff=0.65)
    if near and problem.code == "not_found":
        command = f"did you mean the command `stemsplit {near[0]}`?"
        problem.hint = f"{problem.hint}\n{command}" if problem.hint else command
