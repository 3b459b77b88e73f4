"""Split the tracks of a batch on this machine, several at a time, with progress bars and events."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from stemsplit.cli import console
from stemsplit.cli.bars import Bars
from stemsplit.errors import StemsplitError, UsageError, failure
from stemsplit.separation.stopping import Stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from stemsplit.audio.reader import Reader
    from stemsplit.batch.plan import Job
    from stemsplit.batch.runner import BatchRunner
    from stemsplit.export.sidecars import Sidecars
    from stemsplit.separation.separator import Method


@dataclass
class SplitHere:
    """A run over opened tracks."""

    runner: BatchRunner
    tracks: Mapping[Job, Reader]
    report: console.Report
    sidecars: Sidecars
    _stop: Stop = field(default_factory=Stop)
    _reasons: list[BaseException] = field(default_factory=list)
    """The errors that end the run early, in order."""

    def start(self, jobs: int) -> None:
        """Split the tracks, `jobs` at a time. If one fails, the others continue."""
        from stemsplit.separation.separator import FittedMethod

        options = self.runner.options
        try:
            method = self.runner.load(min(jobs, len(self.tracks)))
        except UsageError:
            raise
        except (StemsplitError, MemoryError) as problem:
            self.report.failed(failure(problem, options.split.model))
            return
        if not isinstance(method, FittedMethod):
            how = f"{options.split.model} by {method.spec.how}"
            self.report.remark(f"{how}: {', '.join(options.names)}", detail=True)
        with (
            Bars(self.tracks.values(), enabled=not self.report.quiet) as bars,
            ThreadPoolExecutor(jobs, initializer=self._stop.apply_here) as pool,
        ):
            try:
                work = [
                    pool.submit(self._guarded, method, bars, number, job)
                    for number, job in enumerate(self.tracks, 1)
                ]
                for future in work:
                    future.result()
            except BaseException as reason:  # may be a consequence of another track's error
                raise self._reasons[0] if self._reasons else reason  # noqa: B904
            finally:
                self._stop.set()
                pool.shutdown(cancel_futures=True)

    def _guarded(self, method: Method, bars: Bars, number: int, job: Job) -> None:
        try:
            self._stop.check()
            with self.report.failing(job.track):
                self._split(method, bars, number, job)
        except BaseException as reason:  # an interrupt or a bug: do not start other tracks
            self._reasons.append(reason)
            self._stop.set()
            raise

    def _split(self, method: Method, bars: Bars, number: int, job: Job) -> None:
        """Split a track, and write its sidecar files."""
        from stemsplit.separation.separator import FittedMethod

        options, reader = self.runner.options, self.tracks[job]
        count = f"[{number}/{len(self.tracks)}] " if len(self.tracks) > 1 else ""
        title = f"{count}{console.count_stems(options.names)} of {console.printable(job.track.path.name)}"
        tell = self.report.progress(job, reader)
        self.sidecars.check(job.track.path, job.outputs, force=options.output.force)
        with bars.of(title, reader) as update:

            def progress(done: int, total: int | None) -> None:
                self._stop.check()
                update(done, total)
                tell(done)

            result = self.runner.run(job, method, progress)
        if result is None:
            self.report.skipped(job)
            return
        if isinstance(method, FittedMethod):
            self.report.remark(f"{job.track}: {result.how}")
        frames = result.frames

        @contextmanager
        def phase(name: str) -> Iterator[Callable[[float], None]]:
            title = f"{count}{name} of {job.track.path.name}"
            with self._stop.at_once(), bars.shares(title) as update:

                def progress(share: float) -> None:
                    self._stop.check()
                    update(share)
                    tell(share * frames, name)

                yield progress

        began = time.monotonic()
        made = self.sidecars.write(result, options, phase)
        elapsed = result.elapsed_seconds + (time.monotonic() - began if made else 0.0)
        self.report.done(job.track, replace(result, elapsed_seconds=elapsed), made)
