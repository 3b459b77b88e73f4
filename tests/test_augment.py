from __future__ import annotations

import numpy as np
import pytest
import torch

from stemsplit.dsp.features import magnitude
from stemsplit.dsp.stft import Stft
from stemsplit.training.augment import Augmentation, Image, Warp
from tests.conftest import SAMPLE_RATE

FRAMES, BINS = 120, 513
STFT = Stft()
EVERY = np.ones(5, bool)


def stereo(signal):
    return np.stack([signal, signal]).astype(np.float32)


def seconds(count):
    return np.arange(round(count * SAMPLE_RATE)) / SAMPLE_RATE


def sine(hz, time):
    return 0.5 * np.sin(2 * np.pi * hz * time)


def clicks(period, length):
    signal = np.zeros(length)
    signal[::period] = 1
    return signal


def analysed(warp, signal):
    """Magnitudes `(frame, bin)` of a mono signal's beginning."""
    cut = stereo(signal)[:, : warp.samples(STFT, FRAMES)]
    spectra = warp.transform(STFT, torch.from_numpy(cut)).numpy()
    assert spectra.shape == (2, FRAMES, STFT.bins)
    return magnitude(spectra)


def peak_hz(magnitudes):
    return magnitudes.mean(axis=0).argmax() * SAMPLE_RATE / STFT.n_fft


