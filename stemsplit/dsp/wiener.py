"""Multichannel Wiener filter: stems' spectra from masks and the mixture's spatial covariances.

Shapes: masks `(stem, channel, frame, bin)`, with one channel where a mask is the same for all; spectra
`(channel, frame, bin)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stemsplit.dsp.stft import Floats, Spectra

FAINT = np.float32(1e-12)
"""Power (-120 dB) below which a stem has no position in the stereo image."""
DIFFUSE = np.float32(0.003)
"""Diffuse sound relative to a stem's power: so that no covariance is singular."""
STRIP_BINS = 64


def wiener(
    masks: Floats, spectra: Spectra, context_frames: int, wanted: Sequence[int] | None = None
) -> Spectra:
    """Return stems' spectra `(stem, channel, frame, bin)` after a multichannel Wiener filter.

    N. Duong, E. Vincent, R. Gribonval, "Under-determined reverberant audio source separation using a
    full-rank spatial covariance model", 2010: where stem j has the covariance v_j R_j, its estimate is
    v_j R_j inv(sum(v_k R_k)) x, and all of them add up to x. Here v_j = m_j P, for the mixture's power P,
    which cancels, and R_j = sum(m_j^2 x x^H) / sum(m_j^2 P) over `context_frames` and a bin to either side is
    the stem's position in the stereo image; m_j is the mean of a stem's masks over channels. This is one
    iteration of the paper's EM algorithm, with m_j squared: a position is clearest where a stem is alone.
    In mono there are no positions, and the estimate is m_j x: of one channel, and of a frame that is the same
    left and right, which it stays. The same holds for more than two channels.

    The first and last `context_frames` frames have none. `wanted` are the stems to return; default: all.
    """
    wanted = range(len(masks)) if wanted is None else wanted
    inner = slice(context_frames, spectra.shape[1] - context_frames)
    if len(spectra) != 2:
        plain: Spectra = masks[list(wanted), :, inner] * spectra[:, inner]
        return plain
    alike = np.flatnonzero((spectra[0] == spectra[1]).all(axis=-1)[inner])
    bins = spectra.shape[-1]
    estimates = np.empty((len(wanted), 2, spectra.shape[1] - 2 * context_frames, bins), np.complex64)
    for start in range(0, bins, STRIP_BINS):  # as much as a CPU cache holds
        stop = min(bins, start + STRIP_BINS)
        strip = _with_neighbours(masks, start, stop).mean(axis=1)
        wider = _with_neighbours(spectra, start, stop)
        estimates[..., start:stop] = _filtered(strip, wider, context_frames, wanted)
    if alike.size:
        mono = (
            masks[list(wanted)][:, :, context_frames + alike].mean(axis=1)
            * spectra[0, context_frames + alike]
        )
        estimates[:, :, alike] = mono[:, None]
    return estimates


def _with_neighbours(values: Any, start: int, stop: int) -> Any:
    """Return a copy of some bins with one more on either side: zeros beyond the first and the last."""
    bins = values.shape[-1]
    edges = (int(start == 0), int(stop == bins))
    strip = values[..., max(0, start - 1) : stop + 1]
    return np.pad(strip, [*[(0, 0)] * (strip.ndim - 1), edges])


def _filtered(masks: Floats, spectra: Spectra, context_frames: int, wanted: Sequence[int]) -> Spectra:
    """Do the work of `wiener` for some bins, of which the first and last are only context.

    Shapes: masks `(stem, frame, bin)`, spectra and estimates as there.
    """
    left, right = spectra
    squares = _squared(left), _squared(right), left * right.conj()
    inner = np.s_[:, context_frames : len(left) - context_frames, 1:-1]
    masks, seen = masks[inner], masks * masks
    left, right = spectra[inner]
    covariances = []
    for share in seen:
        one, two, both = (_nearby(share * square, context_frames) for square in squares)
        one, two = one + FAINT, two + FAINT
        # The power of the left channel and of the right one add up to two.
        scale = 2 / (one + two)
        covariances.append((one * scale + DIFFUSE, two * scale + DIFFUSE, both * scale))
    a, b, c = (
        sum(mask * part for mask, part in zip(masks, parts, strict=True))
        for parts in zip(*covariances, strict=True)
    )
    inverse = 1 / (a * b - _squared(c))
    whitened_left = (b * left - c * right) * inverse
    whitened_right = (a * right - c.conj() * left) * inverse
    estimates = np.empty((len(wanted), 2, *left.shape), np.complex64)
    for estimate, stem in zip(estimates, wanted, strict=True):
        one, two, both = covariances[stem]
        estimate[0] = one * whitened_left + both * whitened_right
        estimate[1] = both.conj() * whitened_left + two * whitened_right
        estimate *= masks[stem]
    return estimates


def _squared(spectrum: Spectra) -> Floats:
    squared: Floats = np.square(spectrum.real) + np.square(spectrum.imag)
    return squared


def _nearby(values: Any, context_frames: int) -> Any:
    """Return the sums of `(frame, bin)` over `context_frames` and a bin to either side, for whole sums.

    Sums over 2, 4, 8, ... frames are each made of two of the last ones; those that 2 * context_frames + 1
    consists of are added up. The order of summation is fixed: unlike with a running sum, a frame's result
    does not depend on how many frames come before it.
    """
    values = values[:, :-2] + values[:, 1:-1] + values[:, 2:]
    frames, width, size, start = len(values) - 2 * context_frames, 2 * context_frames + 1, 1, 0
    total = np.zeros((), values.dtype)
    while width:
        if width & size:
            total = total + values[start : start + frames]
            start, width = start + size, width - size
        if width:
            values = values[:-size] + values[size:]
            size *= 2
    return total
