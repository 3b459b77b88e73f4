from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stemsplit.networks import fnn
from stemsplit.networks._amplitudes import band_means
from stemsplit.networks.fnn import FNN, SMALL, Config
from tests.classic_nets import changed_by_shift, changed_outside, count, learns, music_like, traced

TINY = Config(bins=24, hidden=24)
TINY_SMALL = Config(bins=24, channels=2, hidden=32, bands=6)
BOTH = pytest.mark.parametrize("config", [TINY, TINY_SMALL], ids=["paper", "small"])


def network_of(config, stems=2, seed=0):
    torch.manual_seed(seed)
    return FNN(stems, config).eval()


def test_the_layers_are_the_paper_s():
    network = FNN(1)
    assert network.first.weight.shape == (513, 513, 7)  # 3591 inputs, as section 3 says
    assert network.first.weight[0].numel() == 3591
    assert [tuple(layer.weight.shape) for layer in network.dense] == [(513, 513)] * 4
    assert count(network) == 513 * 3591 + 513 + 4 * (513 * 513 + 513) == 2_897_424
    assert (fnn.BINS, fnn.CHANNELS, fnn.CONTEXT_FRAMES) == (513, 1, 12)


def test_small_is_small():
    network = FNN(4, SMALL)
    assert count(network) < 1_300_000
    assert all("averages" not in name for name in network.state_dict())
    assert network(music_like(SMALL, 3)).shape == (1, 4, 1, 3, 744)


def test_it_is_dense_layers_over_concatenated_frames():
    network = network_of(TINY, stems=1)
    network.mean.fill_(-2.0)
    for bias in (network.bias, *(layer.bias for layer in network.dense)):
        torch.nn.init.uniform_(bias, -0.1, 0.3)  # without them the norm makes no difference
    x = music_like(TINY, 60)
    units = (network.mean + network.deviation).exp()
    amplitudes = x[0, 0].exp() / units
    frame = 30
    vector = amplitudes[frame - 12 : frame + 13 : 4]
    gamma = (vector.norm(dim=1) / 24**0.5).mean()
    y = torch.einsum("hbt,tb->h", network.first.weight, vector / gamma) + network.bias
    for layer in network.dense:
        y = layer(y.relu())
    expected = y.relu() * gamma * units / x[0, 0, frame].exp()
    torch.testing.assert_close(network(x)[0, 0, 0, frame], expected, rtol=1e-4, atol=1e-5)


def test_it_begins_by_answering_with_the_mixture():
    network, x = network_of(TINY), music_like(TINY, 40)
    estimate, mixture = network(x) * x.exp().unsqueeze(1), x.exp().unsqueeze(1)
    assert (estimate - mixture).norm() < 0.4 * mixture.expand_as(estimate).norm()


@BOTH
def test_it_hears_as_far_as_it_says(config):
    network = network_of(config)
    assert changed_outside(network, config, config.context_frames, config.context_frames) < 1e-6
    assert changed_outside(network, config, config.context_frames - 1, config.context_frames) > 1e-6
    assert changed_outside(network, config, config.context_frames, config.context_frames - 1) > 1e-6
    assert changed_by_shift(network, config, config.context_frames) < 1e-6


@BOTH
@pytest.mark.parametrize("frames", [1, 2, 13, 50])
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


@BOTH
def test_loudness_does_not_matter(config):
    network = network_of(config)
    x = music_like(config, 40)
    inner = slice(12, 28)
    louder, usual = (network.masks(network(y))[..., inner, :] for y in (x + 3, x))
    torch.testing.assert_close(louder, usual, rtol=0, atol=1e-4)


@pytest.mark.slow
@BOTH
def test_it_learns(config):
    assert learns(network_of(config), config) < 0.15


@BOTH
def test_it_can_be_recorded_and_runs_in_bfloat16(config):
    network = network_of(config)
    x = music_like(config, 30)
    assert traced(network, x) < 1e-5
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        rough = network.masks(network(x))
    assert rough.dtype == torch.float32
    assert (rough - network.masks(network(x))).abs().mean() < 0.02


def test_bands_average_every_bin_once():
    matrix = band_means(744, 64)
    assert (matrix > 0).sum(dim=1).eq(1).all()
    torch.testing.assert_close(matrix.sum(dim=0), torch.ones(64))
    widths = (matrix > 0).sum(dim=0)
    assert widths[0] <= 3
    assert widths[-1] > 20
    assert band_means(5, 5).equal(torch.eye(5))


def test_reach_follows_the_context():
    assert replace(TINY, context=2, spacing=3).context_frames == 6
