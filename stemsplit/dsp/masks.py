"""Masks from the networks' outputs.

A network says for each bin which share of the mixture is its stem's, or how probable it is that this is more
than T. With all stems at hand the masks add up to one in every bin, hence the stems to the mixture; with some
of them, where each has a network of its own, a mask stands against its own complement.

Shapes: probabilities and masks are `(stem, channel, frame, bin)`, with one channel where a mask is the same
for all; spectra are `(channel, frame, bin)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Masks = NDArray[np.float32]
Spectra = NDArray[np.complex64]

TINY = np.float32(1e-6)
CERTAIN = np.float32(1e-4)
"""The networks' probabilities are not taken to be any closer to zero or one than this."""
FAINT = np.float32(1e-12)
"""Power (-120 dB) below which a stem has no place in the stereo image."""
DIFFUSE = np.float32(0.003)
"""What comes from everywhere, relative to a stem's power: so that no covariance is singular."""
EXTENSION_BINS = 64
STRIP_BINS = 64


def binary(probabilities: Masks, *, complete: bool) -> Masks:
    """Return the paper's masks: one where the probability is above one half.

    With a `complete` set of stems, a bin claimed by several goes to all of them in equal parts, and a bin
    claimed by none to the most probable one.
    """
    claims = probabilities > 0.5
    if complete:
        stems = np.arange(len(claims)).reshape(-1, *[1] * (claims.ndim - 1))
        best = probabilities.argmax(axis=0) == stems
        claims |= best & ~claims.any(axis=0)
    masks: Masks = claims.astype(np.float32)
    return masks / masks.sum(axis=0) if complete else masks


def soft(probabilities: Masks, *, complete: bool, power: float = 1.0) -> Masks:
    """Return ratio masks p ** power / sum(p ** power), over the stems or over p and 1 - p.

    As `power` grows they become binary.
    """
    if not complete:
        both = np.stack([probabilities, 1 - probabilities])
        ours: Masks = soft(both, complete=True, power=power)[0]
        return ours
    masks: Masks = np.maximum(probabilities, TINY)
    if power != 1:
        # Relative to the strongest, of which no power is too small for a float.
        masks = (masks / masks.max(axis=0)) ** np.float32(power)
    masks /= masks.sum(axis=0)
    return masks


def logits(probabilities: Masks) -> Masks:
    """Return log(p / (1 - p)), of probabilities that are at least `CERTAIN` from zero and from one."""
    bounded = np.clip(probabilities, CERTAIN, 1 - CERTAIN)
    odds: Masks = np.log(bounded / (1 - bounded))
    return odds


def joint(probabilities: Masks, *, combination: Masks) -> Masks:
    """Return ratio masks that weigh what each network says against what the others say.

    `combination` `(stem, stem + 1)` holds a row of weights for each mask, and an offset last: the masks are
    softmax(W logit(p) + b), which is matrix scaling (Guo et al., "On calibration of modern neural networks",
    2017, section 4.2). The networks were trained one by one: some say yes too often, and where one of them is
    sure, the others need not be believed.
    """
    # Not by BLAS, whose threads go on spinning for a while when there is nothing more to do.
    scores = np.einsum("ij,j...->i...", combination[:, :-1], logits(probabilities))
    scores += combination[:, -1].reshape(-1, *[1] * (scores.ndim - 1))
    scores = np.exp(scores - scores.max(axis=0))
    masks: Masks = scores / scores.sum(axis=0)
    return masks


def for_channels(masks: Masks, spectra: Spectra) -> Masks:
    """Return the masks for the channels of spectra: those of left and right for every other one, or the mean.

    The latter where there is one channel, and in frames that are the same left and right, to stay so.
    """
    there, channels = masks.shape[1], len(spectra)
    if there == 1:
        return masks
    mean: Masks = masks.mean(axis=1, keepdims=True)
    if channels == 1:
        return mean
    same = (spectra[:1] == spectra[1:]).all(axis=(0, 2))
    each = masks if channels == there else masks[:, np.arange(channels) % there]
    return np.where(same[:, None], mean, each) if same.any() else each


