from __future__ import annotations

import math
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import librosa
import numpy as np
import pytest
import torch

from stemsplit.errors import StemsplitError
from stemsplit.evaluation.bleed import bleed_scores
from stemsplit.evaluation.bsseval import bss_eval, museval
from stemsplit.evaluation.metrics import count_bins, sdr, si_sdr, si_snr

RATE = 8_000


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
    assert math.isnan(si_snr(0 * reference, reference))


def test_a_constant_offset_costs_si_sdr_but_not_si_snr(reference):
    estimate = 2 * reference + 0.1 * np.random.default_rng(1).standard_normal(reference.shape)
    shifted = estimate + np.array([[0.5], [-2.0]])
    assert si_snr(reference, shifted) == pytest.approx(si_snr(reference, estimate))
    assert si_sdr(reference, shifted) < si_sdr(reference, estimate) - 5
    centred = reference - reference.mean(axis=1, keepdims=True)
    found = estimate - estimate.mean(axis=1, keepdims=True)
    assert si_snr(reference, estimate) == pytest.approx(si_sdr(centred, found), abs=1e-3)


def test_a_mask_is_scored_by_the_bins_it_gets_right():
    target = np.zeros((10, 10), bool)
    target[0] = True
    empty = count_bins(np.zeros((10, 10), np.float32), target).scores()
    assert empty == pytest.approx({"accuracy": 0.9, "mse": 0.1, "base_rate": 0.9, "balanced_accuracy": 0.5})
    unsure = count_bins(np.full((10, 10), 0.6, np.float32), target).scores()
    assert unsure["accuracy"] == pytest.approx(0.1)
    assert unsure["mse"] == pytest.approx(0.9 * 0.36 + 0.1 * 0.16)
    right = count_bins(target.astype(np.float32), target).scores()
    assert (right["accuracy"], right["balanced_accuracy"], right["mse"]) == (1, 1, 0)


def test_counts_add_up_to_those_of_all_bins():
    rng = np.random.default_rng(440)
    found, target = rng.random((30, 10), np.float32), rng.random((30, 10)) > 0.7
    both = count_bins(found[:10], target[:10]) + count_bins(found[10:], target[10:])
    assert both.scores() == pytest.approx(count_bins(found, target).scores())


@pytest.fixture
def song():
    """Three seconds of two stereo stems of 16 bits, and their estimates; `(stem, channel, time)`."""
    rng = np.random.default_rng(440)
    references = 0.1 * rng.standard_normal((2, 2, 3 * RATE))
    references[:, 0] += 0.5 * np.roll(references[:, 1], 3, axis=-1)
    references = np.round(references * 2**15) / 2**15
    estimates = 0.9 * references + 0.2 * references[::-1] + 0.01 * rng.standard_normal(references.shape)
    return references, estimates


def by_museval(references, estimates, **options):
    """`(measure, stem, window)`: SDR, ISR, SIR, SAR."""
    samples = [np.moveaxis(signals, 1, 2) for signals in (references, estimates)]
    return np.stack(museval().bss_eval(*samples, **options)[:4])


def test_sdr_is_museval_s_over_the_whole_excerpt_and_over_each_second(song):
    references, estimates = song
    whole = by_museval(references, estimates, window=np.inf, hop=np.inf, filters_len=16)[0, :, 0]
    seconds = by_museval(references, estimates, window=RATE, hop=RATE, filters_len=16)[0]
    for stem, (reference, estimate) in enumerate(zip(*song, strict=True)):
        assert sdr(reference, estimate) == pytest.approx(whole[stem], abs=0.01)
        for second in range(3):
            here = np.s_[:, second * RATE : (second + 1) * RATE]
            assert sdr(reference[here], estimate[here]) == pytest.approx(seconds[stem, second], abs=0.01)


def test_si_sdr_is_museval_s_of_the_sources_with_filters_of_one_tap(song):
    # Which is for one channel; ours has one gain for both, as if one followed the other.
    for reference, estimate in zip(*song, strict=True):
        joined = reference.reshape(1, -1, 1), estimate.reshape(1, -1, 1)
        theirs = museval().bss_eval(
            *joined, window=np.inf, hop=np.inf, filters_len=1, bsseval_sources_version=True
        )
        assert si_sdr(reference, estimate) == pytest.approx(theirs[0][0, 0], abs=0.01)


@pytest.mark.slow
def test_bss_eval_is_the_median_over_seconds(song):
    references, estimates = song
    references[0, :, RATE : 2 * RATE] = 0  # no second in which one stem is silent counts for any
    scores = bss_eval(["vocals", "drums"], references, estimates, RATE)
    expected = np.nanmedian(by_museval(references, estimates, window=RATE, hop=RATE), axis=2)
    assert list(scores) == ["vocals", "drums"]
    assert [*scores["vocals"].values()] == pytest.approx(expected[:, 0])
    assert [*scores["drums"].values()] == pytest.approx(expected[:, 1])
    seconds = [sdr(references[1, :, at : at + RATE], estimates[1, :, at : at + RATE]) for at in (0, 2 * RATE)]
    assert scores["drums"]["museval_sdr_db"] == pytest.approx(np.median(seconds), abs=0.01)


