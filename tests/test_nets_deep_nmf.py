from __future__ import annotations

import pytest
import torch

from stemsplit.networks import deep_nmf
from stemsplit.networks.deep_nmf import SMALL, Config, DeepNMF
from tests.classic_nets import changed_by_shift, changed_outside, count, learns, music_like, traced

TINY = Config(bins=24, bases=12, layers=8, before=3, sparsity=1.0)
TINY_SMALL = Config(
    bins=24, channels=2, bases=12, layers=6, before=2, after=2, untied=4, bands=12, sparsity=1.0
)
BOTH = pytest.mark.parametrize("config", [TINY, TINY_SMALL], ids=["paper", "small"])


def network_of(config, stems=2, seed=0):
    torch.manual_seed(seed)
    return DeepNMF(stems, config).eval()


def test_the_bases_are_what_is_said():
    with torch.device("meta"):
        network = DeepNMF(4)
    assert [tuple(bases.shape) for bases in network.analysis] == [(9 * 1025, 400)] * 3
    assert network.uses == [0] * 23 + [1, 2]
    assert count(network) == 3 * 9225 * 400 + 1025 * 400 == 11_480_000
    assert (deep_nmf.BINS, deep_nmf.CHANNELS, deep_nmf.CONTEXT_FRAMES) == (1025, 1, 8)


def test_small_is_small():
    network = DeepNMF(4, SMALL)
    assert network.uses == [0] * 7 + [1, 2, 3]
    assert count(network) == 4 * 7 * 128 * 256 + 1025 * 256 == 1_179_904
    assert all("averages" not in name for name in network.state_dict())


def test_each_layer_with_the_same_bases_brings_the_model_nearer():
    """The updates are those of sparse NMF: what they minimise never rises."""
    network = network_of(Config(bins=24, bases=12, layers=12, untied=0, before=2, sparsity=0.5))
    x = music_like(network.config, 20)
    stack = network._stack(x.exp())
    bases = network.analysis[0].exp() / network.analysis[0].exp().norm(dim=0)
    objectives = []
    for layers in range(1, 13):
        network.uses = [0] * layers
        activations = network._activations(stack)
        model = activations @ bases.T
        divergence = stack * (stack / model).log() - stack + model
        objectives.append(float(divergence.sum() + 0.5 * activations.sum()))
    assert all(later <= earlier * 1.0001 for earlier, later in zip(objectives, objectives[1:], strict=False))
    assert objectives[-1] < 0.9 * objectives[0]


@BOTH
def test_all_stems_are_the_mixture(config):
    shares = network_of(config, stems=3)(music_like(config, 20))
    torch.testing.assert_close(shares.sum(dim=1), torch.ones_like(shares[:, 0]))
    assert shares.std() > 0.01
    alone = network_of(config, stems=1)(music_like(config, 20))
    assert alone.shape[1] == 1
    assert alone.std() > 0.01


@BOTH
def test_it_hears_as_far_as_it_says(config):
    network = network_of(config)
    before, after = config.before, config.after
    assert config.context_frames == max(before, after)
    assert changed_outside(network, config, before, after) < 1e-6
    assert changed_outside(network, config, before - 1, after) > 1e-5
    assert after == 0 or changed_outside(network, config, before, after - 1) > 1e-5
    assert changed_by_shift(network, config, config.context_frames) < 1e-5


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


@BOTH
def test_loudness_does_not_matter(config):
    network, x = network_of(config), music_like(config, 20)
    torch.testing.assert_close(network(x + 3), network(x), rtol=0, atol=1e-4)


@pytest.mark.slow
@BOTH
def test_it_learns(config):
    assert learns(network_of(config), config, steps=100, rate=3e-2) < 0.3


@BOTH
def test_it_can_be_recorded_and_runs_in_bfloat16(config):
    network, x = network_of(config), music_like(config, 30)
    assert traced(network, x) < 1e-5
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        rough = network.masks(network(x))
    assert rough.dtype == torch.float32
    assert (rough - network.masks(network(x))).abs().mean() < 0.02
