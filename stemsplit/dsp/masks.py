"""Masks from network outputs.

For each bin, a network predicts the stem's share of the mixture, or the probability that the share exceeds a
threshold T. With all stems, the masks sum to one in every bin, so that the stems sum to the mixture. With
only some stems, each from its own network, a mask p is normalized against its complement 1 - p.

Shapes: probabilities and masks are `(stem, channel, frame, bin)`, with one channel if all channels share a
mask; spectra are `(channel, frame, bin)`.
"""

from __future__ import annotations

import numpy as np

from stemsplit.dsp.stft import Floats, Spectra

TINY = np.float32(1e-6)
CERTAIN = np.float32(1e-4)
"""The minimum distance of probabilities from zero and one."""
EXTENSION_BINS = 64


def binary(probabilities: Floats, *, complete: bool) -> Floats:
    """Return the binary masks of the paper: 1 where the probability is above 0.5.

    With a `complete` set of stems, a bin with several such stems is divided equally among them, and a bin
    without any goes to the most probable stem.
    """
    claims = probabilities > 0.5
    if complete:
        stems = np.arange(len(claims)).reshape(-1, *[1] * (claims.ndim - 1))
        best = probabilities.argmax(axis=0) == stems
        claims |= best & ~claims.any(axis=0)
    masks: Floats = claims.astype(np.float32)
    return masks / masks.sum(axis=0) if complete else masks


def soft(probabilities: Floats, *, complete: bool, power: float = 1.0) -> Floats:
    """Return ratio masks p ** power / sum(p ** power), over the stems or over p and 1 - p.

    They approach binary masks as `power` grows.
    """
    if not complete:
        both = np.stack([probabilities, 1 - probabilities])
        ours: Floats = soft(both, complete=True, power=power)[0]
        return ours
    masks: Floats = np.maximum(probabilities, TINY)
    if power != 1:
        # Divided by the largest one, so that the sum of powers cannot underflow.
        masks = (masks / masks.max(axis=0)) ** np.float32(power)
    masks /= masks.sum(axis=0)
    return masks


def logits(probabilities: Floats) -> Floats:
    """Return log(p / (1 - p)), with p limited to a distance of `CERTAIN` from zero and one."""
    bounded = np.clip(probabilities, CERTAIN, 1 - CERTAIN)
    odds: Floats = np.log(bounded / (1 - bounded))
    return odds


def matrix_scaled_softmax(probabilities: Floats, *, scaling: Floats, power: float = 1.0) -> Floats:
    """Return ratio masks softmax(W logit(p) + b), calibrated over all stems by matrix scaling.

    `scaling` `(stem, stem + 1)` is W, with b in its last column. The networks were trained separately;
    scaling corrects biased probabilities, and gives more weight to confident networks. The masks are then
    raised to `power` and normalized.

    Source: Guo et al., "On calibration of modern neural networks", 2017, section 4.2.
    """
    # einsum does not use BLAS, whose threads keep spinning for a while after their work.
    scaled = np.einsum("ij,j...->i...", scaling[:, :-1], logits(probabilities))
    scaled += scaling[:, -1].reshape(-1, *[1] * (scaled.ndim - 1))
    scaled = np.exp(np.float32(power) * (scaled - scaled.max(axis=0)))
    masks: Floats = scaled / scaled.sum(axis=0)
    return masks


def match_channels(masks: Floats, spectra: Spectra) -> Floats:
    """Return masks for each channel of spectra: left and right masks in alternation, or their mean.

    The mean is used for one channel, and for frames with equal channels, so that these stay equal.
    """
    given, channels = masks.shape[1], len(spectra)
    if given == 1:
        return masks
    mean: Floats = masks.mean(axis=1, keepdims=True)
    if channels == 1:
        return mean
    same = (spectra[:1] == spectra[1:]).all(axis=(0, 2))
    each = masks if channels == given else masks[:, np.arange(channels) % given]
    return np.where(same[:, None], mean, each) if same.any() else each


def interpolate_frames(probabilities: Floats, stride: int) -> Floats:
    """Return the probabilities of all frames, interpolated linearly from every `stride`-th frame."""
    if stride == 1:
        return probabilities
    *lead, count, bins = probabilities.shape
    every = np.empty((*lead, (count - 1) * stride + 1, bins), np.float32)
    every[..., ::stride, :] = probabilities
    earlier, rise = probabilities[..., :-1, :], np.diff(probabilities, axis=-2)
    for frame in range(1, stride):
        every[..., frame::stride, :] = earlier + np.float32(frame / stride) * rise
    return every


def extend_to_full_band(masks: Floats, bins: int) -> Floats:
    """Extend masks above the network's band up to `bins`.

    Above the band, a frame's mask is the mean over the top 64 bins of the band (about 1.4 kHz at an n_fft of
    2048). Taking a mean preserves the sum of the masks over stems.
    """
    missing = bins - masks.shape[-1]
    if not missing:
        return masks
    top = masks[..., -EXTENSION_BINS:].mean(axis=-1, keepdims=True)
    return np.concatenate([masks, np.repeat(top, missing, axis=-1)], axis=-1)
