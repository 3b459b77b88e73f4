"""Training losses by name, and validation measures.

Mask losses take logits. Notation: S is a stem's magnitude, M the mixture's, X the mixture's spectrum,
p = sigmoid(logits) the network's mask, and B = (S > T * M) the binary mask of O. Tkachuk's paper. Signal
losses take estimates E of the stems; there S is the stem itself, as spectrum or waveform. Every loss is a
weighted mean over the known stems of the examples; without any, it is zero.

Shapes: logits and estimates are `(example, stem, channel, ...)`, with `frame, bin` for the dots, or `time`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

TINY = 1e-12
SOFTENING = 1e-4
"""Floor of SI-SNR relative to the mixture's energy (-40 dB), which keeps it finite for silent stems."""
ALPHA = 0.05
"""The weight alpha of the dissimilarity loss."""
FLOOR = 1e-3
"""Floor of error and stem energies in `snr`, relative to the mixture's energy (-30 dB)."""


@dataclass(frozen=True)
class Targets:
    """References for some stems of a batch, over the frames or samples of the network's output."""

    mixture_signal: Tensor
    """`(example, 1, channel, ...)`; spectra or waveforms, as the estimates."""
    stem_signal: Tensor
    """`(example, stem, channel, ...)`."""
    known: Tensor
    """`(example, stem)`, one or zero."""
    merged: bool = True
    """Whether one mask is used for all channels; their magnitude is then the root mean square."""
    overlap: int = 4
    """Number of frames that cover each sample: n_fft / hop_length."""
    threshold: float = 0.5
    """T of the binary mask."""
    weighting: float = 1.0
    """Weighted losses weight a bin by M to this power, because most bins are quiet and matter little."""
    taught: Tensor | None = None
    """A teacher's masks `(example, stem, channel, frame, bin)`."""

    @cached_property
    def mixture(self) -> Tensor:
        """The mixture's magnitudes `(example, 1, channel, frame, bin)`; one channel if `merged`."""
        return self._magnitude(self.mixture_signal)

    @cached_property
    def stem(self) -> Tensor:
        """The stems' magnitudes `(example, stem, channel, frame, bin)`."""
        return self._magnitude(self.stem_signal)

    def _magnitude(self, spectra: Tensor) -> Tensor:
        magnitude = spectra.abs()
        return magnitude.square().mean(dim=2, keepdim=True).sqrt() if self.merged else magnitude

    @property
    def mask(self) -> Tensor:
        """The binary mask B, as zeros and ones."""
        return (self.stem > self.threshold * self.mixture).to(self.mixture.dtype)

    @property
    def share(self) -> Tensor:
        """The teacher's mask, or the phase-sensitive one: Re(S / X), S the stem's spectrum, in [0, 1]."""
        if self.taught is not None:
            return self.taught
        stem, mixture = self.stem_signal, self.mixture_signal
        common, power = stem.real * mixture.real + stem.imag * mixture.imag, _power(mixture)
        if self.merged:
            common, power = common.mean(dim=2, keepdim=True), power.mean(dim=2, keepdim=True)
        return (common / power.clamp_min(TINY)).clamp(0, 1)

    @property
    def alike(self) -> Tensor:
        """A weight of one for each bin of known stems."""
        return self.known[:, :, None, None, None].expand_as(self.stem)

    @property
    def by_magnitude(self) -> Tensor:
        """A weight of M ** weighting for each bin of known stems, with a mean of one per example."""
        weight = self.mixture**self.weighting
        weight = weight / weight.mean(dim=(2, 3, 4), keepdim=True).clamp_min(TINY)
        return weight * self.alike


Loss = Callable[[Tensor, Targets], Tensor]
"""Maps logits or estimates `(example, stem, channel, ...)` and the targets to a scalar."""


def mse(logits: Tensor, targets: Targets) -> Tensor:
    """Mean of (p - B) ** 2: the loss of the paper."""
    return _mean(torch.square(torch.sigmoid(logits) - targets.mask), targets.alike)


def bce(logits: Tensor, targets: Targets) -> Tensor:
    """Mean binary cross-entropy, -B log p - (1 - B) log(1 - p)."""
    return _mean(_cross_entropy(logits, targets.mask), targets.alike)


