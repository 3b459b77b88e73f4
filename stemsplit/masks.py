"""Masks from the networks' outputs.

A network says for each bin how probable it is that its stem holds more than the T-th part of the
mixture. With all stems at hand the masks add up to one in every bin, hence the stems to the mixture; with
some of them, each mask stands against its own complement.

Shapes: probabilities and masks are `(stem, frame, bin)`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Masks = NDArray[np.float32]

TINY = np.float32(1e-6)
EXTENSION_BINS = 64


def binary(probabilities: Masks, *, complete: bool) -> Masks:
    """Return the paper's masks: one where the probability is above one half.

    With a `complete` set of stems, a bin claimed by several goes to all of them in equal parts, and a bin
    claimed by none to the most probable one.
    """
    claims = probabilities > 0.5
    if complete:
        best = probabilities.argmax(axis=0) == np.arange(len(claims))[:, None, None]
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
    claims = np.maximum(probabilities, TINY)
    # Relative to the strongest, of which no power is too small for a float.
    claims = (claims / claims.max(axis=0)) ** np.float32(power)
    masks: Masks = claims / claims.sum(axis=0)
    return masks


def extend(masks: Masks, bins: int) -> Masks:
    """Extend masks above the network's band up to `bins`.

    Above it a frame's mask is the mean of the band's top 64 bins (some 1.4 kHz). Being a mean it
    keeps what the masks add up to.
    """
    missing = bins - masks.shape[-1]
    top = masks[..., -EXTENSION_BINS:].mean(axis=-1, keepdims=True)
    return np.concatenate([masks, np.repeat(top, missing, axis=-1)], axis=-1)
