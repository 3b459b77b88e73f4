from __future__ import annotations

import math

import numpy as np
import pytest

from stemsplit.metrics import mask_scores, sdr, si_sdr


@pytest.fixture
def reference():
    return np.random.default_rng(440).standard_normal((2, 10_000)).astype(np.float32)


def test_an_error_of_a_tenth_is_twenty_decibels(reference):
    assert sdr(reference, 0.9 * reference) == pytest.approx(20, abs=1e-4)
    assert sdr(reference, 0 * reference) == pytest.approx(0)
    assert sdr(reference, reference) == math.inf


def test_a_gain_costs_sdr_but_not_si_sdr(reference):
    noise = 0.1 * np.random.default_rng(1).standard_normal(reference.shape)
    estimate = reference + noise
    assert si_sdr(reference, 3 * estimate) == pytest.approx(si_sdr(reference, estimate))
    assert si_sdr(reference, estimate) == pytest.approx(20, abs=0.2)
    assert sdr(reference, 3 * estimate) < 0


def test_silence_has_no_ratio(reference):
    assert math.isnan(sdr(0 * reference, reference))
    assert math.isnan(si_sdr(0 * reference, reference))


def test_a_mask_is_scored_by_the_bins_it_gets_right():
    target = np.zeros((10, 10), bool)
    target[0] = True
    empty = mask_scores(np.zeros((10, 10), np.float32), target)
    assert empty == pytest.approx({"accuracy": 0.9, "mse": 0.1, "base_rate": 0.9, "balanced_accuracy": 0.5})
    unsure = mask_scores(np.full((10, 10), 0.6, np.float32), target)
    assert unsure["accuracy"] == pytest.approx(0.1)
    assert unsure["mse"] == pytest.approx(0.9 * 0.36 + 0.1 * 0.16)
    right = mask_scores(target.astype(np.float32), target)
    assert (right["accuracy"], right["balanced_accuracy"], right["mse"]) == (1, 1, 0)
