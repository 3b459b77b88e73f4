"""PROJET: separation by projections of the stereo mixture.

D. FitzGerald, A. Liutkus, R. Badeau: "PROJET - spatial audio separation using projections", IEEE
International Conference on Acoustics, Speech and Signal Processing (ICASSP), 2016; "Projection-based demixing
of spatial audio", IEEE/ACM Transactions on Audio, Speech, and Language Processing 24(9), 2016.

Mixing model: source j has the power P_j(f, t), and is distributed over positions l, each with an angle and a
delay, in the proportions Q_lj. A projection m of the mixture, u_m^H x(f, t), has a null at one position; its
gain for a position l is K_ml = |u_m^H a_l|^alpha. For alpha-stable sources, the alpha-th power of
projections is

    |u_m^H x(f, t)|^alpha  ~  sum_j P_j(f, t) sum_l K_ml Q_lj,

a factorization with known K. Sources can overlap in a bin: a projection with its null at one of them gives
the power of the other. Limits: sources do not move, and delays between channels are limited to those in the
grid of positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stemsplit.dsp.stft import Spectra, Stft
from stemsplit.separation.separator import Samples
from stemsplit.separation.spectral import SpectralSeparator
from stemsplit.spatial import names
from stemsplit.spatial.positions import WIDTH_DEGREES, spectra

Floats = NDArray[np.float32]

TINY = np.float32(1e-12)
REST_SOURCES = 4
"""Number of sources that model the residual; one cannot model different sounds at several positions."""
SEGMENT_FRAMES = 48
"""Number of frames to separate at a time, limited by the memory for their projections."""


@dataclass(frozen=True)
class Projet:
    """Fits `sources` spatial distributions to a mixture, and separates its projections with them.

    The distributions are fitted on `frames` frames spread over the mixture, whatever its length. The powers
    in each bin are then computed during separation, independently of other bins.
    """

    sources: int = 4
    azimuths: tuple[float, ...] = ()
    """Positions of the sources in degrees, if given; everything else is the last stem, the residual."""
    width: float = WIDTH_DEGREES
    """Maximum distance of these sources from `azimuths`, in degrees."""
    n_fft: int = 4096
    hop_length: int = 1024
    alpha: float = 1.0
    """Exponent of the stable distributions: 2 is Gaussian, 1 is Cauchy."""
    beta: float = 1.0
    """Parameter of the beta-divergence to minimize: 2 Euclidean, 1 Kullback-Leibler, 0 Itakura-Saito."""
    angles: int = 61
    """Number of positions between left and right."""
    delays: tuple[float, ...] = (0.0,)
    """Possible delays of the right channel, in samples."""
    projections: int = 15
    """Number of projections for each delay; their nulls are at different angles."""
    iterations: int = 100
    inner_iterations: int = 15
    """Number of updates of the powers during separation."""
    frames: int = 150
    seed: int = 0

    @property
    def stems(self) -> tuple[str, ...]:
        """The names of the stems, from left to right."""
        return names(self.sources, self.azimuths)

    def fit(self, mixture: Iterable[Samples], sample_rate: int) -> SpectralSeparator:
        """Return a separator for a mixture in blocks `(channel, time)`.

        Raises:
            StemsplitError: it is mono or silent.
        """
        stft = Stft(self.n_fft, self.hop_length)
        grid = _Grid(self, stft.bins)
        projections = grid.powers(_thinned(spectra(mixture, stft), self.frames))
        spread = self._start(projections, grid)
        powers = np.ones((len(projections), spread.shape[1], projections.shape[2]), np.float32)
        for _ in range(self.iterations):
            heard: Floats = grid.kernel @ spread
            powers *= _step(heard, powers, projections, self.beta)
            weighted, expected = _weighted(heard @ powers, projections, self.beta)
            turned, back = grid.kernel.transpose(0, 2, 1), powers.transpose(0, 2, 1)
            above = (turned @ (weighted @ back)).sum(axis=0)
            below = (turned @ (expected @ back)).sum(axis=0)
            spread *= above / np.maximum(below, TINY)
            scale = np.maximum(spread.sum(axis=0), TINY)
            spread /= scale
            powers *= scale[:, None]
        centres = (grid.angles[:, None] * spread).sum(axis=0)
        if not self.azimuths:
            order = np.argsort(centres, kind="stable")
            centres, spread = centres[order], spread[:, order]
        heard = grid.kernel @ spread
        stems = [slice(j, j + 1) for j in range(self.sources - 1)] + [slice(self.sources - 1, None)]

        def share(spectrum: Spectra) -> Spectra:
            return grid.shares(spectrum, heard, stems, self.beta, self.inner_iterations)

        where = ", ".join(f"{angle:.0f}" for angle in centres)
        how = f"around {where} degrees"
        return SpectralSeparator(self.stems, sample_rate, stft, share, how, SEGMENT_FRAMES)

    def _start(self, projections: Floats, grid: _Grid) -> Floats:
        """Return initial distributions: one range of angles per source, all with the same energy.

        The ranges overlap a little and are slightly uneven, because multiplicative updates keep zeros at zero
        and equal values equal. If `azimuths` are given, their sources come first; these stay near their
        azimuths, and the others stay away from them.
        """
        distance = np.abs(grid.angles[:, None] - np.array(self.azimuths))
        nearest = distance == distance.min(axis=1, keepdims=True, initial=np.inf)
        named = nearest & (distance <= max(self.width, 90 / (self.angles - 1)))
        free = ~named.any(axis=1)
        sources = REST_SOURCES if self.azimuths else self.sources
        # The power that a projection removes measures the energy at its null.
        loss = projections.mean(axis=(0, 2)).reshape(len(self.delays), -1).min(axis=0)
        energy = free * np.interp(grid.angles, grid.deaf_angles, loss.max() - loss) + TINY
        shares = np.cumsum(energy) / energy.sum()
        own = np.minimum((shares * sources).astype(int), sources - 1)
        spread = np.where(own[:, None] == np.arange(sources), 1.0, 0.1) * free[:, None]
        spread *= 1 + 0.1 * np.random.default_rng(self.seed).random(spread.shape)
        spread = np.column_stack([named, spread])
        found: Floats = (spread / spread.sum(axis=0)).astype(np.float32)
        return found


class _Grid:
    """Positions, projections, and `kernel`, the projections' gains for the positions.

    Arrays are `(group, ..., column)`. With delays, each bin is a group with a separate kernel, and columns
    are frames. Without delays, all bins share one kernel; each frame is a group, and columns are bins.
    """

    def __init__(self, method: Projet, bins: int) -> None:
        apart = np.linspace(-45, 45, method.angles)
        self.deaf_angles = np.linspace(-45, 45, method.projections)
        self.angles = np.repeat(apart, len(method.delays))
        self._alpha = np.float32(method.alpha)
        self.together = method.delays == (0.0,)
        omega = np.zeros(1) if self.together else np.linspace(0, np.pi, bins)
        places = _directions(self.angles, np.tile(method.delays, method.angles), omega)
        deaf = np.tile(self.deaf_angles, len(method.delays))
        self._projectors = _deaf_to(deaf, np.repeat(method.delays, method.projections), omega)
        self.kernel: Floats = (np.abs(self._projectors @ places) ** method.alpha).astype(np.float32)
        self._back = np.linalg.pinv(self._projectors).astype(np.complex64)
        self._projectors = self._projectors.astype(np.complex64)

    def grouped(self, spectrum: Spectra) -> Spectra:
        """Return spectra `(channel, frame, bin)` as `(group, channel, column)`."""
        grouped: Spectra = spectrum.transpose((1, 0, 2) if self.together else (2, 0, 1))
        return grouped

    def powers(self, spectrum: Spectra) -> Floats:
        """Return the alpha-th powers of the projections, `(group, projection, column)`."""
        powers: Floats = np.abs(self._projectors @ self.grouped(spectrum)) ** self._alpha
        return powers

    def shares(
        self, spectrum: Spectra, heard: Floats, stems: Sequence[slice], beta: float, iterations: int
    ) -> Spectra:
        """Return each stem's part of spectra `(channel, frame, bin)`; a stem is one or several sources."""
        projected = self._projectors @ self.grouped(spectrum)
        measured = np.abs(projected) ** self._alpha
        powers = np.repeat(measured.mean(axis=1, keepdims=True), heard.shape[2], axis=1) + TINY
        for _ in range(iterations):
            powers *= _step(heard, powers, measured, beta)
        relative = projected / np.maximum(heard @ powers, TINY)
        found = np.empty((len(stems), *spectrum.shape), np.complex64)
        for stem, sources in zip(found, stems, strict=True):
            image = self._back @ (relative * (heard[:, :, sources] @ powers[:, sources]))
            stem[:] = image.transpose((1, 0, 2) if self.together else (1, 2, 0))
        return found


