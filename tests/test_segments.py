import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from stemsplit.separation.compose import ensemble, shifted, with_residual
from stemsplit.separation.segments import (
    NormalizedSegments,
    Segmentation,
    SegmentSeparator,
)
from stemsplit.separation.separator import FittedMethod, Spec
from stemsplit.separation.stream import separate_blocks, separate_stream, shared_out

LENGTH = 100
SPEC = Spec(("a",), 44_100, context=30, stride=10, segment=300, shortest=100)


def network(window):
    """Depends on all of a segment, as attention does."""
    return np.stack([0.5 * window, 0.3 * window[:, ::-1] + 0.01 * window.mean(), 0.1 * window**2])


def separator(residual="c", overlap=0.25, **changes):
    names = ("a", "b", "c")
    options = {"stems": names, "sample_rate": 44_100, "outputs": names, "residual": residual, **changes}
    return SegmentSeparator(segmentation=Segmentation.of(LENGTH, overlap), network=network, **options)


def noise(samples, channels=2):
    return np.random.default_rng(samples).standard_normal((channels, samples)).astype(np.float32)


def whole(method, mixture):
    return np.concatenate(list(separate_blocks(method, [mixture])), axis=-1)


@pytest.mark.parametrize("samples", [1, 74, 75, 76, 99, 100, 101, 150, 1003])
@pytest.mark.parametrize("block", [1, 33, 128])
def test_any_block_size_gives_the_same_stems_and_they_sum_to_the_mixture(samples, block):
    mixture = noise(samples)
    stems = whole(separator(), mixture)
    blocks = [mixture[:, start : start + block] for start in range(0, samples, block)]
    streamed = np.concatenate(list(separate_blocks(separator(), blocks)), axis=-1)
    assert stems.shape == (3, 2, samples)
    np.testing.assert_array_equal(streamed, stems)
    np.testing.assert_allclose(stems.sum(axis=0), mixture, atol=1e-5)


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
@pytest.mark.parametrize("frames", [1, 99, 100, 250, 601, 2399, 5000])
def test_segments_keep_all_workers_busy(frames, workers):
    segment = shared_out(SPEC, frames, workers)
    assert 100 <= segment <= 300
    assert segment % SPEC.stride == 0
    rounds = math.ceil(frames / (300 * workers))
    assert frames <= segment * workers * rounds
    if segment > 100:  # no longer than that takes
        assert (segment - SPEC.stride) * workers * rounds < frames


@pytest.mark.parametrize("frames", [250, 601, 2399, 5000])
def test_segments_of_a_track_of_known_length_can_be_longer(frames):
    segment = shared_out(replace(SPEC, longest=1000), frames, 2)
    assert segment == shared_out(replace(SPEC, segment=1000), frames, 2)
    assert (segment > 300) is (frames > 600)


@pytest.mark.parametrize(
    ("spec", "expected"), [(replace(SPEC, shortest=0), 300), (replace(SPEC, segment=50), 50)]
)
def test_segments_that_must_not_be_shorter_stay_as_they_are(spec, expected):
    assert shared_out(spec, 310, 2) == expected


