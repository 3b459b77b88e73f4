from __future__ import annotations

import pytest
import torch

from stemsplit.networks import nug
from stemsplit.networks.nug import NUG, SMALL, Config
from tests.classic_nets import changed_by_shift, changed_outside, count, learns, music_like, traced

TINY = Config(bins=24, hidden=48)
TINY_SMALL = Config(bins=24, channels=2, hidden=48, bands=8)
BOTH = pytest.mark.parametrize("config", [TINY, TINY_SMALL], ids=["paper", "small"])


def network_of(config, stems=2, seed=0):
    torch.manual_seed(seed)
    return NUG(stems, config).eval()


def test_the_layers_are_what_is_said():
    with torch.device("meta"):
        network = NUG(4)
    assert network.first.weight.shape == (2050, 1025, 5)
    assert [tuple(layer.weight.shape) for layer in network.dense] == [(2050, 2050)] * 2 + [(4100, 2050)]
    assert count(network) == 2050 * 5126 + 2 * 2050 * 2051 + 4100 * 2051 == 27_326_500
    assert (nug.BINS, nug.CHANNELS, nug.CONTEXT_FRAMES) == (1025, 1, 8)


def test_small_is_small():
    network = NUG(4, SMALL)
    assert count(network) == 2_391_044
    assert all("averages" not in name for name in network.state_dict())


def test_it_is_dense_layers_over_concatenated_frames():
    network, x = network_of(TINY, stems=1), music_like(TINY, 40)
    network.deviation.fill_(2.0)
    amplitudes = x[0, 0].exp() / torch.tensor(2.0).exp()
    frame = 20
    y = torch.einsum("hbt,tb->h", network.first.weight, amplitudes[frame - 8 : frame + 9 : 4])
    y = y + network.first.bias
    for layer in network.dense:
        y = layer(y.relu())
    expected = y.relu() / amplitudes[frame]
    torch.testing.assert_close(network(x)[0, 0, 0, frame], expected, rtol=1e-4, atol=1e-4)


@BOTH
def test_it_hears_as_far_as_it_says(config):
    network = network_of(config)
    assert changed_outside(network, config, config.context_frames, config.context_frames) < 1e-6
    assert changed_outside(network, config, config.context_frames - 1, config.context_frames) > 1e-6
    assert changed_outside(network, config, config.context_frames, config.context_frames - 1) > 1e-6
    assert changed_by_shift(network, config, config.context_frames) < 1e-4


@BOTH
@pytest.mark.parametrize("frames", [1, 2, 50])
def test_any_number_of_frames_will_do(config, frames):
    outputs = network_of(config, stems=3)(music_like(config, frames, examples=2))
    assert outputs.shape == (2, 3, config.channels, frames, 24)


@BOTH
@pytest.mark.parametrize("level", [-12.0, -11.5129, 5.0, 35.0])
def test_masks_are_masks_at_any_level(config, level):
    network = network_of(config)
    outputs = network(torch.full((1, config.channels, 30, 24), level))
    assert torch.isfinite(outputs).all()
    masks = network.masks(outputs)
    assert masks.min() >= 0
    assert masks.max() <= 1


@pytest.mark.slow
@BOTH
def test_it_learns(config):
    assert learns(network_of(config), config) < 0.3


@BOTH
def test_it_can_be_recorded_and_runs_in_bfloat16(config):
    network, x = network_of(config), music_like(config, 30)
    assert traced(network, x) < 1e-4
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        rough = network.masks(network(x))
    assert rough.dtype == torch.float32
    assert (rough - network.masks(network(x))).abs().mean() < 0.02
