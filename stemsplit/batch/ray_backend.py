"""Split a batch on a Ray cluster: each worker loads the model once, then splits one track after another.

The workers read tracks and write stems themselves, so all machines must see the files at the same paths. Only
paths and results pass through Ray. If a worker is lost, its track goes to another worker, which first checks
the records in case the track is already done.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemsplit.batch.plan import BatchOptions, Job
from stemsplit.batch.runner import BatchRunner
from stemsplit.defaults import install_extra
from stemsplit.errors import ClusterUnavailable, StemsplitError, WorkerLost, failure
from stemsplit.files.remote import is_remote
from stemsplit.pipeline import SplitResult

if TYPE_CHECKING:
    from stemsplit.separation.separator import Method

ATTEMPTS = 3
"""A track fails after this number of lost workers, because it may cause the losses."""
LOOK_SECONDS = 5.0
"""Seconds between checks for added or removed machines."""

Outcome = SplitResult | StemsplitError | None
"""The outcome of a track; None if it was already done."""


class _Worker:
    """Runs on a cluster machine. It returns errors, because Ray would wrap raised errors."""

    _method: Method

    def __init__(self, options: BatchOptions) -> None:
        self._runner = BatchRunner(options)

    def load(self) -> StemsplitError | None:
        """Load the model."""
        try:
            self._method = self._runner.load()
        except Exception as problem:
            return failure(problem, self._runner.options.split.model)
        return None

    def split(self, job: Job, again: bool) -> Outcome:
        """Split a track."""
        try:
            return self._runner.run_once(job, self._method, again=again)
        except Exception as problem:
            return failure(problem, job.track)


def run(
    options: BatchOptions,
    jobs: Sequence[Job],
    *,
    address: str = "local",
    workers: int | None = None,
    cpus: int = 1,
    gpus: float = 0.0,
) -> Iterator[tuple[Job, Outcome]]:
    """Split tracks on a Ray cluster, and yield each with its outcome, in any order.

    `address` is an address for `ray.init`: `auto` for the cluster of this machine, `HOST:PORT`,
    `ray://HOST:PORT`, or `local` for this machine only. The cluster runs as many workers as fit, but at most
    `workers`. Each worker gets `cpus` CPU cores and `gpus` GPUs.

    Raises:
        ClusterUnavailable: Ray is not installed, there is no such cluster, it has no room for a worker, or
            all workers end before they start.
        StemsplitError: an error from loading the model, on any machine.
    """
    ray, handler = _ray(), signal.getsignal(signal.SIGTERM)
    try:
        _refuse_closed(address)
        ray.init(address, log_to_driver=False, logging_level="ERROR")
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray replaces it
    except (OSError, RuntimeError, ValueError) as error:
        problem = str(error).partition("\n")[0]
        raise ClusterUnavailable(f"No Ray cluster at `{address}`: {problem}", "see `ray status`") from error
    try:
        share = {"num_cpus": cpus, "num_gpus": gpus}
        yield from _Scheduler(ray, _for_workers(options, cpus), jobs, workers, share).run()
    finally:
        ray.shutdown()


def _for_workers(options: BatchOptions, cpus: int) -> BatchOptions:
    """Return the options for workers: `cpus` threads, and absolute paths, as their current folder differs."""
    model, then = options.split.model, options.split.then
    return replace(
        options,
        split=replace(
            options.split,
            model=_file_or_name(model),
            then={stem: _file_or_name(name) for stem, name in then.items()},
        ),
        output=replace(options.output, out=_absolute(options.output.out)),
        runtime=replace(options.runtime, threads=cpus),
    )


def _file_or_name(model: str) -> str:
    return os.path.abspath(model) if model.endswith(".safetensors") else model


def _refuse_closed(address: str) -> None:
    """Raise OSError if no connection to an address is possible; Ray itself would retry for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # disable usage reports over the network
    try:
        import ray
    except ImportError as error:
        raise ClusterUnavailable("Ray is not installed", install_extra("ray")) from error
    return ray


