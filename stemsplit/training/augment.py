"""Augmentation: random changes to training songs.

The input of most networks is STFT magnitudes, for which changes of tempo and pitch are cheap: see `Warp`.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import soxr
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stemsplit.dsp.stft import Floats, Stft

LENGTHS = 64
"""Frame lengths at other pitches are multiples of n_fft / LENGTHS."""
CURVE_TERMS = 4
"""Terms of an equalizer curve, a sum of cosines over a logarithmic frequency axis."""
NOISE_RANGE_DB = 30.0
MONO, ONE_SIDED = 0.4, 0.15
"""Fractions of changed stereo images that become mono or one-sided; the others change in width."""
SIDE_DB = (-60.0, 6.0)
"""Minimum and maximum gain of the side signal, if the width changes."""
WEAK_DB = -100.0
"""Minimum gain of the weaker channel, if the image is one-sided."""


@dataclass(frozen=True)
class Warp:
    """A change of tempo and pitch, applied in the STFT of an excerpt.

    Tempo: the hop length is multiplied by `tempo`. Pitch: the frame length is multiplied by `pitch`; a longer
    frame keeps only its lowest bins, a shorter one is zero-padded at the top. Frame lengths are multiples of
    n_fft / 64, which are fast to transform; this limits the pitch accuracy to 1/7 of a semitone (1/6 at three
    semitones down). Magnitudes match those of the changed audio. Phases are not continuous between frames, so
    that an inverse transform sounds rough, for stems and mixture alike.
    """

    tempo: float = 1.0
    pitch: float = 1.0

    def _hop_length(self, stft: Stft) -> int:
        return round(stft.hop_length * self.tempo)

    def _length(self, stft: Stft) -> int:
        """Return the frame length in samples."""
        step = max(2, stft.n_fft // LENGTHS)
        return step * round(stft.n_fft * self.pitch / step)

    def samples(self, stft: Stft, frames: int) -> int:
        """Return the number of samples that `frames` frames need."""
        return (frames - 1) * self._hop_length(stft) + self._length(stft)

    def transform(self, stft: Stft, signal: Tensor) -> Tensor:
        """Return the spectra `(channel, frame, bin)` of a signal `(channel, time)`."""
        length = self._length(stft)
        frames = signal.unfold(-1, length, self._hop_length(stft))
        spectra = torch.fft.rfft(frames * _window(length, signal.device))[..., : stft.bins]
        return F.pad(spectra, (0, stft.bins - spectra.shape[-1]))

    def resample(self, signal: Tensor, samples: int) -> Tensor:
        """Return `samples` samples of a signal `(channel, time)`, resampled to change its pitch and tempo."""
        if self.pitch != 1:
            changed = soxr.resample(signal.T.cpu().numpy(), self.pitch, 1.0, quality="MQ").T
            signal = torch.from_numpy(changed).to(signal.device)
        return F.pad(signal, (0, max(0, samples - signal.shape[-1])))[:, :samples]


@dataclass(frozen=True)
class Image:
    """A change of the stereo image: a gain of the side signal, then gains of left and right."""

    side: float = 1.0
    left: float = 1.0
    right: float = 1.0

    def apply(self, parts: Tensor) -> None:
        """Change parts `(part, channel, ...)` in place; a `side` of 0 makes both channels exactly equal."""
        if self == Image():
            return
        left, right = parts[:, 0], parts[:, 1]
        mid, side = (left + right) / 2, (left - right) * (self.side / 2)
        torch.mul(mid + side, self.left, out=left)
        torch.mul(mid - side, self.right, out=right)


@functools.lru_cache(maxsize=8)
def _curves(bins: int) -> Floats:
    """Return cosines over a logarithmic frequency axis, `(term, bin)`."""
    octaves = np.log1p(99 * np.arange(bins) / bins) / math.log(100)
    curves: Floats = np.cos(np.pi * np.arange(1, CURVE_TERMS + 1)[:, None] * octaves).astype(np.float32)
    return curves


@functools.lru_cache(maxsize=128)
def _window(length: int, device: torch.device) -> Tensor:
    """Return a Hann window scaled as in `Stft`: a full-scale sine has magnitude one."""
    window = torch.hann_window(length, device=device, dtype=torch.float64)
    return (window * (2 / window.sum())).float()


@dataclass(frozen=True)
class Augmentation:
    """Probabilities and strengths of all changes; 0 means never. Validation uses `Augmentation.none()`."""

    across: float = 0.6
    """Probability that the stems of an example are from different songs."""
    gain_db: float = 6.0
    """Standard deviation of a stem's gain in dB, when the stems come from different songs."""
    gain_within_db: float = 2.0
    """The same when the stems come from one song, whose balance is already realistic."""
    level_db: tuple[float, float] = (-15.0, 3.0)
    """Minimum and maximum gain of all stems together, in dB."""
    swap: float = 0.5
    """Probability that left and right are swapped, for all stems of a song together."""
    width: float = 0.5
    """Probability that the stereo image changes: mono, narrower, wider, one-sided; for all stems together."""
    polarity: float = 0.0
    """Probability that a stem's polarity is inverted."""
    drop: float = 0.0
    """Probability that a stem is dropped, with silence as its target; never all audible parts."""
    equalise_db: float = 0.0
    """Root mean square, in dB, of a smooth random curve over frequency, drawn for each stem."""
    pitch: float = 0.0
    """Maximum pitch shift, up or down, in semitones, for all stems of a song together."""
    stretch: float = 0.0
    """Maximum change of tempo, as a fraction, for all stems of a song together."""
    voiced: float = 0.0
    """Probability that the first stem must be audible; in other examples it can be silent."""
    noise_db: float | None = None
    """Maximum level of added white noise in dB, relative to the mixture. The noise belongs to no stem."""

    @classmethod
    def none(cls) -> Augmentation:
        """Return the augmentation that changes nothing."""
        return cls(across=0.0, gain_db=0.0, gain_within_db=0.0, level_db=(0.0, 0.0), swap=0.0, width=0.0)

    def warp(self, rng: np.random.Generator) -> Warp:
        """Draw a change of tempo and pitch, symmetric on a logarithmic scale."""
        tempo = (1 + self.stretch) ** rng.uniform(-1, 1) if self.stretch else 1.0
        pitch = 2 ** (rng.uniform(-self.pitch, self.pitch) / 12) if self.pitch else 1.0
        return Warp(tempo, pitch)

    def image(self, rng: np.random.Generator) -> Image:
        """Draw a change of the stereo image."""
        if rng.random() >= self.width:
            return Image()
        kind = rng.random()
        if kind < MONO:
            return Image(side=0.0)
        if kind < MONO + ONE_SIDED:
            weak = 10 ** (rng.uniform(WEAK_DB, 0) / 20)
            return Image(left=weak) if rng.random() < 0.5 else Image(right=weak)
        return Image(side=10 ** (rng.uniform(*SIDE_DB) / 20))

    def factors(
        self, rng: np.random.Generator, audible: NDArray[np.bool_], bins: int, *, across: bool
    ) -> Floats:
        """Draw the gains of each part, `(part, bin)`, or `(part, 1)` for all bins.

        They combine level, polarity and equalizer, and are 0 for dropped stems. The last part, the residual,
        is never dropped. `audible` `(part)` is True for parts that are not silent.
        """
        parts = len(audible)
        gains_db = rng.normal(0, self.gain_db if across else self.gain_within_db, (parts, 1))
        gains_db = gains_db + rng.uniform(*self.level_db)
        if self.equalise_db:
            weights = rng.normal(0, self.equalise_db * math.sqrt(2 / CURVE_TERMS), (parts, CURVE_TERMS))
            gains_db = gains_db.astype(np.float32) + weights.astype(np.float32) @ _curves(bins)
        signs = np.where(rng.random((parts, 1)) < self.polarity, -1.0, 1.0)
        dropped = np.append(rng.random(parts - 1) < self.drop, False)
        if not dropped[audible].all():
            signs[dropped] = 0
        return (signs * np.exp(gains_db * (math.log(10) / 20))).astype(np.float32)

    def add_noise(self, rng: np.random.Generator, stft: Stft | None, mixture: Tensor) -> None:
        """Add white noise to a mixture `(channel, ...)`, up to 30 dB below `noise_db`."""
        if self.noise_db is None:
            return
        channels, length, *bins = mixture.shape
        samples = stft.samples(length) if stft else length
        noise = torch.from_numpy(rng.standard_normal((channels, samples), dtype=np.float32))
        noise = noise.to(mixture.device)
        if stft:
            noise = Warp().transform(stft, noise)[..., : bins[0]]
        level_db = self.noise_db - rng.uniform(0, NOISE_RANGE_DB)
        power = mixture.abs().square().mean() / noise.abs().square().mean()
        mixture += noise * (10 ** (level_db / 20) * power.sqrt())
