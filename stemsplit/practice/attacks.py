"""Drum attacks, preserved during time stretching."""

from __future__ import annotations

import numpy as np

from stemsplit.audio.reader import Block
from stemsplit.practice.joints import crossfade
from stemsplit.practice.onsets import onsets

BEFORE_SECONDS, AFTER_SECONDS = 0.010, 0.045
RISE_SECONDS, FALL_SECONDS = 0.005, 0.015
"""The part that is copied around an attack, and the fades at both ends of the copy."""


def with_attacks(sound: Block, original: Block, shift: float, rate: float, sample_rate: int) -> Block:
    """Return stretched drums with the attacks of the original copied into them.

    Frame `n` of the original is at frame `(n + shift) / rate` of the stretched sound.
    """
    before, after, rise, fall = (
        round(seconds * sample_rate)
        for seconds in (BEFORE_SECONDS, AFTER_SECONDS, RISE_SECONDS, FALL_SECONDS)
    )
    attacks = onsets(original, sample_rate)
    targets = np.rint((attacks + shift) / rate).astype(int)
    # A copy ends before the next one begins.
    lengths = np.minimum(after, np.diff(targets, append=sound.shape[1] + before) - before)
    whole = (
        (attacks >= before)
        & (attacks + lengths <= original.shape[1])
        & (targets >= before)
        & (targets + lengths <= sound.shape[1])
        & (lengths >= fall)
    )
    result: Block = sound.copy()
    for attack, target, length in zip(attacks[whole], targets[whole], lengths[whole], strict=True):
        copy = original[:, attack - before : attack + length]
        old = result[:, target - before : target + length]
        faded = [crossfade(old[:, :rise], copy[:, :rise]), crossfade(copy[:, -fall:], old[:, -fall:])]
        old[:] = np.concatenate([faded[0], copy[:, rise:-fall], faded[1]], axis=1)
    return result