def wiener(masks: Masks, spectra: Spectra, reach: int, wanted: Sequence[int] | None = None) -> Spectra:
    """Return stems' spectra `(stem, channel, frame, bin)` after a multichannel Wiener filter.

    N. Duong, E. Vincent, R. Gribonval, "Under-determined reverberant audio source separation using a
    full-rank spatial covariance model", 2010: where stem j has the covariance v_j R_j, its estimate is
    v_j R_j inv(sum(v_k R_k)) x, and all of them add up to x. Here v_j = m_j P, for the mixture's power P,
    which cancels, and R_j = sum(m_j^2 x x^H) / sum(m_j^2 P) over `reach` frames and a bin to either side is
    the stem's place in the stereo image; m_j is the mean of a stem's masks over channels. This is one
    iteration of the paper's EM algorithm, with m_j squared: a place is best seen where a stem is alone. In
    mono there are no places, and the estimate is m_j x: of one channel, and of a frame that is the same left
    and right, which it stays. So it is for more than two channels.

    There are none for the first and last `reach` frames. `wanted` are the stems to give, unless it is all.
    """
    wanted = range(len(masks)) if wanted is None else wanted
    inner = slice(reach, spectra.shape[1] - reach)
    if len(spectra) != 2:
        plain: Spectra = masks[list(wanted), :, inner] * spectra[:, inner]
        return plain
    alike = np.flatnonzero((spectra[0] == spectra[1]).all(axis=-1)[inner])
    bins = spectra.shape[-1]
    estimates = np.empty((len(wanted), 2, spectra.shape[1] - 2 * reach, bins), np.complex64)
    for start in range(0, bins, STRIP_BINS):  # as much as a processor's cache holds
        stop = min(bins, start + STRIP_BINS)
        strip = _with_neighbours(masks, start, stop).mean(axis=1)
        context = _with_neighbours(spectra, start, stop)
        estimates[..., start:stop] = _filtered(strip, context, reach, wanted)
    if alike.size:
        mono = masks[list(wanted)][:, :, reach + alike].mean(axis=1) * spectra[0, reach + alike]
        estimates[:, :, alike] = mono[:, None]
    return estimates


def _with_neighbours(values: Any, start: int, stop: int) -> Any:
    """Return a copy of some bins with one more on either side: zeros beyond the first and the last."""
    bins = values.shape[-1]
    edges = (int(start == 0), int(stop == bins))
    strip = values[..., max(0, start - 1) : stop + 1]
    return np.pad(strip, [*[(0, 0)] * (strip.ndim - 1), edges])


def _filtered(masks: Masks, spectra: Spectra, reach: int, wanted: Sequence[int]) -> Spectra:
    """Do the work of `wiener` for some bins, of which the first and last are only context.

    Shapes: masks `(stem, frame, bin)`, spectra and estimates as there.
    """
    left, right = spectra
    squares = _squared(left), _squared(right), left * right.conj()
    inner = np.s_[:, reach : len(left) - reach, 1:-1]
    masks, seen = masks[inner], masks * masks
    left, right = spectra[inner]
    places = []
    for share in seen:
        one, two, both = (_nearby(share * square, reach) for square in squares)
        one, two = one + FAINT, two + FAINT
        # The power of the left channel and of the right one add up to two.
        scale = 2 / (one + two)
        places.append((one * scale + DIFFUSE, two * scale + DIFFUSE, both * scale))
    a, b, c = (
        sum(mask * part for mask, part in zip(masks, parts, strict=True))
        for parts in zip(*places, strict=True)
    )
    inverse = 1 / (a * b - _squared(c))
    whitened_left = (b * left - c * right) * inverse
    whitened_right = (a * right - c.conj() * left) * inverse
    estimates = np.empty((len(wanted), 2, *left.shape), np.complex64)
    for estimate, stem in zip(estimates, wanted, strict=True):
        one, two, both = places[stem]
        estimate[0] = one * whitened_left + both * whitened_right
        estimate[1] = both.conj() * whitened_left + two * whitened_right
        estimate *= masks[stem]
    return estimates


def _squared(spectrum: Spectra) -> Masks:
    squared: Masks = np.square(spectrum.real) + np.square(spectrum.imag)
    return squared


def _nearby(values: Any, reach: int) -> Any:
    """Return the sums of `(frame, bin)` over `reach` frames and a bin to either side, where all are there.

    Sums over 2, 4, 8, ... frames are each made of two of the last ones; those that 2 * reach + 1 consists of
    are added up. Always the same frames in the same order: what comes of a frame does not depend on how many
    there are before it, as it would with a running sum.
    """
    values = values[:, :-2] + values[:, 1:-1] + values[:, 2:]
    frames, width, size, start = len(values) - 2 * reach, 2 * reach + 1, 1, 0
    total = np.zeros((), values.dtype)
    while width:
        if width & size:
            total = total + values[start : start + frames]
            start, width = start + size, width - size
        if width:
            values = values[:-size] + values[size:]
            size *= 2
    return total


def between(probabilities: Masks, step: int) -> Masks:
    """Return the probabilities of every frame, of those of every `step`-th one, along straight lines."""
    if step == 1:
        return probabilities
    *lead, count, bins = probabilities.shape
    every = np.empty((*lead, (count - 1) * step + 1, bins), np.float32)
    every[..., ::step, :] = probabilities
    earlier, rise = probabilities[..., :-1, :], np.diff(probabilities, axis=-2)
    for frame in range(1, step):
        every[..., frame::step, :] = earlier + np.float32(frame / step) * rise
    return every


def extend(masks: Masks, bins: int) -> Masks:
    """Extend masks above the network's band up to `bins`.

    Above it a frame's mask is the mean of the band's top 64 bins (some 1.4 kHz at an n_fft of 2048). Being a
    mean it keeps what the masks add up to.
    """
    missing = bins - masks.shape[-1]
    if not missing:
        return masks
    top = masks[..., -EXTENSION_BINS:].mean(axis=-1, keepdims=True)
    return np.concatenate([masks, np.repeat(top, missing, axis=-1)], axis=-1)
