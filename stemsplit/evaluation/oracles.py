"""Oracles: masks and filters computed from the references, as upper bounds for each kind of separator.

Each uses the STFT of the network that it is compared with. They show how much of the error is due to the
network, and how much to masking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from stemsplit.datasets.songs import Song
from stemsplit.dsp.features import FLOOR, magnitude
from stemsplit.dsp.masks import extend_to_full_band
from stemsplit.dsp.stft import Spectra, Stft
from stemsplit.separation.separator import Samples

Oracle = Callable[[Song], Samples]
"""A function that returns the stems `(stem, channel, time)` of a song."""

DIFFUSE = np.float32(1e-4)
"""Share of diffuse sound in a source, which keeps the matrices of the Wiener filter invertible."""


def all_oracles(stft: Stft, bins: int, threshold: float) -> dict[str, Oracle]:
    """Return the oracles with a network's STFT and band; `threshold` is T of the binary mask."""
    return {
        "ideal binary": IdealMask(stft, bins, ideal_binary(threshold)),
        "ideal ratio": IdealMask(stft, bins, ideal_ratio),
        "ideal wiener": IdealWiener(stft),
    }


def ideal_binary(threshold: float) -> Callable[[Samples, Samples], Samples]:
    """Return the function that computes the network's training target, B = (S > T * M)."""
    return lambda stems, mixture: (stems > threshold * mixture).astype(np.float32)


def ideal_ratio(stems: Samples, mixture: Samples) -> Samples:
    """Return the masks S / sum(S)."""
    masks: Samples = stems / np.maximum(stems.sum(axis=0), np.float32(1e-9))
    return masks


@dataclass(frozen=True)
class IdealMask:
    """One mask per stem, the same for all channels.

    `rule` maps magnitudes of stems `(stem, frame, bin)` and of the mixture `(frame, bin)` to masks; they
    are extended above `bins` like a network's.
    """

    stft: Stft
    bins: int
    rule: Callable[[Samples, Samples], Samples]

    def __call__(self, song: Song) -> Samples:
        """Return the stems `(stem, channel, time)` of a song."""
        mixture = _spectra(self.stft, song.mixture)
        parts = song.parts[: len(song.known)]
        stems = np.stack([magnitude(_spectra(self.stft, part)[..., : self.bins]) for part in parts])
        masks = extend_to_full_band(self.rule(stems, magnitude(mixture)[..., : self.bins]), self.stft.bins)
        return np.stack([_signal(self.stft, mask * mixture, song.length) for mask in masks])


@dataclass(frozen=True)
class IdealWiener:
    """The multichannel Wiener filter for sources with known spectra (Duong, Vincent and Gribonval, 2010).

    In bin f and frame t, source j is Gaussian with covariance v_j(t, f) R_j(f). v_j is its power, the mean
    over channels of |S_j|**2, and R_j the covariance of its channels over the song, with a mean power of one.
    Unlike a mask, the filter v_j R_j (sum_k v_k R_k)**-1 also separates sources by their position in the
    stereo image. All parts of the song are sources, and their estimates sum to the mixture. The filter covers
    the full band, while masks are extended above the network's band.
    """

    stft: Stft

    def __call__(self, song: Song) -> Samples:
        """Return the stems `(stem, channel, time)` of a song."""
        models = [_gaussian(_spectra(self.stft, part)) for part in song.parts]
        left, right = _spectra(self.stft, song.mixture)
        # Explicit inverse of the sum of all covariances [[a, b], [b*, d]]: numpy's takes a minute per song.
        a, b, d = (
            np.sum([power * covariance[:, i, j] for power, covariance in models], axis=0)
            for i, j in ((0, 0), (0, 1), (1, 1))
        )
        determinant = (a * d - b * b.conj()).real
        whitened = np.stack([d * left - b * right, a * right - b.conj() * left]) / determinant
        del left, right, a, b, d, determinant
        known = models[: len(song.known)]
        return np.stack([_signal(self.stft, stem, song.length) for stem in _filtered(known, whitened)])


def _gaussian(spectra: Spectra) -> tuple[Samples, Spectra]:
    """Return a source's power `(frame, bin)` and covariance `(bin, channel, channel)`, both positive."""
    power = np.square(magnitude(spectra)) + np.float32(FLOOR**2)
    covariance = np.einsum("ctf,dtf->fcd", spectra, spectra.conj()) / power.sum(axis=0)[:, None, None]
    return power, (1 - DIFFUSE) * covariance + DIFFUSE * np.eye(len(spectra), dtype=np.float32)


def _filtered(models: list[tuple[Samples, Spectra]], whitened: Spectra) -> Iterator[Spectra]:
    """Yield v_j R_j w for each source; `w` is the mixture times the inverse covariance of all sources."""
    for power, covariance in models:
        yield power * np.einsum("fcd,dtf->ctf", covariance, whitened)


def _spectra(stft: Stft, signal: Samples) -> Spectra:
    """Return the spectra of a signal, zero-padded so that the inverse restores all of it."""
    return stft.transform(np.pad(signal.astype(np.float32), ((0, 0), (stft.n_fft, stft.n_fft))))


def _signal(stft: Stft, spectra: Spectra, length: int) -> Samples:
    """Return the inverse of `_spectra`, `length` samples long."""
    return stft.inverse(spectra)[:, stft.n_fft : stft.n_fft + length]
