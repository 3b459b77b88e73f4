from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from stemsplit.audio.reader import Reader
from stemsplit.dsp.features import FLOOR, log_magnitude, magnitudes
from stemsplit.dsp.input_features import InputFeatures
from stemsplit.dsp.stft import Stft
from stemsplit.networks._sides import DECIBEL, with_side
from stemsplit.zoo.loading import load_separator
from tests.conftest import whole

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[1] / "examples" / "caesium-30s.mp3"


@pytest.fixture(scope="module")
def excerpt():
    """Six seconds of a stereo song."""
    reader = Reader(EXAMPLE)
    signal = np.concatenate(list(reader), axis=-1)
    return signal[:, 10 * reader.sample_rate : 16 * reader.sample_rate]


def features(signal):
    spectra = Stft(4096, 1024).transform(signal)[..., :2048]
    return torch.from_numpy(log_magnitude(magnitudes(spectra, InputFeatures.MID_SIDE)))[None]


def with_width(signal, width):
    mid = signal.mean(axis=0, dtype=np.float32)
    return mid + np.float32(width) * (signal - mid)


def test_in_wide_frames_only_a_side_signal_that_is_hardly_there_changes(excerpt):
    shown = features(excerpt)
    raised = with_side(shown)
    energies = (2 * shown[0, 2:].double()).exp().sum(dim=2)
    wide = energies[1] / energies[0] > 10 ** (-20 / 10)
    assert wide.float().mean() > 0.5
    changed = (raised != shown)[0, :, wide]
    assert not changed[:3].any()
    below = (shown[0, 2] - shown[0, 3])[wide] / DECIBEL
    assert below[changed[3]].min() > 30
    assert changed[3].float().mean() < 0.001


@pytest.mark.parametrize("width", [0, 0.001, 0.01])
def test_mono_and_narrow_songs_get_a_side_signal(excerpt, width):
    shown = features(with_width(excerpt, width))
    raised = with_side(shown)
    torch.testing.assert_close(raised[:, :3], shown[:, :3], rtol=0, atol=0)
    assert (raised[:, 3] >= raised[:, 2] - 10.001 * DECIBEL).all()


def test_a_little_more_width_changes_a_little(excerpt):
    widths = 10 ** (np.arange(0, -40, -0.5) / 20)
    sides = torch.stack([with_side(features(with_width(excerpt, width)))[0, 3] for width in widths])
    steps = (sides.diff(dim=0) / DECIBEL).abs().amax(dim=(1, 2))
    assert steps.max() < 2.5  # SLOPE times the 0.5 dB of each step, and the step itself


def test_a_raised_side_signal_is_not_raised_in_silence():
    silent = torch.full((1, 4, 3, 16), float(np.log(np.float32(FLOOR))))
    torch.testing.assert_close(with_side(silent), silent, rtol=0, atol=0)


@pytest.mark.parametrize("channels", [1, 2])
def test_the_default_model_splits_a_mono_song_as_it_does_in_stereo(excerpt, channels):
    separator = load_separator(mask="soft", runtime="torch", precision="float32", threads=1)
    mono = np.broadcast_to(excerpt.mean(axis=0), (channels, excerpt.shape[-1]))
    wanted = whole(separator, excerpt).mean(axis=1)
    found = whole(separator, mono).mean(axis=1)
    errors = np.square(found - wanted).sum(axis=-1)
    ratios_db = 10 * np.log10(np.square(wanted).sum(axis=-1) / errors)
    assert ratios_db[1:].mean() > 4  # drums, bass, other; without a side signal 2.1