def period(magnitudes):
    """The period of a click train, in frames."""
    power = np.square(magnitudes).sum(axis=1)
    count = 1 << 16
    spectrum = np.abs(np.fft.rfft((power - power.mean()) * np.hanning(len(power)), count))
    frequencies = np.arange(count // 20, len(spectrum))
    return count / frequencies[np.argmax(spectrum[frequencies] / frequencies)]  # not an overtone


def draws(augmentation, count=2000, audible=EVERY, bins=BINS, across=True):
    rng = np.random.default_rng(7)
    return np.stack([augmentation.factors(rng, audible, bins, across=across) for _ in range(count)])


def decibels(factors):
    return 20 * np.log10(np.abs(factors))


@pytest.mark.parametrize("pitch", [0.5, 54 / 64, 1.0, 76 / 64, 2.0])
@pytest.mark.parametrize("tempo", [0.7, 1.0, 1.3])
def test_pitch_moves_tones_and_tempo_moves_clicks(pitch, tempo):
    warp = Warp(tempo, pitch)
    tone = analysed(warp, sine(2000, seconds(4)))
    assert peak_hz(tone) == pytest.approx(2000 * pitch, abs=11)
    # From the first frame to the last, and as loud as before.
    np.testing.assert_allclose(tone.max(axis=1), 0.5, rtol=0.16)  # between bins a sine loses up to 1.4 dB
    beat = analysed(warp, clicks(8 * 512, 4 * SAMPLE_RATE))
    assert period(beat) == pytest.approx(8 / tempo, rel=0.02)


@pytest.mark.slow
def test_changes_are_those_that_librosa_makes():
    import librosa  # it takes seconds, and more the first time

    time = seconds(4)
    tremolo = 0.5 + 0.5 * np.sin(2 * np.pi * time * SAMPLE_RATE / (8 * 512))  # a period of eight frames
    signal = (tremolo * sine(2000, time)).astype(np.float32)
    higher = analysed(Warp(), librosa.effects.pitch_shift(signal, sr=SAMPLE_RATE, n_steps=3))
    faster = analysed(Warp(), librosa.effects.time_stretch(signal, rate=1.25))
    for ours, theirs in (
        (analysed(Warp(pitch=2 ** (3 / 12)), signal), higher),
        (analysed(Warp(tempo=1.25), signal), faster),
    ):
        assert peak_hz(ours) == pytest.approx(peak_hz(theirs), abs=11)
        assert period(ours) == pytest.approx(period(theirs), rel=0.02)
    assert peak_hz(higher) > 2300
    assert period(faster) < 7


def test_no_change_is_the_transform_itself(music):
    time = Warp().samples(STFT, 20)
    assert time == STFT.samples(20)
    expected = STFT.transform(music[:, :time])
    found = Warp().transform(STFT, torch.from_numpy(music[:, :time]))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("n_fft", [256, 2048, 4096])
def test_pitches_are_met_within_an_eighth_of_a_semitone(n_fft):
    stft = Stft(n_fft, n_fft // 4)
    for semitones in np.linspace(-3, 3, 25):
        samples = Warp(pitch=2 ** (semitones / 12)).samples(stft, 1)
        assert 12 * np.log2(samples / n_fft) == pytest.approx(semitones, abs=0.16)


def test_warps_are_drawn_both_ways_and_within_bounds():
    rng = np.random.default_rng(7)
    warps = [Augmentation(pitch=2, stretch=0.25).warp(rng) for _ in range(1000)]
    tempos, semitones = np.array([(warp.tempo, 12 * np.log2(warp.pitch)) for warp in warps]).T
    assert (tempos.min(), tempos.max()) == pytest.approx((0.8, 1.25), abs=0.01)
    assert (semitones.min(), semitones.max()) == pytest.approx((-2, 2), abs=0.05)
    assert np.mean(tempos > 1) == pytest.approx(0.5, abs=0.05)
    assert Augmentation().warp(rng) == Warp()


def test_gains_spread_as_asked_for():
    level = {"level_db": (-10.0, -10.0)}
    across = decibels(draws(Augmentation(gain_db=6, **level)))
    assert (across.mean(), across.std()) == pytest.approx((-10, 6), abs=0.3)
    within = decibels(draws(Augmentation(gain_within_db=2, **level), across=False))
    assert (within.mean(), within.std()) == pytest.approx((-10, 2), abs=0.2)


def test_the_level_is_of_all_parts_together():
    gains = decibels(draws(Augmentation(gain_db=0, level_db=(-15.0, 3.0))))[..., 0]
    np.testing.assert_allclose(gains, gains[:, :1] * np.ones(5), atol=1e-5)
    assert (gains.min(), gains.max()) == pytest.approx((-15, 3), abs=0.1)


def test_polarity_turns_stems_upside_down_one_by_one():
    negative = draws(Augmentation(polarity=0.3)) < 0
    assert negative.mean() == pytest.approx(0.3, abs=0.03)
    assert len(np.unique(negative[..., 0], axis=0)) == 32  # all combinations
    assert not (draws(Augmentation()) < 0).any()


@pytest.mark.slow
def test_some_stems_are_dropped_but_never_all_that_are_heard():
    silent = draws(Augmentation(drop=0.3))[..., 0] == 0
    assert silent[:, :4].mean() == pytest.approx(0.3, abs=0.03)
    assert not silent[:, 4].any()  # what is no stem
    # With nothing else to hear, the one stem that there is stays.
    alone = np.array([False, True, False, False, False])
    assert (draws(Augmentation(drop=0.9), audible=alone)[:, 1] != 0).all()
    assert not (draws(Augmentation()) == 0).any()


def changed(image):
    """Left and right of a part whose mid signal is 3 and whose side signal is 1."""
    part = torch.tensor([[[4.0], [2.0]]])
    image.apply(part)
    return part.flatten().tolist()


def test_an_image_changes_the_side_signal_and_then_the_channels():
    assert changed(Image()) == [4, 2]
    assert changed(Image(side=0.0)) == [3, 3]
    assert changed(Image(side=0.5)) == [3.5, 2.5]
    assert changed(Image(side=2.0)) == [5, 1]
    assert changed(Image(left=0.5)) == [2, 2]
    assert changed(Image(right=0.0)) == [4, 0]


def test_images_are_mono_narrower_wider_and_one_sided():
    rng = np.random.default_rng(7)
    images = [Augmentation(width=0.6).image(rng) for _ in range(4000)]
    changed = [image for image in images if image != Image()]
    assert len(changed) / len(images) == pytest.approx(0.6, abs=0.03)
    sides, lefts, rights = np.array([(image.side, image.left, image.right) for image in changed]).T
    assert np.mean(sides == 0) == pytest.approx(0.4, abs=0.03)
    narrow, wide = np.mean((sides > 0) & (sides < 1)), np.mean(sides > 1)
    assert (narrow, wide) == (pytest.approx(0.41, abs=0.04), pytest.approx(0.045, abs=0.02))
    assert np.mean(lefts < 1) == pytest.approx(np.mean(rights < 1), abs=0.03)
    assert np.mean((lefts < 1) | (rights < 1)) == pytest.approx(0.15, abs=0.03)
    assert 20 * np.log10(sides[sides > 0]).min() == pytest.approx(-60, abs=1)


@pytest.mark.slow
def test_equalising_is_smooth_and_as_strong_as_asked_for():
    flat = {"gain_db": 0.0, "level_db": (0.0, 0.0)}
    curves = decibels(draws(Augmentation(equalise_db=4, **flat)))
    octaves = np.geomspace(BINS / 99, BINS - 1, 40).astype(int)
    assert np.sqrt(np.mean(np.square(curves[..., octaves]))) == pytest.approx(4, rel=0.08)
    hz = np.arange(BINS) * SAMPLE_RATE / STFT.n_fft
    neighbours = curves[..., np.searchsorted(hz, 4000)] - curves[..., np.searchsorted(hz, 4100)]
    assert np.abs(neighbours).max() < 2
    assert np.std(curves[..., 0] - curves[..., -1]) > 4
    assert draws(Augmentation(**flat)).shape[-1] == 1


@pytest.mark.slow
def test_noise_is_as_loud_as_asked_for_beside_the_mixture(music):
    mixture = np.ascontiguousarray(STFT.transform(music[:, : STFT.samples(FRAMES)])[..., :BINS])
    rng = np.random.default_rng(7)

    def level_db():
        noisy = mixture.copy()
        Augmentation(noise_db=-10).add_noise(rng, STFT, torch.from_numpy(noisy))
        return 10 * np.log10(np.square(np.abs(noisy - mixture)).sum() / np.square(np.abs(mixture)).sum())

    levels = [level_db() for _ in range(40)]
    assert (min(levels), max(levels)) == pytest.approx((-40, -10), abs=3)
    assert max(levels) < -10 + 1e-3
    kept = mixture.copy()
    Augmentation().add_noise(rng, STFT, torch.from_numpy(kept))
    np.testing.assert_array_equal(kept, mixture)


def test_none_changes_nothing():
    none, rng = Augmentation.none(), np.random.default_rng(7)
    assert none.across == none.swap == 0
    assert none.warp(rng) == Warp()
    assert none.image(rng) == Image()
    for across in (False, True):
        np.testing.assert_array_equal(draws(none, 100, across=across), 1)