def weighted_bce(logits: Tensor, targets: Targets) -> Tensor:
    """Mean binary cross-entropy to B, with bins weighted by M ** weighting."""
    return _mean(_cross_entropy(logits, targets.mask), targets.by_magnitude)


def ratio(logits: Tensor, targets: Targets) -> Tensor:
    """Mean cross-entropy to the ratio min(S / M, 1) instead of B, with bins weighted by M ** weighting."""
    target = (targets.stem / targets.mixture.clamp_min(TINY)).clamp_max(1.0)
    return _mean(_cross_entropy(logits, target), targets.by_magnitude)


def phase_sensitive(logits: Tensor, targets: Targets) -> Tensor:
    """Mean cross-entropy to `share`, with bins weighted by M ** weighting.

    H. Erdogan, J. R. Hershey, S. Watanabe and J. Le Roux, "Phase-sensitive and recognition-boosted speech
    separation using deep recurrent neural networks", ICASSP 2015: of all masks from 0 to 1, this one has the
    smallest error. A mask from magnitudes only, the target of `ratio`, is too large.
    """
    return _mean(_cross_entropy(logits, targets.share), targets.by_magnitude)


def magnitude_l1(logits: Tensor, targets: Targets) -> Tensor:
    """Sum of |p M - S| relative to the sum of M, over the known stems."""
    distance = (torch.sigmoid(logits) * targets.mixture - targets.stem).abs() * targets.alike
    return distance.sum() / (targets.mixture * targets.alike).sum().clamp_min(TINY)


def si_snr(logits: Tensor, targets: Targets) -> Tensor:
    """Mean negative SI-SNR in dB of the masked mixture p X in the time domain, over the known stems.

    Y. Luo and N. Mesgarani, "TasNet", 2018, section 2.3: with e and s the inverse transforms of p X and of
    the stem, 10 log10(|a s| ** 2 / |e - a s| ** 2), a = <e, s> / <s, s>. All channels count as one signal.
    1/10,000 of the mixture's energy is added to both energies. This bounds the loss, and keeps it finite for
    a silent stem, whose target is silence.
    """
    masked = _sound(torch.sigmoid(logits) * targets.mixture_signal, targets.overlap)
    stem, whole = (_sound(x, targets.overlap) for x in (targets.stem_signal, targets.mixture_signal))
    scale = (masked * stem).sum(-1, keepdim=True) / stem.square().sum(-1, keepdim=True).clamp_min(TINY)
    floor = SOFTENING * whole.square().sum(-1) + TINY
    wanted = (scale * stem).square().sum(-1) + floor
    unwanted = (masked - scale * stem).square().sum(-1) + floor
    return _mean(10 * torch.log10(unwanted / wanted), targets.known)


MASK_LOSSES: dict[str, Loss] = {
    "mse": mse,
    "bce": bce,
    "weighted-bce": weighted_bce,
    "ratio": ratio,
    "phase-sensitive": phase_sensitive,
    "magnitude-l1": magnitude_l1,
    "si-snr": si_snr,
}


def l1(estimates: Tensor, targets: Targets) -> Tensor:
    """Mean over known stems of the sum of |E - S| (complex modulus for spectra) relative to the mixture's."""
    return _relative(_modulus(estimates - targets.stem_signal), _modulus(targets.mixture_signal), targets)


def l2(estimates: Tensor, targets: Targets) -> Tensor:
    """Mean over known stems of the energy of E - S relative to the mixture's."""
    return _relative(_power(estimates - targets.stem_signal), _power(targets.mixture_signal), targets)


def snr(estimates: Tensor, targets: Targets) -> Tensor:
    """Mean over known stems of log(|E - S| ** 2 / |S| ** 2), with a floor of -30 dB of the mixture.

    Both energies are sums plus 0.001 of the mixture's energy. Apart from this floor, which keeps the loss
    finite for silent stems, it is the usual measure of separators. All stems have equal weight at any level.
    """
    return _snr(_power(estimates - targets.stem_signal), targets)


def snr_l1(estimates: Tensor, targets: Targets) -> Tensor:
    """`snr`, which depends mostly on the loudest bins, plus `l1`, which also depends on the others."""
    errors = _power(estimates - targets.stem_signal)  # the largest tensors of a step: computed only once
    return _snr(errors, targets) + _relative(
        (errors + TINY).sqrt(), _modulus(targets.mixture_signal), targets
    )


