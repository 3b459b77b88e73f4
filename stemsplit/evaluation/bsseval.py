"""BSSEval version 4 (Stoeter, Liutkus and Ito, SiSEC 2018), as museval computes it.

All measures are computed in windows of one second. ISR, SIR and SAR split the error into the part that a
filter of the reference explains, the part that filters of the other stems explain, and the rest. The filters
have 512 taps, one set for the whole song. As usual in the field, windows do not overlap, an incomplete last
window is left out, a window where any stem or estimate is silent has no value, and the score of a song is the
median over its windows.

numpy is imported in the functions, so that the pool's processes can limit its threads first.
"""

from __future__ import annotations

import functools
import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING

from stemsplit import _compat
from stemsplit.defaults import install_extra
from stemsplit.errors import StemsplitError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stemsplit.evaluation.metrics import Scores
    from stemsplit.separation.separator import Samples

    Matrix = NDArray[np.float64]

MEASURES = ("museval_sdr_db", "museval_isr_db", "museval_sir_db", "museval_sar_db")
"""The measures in the order of museval's results."""
FULL_SCALE = 1 << 15


@functools.cache
def museval() -> ModuleType:
    """Return museval's `metrics` module, with its slow functions replaced.

    Raises:
        StemsplitError: museval is not installed.
    """
    module = _compat.museval_metrics(
        {
            "_compute_reference_correlations": _Last().references,
            "_compute_projection_filters": _filters,
            "_project": _project,
        }
    )
    if module is None:
        raise StemsplitError("museval is not installed", install_extra("train"))
    return module


def _filters(references: _References, _: Matrix, estimate: Matrix) -> Matrix:
    return references.filters(estimate)


def _project(references: Matrix, filters: Matrix) -> Matrix:
    """Return the sum of filtered references `(time, channel)`, with a tail of taps - 1 samples.

    Shapes: references `([stem,] time, channel)`, filters as returned by `_References.filters`.
    """
    import numpy as np
    import scipy.fft

    time, taps = references.shape[-2] + filters.shape[-2] - 1, filters.shape[-2]
    length = scipy.fft.next_fast_len(time, real=True)
    sources = scipy.fft.rfft(references.reshape(-1, time - taps + 1, references.shape[-1]), length, axis=1)
    responses = scipy.fft.rfft(filters.reshape(*sources.shape[::2], taps, -1), length, axis=2)
    found: Matrix = scipy.fft.irfft(np.einsum("sfc,scfd->df", sources, responses), length)[:, :time].T
    return found


def bss_eval(names: Sequence[str], references: Samples, estimates: Samples, sample_rate: int) -> Scores:
    """Return the SDR, ISR, SIR and SAR in dB of each stem: medians over windows of one second.

    Shapes: references and estimates `(stem, channel, time)`. If the whole reference or estimate of a stem is
    silent, museval rejects the song. Here this stem is NaN, and the others are measured without it.

    The references are rounded to 16 bits. This does not change published scores, which use 16-bit references.
    References decoded from MP3 or Ogg to float are exactly zero above some frequency. There, the fitted
    filters can have huge gains, which cause errors where windows cut a song: ISR, SIR and SAR were wrong by
    tens of dB. With the whole song as one window, rounding made no difference.

    Raises:
        StemsplitError: museval is not installed.
    """
    import numpy as np

    rounded = np.round(references.astype(np.float64) * FULL_SCALE) / FULL_SCALE
    both = np.moveaxis(np.stack([rounded, estimates]), 2, 3)
    # Sums over channels, as in museval.
    heard = np.flatnonzero(both.sum(axis=3).any(axis=2).all(axis=0)).tolist()
    scores = {name: dict.fromkeys(MEASURES, float("nan")) for name in names}
    if heard:
        found = museval().bss_eval(*both[:, heard], window=sample_rate, hop=sample_rate)
        for measure, stems in zip(MEASURES, found[: len(MEASURES)], strict=True):
            for index, windows in zip(heard, stems, strict=True):
                finite = windows[np.isfinite(windows)]  # museval stores an infinite ratio as NaN
                scores[names[index]][measure] = float(np.median(finite)) if finite.size else float("nan")
    return scores