def _directions(
    degrees: NDArray[np.float64], delays: NDArray[np.float64], omega: NDArray[np.float64]
) -> Spectra:
    """Return the left and right gains of a source at each position, `(frequency, channel, position)`."""
    turned = np.radians(degrees + 45)
    later = np.exp(-1j * omega[:, None] * delays)
    return np.stack([np.cos(turned) * np.ones_like(later), np.sin(turned) * later], axis=1)


def _deaf_to(
    degrees: NDArray[np.float64], delays: NDArray[np.float64], omega: NDArray[np.float64]
) -> Spectra:
    """Return projections with nulls at the positions, as rows u_m^H, `(frequency, position, channel)`."""
    turned = np.radians(degrees + 45)
    earlier = np.exp(1j * omega[:, None] * delays)
    return np.stack([-np.sin(turned) * np.ones_like(earlier), np.cos(turned) * earlier], axis=2)


def _weighted(model: Floats, measured: Floats, beta: float) -> tuple[Floats, Floats]:
    """Return model^(beta - 2) * measured and model^(beta - 1), the factors of the updates."""
    model = np.maximum(model, TINY)
    if beta == 1:
        return measured / model, np.ones_like(model)
    return measured * model ** np.float32(beta - 2), model ** np.float32(beta - 1)


def _step(heard: Floats, powers: Floats, measured: Floats, beta: float) -> Floats:
    """Return the factor of a multiplicative update of the powers.

    It is the usual factor to the power of 7/4, which converges almost twice as fast. For beta in [1, 2],
    exponents below 2 converge (R. Badeau, N. Bertin, E. Vincent: "Stability analysis of multiplicative update
    algorithms and application to nonnegative matrix factorization", IEEE Transactions on Neural Networks
    21(12), 2010).
    """
    weighted, expected = _weighted(heard @ powers, measured, beta)
    turned = heard.transpose(0, 2, 1)
    factor = (turned @ weighted) / np.maximum(turned @ expected, TINY)
    root = np.sqrt(factor)
    relaxed: Floats = factor * root * np.sqrt(root)
    return relaxed


def _thinned(pieces: Iterable[Spectra], most: int) -> Spectra:
    """Return up to `most` evenly spaced frames of a song: `(channel, frame, bin)`."""
    kept: list[Spectra] = []
    apart, position = 1, 0
    for piece in pieces:
        for frame in range(piece.shape[1]):
            if position % apart == 0:
                kept.append(piece[:, frame].copy())
                if len(kept) > most:
                    kept, apart = kept[::2], 2 * apart
            position += 1
    return np.stack(kept, axis=1)