class _Scheduler:
    """Assigns tracks to workers, and replaces lost workers."""

    def __init__(
        self, ray: Any, options: BatchOptions, jobs: Sequence[Job], most: int | None, share: dict[str, float]
    ) -> None:
        self._ray, self._options, self._limit, self._share = ray, options, most, share
        self._worker = ray.remote(_Worker).options(**share)
        self._waiting, self._left = deque(jobs), len(jobs)
        self._attempts: Counter[Job] = Counter()
        self._lost_early = 0
        self._busy: dict[Any, tuple[Any, Job | None]] = {}  # pending result -> worker and track

    def run(self) -> Iterator[tuple[Job, Outcome]]:
        errors = self._ray.exceptions
        lost = (
            errors.RayActorError,
            errors.OutOfMemoryError,
            errors.WorkerCrashedError,
        )
        while self._left:
            self._start_workers()
            ready, _ = self._ray.wait(list(self._busy), timeout=LOOK_SECONDS)
            for promise in ready:
                worker, job = self._busy.pop(promise)
                try:
                    outcome = self._ray.get(promise)
                except lost as error:
                    if job is None:
                        self._count_loss(error)
                    elif self._attempts[job] < ATTEMPTS:
                        self._waiting.appendleft(job)
                    else:
                        self._left -= 1
                        yield (
                            job,
                            WorkerLost(
                                f"{ATTEMPTS} workers were lost while they split `{job.track}`",
                                "split it alone",
                            ),
                        )
                    continue
                except Exception as error:  # the outcome cannot be serialized, or cannot be deserialized here
                    outcome = failure(error, job.track if job else self._options.split.model)
                if job is not None:
                    self._left -= 1
                    self._lost_early = 0
                    yield job, _for_caller(outcome, job)
                elif outcome is not None:
                    raise outcome
                self._give_track(worker)

    def _start_workers(self) -> None:
        """Request as many workers as there is room and work for; Ray queues workers that do not fit."""
        wanted = min(self._room(), self._left)
        for _ in range(wanted - len(self._busy)):
            worker = self._worker.remote(self._options)
            self._busy[worker.load.remote()] = (worker, None)

    def _room(self) -> int:
        """Return the number of workers that fit on the machines. Raises ClusterUnavailable if it is 0."""
        kinds = {"num_cpus": "CPU", "num_gpus": "GPU"}
        wanted = {kinds[kind]: number for kind, number in self._share.items() if number}
        there = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        rooms = [min(node.get(kind, 0) / number for kind, number in wanted.items()) for node in there]
        room = sum(int(each + 1e-9) for each in rooms)
        if not room:
            share = " and ".join(f"{number:g} {kind}" for kind, number in wanted.items())
            raise ClusterUnavailable(
                f"No machine in the cluster has {share} for a worker", "see `ray status`"
            )
        return min(room, self._limit or room)

    def _give_track(self, worker: Any) -> None:
        if self._waiting:
            job = self._waiting.popleft()
            self._attempts[job] += 1
            promise = worker.split.remote(_for_worker(job), self._attempts[job] > 1)
            self._busy[promise] = (worker, job)

    def _count_loss(self, error: Exception) -> None:
        self._lost_early += 1
        if self._lost_early >= ATTEMPTS * self._room():
            raise ClusterUnavailable(
                f"All workers ended before they started: {str(error).partition(chr(10))[0]}",
                "check that stemsplit is installed on all machines, and that there is enough memory",
            ) from error


def _for_worker(job: Job) -> Job:
    """Return a job for a worker: with absolute paths, because its current folder differs."""
    track = replace(job.track, path=_absolute(job.track.path))
    outputs = {stem: _absolute(path) for stem, path in job.outputs.items()}
    return replace(job, track=track, outputs=outputs)


def _for_caller(outcome: Outcome, job: Job) -> Outcome:
    if isinstance(outcome, SplitResult):
        return replace(outcome, input=job.track.path, outputs=job.outputs)
    return outcome


def _absolute(path: Path) -> Path:
    return path if is_remote(path) else Path(os.path.abspath(path))
