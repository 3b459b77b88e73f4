"""The attacks of drums."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stemsplit.audio.reader import Block

FRAME_SECONDS, HOP_SECONDS = 0.0116, 0.0029
FLOOR = 1e-3
"""A magnitude that is silence, for a frame of one sample."""
LEAST_RISE_DB, TIMES_MEDIAN = 0.5, 1.3
"""The mean level of all bins rises by more than this at an attack, above its usual rise. Of the onsets that
librosa finds in the drums of 14 songs these find 98 %, and 13 % more."""
APART_SECONDS, AROUND_SECONDS = 0.03, 0.3


def onsets(sound: Block, sample_rate: int) -> NDArray[np.int64]:
    """Return the frames of a sound `(channel, time)` at which a drum is struck."""
    size, hop = (round(seconds * sample_rate) for seconds in (FRAME_SECONDS, HOP_SECONDS))
    mono = np.pad(sound.mean(axis=0), (size, 0))
    if len(mono) < 4 * size:
        return np.zeros(0, np.int64)
    frames = np.lib.stride_tricks.sliding_window_view(mono, size)[::hop] * np.hanning(size).astype(np.float32)
    level = 20 * np.log10(np.abs(np.fft.rfft(frames)) + FLOOR * size**0.5)
    # Two frames apart: an attack takes as long to enter a frame. It is in the middle of the later one.
    rise = np.maximum(level[2:] - level[:-2], 0).mean(axis=1)
    usual = np.median(_around(rise, round(AROUND_SECONDS * sample_rate / hop)), axis=1)
    highest = _around(rise, round(APART_SECONDS * sample_rate / hop)).max(axis=1)
    peaks = np.flatnonzero((rise == highest) & (rise > LEAST_RISE_DB + TIMES_MEDIAN * usual))
    found: NDArray[np.int64] = (peaks + 2) * hop - size + size // 2
    return found


def _around(values: NDArray[np.float32], reach: int) -> NDArray[np.float32]:
    """Return the values around each value, `reach` on either side."""
    return np.lib.stride_tricks.sliding_window_view(np.pad(values, reach, mode="symmetric"), 2 * reach + 1)
