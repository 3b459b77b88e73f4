"""Bleedless and fullness: how free an estimate is of other stems, and how complete its stem is.

Both measures are from Music-Source-Separation-Training (R. Solovyev et al., `utils/metrics.py`). They use mel
spectrograms with 512 bands in dB, and average positive and negative differences from the reference
separately.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from stemsplit.dsp.stft import Stft
from stemsplit.files.scratch import librosa_caches
from stemsplit.separation.separator import Samples

STFT = Stft(4096, 1024)
AT_A_TIME = 1000
"""Number of frames to transform at a time."""
BANDS = 512
RANGE_DB = 80
_FLOOR = 1e-10


def bleed_scores(reference: Samples, estimate: Samples, sample_rate: int) -> dict[str, float]:
    """Return `bleedless` and `fullness`, each from 0 to 100, where 100 is best.

    `bleedless` is 100 / (1 + d), where d is the mean of all positive differences, estimate minus reference,
    between bins in dB; `fullness` is the same for negative differences. Bins are limited to 80 dB below
    the loudest bin of their spectrogram. Both are NaN for a silent reference.

    Shapes: both `(channel, time)`.
    """
    if not reference.any():
        return {"bleedless": float("nan"), "fullness": float("nan")}
    difference = _mel_db(estimate, sample_rate) - _mel_db(reference, sample_rate)
    more, less = difference[difference > 0], -difference[difference < 0]
    return {
        "bleedless": 100 / (1 + float(more.mean() if more.size else 0)),
        "fullness": 100 / (1 + float(less.mean() if less.size else 0)),
    }


def _mel_db(signal: Samples, sample_rate: int) -> NDArray[np.float64]:
    """Return the mel spectrogram `(channel, frame, band)` in dB."""
    padded = np.pad(signal, ((0, 0), (STFT.n_fft // 2, STFT.n_fft // 2)))
    step = AT_A_TIME * STFT.hop_length
    filters = _mel_filters(sample_rate)
    bands = [
        np.abs(STFT.transform(padded[:, start : start + STFT.samples(AT_A_TIME)])) @ filters
        for start in range(0, padded.shape[-1], step)
    ]
    magnitudes = np.maximum(np.concatenate(bands, axis=1, dtype=np.float64), _FLOOR)
    levels: NDArray[np.float64] = 20 * np.log10(magnitudes)
    limited: NDArray[np.float64] = np.maximum(levels, levels.max() - RANGE_DB)
    return limited


@functools.cache
def _mel_filters(sample_rate: int) -> NDArray[np.float32]:
    """Return a matrix `(bin, band)`."""
    librosa_caches()
    import librosa

    filters: NDArray[np.float32] = librosa.filters.mel(sr=sample_rate, n_fft=STFT.n_fft, n_mels=BANDS).T
    return filters
