"""Multichannel Wiener filter: the stems' spectra from masks and spatial covariances.

Shapes: masks `(stem, channel, frame, bin)`, with one channel if all channels share a mask; spectra
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
"""Power of diffuse sound relative to a stem's power, which keeps covariances invertible."""
STRIP_BINS = 64


def wiener(
    masks: Floats,
    spectra: Spectra,
    context_frames: int,
    wanted: Sequence[int] | None = None,
    *,
    stride: int = 1,
) -> Spectra:
    """Return the stems' spectra `(stem, channel, frame, bin)` after a multichannel Wiener filter.

    N. Duong, E. Vincent, R. Gribonval, "Under-determined reverberant audio source separation using a
    full-rank spatial covariance model", 2010. If stem j has the covariance v_j R_j, its estimate is
    v_j R_j inv(sum(v_k R_k)) x, and the estimates sum to x. Here v_j = m_j P, where m_j is the mean of the
    stem's masks over channels, and P is the mixture's power, which cancels. The stem's position in the stereo
    image is R_j = sum(m_j^2 x x^H) / sum(m_j^2 P), summed over `context_frames` and one bin on either side.
    This is one iteration of the paper's EM algorithm, but with m_j squared, because positions are clearest
    where a stem dominates. For one channel, for frames with equal channels (which stay equal), and for more
    than two channels, positions are not estimated, and a stem's estimate is its mask times x.

    The first and last `context_frames` frames have no estimates. `wanted` are the stems to return; default:
    all. With a `stride`, which must divide `context_frames`, positions are estimated at every `stride`-th
    frame, and held until the next one.
    """
    wanted = range(len(masks)) if wanted is None else wanted
    inner = slice(context_frames, spectra.shape[1] - context_frames)
    if len(spectra) != 2:
        plain: Spectra = masks[list(wanted), :, inner] * spectra[:, inner]
        return plain
    alike = np.flatnonzero((spectra[0] == spectra[1]).all(axis=-1)[inner])
    bins = spectra.shape[-1]
    estimates = np.empty((len(wanted), 2, spectra.shape[1] - 2 * context_frames, bins), np.complex64)
    for start in range(0, bins, STRIP_BINS):  # a strip fits into a CPU cache
        stop = min(bins, start + STRIP_BINS)
        strip = _with_neighbours(masks, start, stop).mean(axis=1)
        wider = _with_neighbours(spectra, start, stop)
        estimates[..., start:stop] = _filtered(strip, wider, context_frames, wanted, stride)
    if alike.size:
        mono = (
            masks[list(wanted)][:, :, context_frames + alike].mean(axis=1)
            * spectra[0, context_frames + alike]
        )
        estimates[:, :, alike] = mono[:, None]
    return estimates


def _with_neighbours(values: Any, start: int, stop: int) -> Any:
    """Return a copy of some bins with one more on either side; zeros beyond the first and last bin."""
    bins = values.shape[-1]
    edges = (int(start == 0), int(stop == bins))
    strip = values[..., max(0, start - 1) : stop + 1]
    return np.pad(strip, [*[(0, 0)] * (strip.ndim - 1), edges])


def _filtered(
    masks: Floats, spectra: Spectra, context_frames: int, wanted: Sequence[int], stride: int
) -> Spectra:
    """Compute `wiener` for some bins; the first and the last bin are only context.

    Shapes: masks `(stem, frame, bin)`; spectra and estimates as in `wiener`.
    """
    left, right = spectra[:, ::stride]
    squares = _squared(left), _squared(right), left * right.conj()
    inner = np.s_[:, context_frames : spectra.shape[1] - context_frames, 1:-1]
    masks, seen = masks[inner], np.square(masks[:, ::stride])
    left, right = spectra[inner]
    covariances = []
    for share in seen:
        one, two, both = (_nearby(share * square, context_frames // stride) for square in squares)
        one, two = one + FAINT, two + FAINT
        # Scaled so that the powers of left and right sum to two.
        scale = 2 / (one + two)
        found = one * scale + DIFFUSE, two * scale + DIFFUSE, both * scale
        covariances.append(tuple(_held(each, stride, len(left)) for each in found))
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


def _held(values: Any, stride: int, frames: int) -> Any:
    """Return `frames` frames of values, each value repeated for `stride` frames."""
    return values if stride == 1 else np.repeat(values, stride, axis=0)[:frames]


def _squared(spectrum: Spectra) -> Floats:
    squared: Floats = np.square(spectrum.real) + np.square(spectrum.imag)
    return squared


def _nearby(values: Any, context_frames: int) -> Any:
    """Return sums of `(frame, bin)` over full windows: `context_frames` and one bin on either side.

    Sums over 2, 4, 8, ... frames are each computed from two of the previous ones; the binary digits of
    2 * context_frames + 1 select those to add. The order of summation is fixed, so that a frame's result does
    not depend on the number of frames before it, as it would with a running sum.
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
