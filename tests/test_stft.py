from __future__ import annotations

import numpy as np
import pytest
import scipy.signal

from stemsplit.dsp.features import FLOOR, log_magnitude, magnitude
from stemsplit.dsp.stft import Stft

SIZES = [(2048, 512), (1024, 256), (512, 64)]


@pytest.mark.parametrize(("n_fft", "hop_length"), SIZES)
def test_the_inverse_gives_the_signal_back(music, n_fft, hop_length):
    stft = Stft(n_fft, hop_length)
    signal = stft.inverse(stft.transform(music))
    inside = slice(n_fft, signal.shape[1] - n_fft)
    np.testing.assert_allclose(signal[:, inside], music[:, inside], atol=1e-6)


@pytest.mark.parametrize(("n_fft", "hop_length"), SIZES)
def test_spectra_are_scipy_s_up_to_scale(music, n_fft, hop_length):
    overlap = n_fft - hop_length
    _, _, theirs = scipy.signal.stft(music, nperseg=n_fft, noverlap=overlap, boundary=None, padded=False)
    ours = Stft(n_fft, hop_length).transform(music)
    np.testing.assert_allclose(ours, 2 * theirs.swapaxes(1, 2), atol=1e-6)


def test_a_full_scale_sine_has_magnitude_one():
    sine = np.sin(2 * np.pi * 100 / 2048 * np.arange(8192)).astype(np.float32)
    assert magnitude(Stft().transform(sine[None])).max() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("samples", [0, 1, 2047, 2048, 2049, 2559, 2560])
def test_frames_and_samples_agree(samples):
    stft = Stft()
    frames = stft.transform(np.ones((1, samples), np.float32)).shape[1]
    assert frames == stft.frames(samples)
    assert stft.samples(frames) <= max(samples, 0)
    assert stft.frames(stft.samples(frames)) == frames


def test_opposite_phase_does_not_cancel():
    rng = np.random.default_rng(440)
    left = rng.standard_normal(8192).astype(np.float32)
    alike = magnitude(Stft().transform(np.stack([left, left])))
    opposite = magnitude(Stft().transform(np.stack([left, -left])))
    np.testing.assert_allclose(opposite, alike, rtol=1e-5)
    assert alike.min() > 0
    one_side = magnitude(Stft().transform(np.stack([0 * left, left])))
    np.testing.assert_allclose(one_side, alike / np.sqrt(2), rtol=1e-5)


def test_the_logarithm_of_silence_is_finite():
    np.testing.assert_allclose(log_magnitude(np.zeros((2, 3), np.float32)), np.log(FLOOR), rtol=1e-6)


@pytest.mark.parametrize(("n_fft", "hop_length"), [(2048, 0), (2048, 1024), (2048, 600)])
def test_sizes_that_cannot_be_inverted_are_refused(n_fft, hop_length):
    with pytest.raises(ValueError, match="hop_length"):
        Stft(n_fft, hop_length)
