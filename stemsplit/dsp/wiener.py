"""Multichannel Wiener filter: the stems' spectra from masks and spatial covariances.

Shapes: masks `(stem, channel, frame, bin)`, with one channel if all channels share a mask; spectra
`(channel, frame, bin)`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stemsplit.dsp.stft import Floats, Spectra

FAINT = np.float32(1e-12)
"""Power (-120 dB) below which a stem has no position in the stereo image."""
DIFFUSE = np.float32(0.003)
"""Power of diffuse sound relative to a stem's power, which keeps covariances invertible."""
STRIP_BINS = 192


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
    all. With a `stride`, each run of `stride` frames shares positions, summed over the run and
    `context_frames` on either side; the stride divides both and the number of frames.
    """
    wanted = range(len(masks)) if wanted is None else wanted
    inner = slice(context_frames, spectra.shape[1] - context_frames)
    if len(spectra) != 2:
        plain: Spectra = masks[list(wanted), :, inner] * spectra[:, inner]
        return plain
    shared = masks[:, 0] if masks.shape[1] == 1 else masks.mean(axis=1)
    alike = np.flatnonzero((spectra[0] == spectra[1]).all(axis=-1)[inner])
    bins = spectra.shape[-1]
    estimates = np.empty((len(wanted), 2, spectra.shape[1] - 2 * context_frames, bins), np.complex64)
    for start in range(0, bins, STRIP_BINS):  # a strip fits into a CPU cache
        stop = min(bins, start + STRIP_BINS)
        wider = slice(max(0, start - 1), min(bins, stop + 1))
        strip = _Strip(shared[..., wider], spectra[..., wider], context_frames, stride)
        strip.filter(wanted, estimates[..., start:stop], skip=start - wider.start)
    if alike.size:
        mono = shared[list(wanted)][:, context_frames + alike] * spectra[0, context_frames + alike]
        estimates[:, :, alike] = mono[:, None]
    return estimates


class _Strip:
    """Some neighboring bins, in runs of frames.

    Shapes: masks `(stem, run, frame, bin)`; left and right `(run, frame, bin)`.
    """

    def __init__(self, masks: Floats, spectra: Spectra, context_frames: int, stride: int) -> None:
        runs = spectra.shape[1] // stride
        self.masks = masks.reshape(len(masks), runs, stride, -1)
        self.left, self.right = spectra.reshape(2, runs, stride, -1)
        self.context_runs = context_frames // stride

    def positions(self) -> Floats:
        """Return normalized covariances `(part, stem, run, bin)`.

        The parts are the powers of left and right, and the real and imaginary part of their product.
        """
        product = self.left * self.right.conj()
        squares = np.stack([_squared(self.left), _squared(self.right), product.real, product.imag])
        sums = _nearby(np.einsum("srfb,prfb->psrb", np.square(self.masks), squares), self.context_runs)
        sums[:2] += FAINT
        sums *= 2 / (sums[0] + sums[1])  # the powers of left and right sum to two
        sums[:2] += DIFFUSE
        return sums

    def filter(self, wanted: Sequence[int], estimates: Spectra, *, skip: int) -> None:
        """Write the stems' spectra `(stem, channel, frame, bin)` from bin `skip` on."""
        positions = self.positions()
        inner = slice(self.context_runs, len(self.left) - self.context_runs)
        left, right, masks = self.left[inner], self.right[inner], self.masks[:, inner]
        a, b, real, imaginary = np.einsum("srfb,psrb->prfb", masks, positions)
        c = real + np.complex64(1j) * imaginary
        inverse = 1 / (a * b - _squared(c))
        left, right = (b * left - c * right) * inverse, (a * right - c.conj() * left) * inverse
        bins = slice(skip, skip + estimates.shape[-1])
        for estimate, stem in zip(estimates, wanted, strict=True):
            a, b, real, imaginary = positions[:, stem, :, None]
            c = real + np.complex64(1j) * imaginary
            for channel, found in zip(
                estimate, (a * left + c * right, c.conj() * left + b * right), strict=True
            ):
                found *= masks[stem]
                channel[:] = found.reshape(len(channel), -1)[:, bins]


def _squared(spectrum: Spectra) -> Floats:
    squared: Floats = np.square(spectrum.real) + np.square(spectrum.imag)
    return squared


def _nearby(values: Floats, context_runs: int) -> Floats:
    """Return sums of `(..., run, bin)` over full windows: `context_runs` and, if any, one bin on either side.

    Sums over 2, 4, 8, ... runs are each computed from two of the previous ones; the binary digits of
    2 * context_runs + 1 select those to add. The order of summation is fixed, so that a run's result does
    not depend on the number of runs before it, as it would with a running sum.
    """
    around = values.copy()
    around[..., 1:] += values[..., :-1]
    around[..., :-1] += values[..., 1:]
    values, width, size, start = around, 2 * context_runs + 1, 1, 0
    runs = values.shape[-2] - width + 1
    total = np.zeros_like(values[..., :runs, :])
    while width:
        if width & size:
            total += values[..., start : start + runs, :]
            start, width = start + size, width - size
        if width:
            values = values[..., :-size, :] + values[..., size:, :]
            size *= 2
    return total
