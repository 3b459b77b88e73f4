from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stemsplit.dsp.masks import (
    EXTENSION_BINS,
    binary,
    extend_to_full_band,
    match_channels,
    matrix_scaled_softmax,
    soft,
)
from stemsplit.dsp.wiener import wiener
from stemsplit.errors import UsageError
from stemsplit.options import RuntimeOptions
from stemsplit.zoo import store
from stemsplit.zoo.ref import ModelRef
from stemsplit.zoo.separators import as_run

PROBABILITIES = arrays(np.float32, (4, 2, 5), elements=st.floats(0, 1, width=32))


@pytest.mark.slow
@given(PROBABILITIES)
@pytest.mark.parametrize("rule", [binary, soft])
def test_masks_of_all_stems_add_up_to_one(rule, probabilities):
    masks = rule(probabilities, complete=True)
    np.testing.assert_allclose(masks.sum(axis=0), 1, atol=1e-6)
    assert masks.min() >= 0
    assert masks.dtype == np.float32


@pytest.mark.slow
@given(PROBABILITIES)
@pytest.mark.parametrize("rule", [binary, soft])
def test_a_mask_on_its_own_leaves_the_rest_to_its_complement(rule, probabilities):
    masks = rule(probabilities, complete=False)
    assert masks.min() >= 0
    assert masks.max() <= 1
    alone = rule(probabilities[:1], complete=False)
    np.testing.assert_array_equal(alone, masks[:1])  # whatever the other networks say


@pytest.mark.slow
@given(PROBABILITIES)
@pytest.mark.parametrize("rule", [binary, soft])
def test_masks_leave_the_probabilities_alone(rule, probabilities):
    before = probabilities.copy()
    rule(probabilities, complete=True)
    np.testing.assert_array_equal(probabilities, before)


def test_a_bin_goes_to_whom_claims_it():
    claimed_once = np.array([0.9, 0.4, 0.1, 0.2], np.float32).reshape(4, 1, 1)
    claimed_twice = np.array([0.9, 0.6, 0.1, 0.2], np.float32).reshape(4, 1, 1)
    unclaimed = np.array([0.1, 0.4, 0.3, 0.2], np.float32).reshape(4, 1, 1)
    assert binary(claimed_once, complete=True).ravel().tolist() == [1, 0, 0, 0]
    assert binary(claimed_twice, complete=True).ravel().tolist() == [0.5, 0.5, 0, 0]
    assert binary(unclaimed, complete=True).ravel().tolist() == [0, 1, 0, 0]
    assert binary(unclaimed, complete=False).ravel().tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("power", [0.5, 8.0, 16.0])
def test_no_probability_is_too_small_for_a_power(power):
    for complete in (True, False):
        for probability in (0.0, 1e-30, 1.0):
            masks = soft(np.full((4, 1, 1), probability, np.float32), complete=complete, power=power)
            assert np.isfinite(masks).all()
            if complete:
                np.testing.assert_allclose(masks, 0.25)


def test_a_greater_power_makes_masks_harder():
    probabilities = np.array([0.6, 0.2, 0.2, 0.2], np.float32).reshape(4, 1, 1)
    shares = [soft(probabilities, complete=True, power=power)[0].item() for power in (1, 2, 8)]
    assert shares == pytest.approx([0.5, 0.75, 1.0], abs=1e-3)


