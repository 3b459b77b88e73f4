"""Random changes to songs, for training to hear more music than there is.

Most networks read magnitudes of an STFT, so that a change of tempo or of pitch costs next to nothing: see
`Warp`.
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
"""The steps, in shares of n_fft, between the lengths of frames at other pitches."""
CURVE_TERMS = 4
"""Cosines over a logarithmic frequency axis that an equaliser's curve is the sum of."""
NOISE_RANGE_DB = 30.0
MONO, ONE_SIDED = 0.4, 0.15
"""Shares of the changed stereo images that become mono, or weaker on one side; the rest change in width."""
SIDE_DB = (-60.0, 6.0)
"""Least and greatest gain of the side signal, where the width changes."""
WEAK_DB = -100.0
"""Least gain of the weaker channel, where the image is one-sided."""


@dataclass(frozen=True)
class Warp:
    """A change of tempo and of pitch, made while an excerpt is analysed.

    A sound `tempo` times as fast has the frames of the sound as it is, taken that much further apart. A
    sound `pitch` times as high has in n_fft samples what the sound as it is has in that many times more: the
    spectrum of a longer frame, of which the lowest bins are kept, or of a shorter one, above which there is
    silence. Lengths are in 64ths of n_fft, which are quick to transform: a pitch is met within a seventh of a
    semitone, three semitones down within a sixth. Magnitudes are those of a sound so changed. Phases do not
    go on from one frame to the next as they would there: an inverse transform sounds rough, though alike for
    stems and mixture.
    """

    tempo: float = 1.0
    pitch: float = 1.0

    def _hop_length(self, stft: Stft) -> int:
        return round(stft.hop_length * self.tempo)

    def _length(self, stft: Stft) -> int:
        """Samples that a frame is made from."""
        step = max(2, stft.n_fft // LENGTHS)
        return step * round(stft.n_fft * self.pitch / step)

    def samples(self, stft: Stft, frames: int) -> int:
        """Return the number of samples that so many frames are made from."""
        return (frames - 1) * self._hop_length(stft) + self._length(stft)

    def transform(self, stft: Stft, signal: Tensor) -> Tensor:
        """Return the spectra `(channel, frame, bin)` of a signal `(channel, time)`."""
        length = self._length(stft)
        frames = signal.unfold(-1, length, self._hop_length(stft))
        spectra = torch.fft.rfft(frames * _window(length, signal.device))[..., : stft.bins]
        return F.pad(spectra, (0, stft.bins - spectra.shape[-1]))

    def resample(self, signal: Tensor, samples: int) -> Tensor:
        """Return so many samples of a signal `(channel, time)` at another pitch, and tempo with it."""
        if self.pitch != 1:
            changed = soxr.resample(signal.T.cpu().numpy(), self.pitch, 1.0, quality="MQ").T
            signal = torch.from_numpy(changed).to(signal.device)
        return F.pad(signal, (0, max(0, samples - signal.shape[-1])))[:, :samples]


@dataclass(frozen=True)
class Image:
    """A change of the stereo image: gains of the side signal, then of the left and right channel."""

    side: float = 1.0
    left: float = 1.0
    right: float = 1.0

    def apply(self, parts: Tensor) -> None:
        """Change parts `(part, channel, ...)` in place; with `side` 0 both channels become exactly equal."""
        if self == Image():
            return
        left, right = parts[:, 0], parts[:, 1]
        mid, side = (left + right) / 2, (left - right) * (self.side / 2)
        torch.mul(mid + side, self.left, out=left)
        torch.mul(mid - side, self.right, out=right)


@functools.lru_cache(maxsize=8)
def _curves(bins: int) -> Floats:
    """Return smooth curves `(term, bin)`: as much happens in a low octave as in a high one."""
    octaves = np.log1p(99 * np.arange(bins) / bins) / math.log(100)
    curves: Floats = np.cos(np.pi * np.arange(1, CURVE_TERMS + 1)[:, None] * octaves).astype(np.float32)
    return curves


@functools.lru_cache(maxsize=128)
def _window(length: int, device: torch.device) -> Tensor:
    """A Hann window scaled as those of `Stft`: a full-scale sine has magnitude one."""
    window = torch.hann_window(length, device=device, dtype=torch.float64)
    return (window * (2 / window.sum())).float()


@dataclass(frozen=True)
class Augmentation:
    """What is changed, how often and how much; nought is never. Validation has `Augmentation.none()`."""

    across: float = 0.6
    """Share of examples whose stems come from different songs."""
    gain_db: float = 6.0
    """Standard deviation of a stem's gain in dB, where the stems come from different songs."""
    gain_within_db: float = 2.0
    """The same where the stems come from one song, which has been mixed well already."""
    level_db: tuple[float, float] = (-15.0, 3.0)
    """Least and greatest gain of all stems together, in dB."""
    swap: float = 0.5
    """Probability that left and right change places: of all stems of a song together."""
    width: float = 0.5
    """Probability that the stereo image changes: mono, narrower, wider or one-sided; all stems together."""
    polarity: float = 0.0
    """Probability that a stem is turned upside down."""
    drop: float = 0.0
    """Probability that a stem is left out, its target being silence; never all that sounds."""
    equalise_db: float = 0.0
    """Root mean square, in dB, of a smooth random curve over frequency, for each stem another one."""
    pitch: float = 0.0
    """Greatest change of pitch, up or down, in semitones: of all stems of a song together."""
    stretch: float = 0.0
    """Greatest change of tempo, faster or slower, as a share of it: of all stems of a song together."""
    voiced: float = 0.0
    """Share of examples in which the first stem must sound; in the others it may, as it comes."""
    noise_db: float | None = None
    """Greatest level, over the mixture's own in dB, of white noise in it that is no stem's."""

    @classmethod
    def none(cls) -> Augmentation:
        """Return what leaves songs as they are."""
        return cls(across=0.0, gain_db=0.0, gain_within_db=0.0, level_db=(0.0, 0.0), swap=0.0, width=0.0)

    def warp(self, rng: np.random.Generator) -> Warp:
        """Draw a change of tempo and pitch; as often up as down, and by as large a factor."""
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
        """Draw what the spectra of each part are multiplied by, `(part, bin)`, or `(part, 1)` for all bins.

        That is gain, polarity and curve, and nought for what is dropped: stems only, so never the last part.
        `audible` `(part)` says where there is sound.
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
