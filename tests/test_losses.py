from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from stemsplit.metrics import si_sdr
from stemsplit.stft import Stft
from stemsplit.training.losses import MASK_LOSSES as LOSSES
from stemsplit.training.losses import MEASURES, Truth, measure

TO_BINARY = ("mse", "bce", "weighted-bce")
STFT = Stft()
BINS = 513


@pytest.fixture(scope="module")
def ratio():
    """The mask that makes the stem of the mixture, `(example, stem, channel, frame, bin)`."""
    return torch.rand(2, 1, 1, 6, BINS, generator=torch.Generator().manual_seed(0)).clamp(0.02, 0.98)


@pytest.fixture(scope="module")
def truth(ratio):
    """Noise, of which the stem is some part in each bin."""
    noise = 0.1 * np.random.default_rng(1).standard_normal((2, 2, STFT.samples(6)))
    mixture = torch.from_numpy(STFT.transform(noise.astype(np.float32))[:, None, ..., :BINS])
    return Truth(mixture, mixture * ratio, torch.ones(2, 1))


def right(loss, truth, ratio):
    return 24 * truth.mask - 12 if loss in TO_BINARY else torch.logit(ratio)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_right_estimate_has_the_lowest_loss(loss, truth, ratio):
    logits = right(loss, truth, ratio)
    lowest = LOSSES[loss](logits, truth)
    noise = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))
    for worse in (logits + noise * (20 if loss in TO_BINARY else 1), 0 * logits, -logits):
        assert LOSSES[loss](worse, truth) > lowest + 0.01


@pytest.mark.parametrize("loss", LOSSES)
def test_a_broken_target_has_a_higher_loss(loss, truth, ratio):
    logits = right(loss, truth, ratio)
    broken = replace(truth, stem_signal=truth.stem_signal.flip(3))
    assert LOSSES[loss](logits, broken) > LOSSES[loss](logits, truth) + 0.01


@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_along_the_gradient_makes_the_loss_smaller(loss, truth):
    logits = torch.zeros_like(truth.mixture, requires_grad=True)
    before = LOSSES[loss](logits, truth)
    (gradient,) = torch.autograd.grad(before, logits)
    assert (gradient != 0).float().mean() > 0.9
    assert LOSSES[loss](-0.1 * gradient / gradient.abs().max(), truth) < before


@pytest.mark.parametrize("loss", LOSSES)
def test_an_example_in_which_the_stem_is_unknown_does_not_count(loss, truth):
    logits = torch.randn(truth.mixture.shape, generator=torch.Generator().manual_seed(3)).requires_grad_()
    first = Truth(*(getattr(truth, name)[:1] for name in ("mixture_signal", "stem_signal", "known")))
    alone = LOSSES[loss](logits[:1], first)
    found = LOSSES[loss](logits, replace(truth, known=torch.tensor([[1.0], [0.0]])))
    torch.testing.assert_close(found, alone)
    (gradient,) = torch.autograd.grad(found, logits)
    assert gradient[0].abs().max() > 0
    assert gradient[1].abs().max() == 0


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("known", [0.0, 1.0])
def test_silence_has_a_finite_loss_and_gradient(loss, truth, known):
    spectra = [0 * truth.mixture_signal, 0 * truth.stem_signal]
    logits = torch.zeros_like(truth.mixture, requires_grad=True)
    found = LOSSES[loss](logits, Truth(*spectra, torch.full((2, 1), known)))
    (gradient,) = torch.autograd.grad(found, logits)
    assert found.isfinite()
    assert gradient.isfinite().all()


def test_si_snr_is_that_of_the_sound(truth):
    logits = torch.randn(truth.mixture.shape, generator=torch.Generator().manual_seed(4))
    masked = torch.sigmoid(logits) * truth.mixture_signal
    wide = [
        np.pad(x.numpy(), ((0, 0),) * 3 + ((0, BINS - 1),)) for x in (truth.stem_signal[:, 0], masked[:, 0])
    ]
    references, estimates = (STFT.inverse(x) for x in wide)
    ratios_db = [si_sdr(a, b) for a, b in zip(references, estimates, strict=True)]
    assert LOSSES["si-snr"](logits, truth).item() == pytest.approx(-np.mean(ratios_db), abs=0.05)


def test_a_silent_stem_asks_for_silence(truth):
    silent = replace(truth, stem_signal=0 * truth.stem_signal)
    quiet, loud = (LOSSES["si-snr"](torch.full_like(truth.mixture, x), silent) for x in (-5.0, 5.0))
    assert quiet < loud - 10


def test_measures_are_those_of_the_paper(truth):
    found = measure(24 * truth.mask - 12, truth)
    assert tuple(found) == MEASURES
    assert found["accuracy"] == found["weighted_accuracy"] == 1
    assert found["mse"] < 1e-9
    empty = measure(torch.full_like(truth.mixture, -12.0), truth)
    assert empty["accuracy"] == empty["base_rate"] == pytest.approx(1 - truth.mask.mean().item())