def reference(mixture, overlap):
    """Return what the demucs package's `apply_model` computes: its loop, over the whole file."""
    stride, total = int((1 - overlap) * LENGTH), mixture.shape[-1]
    weight = np.concatenate([np.arange(1, LENGTH // 2 + 1), np.arange(LENGTH - LENGTH // 2, 0, -1)])
    out, weights = np.zeros((3, *mixture.shape)), np.zeros(total)
    for offset in range(0, total, stride):
        count = min(LENGTH, total - offset)
        first = offset - (LENGTH - count) // 2
        window = np.zeros((len(mixture), LENGTH), np.float32)
        inside = slice(max(0, first), min(total, first + LENGTH))
        window[:, inside.start - first : inside.stop - first] = mixture[:, inside]
        middle = network(window)[..., (LENGTH - count) // 2 :][..., :count]
        out[..., offset : offset + count] += weight[:count] * middle
        weights[offset : offset + count] += weight[:count]
    return out / weights


@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("samples", [60, 100, 333])
def test_estimates_are_those_of_demucs(samples, overlap):
    mixture = noise(samples)
    stems = whole(separator(overlap=overlap), mixture)
    np.testing.assert_allclose(stems[:2], reference(mixture, overlap)[:2], atol=1e-5)


def test_without_a_residual_all_outputs_get_an_equal_share():
    mixture = noise(LENGTH)
    estimates = network(mixture)
    stems = whole(separator(residual="", overlap=0), mixture)
    missing = (mixture - estimates.sum(axis=0)) / 3
    np.testing.assert_allclose(stems, estimates + missing, atol=1e-5)


def test_a_residual_that_is_no_output_is_a_stem_more():
    mixture = noise(LENGTH)
    every = separator(residual="rest", stems=("rest", "a"), overlap=0)
    assert not every.spec.complete
    stems = whole(every, mixture)
    np.testing.assert_allclose(stems[0], mixture - network(mixture).sum(axis=0), atol=1e-5)
    np.testing.assert_allclose(stems[1], 0.5 * mixture, atol=1e-5)


def test_a_stem_by_itself_is_the_one_among_all():
    mixture = noise(250)
    alone = whole(separator(stems=("c",)), mixture)
    np.testing.assert_array_equal(alone[0], whole(separator(), mixture)[2])


@pytest.mark.parametrize("channels", [1, 3])
def test_any_number_of_channels(channels):
    mixture = noise(250, channels)
    stems = whole(separator(), mixture)
    assert stems.shape == (3, channels, 250)
    np.testing.assert_allclose(stems.sum(axis=0), mixture, atol=1e-5)
    np.testing.assert_allclose(stems[0], 0.5 * mixture, atol=1e-5)


def test_silence_stays_silent_and_needs_no_network():
    def refuse(_window):
        raise AssertionError

    silent = SegmentSeparator(("a",), 44_100, ("a",), "a", Segmentation.of(LENGTH, 0.25), refuse)
    assert not whole(silent, np.zeros((2, 321), np.float32)).any()


def test_normalization_is_over_the_whole_track_before_zeros_are_added():
    mixture = 3 * noise(250) + 0.5
    heard = []

    def record(window):
        heard.append(window)
        return np.zeros((1, *window.shape), np.float32)

    method = NormalizedSegments(
        SegmentSeparator(("a", "b"), 44_100, ("a",), "b", Segmentation.of(LENGTH, 0.25), record)
    )
    assert isinstance(method, FittedMethod)
    stems = whole(method.fit([mixture[:, :99], mixture[:, 99:]], 44_100), mixture)
    mono = mixture.mean(axis=0)
    expected = (mixture - mono.mean()) / mono.std(ddof=1)
    np.testing.assert_allclose(heard[0], expected[:, :LENGTH], atol=1e-4)
    assert not heard[-1][:, -1].any()
    np.testing.assert_allclose(stems.sum(axis=0), mixture, atol=1e-5)


def test_other_sample_rates_keep_length_and_sum():
    mixture = noise(4801)
    stems = np.concatenate(list(separate_stream(separator(), [mixture], 48_000)), axis=-1)
    assert stems.shape == (3, 2, 4801)
    np.testing.assert_allclose(stems.sum(axis=0), mixture, atol=1e-4)


def test_ensembles_residuals_and_shifts_work_on_streams():
    mixture = noise(555)
    one, two = separator(), separator(overlap=0.5)
    mean = whole(ensemble([one, two]), mixture)
    np.testing.assert_allclose(mean, (whole(one, mixture) + whole(two, mixture)) / 2, atol=1e-5)
    rest = whole(with_residual(separator(stems=("a",)), "rest"), mixture)
    np.testing.assert_allclose(rest[1], mixture - 0.5 * mixture, atol=1e-5)
    runs = whole(shifted(one, 3, LENGTH / 44_100), mixture)
    later = [np.pad(mixture, ((0, 0), (samples, 0))) for samples in (0, 33, 66)]
    each = [whole(one, signal)[..., -555:] for signal in later]
    np.testing.assert_allclose(runs, sum(each) / 3, atol=1e-5)
    assert any(np.abs(a - b).max() > 1e-3 for a, b in pairwise(each))


def test_an_ensemble_with_a_fitted_member_is_fitted():
    mixture = noise(555)
    method = ensemble([separator(), NormalizedSegments(separator())])
    assert isinstance(method, FittedMethod)
    assert method.stems == ("a", "b", "c")
    stems = whole(method.fit([mixture], 44_100), mixture)
    np.testing.assert_allclose(stems.sum(axis=0), mixture, atol=1e-5)
