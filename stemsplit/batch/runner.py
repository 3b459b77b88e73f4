"""Splits one track of a batch, unless it is already done, and records it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from stemsplit import pipeline
from stemsplit.audio.reader import Reader
from stemsplit.batch.plan import BatchOptions, Job
from stemsplit.errors import DecodeError, EncodeError, OutputExists
from stemsplit.files import remote
from stemsplit.files.claims import claim, tidy
from stemsplit.files.parts import copy_together
from stemsplit.files.scratch import scratch_folder, shown
from stemsplit.missing import not_found
from stemsplit.output.manifest import FOLDER, Fingerprint, Manifest, ManifestEntry, changed_ns, source
from stemsplit.output.plan import plan_writers
from stemsplit.pipeline import Progress, SplitResult
from stemsplit.separation.separator import Method


@dataclass(frozen=True)
class BatchRunner:
    """Splits the tracks of a batch."""

    options: BatchOptions

    @property
    def out(self) -> Path:
        """The output folder."""
        return self.options.output.out

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest of the output folder."""
        return Manifest(self.out)

    def load(self, jobs: int = 1) -> Method:
        """Return the loaded model, a separator or a method to fit; `jobs` tracks will share its threads."""
        running = replace(self.options.runtime, jobs=jobs)
        return replace(self.options, runtime=running).load()

    def is_done(self, job: Job) -> bool:
        """Whether to skip a track because it is already done."""
        done = self.options.output.skip_existing and self.manifest.is_done(
            job.track.path, self.options.settings, job.outputs
        )
        if done:
            tidy(job.outputs.values())
        return done

    def open(self, job: Job) -> Reader:
        """Open a track, and check that it can be split and that its stems can be written.

        Raises:
            DecodeError: it cannot be read.
            EncodeError: a stem cannot be written, or exists already.
        """
        reader = Reader(job.track.path, **self.options.split.reading)
        plan_writers(reader, job.outputs, self._options_for(job).output)
        return reader

    def run(self, job: Job, method: Method, progress: Progress | None = None) -> SplitResult | None:
        """Split a track and record it; return None if another program has done it in the meantime.

        Raises:
            DecodeError: it cannot be read, or was changed in the meantime.
            OutputBusy: another program is writing its stems.
            EncodeError: a stem cannot be written.
        """
        with claim(job.outputs.values()):
            if self.is_done(job):
                return None
            with self.manifest.kept(job.outputs):
                return self._split(job, method, progress)

    def run_once(self, job: Job, method: Method, *, again: bool = False) -> SplitResult | None:
        """Split a track unless it is already done; `again` means that a lost worker may have finished it.

        Raises:
            DecodeError: it cannot be read, or was changed in the meantime.
            EncodeError: a stem cannot be written, or exists already.
        """
        with claim(job.outputs.values()):
            if self.is_done(job):
                return None
            runner = self._with(skip_existing=True) if again else self
            if again and runner.is_done(job):
                return runner.load_result(job)
            with self.manifest.kept(job.outputs):
                return runner.run_by_copies(job, method)

    def run_by_copies(self, job: Job, method: Method) -> SplitResult:
        """Split a copy of a track in a temporary folder, and copy its stems to their paths.

        Without locks (see `claims`), two machines can do this at the same time; both write the same files.

        Raises:
            DecodeError: it cannot be read, or was changed in the meantime.
            EncodeError: a stem cannot be written, or exists already.
        """
        try:
            there = next((path for path in job.outputs.values() if path.exists()), None)
            if there and not self._may_replace(job):
                raise OutputExists(f"`{there}` already exists", "use --force to replace it")
            before = _state(job.track.path)
            with scratch_folder() as name:
                track = Path(name, "in", job.track.path.name)
                nearby = self._with(out=Path(name, "out"), force=False, skip_existing=False)
                outputs = {
                    stem: nearby.out / self.manifest.relative(path) for stem, path in job.outputs.items()
                }
                remote.copy(job.track.path, track)
                result = nearby._split(
                    replace(job, track=replace(job.track, path=track), outputs=outputs), method
                )
                if _state(job.track.path) != before:
                    raise DecodeError(f"`{job.track}` was changed while it was read", "split it again")
                done = nearby.manifest.read(outputs)
                assert done is not None
                fingerprint = replace(done.input, changed_ns=before[1])
                self._publish(job, nearby, replace(done, input=fingerprint, source=source(job.track.path)))
        except OSError as error:
            raise EncodeError(
                f"Cannot copy `{job.track}` or its stems: {error}", "check both files"
            ) from error
        return replace(result, input=job.track.path, outputs=job.outputs)

    def _publish(self, job: Job, nearby: BatchRunner, done: ManifestEntry) -> None:
        """Copy the stems of a track to their paths, and record them."""

        def remember(changed: Callable[[str], int]) -> None:
            fingerprints = {
                file: replace(each, changed_ns=changed(file)) for file, each in done.outputs.items()
            }
            self.manifest.write(job.outputs, replace(done, outputs=fingerprints))

        # Without time stamps, a check of the stems compares their content, even before all are copied.
        remember(lambda file: 0)
        copy_together({nearby.out / file: self.out / file for file in done.outputs})
        remember(lambda file: changed_ns((self.out / file).stat()))

    def load_result(self, job: Job) -> SplitResult:
        """Return the result of a finished track from its record."""
        record = self.manifest.read(job.outputs)
        assert record is not None
        digests = self.manifest.digests(job.outputs, record.outputs)
        return SplitResult(input=job.track.path, outputs=job.outputs, sha256=digests, **record.facts)

    def _split(self, job: Job, method: Method, progress: Progress | None = None) -> SplitResult:
        before, sha256 = _state(job.track.path), {}

        def keep(result: SplitResult, places: Mapping[Path, Path]) -> None:
            """Record the stems before they appear, so that later runs recognize them."""
            track = Fingerprint.of(job.track.path)
            if _state(job.track.path) != before:
                raise DecodeError(f"`{job.track.path}` was changed while it was read", "split it again")
            told = ("frames", "sample_rate", "channels", "peaks", "elapsed_seconds", "warnings", "how")
            facts = {name: getattr(result, name) for name in told}
            try:
                fingerprints = self.manifest.fingerprints(places)
                self.manifest.write(
                    job.outputs,
                    ManifestEntry(
                        track,
                        self.options.settings,
                        fingerprints,
                        facts,
                        source(job.track.path),
                        job.detected,
                    ),
                )
                sha256.update(self.manifest.digests(job.outputs, fingerprints))
            except OSError as error:
                where = self.out / FOLDER
                raise EncodeError(
                    f"Cannot write to `{where}`: {error.strerror}", "check the folder"
                ) from error

        result = pipeline.split_track(
            job.track.path,
            self._options_for(job),
            method,
            outputs=job.outputs,
            progress=progress,
            finished=keep,
        )
        return replace(result, sha256=sha256)

    def _with(self, **output: Path | bool) -> BatchRunner:
        return BatchRunner(self.options.with_output(**output))

    def _options_for(self, job: Job) -> BatchOptions:
        return self.options.with_output(force=self._may_replace(job))

    def _may_replace(self, job: Job) -> bool:
        """Whether existing files may be replaced.

        `force` permits it. `skip_existing` permits it if an earlier run wrote them and they are unchanged.

        Raises:
            OutputExists: the earlier run split another track.
        """
        output = self.options.output
        if output.force or not output.skip_existing:
            return output.force
        record = self.manifest.read(job.outputs)
        there = next((path for path in job.outputs.values() if path.exists()), None)
        if record and there and not record.is_of(job.track.path):
            raise OutputExists(
                f"`{there}` already exists, from another file: `{shown(Path(record.source))}`",
                "use --force to replace it, or choose another folder with --out",
            )
        return self.manifest.are_ours(job.outputs, record)


def _state(path: Path) -> tuple[int, int]:
    try:
        state = path.stat()
    except FileNotFoundError:
        raise not_found(path) from None
    except OSError as error:
        raise DecodeError(f"Cannot read `{path}`: {error.strerror}") from None
    return state.st_size, changed_ns(state)
