from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from stemsplit.dsp.stft import Stft
from stemsplit.evaluation.metrics import si_sdr
from stemsplit.training.losses import ALPHA, MEASURES, SIGNAL_LOSSES, Targets, measure, sdr_db
from stemsplit.training.losses import MASK_LOSSES as LOSSES

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
    return Targets(mixture, mixture * ratio, torch.ones(2, 1))


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
    first = Targets(*(getattr(truth, name)[:1] for name in ("mixture_signal", "stem_signal", "known")))
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
    found = LOSSES[loss](logits, Targets(*spectra, torch.full((2, 1), known)))
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


@pytest.mark.parametrize("merged", [True, False])
def test_only_what_is_in_phase_is_a_share(truth, merged):
    pair = replace(truth, mixture_signal=truth.mixture_signal.expand(-1, -1, 2, -1, -1), merged=merged)
    for factor, share in ((0.3, 0.3), (-0.3, 0.0), (0.3j, 0.0), (0.4 + 3j, 0.4), (2.0, 1.0)):
        found = replace(pair, stem_signal=factor * pair.mixture_signal).share
        assert found.shape[2] == 1 + (not merged)
        torch.testing.assert_close(found, torch.full_like(found, share))


def test_measures_are_those_of_the_paper(truth):
    found = measure(24 * truth.mask - 12, truth)
    assert tuple(found) == MEASURES
    assert found["accuracy"] == found["weighted_accuracy"] == 1
    assert found["mse"] < 1e-9
    empty = measure(torch.full_like(truth.mixture, -12.0), truth)
    assert empty["accuracy"] == empty["base_rate"] == pytest.approx(1 - truth.mask.mean().item())


SIGNALS = pytest.mark.parametrize("spectral", [True, False], ids=["spectra", "waves"])


def signals(spectral, stems=3):
    """Stems that are all of a mixture, the last of them unknown in the second example."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, stems, 2, 6, 9) if spectral else (2, stems, 2, 54)
    parts = torch.randn(shape, generator=generator, dtype=torch.complex64 if spectral else torch.float32)
    known = torch.ones(2, stems)
    known[1, -1] = 0
    return Targets(parts.sum(dim=1, keepdim=True), parts, known, merged=False)


@SIGNALS
@pytest.mark.parametrize("loss", SIGNAL_LOSSES)
def test_the_stems_themselves_have_the_lowest_loss(loss, spectral):
    truth = signals(spectral)
    lowest = SIGNAL_LOSSES[loss](truth.stem_signal, truth)
    rest = truth.mixture_signal - truth.stem_signal
    for way in (-1.0, -0.05, 0.05, 1.0):
        assert SIGNAL_LOSSES[loss](truth.stem_signal + way * (rest - truth.stem_signal), truth) > lowest


@SIGNALS
@pytest.mark.parametrize("loss", SIGNAL_LOSSES)
def test_a_step_towards_the_stems_makes_the_loss_smaller_and_what_is_unknown_does_not_count(loss, spectral):
    truth = signals(spectral)
    estimates = torch.zeros_like(truth.stem_signal, requires_grad=True)
    before = SIGNAL_LOSSES[loss](estimates, truth)
    (gradient,) = torch.autograd.grad(before, estimates)
    assert gradient.isfinite().all()
    assert gradient[1, -1].abs().max() == 0
    assert (gradient[0] != 0).all()
    assert SIGNAL_LOSSES[loss](-0.1 * gradient / gradient.abs().max(), truth) < before


@SIGNALS
@pytest.mark.parametrize("loss", SIGNAL_LOSSES)
def test_silent_signals_have_a_finite_loss_and_gradient(loss, spectral):
    truth = signals(spectral)
    silent = replace(truth, mixture_signal=0 * truth.mixture_signal, stem_signal=0 * truth.stem_signal)
    estimates = torch.zeros_like(truth.stem_signal, requires_grad=True)
    found = SIGNAL_LOSSES[loss](estimates, silent)
    (gradient,) = torch.autograd.grad(found, estimates)
    assert found.isfinite()
    assert gradient.isfinite().all()


def test_the_dissimilarity_is_that_of_the_paper():
    truth = signals(spectral=False)
    truth = replace(truth, known=torch.ones(2, 3))
    estimates = torch.randn(truth.stem_signal.shape, generator=torch.Generator().manual_seed(1))
    total = 0.0
    for example in range(2):
        for stem in range(3):
            rest = sum(truth.stem_signal[example, other] for other in range(3) if other != stem)
            distance = (estimates[example, stem] - rest).abs().sum()
            total += distance / truth.mixture_signal[example].abs().sum()
    found = SIGNAL_LOSSES["l1-dissimilar"](estimates, truth) - SIGNAL_LOSSES["l1"](estimates, truth)
    assert found.item() == pytest.approx(-ALPHA * total.item() / 6)


def test_sdr_is_in_decibels():
    truth = replace(signals(spectral=False), known=torch.ones(2, 3))
    error = torch.randn(truth.stem_signal.shape, generator=torch.Generator().manual_seed(1))
    dims = (2, 3)
    error = (
        error
        * (0.1 * truth.stem_signal.square().sum(dims) / error.square().sum(dims)).sqrt()[..., None, None]
    )
    assert sdr_db(truth.stem_signal + error, truth).item() == pytest.approx(10, abs=0.2)
