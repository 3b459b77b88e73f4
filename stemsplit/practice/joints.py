"""Joints between renderings of the same sound, where they agree: without steps or dips in level."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stemsplit.audio.reader import Block

SILENCE = 1e-5
"""An amplitude below this is silence, in which any joint is good."""


@dataclass(frozen=True)
class Joint:
    """How segments of a sound overlap and are joined. All lengths are in frames."""

    segment: int
    overlap: int
    """The joint may be anywhere in the overlap."""
    fade: int
    lag: int = 0
    """Maximum shift of a segment to align its phase."""


def correlation(first: Block, second: Block) -> NDArray[np.float64]:
    """Return the normalized correlation of `first` with each part of `second` of the same length.

    Both are `(channel, time)`. 1 means that the parts differ only in level.
    """
    length, lags = first.shape[1], second.shape[1] - first.shape[1] + 1
    size = 1 << (second.shape[1] - 1).bit_length()
    spectra = np.fft.rfft(second, size) * np.fft.rfft(first, size).conj()
    products = np.fft.irfft(spectra.sum(axis=0), size)[:lags]
    sums = np.concatenate([[0.0], np.square(second, dtype=np.float64).sum(axis=0).cumsum()])
    energies = np.maximum(sums[length:] - sums[:-length], 0)
    silent = first.size * SILENCE**2
    found: NDArray[np.float64] = (products + silent) / (
        np.sqrt(energies * np.square(first, dtype=np.float64).sum()) + silent
    )
    return found


def crossfade(first: Block, second: Block) -> Block:
    """Return a crossfade between two sounds of the same length, at a constant level.

    Equal-power gains would make correlated sounds louder in the middle of the fade. The gains are divided by
    this excess, so that equal sounds stay unchanged.
    """
    alike = float(np.clip(correlation(first, second)[0], 0, 1))
    angle = (np.arange(first.shape[1]) + 0.5) / first.shape[1] * np.pi / 2
    falling, rising = np.cos(angle), np.sin(angle)
    excess = np.sqrt(1 + 2 * alike * falling * rising)
    faded: Block = ((falling * first + rising * second) / excess).astype(np.float32)
    return faded


def joined(render: Callable[[int, int], Block], frames: int, joint: Joint) -> Iterator[Block]:
    """Yield `frames` frames of a sound that is rendered in segments, in blocks of about a segment or less.

    `render(start, stop)` returns these frames, `(channel, time)`. Renderings of the same frames may differ in
    phase, so each joint is where the two are most similar.
    """
    begin, boundary = 0, joint.segment
    held = render(0, min(frames, boundary + joint.overlap))
    while boundary + joint.overlap < frames:
        end = min(frames, boundary + joint.segment + joint.overlap)
        following = render(boundary - joint.lag, end + joint.lag)
        old = boundary - begin
        at, lag = _best(held[:, old:], following, joint)
        new = at + lag
        yield held[:, : old + at]
        yield crossfade(held[:, old + at : old + at + joint.fade], following[:, new : new + joint.fade])
        begin = boundary + at + joint.fade
        held = following[:, new + joint.fade :][:, : end - begin]
        boundary += joint.segment
    yield held


def _best(first: Block, second: Block, joint: Joint) -> tuple[int, int]:
    """Return the position of the best joint, and the lag of `second` there, counted from 0."""
    found = []
    for at in range(0, joint.overlap - joint.fade + 1, max(1, joint.fade // 4)):
        window = second[:, at : at + joint.fade + 2 * joint.lag]
        alike = correlation(first[:, at : at + joint.fade], window)
        lag = int(alike.argmax())
        found.append((alike[lag], at, lag))
    _, at, lag = max(found)
    return at, lag
