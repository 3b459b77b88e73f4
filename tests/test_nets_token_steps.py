"""The band transformer with tokens of every second frame."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from stemsplit.dsp.features import FLOOR
from stemsplit.errors import BadWeights
from stemsplit.networks import registry
from stemsplit.networks._attention import rotary
from stemsplit.networks.band_transformer import BINS, CHANNELS, FULL, VIEWS, BandTransformer, Config
from stemsplit.networks.info import WHOLE
from stemsplit.training.config import TrainConfig
from stemsplit.training.devices import launch
from stemsplit.training.network_trainer import NetworkTrainer
from stemsplit.training.run import _initial_weights
from tests.conftest import STEMS, random_model
from tests.test_nets_band_transformer import (  # fixtures are found by their names
    EQUAL,
    NARROW,
    _one_thread,
    attentive,
    music_like,
)

__all__ = ["_one_thread"]

TOKENS = replace(NARROW, step=2, beside=1, refined=3)


def build(config, stems=4):
    return attentive(config, stems)


def scores(network, features, **how):
    with torch.inference_mode():
        return network(features, **how)


def test_the_registry_has_their_contexts_and_sizes():
    tokens, full = (registry.find(f"band-transformer{kind}") for kind in ("", "-full"))
    assert (tokens.context.frames, full.context.frames) == (Config().context_frames, FULL.context_frames)
    assert [info.context.stride for info in (tokens, full)] == [2, 1]
    assert full.joint
    counts = [sum(p.numel() for p in BandTransformer(4, c).parameters()) for c in (Config(), FULL)]
    offsets = 2 * 13 * (64 + 1) * 32  # of the bands above, in both refinements
    beside = 2 * VIEWS * 1032 * 64
    assert counts == [1_669_600 - offsets + beside, 1_669_600]


@pytest.mark.parametrize("frames", [1, 2, 7, 12])
def test_any_number_of_frames_gives_as_many(frames):
    found = scores(build(TOKENS, 3), music_like(frames))
    assert found.shape == (1, 3, CHANNELS, frames, BINS)
    assert found.isfinite().all()


def test_tokens_between_are_means_of_their_neighbours_and_details_are_not():
    """Without details, scores are linear in the tokens."""
    network, features = build(TOKENS), music_like(14)
    found = scores(network, features)
    between = (found[:, :, :, :-2:2] + found[:, :, :, 2::2]) / 2
    assert (found[:, :, :, 1:-1:2] - between).abs().max() > 0.1
    for layer in network.heads:
        maps = torch.unflatten(layer.weight.data, 2, (-1, 4 * CHANNELS))
        maps[:, :, : TOKENS.details] = 0
        torch.unflatten(layer.bias.data, 2, (-1, 4 * CHANNELS))[:, :, : TOKENS.details] = 0
    found = scores(network, features)
    between = (found[:, :, :, :-2:2] + found[:, :, :, 2::2]) / 2
    torch.testing.assert_close(found[:, :, :, 1:-1:2], between, atol=EQUAL, rtol=0)
    torch.testing.assert_close(found[:, :, :, -1], found[:, :, :, -2])


def test_only_the_refined_bands_have_refinements():
    refined, rough = build(TOKENS), build(replace(TOKENS, refinements=0))
    rough.load_state_dict(refined.state_dict(), strict=False)
    features = music_like(8)
    moved = (scores(refined, features) != scores(rough, features)).any(3).any(0).any(0).any(0)
    assert moved[:352].all()
    assert not moved[352:].any()


@pytest.mark.parametrize("frames", [1, 2, 3, 25, 26])
def test_silence_before_and_after_is_as_good_as_none(frames):
    network = build(TOKENS)
    sound = 2 * torch.randn(1, VIEWS, 40, BINS) - 5
    around = [torch.full((1, VIEWS, count, BINS), math.log(FLOOR)) for count in (14, frames)]
    alone, amid = scores(network, sound), scores(network, torch.cat([around[0], sound, around[1]], 2))
    edge = TOKENS.context_of_details
    inner = slice(14 + edge, 54 - edge)
    torch.testing.assert_close(amid[:, :, :, inner], alone[:, :, :, edge:-edge], atol=EQUAL, rtol=0)


@pytest.mark.parametrize("frames", [47, 48])
@pytest.mark.parametrize("margin", [1, 2, 9, 20])
def test_a_margin_changes_nothing_in_the_rest(frames, margin):
    network, features = build(TOKENS), music_like(frames)
    inner, every = scores(network, features, margin=margin), scores(network, features)
    torch.testing.assert_close(inner, every[:, :, :, margin:-margin], atol=EQUAL, rtol=0)


def test_nothing_beyond_the_context_counts_and_all_within():
    network, context = build(TOKENS), TOKENS.context_of_scores
    assert 0 <= TOKENS.context_frames - context < TOKENS.step
    frames = 2 * context + 8
    features, other = music_like(frames), music_like(frames, seed=2)
    before = scores(network, features)
    nearest = {"before": 0, "after": 0}
    for frame in (context + 3, context + 4):
        for side, far in (("before", frame - context - 1), ("after", frame + context + 1)):
            changed = features.clone()
            beyond = slice(far + 1) if side == "before" else slice(far, None)
            changed[:, :, beyond] = other[:, :, beyond]
            assert (scores(network, changed) - before)[:, :, :, frame].abs().max() < 1e-6
            last = far + 1 if side == "before" else far - 1
            changed[:, :, last] = other[:, :, last]
            moved = (scores(network, changed) - before)[:, :, :, frame].abs().max()
            nearest[side] = max(nearest[side], moved)
    assert nearest["after"] > EQUAL  # of a frame right after a step, the farthest one


def test_from_any_step_on_the_scores_are_the_same():
    network, context = build(TOKENS), TOKENS.context_frames
    features = music_like(2 * context + 12)
    every = scores(network, features)
    part = scores(network, features[:, :, 6:])
    torch.testing.assert_close(
        part[:, :, :, context:-context], every[:, :, :, 6 + context : -context], atol=EQUAL, rtol=0
    )


def test_angles_grow_with_the_step():
    every, second = rotary(20, 8, torch.device("cpu")), rotary(10, 8, torch.device("cpu"), step=2)
    assert torch.equal(second, every[:, ::2])


@pytest.mark.parametrize("blocks", [2, 3])
def test_it_starts_as_the_network_of_every_frame_ends(blocks):
    """New blocks change nothing, and all weights that it has are given."""
    given = build(NARROW).state_dict()
    configs = replace(TOKENS, beside=0), TOKENS, replace(TOKENS, blocks=blocks)
    alone, beside, grown = map(build, configs)
    for network in (alone, beside, grown):
        network.start_from(given)
    assert all(torch.equal(tensor, given[key]) for key, tensor in alone.state_dict().items())
    features = music_like(16)
    for network in (beside, grown):
        torch.testing.assert_close(scores(network, features), scores(alone, features), atol=EQUAL, rtol=0)
    with torch.no_grad():
        grown.split[0].weight[:, -8:] += 1
    assert (scores(grown, features) - scores(alone, features)).abs().max() > EQUAL


def test_weights_that_do_not_fit_are_an_error():
    with pytest.raises(RuntimeError, match="size mismatch"):
        build(TOKENS).start_from(build(replace(NARROW, width=8)).state_dict())
    with pytest.raises(RuntimeError, match="Unexpected key"):
        build(replace(TOKENS, blocks=1)).start_from(build(NARROW).state_dict())
    with pytest.raises(RuntimeError, match="Missing key"):
        build(NARROW).start_from(build(TOKENS).state_dict())


def test_training_starts_from_the_weights_of_every_frame():
    recipe = TrainConfig(network="band-transformer", init=random_model("band-transformer-full"))
    weights = _initial_weights(recipe, STEMS)
    trainer = NetworkTrainer(WHOLE, recipe, launch(), weights[WHOLE], stems=4)
    own, given = trainer.networks["average"].state_dict(), weights[WHOLE]
    torch.testing.assert_close(own["heads.0.weight"], given["heads.0.weight"])
    assert own["split.0.weight"].shape[1] == 3 * given["split.0.weight"].shape[1]
    with pytest.raises(BadWeights, match="differs in network"):
        _initial_weights(replace(recipe, network="sub-band-unet"), STEMS)
    other = TrainConfig(network="fnn-small", init=recipe.init)
    with pytest.raises(BadWeights, match="do not fit fnn-small"):
        NetworkTrainer(WHOLE, other, launch(), weights[WHOLE], stems=4)
