from __future__ import annotations

import pytest
import torch

from stemsplit.networks import blend, blstm, fnn
from stemsplit.networks.blend import Blend
from stemsplit.networks.blstm import BLSTM, SMALL, Config
from tests.classic_nets import (
    changed_by_shift,
    changed_outside,
    count,
    half_of_it,
    learns,
    loss,
    music_like,
    traced,
    two_stems,
)

TINY = Config(bins=24, channels=2, cells=16)
TINY_SMALL = Config(bins=24, channels=1, cells=16, bands=12)
BOTH = pytest.mark.parametrize("config", [TINY, TINY_SMALL], ids=["paper", "small"])


def network_of(config, stems=2, seed=0):
    torch.manual_seed(seed)
    return BLSTM(stems, config).eval()


def lstm(inputs, cells):
    """Parameters of both directions of a layer, with two biases each, as torch has them."""
    return 2 * 4 * cells * (inputs + cells + 2)


def test_the_layers_are_the_paper_s():
    network = BLSTM(1)
    assert (network.recurrent.num_layers, network.recurrent.bidirectional) == (3, True)
    assert 2 * network.recurrent.hidden_size == 500
    recurrent = lstm(2050, 250) + 2 * lstm(500, 250)
    assert count(network) == recurrent + 501 * 2050 == 8_639_050
    assert (blstm.BINS, blstm.CHANNELS, blstm.CONTEXT_FRAMES) == (1025, 2, 96)


def test_small_is_small():
    network = BLSTM(4, SMALL)
    assert count(network) == lstm(192, 112) + 2 * lstm(224, 112) + 225 * 4 * 744 < 1_600_000
    assert all("averages" not in name for name in network.state_dict())


@pytest.mark.slow
@BOTH
def test_memory_fades_within_the_reach(config):
    network = network_of(config)
    assert learns(network, config, steps=60, rate=1e-2) < 0.7
    changed = [
        changed_outside(network, config, config.context_frames, config.context_frames, seed)
        for seed in range(2)
    ]
    assert max(changed) < 1e-4
    assert changed_outside(network, config, 2, 2) > 1e-3  # there is some memory
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


@BOTH
def test_it_can_be_recorded_and_runs_in_bfloat16(config):
    network = network_of(config)
    x = music_like(config, 30)
    assert traced(network, x) < 1e-5
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        rough = network.masks(network(x))
    assert rough.dtype == torch.float32
    assert (rough - network.masks(network(x))).abs().mean() < 0.02


TINY_BLEND = blend.Config(fnn.Config(bins=24, channels=2, hidden=24), TINY)


def blend_of(stems=2, seed=0):
    torch.manual_seed(seed)
    return Blend(stems, TINY_BLEND).eval()


def test_a_blend_holds_both_networks():
    network = Blend(4, blend.SMALL)
    parts = count(fnn.FNN(4, fnn.SMALL)) + count(BLSTM(4, SMALL))
    assert count(network) == parts < 3_000_000
    assert (blend.BINS, blend.CHANNELS, blend.CONTEXT_FRAMES) == (1025, 2, 96)
    with pytest.raises(ValueError, match="same bins"):
        Blend(1, blend.Config(fnn.Config(bins=513, channels=2), TINY))


def test_a_blend_is_the_weighted_sum_of_both():
    network, x = blend_of(), music_like(TINY, 30)
    one, other = network.fnn(x), network.blstm(x)
    torch.testing.assert_close(network(x), 0.25 * one + 0.75 * other, rtol=1e-3, atol=1e-3)
    network.weight.copy_(torch.tensor([0.0, 1.0]))
    expected = torch.stack([one[:, 0], other[:, 1]], dim=1)
    torch.testing.assert_close(network(x), expected, rtol=1e-3, atol=1e-3)


def test_what_the_trainer_fills_in_reaches_both_halves():
    network = blend_of().double().float()
    network.mean.copy_(torch.full((24,), -3.0))
    loaded = blend_of(seed=1)
    loaded.load_state_dict(network.state_dict())
    assert not {"fnn.mean", "blstm.deviation"} & set(network.state_dict())
    for each in (network, loaded):
        each(music_like(TINY, 3))
        assert each.fnn.mean.eq(-3).all()
        assert each.blstm.mean.eq(-3).all()


def alike(one, other):
    return torch.allclose(one, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("examples", [1, 2, 5])
def test_in_training_each_example_is_answered_by_one(examples):
    network, x = blend_of().train(), music_like(TINY, 9, examples=examples)
    seen = set()
    for _ in range(8):
        answers, halves = network(x), network.halves(x)
        by = [[alike(answers[k], half[k]) for half in halves] for k in range(examples)]
        assert all(sum(each) == 1 for each in by)
        assert examples == 1 or {each[0] for each in by} == {True, False}
        seen |= {(k, each[0]) for k, each in enumerate(by)}
    assert len(seen) == 2 * examples


def test_the_weight_is_that_of_least_squares():
    network, x = blend_of(stems=3), music_like(TINY, 30, examples=2)
    one, other = network.halves(x)
    share = torch.tensor([0.3, -0.5, 1.7])[:, None, None, None]
    truth = (one + share * (other - one)).detach()
    weight = network.fit_weight([(x[:1], truth[:1]), (x[1:], truth[1:])])
    torch.testing.assert_close(weight, torch.tensor([0.3, 0.0, 1.0]), rtol=1e-3, atol=1e-3)
    assert network.weight is weight


@pytest.mark.slow
def test_a_blend_learns_both_halves_and_can_be_recorded():
    network = blend_of()
    assert learns(network, TINY_BLEND, steps=60, rate=1e-2) < 0.5
    features, truth = two_stems(TINY_BLEND)
    half = loss(half_of_it, features, truth)
    assert loss(network.fnn, features, truth) < 0.5 * half
    assert loss(network.blstm, features, truth) < 0.9 * half
    assert traced(network, music_like(TINY, 30)) < 1e-2