def test_the_band_above_gets_the_mean_of_the_top():
    masks = np.zeros((2, 1, 513), np.float32)
    masks[0, :, -EXTENSION_BINS // 2 :] = 1
    masks[1] = 1 - masks[0]
    extended = extend_to_full_band(masks, 1025)
    assert extended.shape == (2, 1, 1025)
    np.testing.assert_array_equal(extended[..., :513], masks)
    np.testing.assert_allclose(extended[:, 0, 513:], 0.5)
    assert extend_to_full_band(masks, 513).shape == masks.shape


@pytest.mark.slow
@given(PROBABILITIES)
def test_joint_masks_add_up_to_one(probabilities):
    scaling = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    masks = matrix_scaled_softmax(probabilities, scaling=scaling)
    np.testing.assert_allclose(masks.sum(axis=0), 1, atol=1e-6)
    assert masks.min() >= 0
    assert masks.dtype == np.float32


def test_joint_masks_hear_the_other_networks_and_correct_a_rash_one():
    probabilities = np.array([0.5, 0.5, 0.1, 0.1], np.float32).reshape(4, 1, 1)
    each_for_itself = np.eye(4, 5, dtype=np.float32)
    first, second, third, _ = matrix_scaled_softmax(probabilities, scaling=each_for_itself).ravel()
    assert first == second
    assert first / third == pytest.approx(9)  # odds of 1 : 1 against odds of 1 : 9
    rash = each_for_itself.copy()
    rash[0, -1] = -np.log(3)  # the first one says yes three times too often
    first, second, *_ = matrix_scaled_softmax(probabilities, scaling=rash).ravel()
    assert second / first == pytest.approx(3)
    deferring = each_for_itself.copy()
    deferring[1, 2] = 1.0  # the second one is believed less where the third says no
    first, second, *_ = matrix_scaled_softmax(probabilities, scaling=deferring).ravel()
    assert first / second == pytest.approx(9)


def panned(frames=30, bins=6):
    """Noises at two places, `(stem, channel, frame, bin)`: one, then the other, then both."""
    rng = np.random.default_rng(440)
    noises = rng.standard_normal((2, frames, bins)) + 1j * rng.standard_normal((2, frames, bins))
    noises[0, 10:20] = noises[1, :10] = 0
    places = np.array([[1.0, 0.3], [0.2, 0.9]])
    return (places[:, :, None, None] * noises[:, None]).astype(np.complex64)


def filtered(masks, mixture, reach, wanted=None):
    """What a Wiener filter makes of a mixture before and after which there is silence."""
    around = ((0, 0), (0, 0), (reach, reach), (0, 0))
    return wiener(np.pad(masks, around), np.pad(mixture, around[1:]), reach, wanted)


def test_a_wiener_filter_tells_apart_by_place_what_masks_cannot():
    stems = panned()
    masks = np.full((2, 1, 30, 6), 0.5, np.float32)
    masks[0, :, :10] = masks[1, :, 10:20] = 1
    masks[1, :, :10] = masks[0, :, 10:20] = 0
    mixture = stems.sum(axis=0)
    found = filtered(masks, mixture, reach=30)
    error = np.abs(found - stems)[:, :, 20:].mean()
    assert error < 0.5 * np.abs(masks * mixture - stems)[:, :, 20:].mean()
    np.testing.assert_allclose(found.sum(axis=0), mixture, atol=1e-4)
    np.testing.assert_array_equal(filtered(masks, mixture, reach=30, wanted=[1]), found[1:])


@pytest.mark.parametrize(
    ("reach", "stride"), [(0, 1), (1, 1), (2, 1), (5, 1), (8, 1), (0, 2), (2, 2), (6, 2), (5, 5)]
)
def test_a_wiener_filter_finds_places_near_each_bin(reach, stride):
    """With a stride for runs of frames, from the run and those around it."""
    rng = np.random.default_rng(reach)
    masks = rng.dirichlet((1, 1, 1), (2, 20, 400)).transpose(3, 0, 1, 2).astype(np.float32)
    spectra = panned(20, 400).sum(axis=0)
    shares = masks.mean(axis=1)
    for frame, bin in ((reach, 0), (10, 191), (10, 192), (11, 193), (19 - reach, 399)):
        middle = frame - frame % stride
        near = np.s_[middle - reach : middle + stride + reach, max(0, bin - 1) : bin + 2]
        covariances = []
        for share in shares:
            image = share[near] * spectra[:, near[0], near[1]]
            covariance = np.einsum("itf,jtf->ij", image, image.conj())
            covariances.append(2 * covariance / np.trace(covariance) + 0.003 * np.eye(2))
        weighted = shares[:, frame, bin, None, None] * covariances
        expected = weighted @ np.linalg.inv(weighted.sum(axis=0)) @ spectra[:, frame, bin]
        found = wiener(masks, spectra, reach, stride=stride)[:, :, frame - reach, bin]
        np.testing.assert_allclose(found, expected, atol=2e-3)


def test_a_wiener_filter_leaves_mono_and_silence_to_the_masks():
    masks = np.random.default_rng(0).dirichlet((1, 1, 1), (1, 4, 5)).transpose(3, 0, 1, 2).astype(np.float32)
    mixture = panned(4, 5).sum(axis=0)
    for spectra in (mixture[:1], mixture[[0, 0]], 0 * mixture, mixture[[0, 1, 0]]):
        np.testing.assert_allclose(filtered(masks, spectra, reach=2), masks * spectra, atol=1e-5)
    mixture[1, 2] = mixture[0, 2]
    left, right = filtered(masks, mixture, reach=2).swapaxes(0, 1)
    np.testing.assert_array_equal(left[:, 2], right[:, 2])
    assert not np.isclose(left[:, [0, 1, 3]], right[:, [0, 1, 3]]).any()


@pytest.mark.slow
@pytest.mark.parametrize(("mask", "power"), [("clean", 1.5), ("full", 0.75)])
@pytest.mark.parametrize("model", ["binary-mask-cnn", "band-transformer"], ids=["calibrated", "soft"])
def test_clean_and_full_are_powers_of_the_default_s_masks(model, mask, power):
    default, changed = (ModelRef.parse(model).load(RuntimeOptions(), mask=name) for name in (None, mask))
    probabilities = np.random.default_rng(0).uniform(0.01, 0.99, (4, 1, 3, 50)).astype(np.float32)
    expected = default.rule(probabilities) ** power
    np.testing.assert_allclose(changed.rule(probabilities), expected / expected.sum(axis=0), atol=1e-5)
    assert changed.plan == default.plan


@pytest.mark.slow
@pytest.mark.parametrize("mask", [None, "clean"])
def test_fast_leaves_out_the_wiener_filter(mask):
    running = RuntimeOptions(runtime="torch", device="cpu", threads=1)
    fast, usual = (
        ModelRef.parse("band-transformer").load(replace(running, fast=fast), mask=mask)
        for fast in (True, False)
    )
    assert usual.plan.wiener_context_frames > fast.plan.wiener_context_frames == 0
    assert fast.spec.context < usual.spec.context
    assert usual.plan.frame_stride == fast.plan.frame_stride == 1
    with pytest.raises(UsageError, match="leaves out the Wiener filter"):
        ModelRef.parse("band-transformer").load(replace(running, fast=True), mask="wiener")
    skipping = ModelRef.parse("binary-mask-cnn").load(replace(running, fast=True), mask="wiener")
    assert skipping.plan.frame_stride == 3
    assert skipping.plan.wiener_context_frames > 0
    card = replace(store.read_card("binary-mask-cnn"), mask="wiener")
    as_is = card, RuntimeOptions(fast=True)
    assert all(as_run(card, mask, as_is[1]) == as_is for mask in (None, "wiener"))


def test_masks_of_left_and_right_are_for_any_channels():
    masks = np.arange(12, dtype=np.float32).reshape(3, 2, 2, 1) / 12
    spectra = panned(2, 1).sum(axis=0)
    np.testing.assert_array_equal(match_channels(masks, spectra), masks)
    mean = masks.mean(axis=1, keepdims=True)
    np.testing.assert_array_equal(match_channels(masks, spectra[:1]), mean)
    np.testing.assert_array_equal(match_channels(masks, spectra[[0, 1, 0]]), masks[:, [0, 1, 0]])
    spectra[1, 1] = spectra[0, 1]
    found = match_channels(masks, spectra)
    np.testing.assert_array_equal(found[:, :, 0], masks[:, :, 0])
    np.testing.assert_array_equal(found[:, :, 1], np.repeat(mean[:, :, 1], 2, axis=1))
    np.testing.assert_array_equal(match_channels(mean, spectra), mean)