@dataclass(frozen=True)
class _References:
    """The stems that museval's filters are applied to: data that all estimates share is computed once.

    For four stereo stems and 512 taps, the correlations between the stems form a matrix with 4,096 rows. Its
    factorization takes longer than everything else.
    """

    spectra: Matrix
    """Spectra of each channel of each stem."""
    matrix: Matrix
    channels: int
    taps: int
    length: int
    """Length of the FFTs in samples."""

    @classmethod
    def of(cls, references: Matrix, taps: int) -> _References:
        """Return the references `(stem, time, channel)` prepared for fitting."""
        import numpy as np
        import scipy.fft

        stems, time, channels = references.shape
        length = scipy.fft.next_fast_len(time + taps - 1, real=True)
        signals = np.moveaxis(references, 1, 2).reshape(stems * channels, time)
        spectra = scipy.fft.rfft(signals, length)
        matrix = np.empty((len(spectra), taps, len(spectra), taps))
        delays = np.subtract.outer(np.arange(taps), np.arange(taps))
        for i, spectrum in enumerate(spectra):
            for j, other in enumerate(spectra[: i + 1]):
                correlations = scipy.fft.irfft(spectrum * other.conj(), length)
                matrix[i, :, j] = correlations[-delays]
                matrix[j, :, i] = matrix[i, :, j].T
        return cls(spectra, matrix.reshape(len(spectra) * taps, -1), channels, taps, length)

    def __getitem__(self, stem: tuple[int, int]) -> _References:
        """Return the references of one stem; museval indexes with the stem's number twice."""
        return self._alone[stem[0]]

    @functools.cached_property
    def _alone(self) -> list[_References]:
        parts = []
        for first in range(0, len(self.spectra), self.channels):
            channels = slice(first, first + self.channels)
            rows = slice(first * self.taps, (first + self.channels) * self.taps)
            parts.append(replace(self, spectra=self.spectra[channels], matrix=self.matrix[rows, rows]))
        return parts

    @functools.cached_property
    def _factors(self) -> tuple[Matrix, Matrix] | None:
        import numpy as np
        from scipy.linalg import lapack

        matrix = self.matrix + np.finfo(float).eps * np.eye(len(self.matrix))
        factor, pivots, info = lapack.dgetrf(matrix, overwrite_a=True)
        return None if info else (factor, pivots)

    def filters(self, estimate: Matrix) -> Matrix:
        """Return the least-squares filters from the references to an estimate `(time, channel)`.

        Shapes: `(stem, channel, tap, channel of the estimate)`, without the first axis for a single stem.
        """
        import numpy as np
        import scipy.fft
        from scipy.linalg import lapack

        spectra = scipy.fft.rfft(estimate.T, self.length)
        products = self.spectra[:, None] * spectra.conj()
        correlations = scipy.fft.irfft(products, self.length)[..., -np.arange(self.taps)]
        right = correlations.swapaxes(1, 2).reshape(-1, estimate.shape[1])
        if self._factors is None:  # singular for similar stems; as in museval
            found = np.linalg.lstsq(self.matrix, right)[0]
        else:
            found = lapack.dgetrs(*self._factors, right)[0]
        filters: Matrix = found.reshape(-1, self.channels, self.taps, estimate.shape[1])
        return filters if len(filters) > 1 else filters[0]


class _Last:
    """A cache of the last song's references, which are usually needed again."""

    def __init__(self) -> None:
        self._kept: tuple[bytes, _References] | None = None

    def references(self, references: Matrix, taps: int) -> tuple[_References, Matrix]:
        """Return `_References` instead of correlations, and the spectra; museval only passes them on."""
        key = hashlib.sha256(repr((references.shape, taps)).encode() + references.tobytes()).digest()
        if self._kept is None or self._kept[0] != key:
            self._kept = key, _References.of(references, taps)
        return self._kept[1], self._kept[1].spectra


class Pool:
    """Processes that run `bss_eval` in parallel, because it takes longer than the separation.

    At most one song waits for a free process, so that memory does not grow with the number of songs.

    Raises:
        StemsplitError: museval is not installed.
    """

    def __init__(self, jobs: int, sample_rate: int) -> None:
        museval()
        self.sample_rate = sample_rate
        self.room = threading.BoundedSemaphore(jobs + 1)
        # Spawn: a fork would inherit torch's threads in an undefined state.
        spawn = multiprocessing.get_context("spawn")
        self.executor = ProcessPoolExecutor(jobs, mp_context=spawn, initializer=_one_thread)
        self.pending: list[tuple[Scores, Future[Scores]]] = []

    def measure(self, scores: Scores, references: Samples, estimates: Samples) -> None:
        """Start to compute the measures; they are added to the `scores` before the pool closes.

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
        """Wait for pending results, or drop them after an error."""
        try:
            for scores, future in self.pending if kind is None else []:
                for stem, measures in future.result().items():
                    scores[stem] |= measures
        except BrokenProcessPool as problem:
            raise _too_large() from problem
        finally:
            self.executor.shutdown(cancel_futures=True)


def _one_thread() -> None:
    """Use one thread, because other processes use the other cores; let Ctrl-C end the process silently."""
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _too_large() -> StemsplitError:
    return StemsplitError(
        "A process that ran BSSEval was killed", "it may have run out of memory: use fewer --jobs"
    )