def l1_dissimilar(estimates: Tensor, targets: Targets) -> Tensor:
    """`l1` minus 1/20 of the same distance to the residual, from which an estimate should differ.

    F. Lluís, J. Pons and X. Serra, "End-to-end music source separation: is it possible in the waveform
    domain?", Interspeech 2019 (arXiv 1810.12187): L_d = -alpha |e - r|, where r is the sum of all other
    stems; alpha is from the authors' code, which uses the term for vocals only. For alpha below 1, the stem
    remains the best estimate: moving away from it costs more than L_d gains.
    """
    rest = replace(targets, stem_signal=targets.mixture_signal - targets.stem_signal)
    return l1(estimates, targets) - ALPHA * l1(estimates, rest)


SIGNAL_LOSSES: dict[str, Loss] = {
    "l1": l1,
    "l2": l2,
    "snr": snr,
    "snr-l1": snr_l1,
    "l1-dissimilar": l1_dissimilar,
}
LOSSES = MASK_LOSSES | SIGNAL_LOSSES


def sdr_db(estimates: Tensor, targets: Targets) -> Tensor:
    """Return the mean of 10 log10(|S| ** 2 / |E - S| ** 2) over the known stems, bounded as in `snr`."""
    return -10 / math.log(10) * snr(estimates, targets)


def _relative(errors: Tensor, mixture: Tensor, targets: Targets) -> Tensor:
    """Return the mean over known stems of the sum of errors relative to the sum of the mixture."""
    dims = tuple(range(2, errors.ndim))
    return _mean(errors.sum(dims) / mixture.sum(dims).clamp_min(TINY), targets.known)


def _snr(errors: Tensor, targets: Targets) -> Tensor:
    """Return the mean over known stems of the log ratio of error energy to stem energy."""
    dims = tuple(range(2, errors.ndim))
    floor = FLOOR * _power(targets.mixture_signal).sum(dims) + TINY
    ratios = (errors.sum(dims) + floor) / (_power(targets.stem_signal).sum(dims) + floor)
    return _mean(torch.log(ratios), targets.known)


def _power(signal: Tensor) -> Tensor:
    """Return squared moduli; the modulus of a complex number would have no gradient at zero."""
    return signal.real.square() + signal.imag.square() if signal.is_complex() else signal.square()


def _modulus(signal: Tensor) -> Tensor:
    return (_power(signal) + TINY).sqrt() if signal.is_complex() else signal.abs()


MEASURES = ("weighted_accuracy", "accuracy", "mse", "base_rate")


def weighted_accuracy(logits: Tensor, targets: Targets) -> Tensor:
    """Return the fraction of bins on the correct side of 0.5, with bins weighted by M ** weighting."""
    return _mean(_right(logits, targets), targets.by_magnitude)


def measure(logits: Tensor, targets: Targets) -> dict[str, Tensor]:
    """Return the `MEASURES` of how well logits predict the binary mask.

    `accuracy` and `mse` are the paper's, which weight all bins equally; `base_rate` is the accuracy of an
    empty mask.
    """
    return {
        "weighted_accuracy": weighted_accuracy(logits, targets),
        "accuracy": _mean(_right(logits, targets), targets.alike),
        "mse": mse(logits, targets),
        "base_rate": _mean(1 - targets.mask, targets.alike),
    }


def _right(logits: Tensor, targets: Targets) -> Tensor:
    return ((logits > 0) == (targets.mask > 0.5)).to(logits.dtype)


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none")


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp_min(TINY)


def _sound(spectra: Tensor, overlap: int) -> Tensor:
    """Return the signal `(example, stem, channel and time)` of spectra `(..., channel, frame, bin)`.

    The band is treated as the whole spectrum at a lower sample rate. This is cheaper and, because the rest of
    the spectrum is empty, does not change energy ratios.
    """
    n_fft = 2 * (spectra.shape[-1] - 1)
    window = torch.hann_window(n_fft, device=spectra.device)
    frames = torch.fft.irfft(spectra, n_fft) * window
    frames = frames.unflatten(-1, (overlap, n_fft // overlap))  # (example, stem, channel, frame, part, time)
    # Part i of frame j belongs at j + i.
    parts = [F.pad(frames[..., part, :], (0, 0, part, overlap - 1 - part)) for part in range(overlap)]
    return torch.stack(parts).sum(dim=0).flatten(2)
