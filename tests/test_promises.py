"""What is promised of every separator, whatever its method (the README's list)."""

from __future__ import annotations

import numpy as np
import pytest

from stemsplit.networks import registry
from stemsplit.separation.masking import MaskSeparator
from stemsplit.separation.stream import separate_blocks, separate_stream
from tests.conftest import whole

ROUNDING = 2e-6  # float32, |samples| < 1
BINARY_FLIPS = 1e-3  # a probability of one half, rounded to the other side, moves a bin to another stem


FADING = 1e-3  # recurrent networks remember more than their context, but hardly


def tolerance(method):
    rule = getattr(getattr(method, "separator", method), "rule", None)
    if getattr(getattr(rule, "func", None), "__name__", "") == "binary":
        return BINARY_FLIPS
    recurrent = registry.REGISTRY["blstm-small"].context.frames
    return FADING if isinstance(method, MaskSeparator) and method.plan.context == recurrent else ROUNDING


def joined(pieces):
    return np.concatenate(list(pieces), axis=-1)


@pytest.fixture(scope="module")
def music(music):
    """Enough for several segments, and not a whole number of frames."""
    return music[:, :33_001]


@pytest.fixture(scope="module")
def stems(method, music):
    """What all tests of a method compare with: the stems of all of the music at once."""
    found = whole(method, music)
    found.flags.writeable = False
    return found


@pytest.mark.slow
@pytest.mark.parametrize("segment_seconds", [0.25, 0.5, 30.0])
def test_the_cut_into_segments_is_inaudible(method, music, stems, segment_seconds):
    streamed = joined(separate_blocks(method, [music], segment_seconds=segment_seconds))
    np.testing.assert_allclose(streamed, stems, atol=tolerance(method))


@pytest.mark.slow
def test_the_size_of_blocks_does_not_matter(method, music):
    def streamed(block):
        blocks = [music[:, i : i + block] for i in range(0, music.shape[1], block)]
        return joined(separate_blocks(method, blocks, segment_seconds=0.5))

    expected = streamed(music.shape[1])
    for block in (1_000, 30_000):
        np.testing.assert_array_equal(streamed(block), expected)


@pytest.mark.slow
@pytest.mark.parametrize("frames", [1, 33_000, 10**7])
def test_a_wrong_expected_length_changes_nothing(method, music, stems, frames):
    streamed = joined(separate_stream(method, [music], method.spec.sample_rate, frames=frames))
    np.testing.assert_allclose(streamed, stems, atol=tolerance(method))


def test_stems_add_up_to_the_mixture(method, music, stems):
    if method.spec.complete:
        np.testing.assert_allclose(stems.sum(axis=0), music, atol=1e-5)
    else:
        assert np.abs(stems.sum(axis=0) - music).max() > 1e-2


@pytest.mark.parametrize("samples", [1, 511, 512, 2049, 22_051])
@pytest.mark.parametrize("channels", [1, 2])
def test_stems_are_as_long_as_the_mixture(method, music, samples, channels):
    mixture = music[:channels, :samples]
    stems = joined(separate_blocks(method, [mixture]))
    assert stems.shape == (len(method.spec.stems), channels, samples)
    assert stems.dtype == np.float32


def test_an_empty_stream_gives_nothing(method):
    assert list(separate_blocks(method, [])) == []
    assert list(separate_blocks(method, [np.zeros((1, 0), np.float32)])) == []


def test_silence_stays_silent(method):
    stems = whole(method, np.zeros((2, 30_000), np.float32))
    np.testing.assert_array_equal(stems, 0.0)


@pytest.mark.slow
def test_loud_and_faint_sounds_stay_finite(method, music):
    for gain in (1e-30, 1e4, 1e15):
        assert np.isfinite(whole(method, np.float32(gain) * music)).all()


def test_separating_leaves_the_mixture_alone(method, music):
    loud = 100 * music
    before = loud.copy()
    whole(method, loud)
    np.testing.assert_array_equal(loud, before)


def test_the_same_sound_gives_the_same_stems(method, music, stems):
    np.testing.assert_array_equal(whole(method, music), stems)


def test_the_same_sound_in_both_channels_stays_in_both(method, music):
    stems = whole(method, music[[0, 0]])
    filtered = isinstance(method, MaskSeparator) and method.plan.wiener_context_frames
    rounding = 1e-7 if filtered else 0  # the filter computes each channel on its own
    np.testing.assert_allclose(stems[:, 0], stems[:, 1], rtol=0, atol=rounding)


@pytest.mark.parametrize("sample_rate", [8_000, 22_050, 44_100, 96_000])
def test_any_sample_rate_keeps_length_place_and_sum(method, music, sample_rate):
    time = sample_rate // 2 + 17
    rng = np.random.default_rng(440)
    mixture = 0.2 * rng.standard_normal((2, time)).astype(np.float32)  # up to half the sample rate
    blocks = [mixture[:, i : i + 5_000] for i in range(0, time, 5_000)]
    stems = joined(separate_stream(method, blocks, sample_rate))
    assert stems.shape == (len(method.spec.stems), 2, time)
    if method.spec.complete:
        np.testing.assert_allclose(stems.sum(axis=0), mixture, atol=1e-5)
    lags = np.fft.irfft(np.fft.rfft(stems.sum(axis=0)[0]) * np.conj(np.fft.rfft(mixture[0])))
    assert lags.argmax() == 0
