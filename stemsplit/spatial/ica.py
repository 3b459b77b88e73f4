"""Independent component analysis of two channels.

A. Hyvarinen, E. Oja: "Independent component analysis: algorithms and applications", Neural Networks 13(4-5),
2000: whitening (section 5.2), and kurtosis as the measure of non-Gaussianity (section 4.2). P. Comon:
"Independent component analysis, a new concept?", Signal Processing 36(3), 1994: for two sources the sum of
squared fourth-order cumulants is a function of one angle.

Mixing model: two sources, mixed instantaneously, x(t) = A s(t) with a 2 x 2 matrix A. Limits: no delays, no
reverberation, no more sources than channels, and at most one source with Gaussian kurtosis.

The order and scale of components are arbitrary. Here they are ordered from left to right, and scaled as in
the mixture: component j is A_j s_j(t), so that they sum to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stemsplit.errors import StemsplitError, UsageError
from stemsplit.separation.separator import Samples, Spec
from stemsplit.spatial import names
from stemsplit.spatial.positions import TRAINED, checked

ANGLES = 3600
"""Number of rotations to try, 0.025 degrees apart, up to a quarter turn, after which they repeat."""


@dataclass(frozen=True)
class Ica:
    """Finds the two directions in the left-right plane in which a mixture is least Gaussian.

    Only the moments of the mixture up to the fourth order are needed. They are summed block by block, with
    the same result as for the whole mixture.
    """

    sources: int = 2
    azimuths: tuple[float, ...] = ()
    """Always empty, because the method finds the positions itself."""

    def __post_init__(self) -> None:
        if self.azimuths:
            raise UsageError("ICA finds its own positions", "choose adress, duet or projet")
        if self.sources != 2:
            raise UsageError("ICA finds as many sources as there are channels: two", "choose 2 sources")

    @property
    def stems(self) -> tuple[str, ...]:
        """The names of the stems, from left to right."""
        return names(self.sources)

    def fit(self, mixture: Iterable[Samples], sample_rate: int) -> Mixtures:
        """Return a separator for a mixture in blocks `(channel, time)`.

        Raises:
            StemsplitError: it is mono or silent, or has one position only.
        """
        moments, length = np.zeros((5, 5)), 0
        for block in checked(mixture):
            left, right = block.astype(np.float64)
            powers = np.stack([np.stack([left**i, right**i]) for i in range(5)])
            for i in range(5):
                for j in range(5 - i):
                    moments[i, j] += powers[i, 0] @ powers[j, 1]
            length += block.shape[1]
        moments /= length
        # Not centered: the mean of audio is close to zero, and belongs to no source.
        covariance = np.array([[moments[2, 0], moments[1, 1]], [moments[1, 1], moments[0, 2]]])
        variances, axes = np.linalg.eigh(covariance)
        if variances[0] < 1e-10 * variances[1]:
            raise StemsplitError("All sound comes from one position", TRAINED)
        unmixing = _rotation(moments, (axes / np.sqrt(variances)).T) @ (axes / np.sqrt(variances)).T
        mixing = np.linalg.inv(unmixing)
        angles = np.degrees(np.arctan2(np.abs(mixing[1]), np.abs(mixing[0]))) - 45
        order = np.argsort(angles, kind="stable")
        images = np.stack([np.outer(mixing[:, j], unmixing[j]) for j in order])
        where = ", ".join(f"{angles[j]:.0f}" for j in order)
        return Mixtures(self.stems, sample_rate, images.astype(np.float32), f"positions at {where} degrees")


@dataclass(frozen=True)
class Mixtures:
    """Computes each stem as a mix of the channels, with `matrices` `(stem, channel, channel)`."""

    stems: tuple[str, ...]
    sample_rate: int
    matrices: NDArray[np.float32]
    how: str

    @property
    def spec(self) -> Spec:
        """Each sample is separated independently."""
        return Spec(self.stems, self.sample_rate, context=0, stride=1, how=self.how)

    def separate(self, window: Samples) -> Samples:
        """Return the stems `(stem, channel, time)` of a window, which has no context."""
        stems: Samples = np.einsum("sij,jt->sit", self.matrices, window)
        stems[-1] = window - stems[:-1].sum(axis=0)
        return stems


def _rotation(moments: NDArray[np.float64], whitening: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rotation that makes the whitened channels least Gaussian.

    The fourth-order cumulants of z = W x are computed from the mixture's moments: W is applied to each of the
    four axes of the moment tensor, and the moments of a Gaussian with unit covariance are subtracted.
    """
    counts = np.indices((2, 2, 2, 2)).sum(axis=0)
    tensor = moments[4 - counts, counts]
    white = np.einsum("abcd,ia,jb,kc,ld->ijkl", tensor, *[whitening] * 4)
    eye = np.eye(2)
    for pairs in ("ij,kl->ijkl", "ik,jl->ijkl", "il,jk->ijkl"):
        white -= np.einsum(pairs, eye, eye)
    turns = np.linspace(0, np.pi / 2, ANGLES, endpoint=False)
    first = np.stack([np.cos(turns), np.sin(turns)])
    second = np.stack([-np.sin(turns), np.cos(turns)])
    contrast = sum(np.einsum("ijkl,in,jn,kn,ln->n", white, *[side] * 4) ** 2 for side in (first, second))
    best = int(np.argmax(contrast))
    return np.stack([first[:, best], second[:, best]])
