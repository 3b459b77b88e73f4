"""BSSEval version 4 (Stoeter, Liutkus and Ito, SiSEC 2018), as museval computes it.

Its SDR is over windows of one second; ISR, SIR and SAR split the error into what a filter of the reference
explains, what filters of the other stems explain, and the rest. The filters have 512 taps, one set for the
whole song. As in the field: windows without overlap, a rest shorter than a window left out, no value in a
window where any stem or any estimate is silent, and per song the median over the windows.

numpy is imported in the functions, so that a process of the pool can first keep it from starting threads.
"""

from __future__ import annotations

import functools
import importlib.util
import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING

from .errors import StemsplitError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .metrics import Scores
    from .separator import Samples

    Matrix = NDArray[np.float64]

MEASURES = ("museval_sdr_db", "museval_isr_db", "museval_sir_db", "museval_sar_db")
"""In the order of museval's results."""
FULL_SCALE = 1 << 15


@functools.cache
def museval() -> ModuleType:
    """Return museval's `metrics.py` alone, which needs no more than numpy and scipy.

    Importing museval as a whole fails where the PATH has no ffprobe, which its data sets need and its
    measures do not. Finding it does not run it.

    Raises:
        StemsplitError: museval is not installed.
    """
    package = importlib.util.find_spec("museval")
    if package is None or not package.submodule_search_locations:
        raise StemsplitError("museval is not installed", "pip install 'stemsplit[train]'")
    path = Path(package.submodule_search_locations[0], "metrics.py")
    module = ModuleType("museval_metrics")
    # Where a matrix is singular it asks for a name that numpy no longer has.
    source = path.read_text(encoding="utf-8").replace("np.linalg.linalg.", "np.linalg.")
    source = source.replace("np.linalg.solve(", "solve(")
    module.__dict__["solve"] = Solver()
    exec(compile(source, path, "exec"), module.__dict__)
    return module


def bss_eval(names: Sequence[str], references: Samples, estimates: Samples, sample_rate: int) -> Scores:
    """Return SDR, ISR, SIR and SAR in dB of each stem, the medians over its windows of one second.

    Shapes: references and estimates `(stem, channel, time)`. A stem whose reference or estimate is silent
    throughout, for which museval refuses the whole song, is NaN; the others are measured without it.

    The references are rounded to 16 bits, which changes nothing in those of published figures: they are of 16
    bits. Decoded from MP3 or Ogg to floating point they hold nothing at all above some frequency. Filters
    that fit them are free to be huge there, which shows where a window cuts a song: ISR, SIR and SAR were
    off by tens of dB, while over whole songs they were the same with and without.

    Raises:
        StemsplitError: museval is not installed.
    """
    import numpy as np

    rounded = np.round(references.astype(np.float64) * FULL_SCALE) / FULL_SCALE
    both = np.moveaxis(np.stack([rounded, estimates]), 2, 3)
    # Sums over channels, because that is what museval goes by.
    heard = np.flatnonzero(both.sum(axis=3).any(axis=2).all(axis=0)).tolist()
    scores = {name: dict.fromkeys(MEASURES, float("nan")) for name in names}
    if heard:
        found = museval().bss_eval(*both[:, heard], window=sample_rate, hop=sample_rate)
        for measure, stems in zip(MEASURES, found[: len(MEASURES)], strict=True):
            for index, windows in zip(heard, stems, strict=True):
                finite = windows[np.isfinite(windows)]  # museval stores an infinite ratio as none
                scores[names[index]][measure] = float(np.median(finite)) if finite.size else float("nan")
    return scores


class Solver:
    """`numpy.linalg.solve` for several right sides one after the other.

    The filters of all systems that are measured on a song come from the same few matrices, of 4,096 rows for
    four stems: these are factored once, which takes longer than all the rest.
    """

    KEPT = 5
    """One of all references, and one of each of four."""

    def __init__(self) -> None:
        self._factors: dict[tuple[int, float, bytes], tuple[Matrix, Matrix]] = {}

    def __call__(self, matrix: Matrix, right: Matrix) -> Matrix:
        """Return x of matrix x = right. Raises numpy's LinAlgError if the matrix is singular."""
        import numpy as np
        from scipy.linalg import lapack

        key = (len(matrix), float(matrix.sum()), matrix[0].tobytes())
        if key not in self._factors:
            factor, pivots, info = lapack.dgetrf(matrix)
            if info:
                raise np.linalg.LinAlgError("Singular matrix")
            if len(self._factors) == self.KEPT:
                del self._factors[next(iter(self._factors))]
            self._factors[key] = factor, pivots
        solution: Matrix = lapack.dgetrs(*self._factors[key], right)[0]
        return solution


class Pool:
    """Processes that run `bss_eval`, which takes longer than the separation, beside one another.

    No more songs wait than there are processes, so that memory does not grow with the number of songs.

    Raises:
        StemsplitError: museval is not installed.
    """

    def __init__(self, jobs: int, sample_rate: int) -> None:
        museval()
        self.sample_rate = sample_rate
        self.room = threading.BoundedSemaphore(jobs + 1)
        # Spawned: a fork would inherit torch's threads in whatever state they are.
        spawn = multiprocessing.get_context("spawn")
        self.executor = ProcessPoolExecutor(jobs, mp_context=spawn, initializer=_one_thread)
        self.pending: list[tuple[Scores, Future[Scores]]] = []

    def measure(self, scores: Scores, references: Samples, estimates: Samples) -> None:
        """Add the measures to the `scores` of the stems they name, by the time the pool closes.

        Shapes: references and estimates `(stem, channel, time)`, stems in the order of the scores.

        Raises:
            StemsplitError: a process was killed.
        """
        self.room.acquire()
        future = self.executor.submit(bss_eval, list(scores), references, estimates, self.sample_rate)
        future.add_done_callback(lambda _: self.room.release())
        self.pending.append((scores, future))

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        """Wait for what is pending, or drop it if something went wrong."""
        try:
            for scores, future in self.pending if kind is None else []:
                for stem, measures in future.result().items():
                    scores[stem] |= measures
        except BrokenProcessPool as problem:
            raise _too_large() from problem
        finally:
            self.executor.shutdown(cancel_futures=True)


def _one_thread() -> None:
    """Prepare a process: the cores are all taken by its siblings, and an interrupt ends it without a word."""
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _too_large() -> StemsplitError:
    return StemsplitError("A process that ran BSSEval was killed", "it may have wanted memory: fewer --jobs")
