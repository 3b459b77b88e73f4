"""Chroma: the strength of each pitch class during each beat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stemsplit.analysis.frames import Pitches

LOUDEST_SHARE = 100.0
"""Scale of the log compression: a pitch 40 dB below the loudest one keeps 15 % of its level."""
OCTAVE = 13
"""Width in semitones of the local mean, which notes exceed but noise does not."""
BLOCK = 1000
"""Number of frames to compute at once, which limits the memory for long recordings."""
MELODY, BASS, ALL = (44, 84), (24, 55), (20, 72)
"""MIDI note ranges of chords, of bass, and of both; weights fall off toward both ends."""
LASTING = 5
"""Length of the running median in frames: about half a second."""

Array = NDArray[np.float64]


def semitones(spectra: NDArray[np.float32]) -> Array:
    """Return magnitudes `(frame, semitone)` from spectra of `Pitches`, at the recording's tuning."""
    count = spectra.shape[1]
    if not len(spectra):
        return np.zeros((0, count // 3))
    blocks = np.array_split(spectra, len(spectra) // BLOCK + 1)
    thirds = sum(_above(block).reshape(-1, 3).sum(axis=0, dtype=np.float64) for block in blocks)
    angle = np.angle(thirds @ np.exp(2j * np.pi * (np.arange(3) - 1) / 3))
    centres = 3 * np.arange(count // 3) + 1 + 3 * angle / (2 * np.pi)
    weights = np.maximum(0, 1 - np.abs(np.arange(count)[:, None] - centres) / 1.5)
    return np.concatenate([block @ weights for block in blocks])


def _above(spectra: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return spectra minus their median, with negative values set to 0."""
    above: NDArray[np.float32] = np.maximum(spectra - np.median(spectra, axis=1, keepdims=True), 0)
    return above


def lasting(magnitudes: Array) -> Array:
    """Return running medians over frames `(frame, semitone)`, without drums, glides and short notes."""
    from scipy.ndimage import median_filter

    return np.asarray(median_filter(magnitudes, (LASTING, 1), mode="nearest"), np.float64)


def during(magnitudes: Array, bounds: Array) -> Array:
    """Return the means `(interval, semitone)` of the frames between successive bounds in seconds."""
    stretches = len(bounds) - 1
    if not len(magnitudes):
        return np.zeros((stretches, magnitudes.shape[1]))
    times = Pitches.seconds(np.arange(len(magnitudes), dtype=np.float64))
    edges = np.searchsorted(times, bounds)
    sums = np.concatenate([np.zeros((1, magnitudes.shape[1])), np.cumsum(magnitudes, axis=0)])
    first = np.minimum(edges[:-1], len(magnitudes) - 1)  # a short interval gets the next frame
    last = np.maximum(edges[1:], first + 1)
    means: Array = (sums[last] - sums[first]) / (last - first)[:, None]
    return means


def salience(magnitudes: Array) -> Array:
    """Return by how much the log level of each semitone exceeds the local mean."""
    level = np.log1p(LOUDEST_SHARE * magnitudes / max(loudest(magnitudes), 1e-9))
    around = np.lib.stride_tricks.sliding_window_view(
        np.pad(level, ((0, 0), (OCTAVE // 2, OCTAVE // 2)), mode="edge"), OCTAVE, axis=1
    )
    return np.asarray(np.maximum(level - around.mean(axis=-1), 0), np.float64)


def loudest(magnitudes: Array) -> float:
    """Return the loudest pitch's magnitude, as a 90th percentile over time."""
    return float(np.quantile(magnitudes.max(axis=1), 0.9)) if len(magnitudes) else 0.0


def chroma(saliences: Array, notes: tuple[int, int]) -> Array:
    """Return the chroma `(interval, 12)`, from C on, of a range of notes; rows have norm 1, or 0."""
    numbers = Pitches.LOWEST + np.arange(saliences.shape[1])
    middle, half = sum(notes) / 2, (notes[1] - notes[0]) / 2
    weights = 0.5 + 0.5 * np.cos(np.pi * np.clip((numbers - middle) / half, -1, 1))
    folded = (saliences * weights) @ (numbers[:, None] % 12 == np.arange(12))
    rows: Array = folded / np.maximum(np.linalg.norm(folded, axis=1, keepdims=True), 1e-9)
    return rows