@pytest.mark.parametrize("silent", [0, 1], ids=["reference", "estimate"])
def test_a_stem_silent_throughout_is_left_out_of_bss_eval(song, silent):
    song[silent][0] = 0
    scores = bss_eval(["vocals", "drums"], *song, RATE)
    alone = bss_eval(["drums"], *(signals[1:] for signals in song), RATE)
    assert all(math.isnan(value) for value in scores["vocals"].values())
    assert scores["drums"] == pytest.approx(alone["drums"], nan_ok=True)
    # Nothing is left that could interfere, and an infinite ratio is none.
    assert [name for name, value in scores["drums"].items() if math.isnan(value)] == ["museval_sir_db"]


@pytest.mark.slow
def test_bss_eval_stands_references_that_are_the_same_in_both_channels(song):
    references, estimates = song
    references[:, 1] = references[:, 0]
    scores = bss_eval(["vocals", "drums"], references, estimates, RATE)
    assert np.isfinite([*scores["vocals"].values()]).all()


@pytest.mark.slow
def test_bss_eval_stands_references_without_high_frequencies():
    # As lossy formats leave them. Rounding to 16 bits is what keeps the filters from growing there.
    rng = np.random.default_rng(440)
    spectra = np.fft.rfft(rng.standard_normal((2, 2, 3 * RATE)))
    spectra[..., spectra.shape[-1] // 2 :] = 0
    references = 0.1 * np.fft.irfft(spectra)
    estimates = references + 0.1 * references[::-1]
    estimates += 0.001 * rng.standard_normal(estimates.shape) * references.std()
    vocals = bss_eval(["vocals", "drums"], references, estimates, RATE)["vocals"]
    assert vocals["museval_sir_db"] > 15  # without: -0.03
    assert vocals["museval_sar_db"] > 30  # without: 0.00


def test_without_museval_it_says_what_to_install(monkeypatch):
    museval.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(StemsplitError, match="museval") as caught:
        museval()
    assert "pip install 'stemsplit-audio[train]'" in caught.value.hint


def test_museval_s_measures_need_no_ffprobe(monkeypatch):
    museval.cache_clear()
    monkeypatch.setenv("PATH", "")
    monkeypatch.delitem(sys.modules, "museval", raising=False)
    assert museval().bss_eval
    assert "museval" not in sys.modules


@pytest.mark.slow
@pytest.mark.parametrize("stems", [1, 3])
def test_our_share_of_museval_changes_nothing_in_it(stems):
    rng = np.random.default_rng(440)
    references = 0.1 * rng.standard_normal((stems, 3 * RATE, 2))
    references += 0.5 * np.roll(references, 1, axis=0)
    estimates = references + 0.1 * references[::-1] + 0.05 * rng.standard_normal(references.shape)
    pristine = ModuleType("pristine")
    source = Path(find_spec("museval").submodule_search_locations[0], "metrics.py").read_text(
        encoding="utf-8"
    )
    exec(source, pristine.__dict__)
    for options in ({"window": RATE, "hop": RATE, "filters_len": 60}, {"window": np.inf, "hop": np.inf}):
        ours, theirs = (
            np.stack(module.bss_eval(references, estimates, **options)[:4])
            for module in (museval(), pristine)
        )
        np.testing.assert_allclose(ours, theirs, atol=1e-8)


@pytest.mark.slow
def test_references_are_factored_once_for_all_estimates(song, monkeypatch):
    references, estimates = song
    first = bss_eval(["vocals", "drums"], references, estimates, RATE)
    monkeypatch.setattr("scipy.linalg.lapack.dgetrf", None)
    assert bss_eval(["vocals", "drums"], references, estimates, RATE) == first
    with pytest.raises(TypeError):
        bss_eval(["vocals", "drums"], references[::-1], estimates, RATE)


def mel_db(signal):
    """Return the mel spectrogram as Music-Source-Separation-Training computes it."""
    spectra = torch.stft(
        torch.from_numpy(signal),
        4096,
        1024,
        window=torch.hann_window(4096),
        return_complex=True,
        pad_mode="constant",
    )
    filters = librosa.filters.mel(sr=44_100, n_fft=4096, n_mels=512)
    levels = 20 * np.log10(np.maximum(filters @ spectra.abs().numpy(), 1e-10))
    return np.maximum(levels, levels.max() - 80)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.5, 30])
def test_bleedless_and_fullness_are_those_of_the_community(seconds):
    rng = np.random.default_rng(5)
    reference, other = rng.standard_normal((2, 2, round(seconds * 44_100))).astype(np.float32)
    estimate = 0.8 * reference + 0.1 * other
    difference = mel_db(estimate) - mel_db(reference)
    scores = bleed_scores(reference, estimate, 44_100)
    more, less = difference[difference > 0].mean(), -difference[difference < 0].mean()
    assert scores["bleedless"] == pytest.approx(100 / (1 + more), rel=1e-4)
    assert scores["fullness"] == pytest.approx(100 / (1 + less), rel=1e-4)


@pytest.mark.slow
def test_bleed_costs_the_one_and_holes_the_other():
    rng = np.random.default_rng(5)
    reference, other = rng.standard_normal((2, 1, 20_000)).astype(np.float32)
    assert bleed_scores(reference, reference, 44_100) == {"bleedless": 100, "fullness": 100}
    louder, softer = (bleed_scores(reference, gain * reference, 44_100) for gain in (2, 0.5))
    assert louder["fullness"] == softer["bleedless"] == 100
    assert (
        louder["bleedless"] == pytest.approx(softer["fullness"]) == pytest.approx(100 / (1 + 6.02), rel=1e-3)
    )
    assert bleed_scores(reference, reference + other, 44_100)["bleedless"] < 50
    assert np.isnan(list(bleed_scores(0 * reference, other, 44_100).values())).all()
