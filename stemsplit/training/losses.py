"""What the networks learn to make small: losses by name, and the measures they are judged by.

Notation, for one stem: S its magnitude, M the mixture's, p = sigmoid(logits) the network's mask, and
B = (S > T * M) the binary mask of O. Tkachuk's paper. Every loss is a weighted mean over the bins of the
examples in which the stem is known; where it is known in none, the loss is zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

TINY = 1e-12
SOFTENING = 1e-4
"""Of the mixture's energy (-40 dB): how far SI-SNR goes on counting. It also gives silent stems a loss."""


@dataclass(frozen=True)
class Truth:
    """What is true of one stem in a batch, in the frames that the network masks.

    Magnitudes `(example, frame, bin)`, spectra `(example, channel, frame, bin)` of the same bins, `known`
    `(example,)` one or zero.
    """

    mixture: Tensor
    stem: Tensor
    known: Tensor
    mixture_spectra: Tensor
    stem_spectra: Tensor
    """Spectra may lie on another device than the rest: only one loss wants them."""
    overlap: int = 4
    """Frames that cover each sample: n_fft / hop_length."""
    threshold: float = 0.5
    """T of the binary mask."""
    weighting: float = 1.0
    """Weighted losses weight a bin by M to this power: quiet bins are many and matter little."""

    @property
    def mask(self) -> Tensor:
        """The binary mask B, as zeros and ones."""
        return (self.stem > self.threshold * self.mixture).to(self.mixture.dtype)

    @property
    def alike(self) -> Tensor:
        """A weight of one for each bin of the known examples."""
        return self.known[:, None, None].expand_as(self.mixture)

    @property
    def by_magnitude(self) -> Tensor:
        """A weight of M ** weighting for each bin of the known examples, with mean one in each example."""
        weight = self.mixture**self.weighting
        weight = weight / weight.mean(dim=(1, 2), keepdim=True).clamp_min(TINY)
        return weight * self.known[:, None, None]


Loss = Callable[[Tensor, Truth], Tensor]
"""Maps logits `(example, frame, bin)` and the truth to a number."""


def mse(logits: Tensor, truth: Truth) -> Tensor:
    """Mean of (p - B) ** 2: the loss of the paper."""
    return _mean(torch.square(torch.sigmoid(logits) - truth.mask), truth.alike)


def bce(logits: Tensor, truth: Truth) -> Tensor:
    """Mean binary cross-entropy, -B log p - (1 - B) log(1 - p)."""
    return _mean(_cross_entropy(logits, truth.mask), truth.alike)


def weighted_bce(logits: Tensor, truth: Truth) -> Tensor:
    """Mean binary cross-entropy to B, a bin weighted by M ** weighting."""
    return _mean(_cross_entropy(logits, truth.mask), truth.by_magnitude)


def ratio(logits: Tensor, truth: Truth) -> Tensor:
    """Mean cross-entropy to the ratio min(S / M, 1) in place of B, a bin weighted by M ** weighting."""
    target = (truth.stem / truth.mixture.clamp_min(TINY)).clamp_max(1.0)
    return _mean(_cross_entropy(logits, target), truth.by_magnitude)


def magnitude_l1(logits: Tensor, truth: Truth) -> Tensor:
    """Sum of |p M - S| relative to the sum of M, over the known examples."""
    distance = (torch.sigmoid(logits) * truth.mixture - truth.stem).abs() * truth.known[:, None, None]
    return distance.sum() / (truth.mixture * truth.known[:, None, None]).sum().clamp_min(TINY)


def si_snr(logits: Tensor, truth: Truth) -> Tensor:
    """Mean negative SI-SNR in dB of the sound of p X against that of the stem, over the known examples.

    Y. Luo and N. Mesgarani, "TasNet", 2018, section 2.3: with e and s the inverse transforms of p X and of
    the stem, 10 log10(|a s| ** 2 / |e - a s| ** 2), a = <e, s> / <s, s>. All channels count as one signal.
    Both energies are raised by a ten-thousandth of the mixture's, within which nothing more can be won, so
    that a silent stem asks for silence instead of dividing by zero.
    """
    mixture = truth.mixture_spectra.to(logits.device)
    masked = _sound(torch.sigmoid(logits)[:, None] * mixture, truth.overlap)
    stem, whole = (_sound(x.to(logits.device), truth.overlap) for x in (truth.stem_spectra, mixture))
    scale = (masked * stem).sum(1, keepdim=True) / stem.square().sum(1, keepdim=True).clamp_min(TINY)
    floor = SOFTENING * whole.square().sum(1) + TINY
    wanted = (scale * stem).square().sum(1) + floor
    unwanted = (masked - scale * stem).square().sum(1) + floor
    return _mean(10 * torch.log10(unwanted / wanted), truth.known)


LOSSES: dict[str, Loss] = {
    "mse": mse,
    "bce": bce,
    "weighted-bce": weighted_bce,
    "ratio": ratio,
    "magnitude-l1": magnitude_l1,
    "si-snr": si_snr,
}


MEASURES = ("loss", "weighted_accuracy", "accuracy", "mse", "base_rate")


def weighted_accuracy(logits: Tensor, truth: Truth) -> Tensor:
    """Return the share of bins on the right side of one half, a bin weighted by M ** weighting."""
    return _mean(_right(logits, truth), truth.by_magnitude)


def measure(logits: Tensor, truth: Truth, loss: Loss) -> dict[str, Tensor]:
    """Return the `MEASURES`: the loss, and how well logits tell the binary mask.

    `accuracy` and `mse` are the paper's, over all bins alike; `base_rate` is the accuracy of an empty mask.
    """
    return {
        "loss": loss(logits, truth),
        "weighted_accuracy": weighted_accuracy(logits, truth),
        "accuracy": _mean(_right(logits, truth), truth.alike),
        "mse": mse(logits, truth),
        "base_rate": _mean(1 - truth.mask, truth.alike),
    }


def _right(logits: Tensor, truth: Truth) -> Tensor:
    return ((logits > 0) == (truth.mask > 0.5)).to(logits.dtype)


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none")


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp_min(TINY)


def _sound(spectra: Tensor, overlap: int) -> Tensor:
    """Return the signal `(example, channel and time)` of spectra `(example, channel, frame, bin)`.

    As if the band were the whole spectrum, hence at a lower sample rate, which costs less and, the rest of
    the spectrum being empty, changes no ratio of energies.
    """
    n_fft = 2 * (spectra.shape[-1] - 1)
    window = torch.hann_window(n_fft, device=spectra.device)
    frames = torch.fft.irfft(spectra, n_fft) * window
    frames = frames.unflatten(-1, (overlap, n_fft // overlap))  # (example, channel, frame, part, time)
    # Part i of frame j belongs at j + i.
    parts = [F.pad(frames[..., part, :], (0, 0, part, overlap - 1 - part)) for part in range(overlap)]
    return torch.stack(parts).sum(dim=0).flatten(1)
