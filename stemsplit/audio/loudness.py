"""Sample peak, true peak and loudness, measured block by block."""

from __future__ import annotations

import numpy as np
import soxr

from stemsplit import _compat
from stemsplit.audio.reader import Block

OVERSAMPLING = 4
"""Oversampling for true peaks: ITU-R BS.1770-4, annex 2."""
GATE_SECONDS, STEP_SECONDS = 0.4, 0.1
ABSOLUTE_GATE_LUFS, RELATIVE_GATE_LU = -70.0, -10.0


class Peaks:
    """Sample peak and true peak so far; full scale is 1."""

    def __init__(self, sample_rate: int, channels: int) -> None:
        self.sample = self.true = 0.0
        self._channels = channels
        self._stream = soxr.ResampleStream(
            sample_rate, OVERSAMPLING * sample_rate, channels, dtype="float32", quality="HQ"
        )

    def add(self, block: Block, *, last: bool = False) -> None:
        """Add the next block `(channel, time)`; the `last` one can be empty."""
        between = self._stream.resample_chunk(np.ascontiguousarray(block.T), last=last)
        self.sample = max(self.sample, float(np.abs(block).max(initial=0)))
        self.true = max(self.sample, self.true, float(np.abs(between).max(initial=0)))

    def finish(self) -> None:
        """Include the output that the resampler still holds after the last block."""
        self.add(np.zeros((self._channels, 0), np.float32), last=True)


class Loudness:
    """Integrated loudness according to ITU-R BS.1770-4, with pyloudnorm's filters."""

    def __init__(self, sample_rate: int, channels: int) -> None:
        self._filters = _compat.loudness_filters(sample_rate)
        self._states = [np.zeros((channels, 2)) for _ in self._filters]
        self._step = round(STEP_SECONDS * sample_rate)
        self._held = np.zeros((channels, 0))
        self._energies: list[float] = []

    def add(self, block: Block) -> None:
        """Add the next block `(channel, time)`."""
        from scipy.signal import lfilter

        weighted = block.astype(np.float64)
        for index, stage in enumerate(self._filters):
            weighted, self._states[index] = lfilter(stage.b, stage.a, weighted, zi=self._states[index])
            weighted *= stage.passband_gain
        weighted = np.concatenate([self._held, weighted], axis=-1)
        steps = weighted.shape[-1] // self._step
        whole, self._held = weighted[:, : steps * self._step], weighted[:, steps * self._step :]
        powers = whole.reshape(len(whole), steps, self._step) ** 2
        self._energies += powers.mean(axis=2).sum(axis=0).tolist()

    @property
    def lufs(self) -> float | None:
        """The loudness so far, in LUFS; None for silence and for less than one gating block (0.4 s)."""
        gates = round(GATE_SECONDS / STEP_SECONDS)
        if len(self._energies) < gates:
            return None
        energies = np.convolve(self._energies, np.full(gates, 1 / gates), "valid")
        for gate in (lambda _: ABSOLUTE_GATE_LUFS, lambda heard: _lufs(heard.mean()) + RELATIVE_GATE_LU):
            if not energies.size or not energies.any():
                return None
            energies = energies[_lufs(energies) > gate(energies)]
        return float(_lufs(energies.mean())) if energies.size else None


def _lufs(energy: np.typing.ArrayLike) -> np.typing.NDArray[np.float64]:
    loudness: np.typing.NDArray[np.float64] = -0.691 + 10 * np.log10(np.maximum(energy, 1e-30))
    return loudness
