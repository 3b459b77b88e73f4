"""Many tracks: where the stems of each go, known before any work is done, and how one is split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from stemsplit import pipeline, spatial
from stemsplit.audio.reader import Reader
from stemsplit.batch.discovery import Track
from stemsplit.defaults import DEFAULT_MODEL
from stemsplit.errors import Collision, DecodeError, EncodeError, OutputExists
from stemsplit.files import remote
from stemsplit.files.claims import claim, tidy
from stemsplit.files.parts import copy_together
from stemsplit.files.scratch import scratch_folder, shown
from stemsplit.missing import not_found
from stemsplit.output import template as naming
from stemsplit.output.manifest import FOLDER, Print, Record, Records, changed_ns, source
from stemsplit.pipeline import SplitResult
from stemsplit.runtime import Running
from stemsplit.separation.separator import Method
from stemsplit.zoo import loading, store


@dataclass(frozen=True, eq=False)
class Job:
    """A track and where its stems go: stem to path."""

    track: Track
    outputs: dict[str, Path]


@dataclass(frozen=True)
class Order:
    """What is wanted of every track of a batch."""

    out: Path = Path("stems")
    model: str = DEFAULT_MODEL
    stems: tuple[str, ...] | None = None
    two_stems: str | None = None
    mask: str | None = None
    sources: int | None = None
    azimuths: tuple[float, ...] = ()
    running: Running = field(default_factory=Running)
    start_seconds: float = 0.0
    duration_seconds: float | None = None
    audio_track: int | str | None = None
    """Of each file: an index counted from 0, or a language; else the track that players choose."""
    downmix: bool = False
    template: str | None = None
    """Of the stems' names; else the one that suits the format."""
    format: str = "wav"
    depth: str = "same"
    bitrate: str | None = None
    gain_db: float = 0.0
    force: bool = False
    skip_existing: bool = False

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The stems of each track. Raises as `load_separator` does for a model or stem that is not there."""
        return loading.stem_names(
            self.model,
            stems=self.stems,
            two_stems=self.two_stems,
            sources=self.sources,
            azimuths=self.azimuths,
        )

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that decides what a track's stems hold, for its record."""
        trained = self.model not in spatial.METHODS
        return {
            "weights": self._weights if trained else self.model,
            "sources": self.sources,
            "azimuths": list(self.azimuths),
            "stems": list(self.names),
            "mask": self.mask,
            "running": asdict(replace(self.running, batch=None, threads=None)),
            "start_seconds": self.start_seconds,
            "duration_seconds": self.duration_seconds,
            "format": self.format,
            "depth": self.depth,
            "bitrate": self.bitrate,
            "gain_db": self.gain_db,
            # Left out where they are not used, as in records of earlier versions.
            **({} if self.audio_track is None else {"audio_track": self.audio_track}),
            **({"downmix": True} if self.downmix else {}),
        }

    @property
    def _weights(self) -> str:
        return "+".join(Print.of(store.find(name)).sha256 for name in store.members(self.model))

    @cached_property
    def records(self) -> Records:
        """What has been done in the output folder."""
        return Records(self.out)

    def plan(self, tracks: Sequence[Track]) -> list[Job]:
        """Return where each track's stems go.

        Raises:
            TemplateError: the template cannot be filled in.
            Collision: two files would have the same name, on one system or another.
        """
        width = len(str(len(tracks)))
        jobs = []
        for number, track in enumerate(tracks, 1):
            known = {"folder": track.folder, "number": f"{number:0{width}}", "model": self.model}
            names = naming.outputs(track.path, self.names, self.template, self.format, **known)
            jobs.append(Job(track, {stem: self.out / path for stem, path in names.items()}))
        _refuse_collisions(jobs)
        return jobs

    def is_done(self, job: Job) -> bool:
        """Whether a track need not be split again, if that is wanted."""
        done = self.skip_existing and self.records.is_done(job.track.path, self.settings, job.outputs)
        if done:
            tidy(job.outputs.values())
        return done

    def open(self, job: Job) -> Reader:
        """Return a track that can be split, and whose stems can be written.

        Raises:
            DecodeError: it cannot be read.
            EncodeError: a stem cannot be written, or is there already.
        """
        path = job.track.path
        reader = Reader(
            path,
            start_seconds=self.start_seconds,
            duration_seconds=self.duration_seconds,
            track=self.audio_track,
            downmix=self.downmix,
        )
        pipeline.plan_writers(
            reader, job.outputs, depth=self.depth, bitrate=self.bitrate, force=self._may_replace(job)
        )
        return reader

    def load(self) -> Method:
        """Return the model, ready to separate, or to be fitted to a track."""
        return loading.load_method(
            self.model,
            stems=self.stems,
            two_stems=self.two_stems,
            mask=self.mask,
            sources=self.sources,
            azimuths=self.azimuths,
            **asdict(self.running),
        )

    def attempt(self, job: Job, method: Method, *, again: bool = False) -> SplitResult | None:
        """Split a track unless it is done already; `again`, after one who may have done so was lost.

        Raises:
            DecodeError: it cannot be read, or was changed meanwhile.
            EncodeError: a stem cannot be written, or is there already.
        """
        with claim(job.outputs.values()):
            if self.is_done(job):
                return None
            order = replace(self, skip_existing=True) if again else self
            if again and order.is_done(job):
                return order.recall(job)
            with self.records.kept(job.outputs):
                return order.carry_out_by_copies(job, method)

    def carry_out_by_copies(self, job: Job, method: Method) -> SplitResult:
        """Split a track in a folder of this machine's own, wherever it lies, and wherever its stems go.

        Two machines may do this at once where nothing can be claimed (`claims`): both write the same.

        Raises:
            DecodeError: it cannot be read, or was changed meanwhile.
            EncodeError: a stem cannot be written, or is there already.
        """
        try:
            there = next((path for path in job.outputs.values() if path.exists()), None)
            if there and not self._may_replace(job):
                raise OutputExists(f"`{there}` is there already", "use --force to replace it")
            before = _state(job.track.path)
            with scratch_folder() as name:
                track = Path(name, "in", job.track.path.name)
                nearby = replace(self, out=Path(name, "out"), force=False, skip_existing=False)
                outputs = {
                    stem: nearby.out / self.records.relative(path) for stem, path in job.outputs.items()
                }
                remote.copy(job.track.path, track)
                result = nearby._carry_out(Job(replace(job.track, path=track), outputs), method)
                if _state(job.track.path) != before:
                    raise DecodeError(f"`{job.track}` was changed while it was read", "split it again")
                done = nearby.records.read(outputs)
                assert done is not None
                track_print = replace(done.input, changed_ns=before[1])
                done = replace(done, input=track_print, source=source(job.track.path))

                def remember(changed: Callable[[str], int]) -> None:
                    prints = {
                        file: replace(each, changed_ns=changed(file)) for file, each in done.outputs.items()
                    }
                    self.records.write(job.outputs, replace(done, outputs=prints))

                remember(lambda file: 0)  # whoever finds the stems before all are there has to read them
                copy_together({nearby.out / file: self.out / file for file in done.outputs})
                remember(lambda file: changed_ns((self.out / file).stat()))
        except OSError as error:
            raise EncodeError(
                f"Cannot copy `{job.track}` or its stems: {error}", "check both places"
            ) from error
        return replace(result, input=job.track.path, outputs=job.outputs)

    def recall(self, job: Job) -> SplitResult:
        """Return what came of a track that is done."""
        record = self.records.read(job.outputs)
        assert record is not None
        digests = self.records.digests(job.outputs, record.outputs)
        return SplitResult(input=job.track.path, outputs=job.outputs, sha256=digests, **record.facts)

    def carry_out(
        self,
        job: Job,
        method: Method,
        progress: Callable[[int, int | None], None] | None = None,
    ) -> SplitResult | None:
        """Split a track, and keep a record of it; None if another program has done it since it was planned.

        Raises:
            DecodeError: it cannot be read, or was changed meanwhile.
            OutputBusy: another program is writing its stems.
            EncodeError: a stem cannot be written.
        """
        with claim(job.outputs.values()):
            if self.is_done(job):
                return None
            with self.records.kept(job.outputs):
                return self._carry_out(job, method, progress)

    def _carry_out(
        self, job: Job, method: Method, progress: Callable[[int, int | None], None] | None = None
    ) -> SplitResult:
        before, sha256 = _state(job.track.path), {}

        def keep(result: SplitResult, places: Mapping[Path, Path]) -> None:
            """Remember what is about to appear: whatever is found later is then known to be ours."""
            track = Print.of(job.track.path)
            if _state(job.track.path) != before:
                raise DecodeError(f"`{job.track.path}` was changed while it was read", "split it again")
            told = ("frames", "sample_rate", "channels", "peaks", "elapsed_seconds", "warnings", "how")
            facts = {name: getattr(result, name) for name in told}
            try:
                prints = self.records.prints(places)
                self.records.write(
                    job.outputs, Record(track, self.settings, prints, facts, source(job.track.path))
                )
                sha256.update(self.records.digests(job.outputs, prints))
            except OSError as error:
                where = self.out / FOLDER
                raise EncodeError(
                    f"Cannot write to `{where}`: {error.strerror}", "check the folder"
                ) from error

        result = pipeline.split_file(
            job.track.path,
            outputs=job.outputs,
            separator=method,
            depth=self.depth,
            bitrate=self.bitrate,
            gain_db=self.gain_db,
            start_seconds=self.start_seconds,
            duration_seconds=self.duration_seconds,
            audio_track=self.audio_track,
            downmix=self.downmix,
            force=self._may_replace(job),
            progress=progress,
            finished=keep,
        )
        return replace(result, sha256=sha256)

    def _may_replace(self, job: Job) -> bool:
        """Whether what is there may be replaced: what an earlier run wrote and nobody has touched since.

        Raises:
            OutputExists: that run was of another track.
        """
        if self.force or not self.skip_existing:
            return self.force
        record = self.records.read(job.outputs)
        there = next((path for path in job.outputs.values() if path.exists()), None)
        if record and there and not record.is_of(job.track.path):
            raise OutputExists(
                f"`{there}` is there already, from another file: `{shown(Path(record.source))}`",
                "use --force to replace it, or choose another folder with --out",
            )
        return self.records.are_ours(job.outputs, record)


def _state(path: Path) -> tuple[int, int]:
    try:
        state = path.stat()
    except FileNotFoundError:
        raise not_found(path) from None
    except OSError as error:
        raise DecodeError(f"Cannot read `{path}`: {error.strerror}") from None
    return state.st_size, changed_ns(state)


def _refuse_collisions(jobs: Sequence[Job]) -> None:
    owners: dict[str, Job] = {}
    for job in jobs:
        for path in job.outputs.values():
            other = owners.setdefault(naming.key(path), job)
            if other is not job:
                raise Collision(
                    f"`{other.track.path}` and `{job.track.path}` would both be written to `{path}`",
                    "put {number} into --template, or split them one by one, each with its own --out",
                )
    for job in jobs:
        owner = owners.get(naming.key(job.track.path))
        if owner:
            raise Collision(
                f"The stems of `{owner.track.path}` would replace the track `{job.track.path}`",
                "choose another folder with --out",
            )
