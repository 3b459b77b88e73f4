"""The band transformer on every second frame, whose scores between are interpolated."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from stemsplit.dsp.features import FLOOR
from stemsplit.errors import BadWeights
from stemsplit.networks import factory, registry
from stemsplit.networks._attention import rotary
from stemsplit.networks.band_transformer import BINS, CHANNELS, FAST, HALF, VIEWS, BandTransformer, Config
from stemsplit.networks.info import WHOLE
from stemsplit.options import RuntimeOptions
from stemsplit.separation.stream import separate_blocks
from stemsplit.training.config import TrainConfig
from stemsplit.training.devices import launch
from stemsplit.training.network_trainer import NetworkTrainer
from stemsplit.training.run import _initial_weights
from stemsplit.zoo.ref import ModelRef
from tests.conftest import STEMS, random_model, random_networks, whole

EQUAL = 1e-5  # in scores, float32
SMALL = Config(width=16, heads=2, blocks=2, window=3, expansion=1, details=4, refinements=1)
BOTH_SEEN = replace(SMALL, step=2, seen=2)
ONE_SEEN = replace(SMALL, step=2)
CONFIGS = pytest.mark.parametrize("config", [BOTH_SEEN, ONE_SEEN], ids=["both frames seen", "one seen"])


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(config, stems=4):
    torch.manual_seed(440)
    network = BandTransformer(stems, config).eval()
    with torch.no_grad():
        for refinement in network.refinements:  # which at first add nothing
            torch.nn.init.normal_(refinement.outer.weight, std=0.1)
        for block in network.along:  # so that what the farthest frame says can be measured
            block.queries_keys_values.weight.mul_(4)
    return network


def music_like(frames, seed=1):
    torch.manual_seed(seed)
    return (-6 + 2 * torch.randn(1, VIEWS, frames, BINS)).clamp_min(math.log(FLOOR))


def scores(network, features, **how):
    with torch.inference_mode():
        return network(features, **how)


@pytest.mark.slow
def test_the_registry_has_their_contexts_and_sizes():
    half, fast, full = (registry.find(f"band-transformer{kind}") for kind in ("-half", "-fast", ""))
    assert half.context.frames == HALF.context_frames
    # One more than it needs, so that the first frame with masks is one that the network runs on.
    assert fast.context.frames == FAST.context_frames + 1
    assert (half.context.stride, fast.context.stride) == (2, 2)
    assert full.fast == "band-transformer-fast"
    assert not half.fast
    assert half.joint
    assert "band-transformer-fast" not in registry.REGISTRY
    counts = [sum(p.numel() for p in BandTransformer(4, c).parameters()) for c in (HALF, FAST, Config())]
    assert counts[1:] == [1_669_600] * 2
    assert counts[0] == 1_669_600 + VIEWS * (1032 * 64 + 2 * 9 * 32)


@CONFIGS
@pytest.mark.parametrize("frames", [1, 2, 7, 12])
def test_any_number_of_frames_gives_as_many(config, frames):
    found = scores(build(config, 3), music_like(frames))
    assert found.shape == (1, 3, CHANNELS, frames, BINS)
    assert found.isfinite().all()


@CONFIGS
def test_frames_between_are_means_of_their_neighbours(config):
    found = scores(build(config), music_like(14))
    between = (found[:, :, :, :-2:2] + found[:, :, :, 2::2]) / 2
    torch.testing.assert_close(found[:, :, :, 1:-1:2], between, atol=EQUAL, rtol=0)
    torch.testing.assert_close(found[:, :, :, -1], found[:, :, :, -2])
    assert (found[:, :, :, 0] - found[:, :, :, 1]).abs().max() > 0.01


@CONFIGS
@pytest.mark.parametrize("frames", [47, 48])
@pytest.mark.parametrize("margin", [1, 2, 9, 20])
def test_a_margin_changes_nothing_in_the_rest(config, frames, margin):
    network, features = build(config), music_like(frames)
    inner, every = scores(network, features, margin=margin), scores(network, features)
    torch.testing.assert_close(inner, every[:, :, :, margin:-margin], atol=EQUAL, rtol=0)


@CONFIGS
def test_nothing_beyond_the_context_counts_and_all_within(config):
    network, context = build(config), config.context_frames
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


@CONFIGS
def test_from_any_step_on_the_scores_are_the_same(config):
    network, context = build(config), config.context_frames
    features = music_like(2 * context + 12)
    every = scores(network, features)
    part = scores(network, features[:, :, 6:])
    torch.testing.assert_close(
        part[:, :, :, context:-context], every[:, :, :, 6 + context : -context], atol=EQUAL, rtol=0
    )


def test_a_step_is_silent_only_if_all_its_frames_are():
    network, silence = build(BOTH_SEEN), torch.full((1, VIEWS, 12, BINS), math.log(FLOOR))
    features = silence.clone()
    features[:, :, 5] = music_like(1)[:, :, 0]
    silent = (network.prepare(features) == 0).all(1).all(-1)[0]
    assert silent.tolist() == [True, True, False, True, True, True]
    unseen = (build(ONE_SEEN).prepare(features) == 0).all()
    assert unseen


def test_angles_grow_with_the_step():
    every, second = rotary(20, 8, torch.device("cpu")), rotary(10, 8, torch.device("cpu"), step=2)
    assert torch.equal(second, every[:, ::2])


@pytest.mark.parametrize("blocks", [2, 3])
def test_it_starts_as_the_network_of_every_frame_ends(blocks):
    """New views and blocks change nothing, and what is given is all there."""
    given = build(SMALL).state_dict()
    fast, grown = build(ONE_SEEN), build(replace(BOTH_SEEN, blocks=blocks))
    fast.start_from(given)
    grown.start_from(given)
    features = music_like(16)
    torch.testing.assert_close(scores(grown, features), scores(fast, features), atol=EQUAL, rtol=0)
    with torch.no_grad():
        grown.split[0].weight[:, -8:] += 1
    assert (scores(grown, features) - scores(fast, features)).abs().max() > EQUAL


def test_weights_that_do_not_fit_are_an_error():
    with pytest.raises(RuntimeError, match="must match the size"):
        build(BOTH_SEEN).start_from(build(replace(SMALL, width=8)).state_dict())
    with pytest.raises(RuntimeError, match="Unexpected key"):
        build(replace(BOTH_SEEN, blocks=1)).start_from(build(SMALL).state_dict())


def test_training_starts_from_the_default_s_weights():
    recipe = TrainConfig(network="band-transformer-half", init="band-transformer")
    weights = _initial_weights(recipe, STEMS)
    trainer = NetworkTrainer(WHOLE, recipe, launch(), weights[WHOLE], stems=4)
    own, given = trainer.networks["average"].state_dict(), weights[WHOLE]
    torch.testing.assert_close(own["heads.0.weight"], given["heads.0.weight"])
    assert own["split.0.weight"].shape[1] == 2 * given["split.0.weight"].shape[1]
    with pytest.raises(BadWeights, match="differs in network"):
        _initial_weights(replace(recipe, network="sub-band-unet"), STEMS)
    other = TrainConfig(network="fnn-small", init="band-transformer")
    with pytest.raises(BadWeights, match="do not fit fnn-small"):
        NetworkTrainer(WHOLE, other, launch(), weights[WHOLE], stems=4)


@pytest.mark.slow
def test_fast_is_another_network_with_the_same_weights():
    tensors = {WHOLE: random_networks("band-transformer")[0].state_dict()}
    names = "band-transformer", registry.find("band-transformer").fast
    (full,), (fast,) = (factory.build(name, tensors, 4) for name in names)
    assert (full.config, fast.config) == (Config(), FAST)


@pytest.mark.slow
def test_with_fast_a_stream_in_segments_gives_the_samples_of_the_whole(music):
    running = RuntimeOptions(
        runtime="torch", device="cpu", precision="float32", threads=1, fast=True, batch=64
    )
    separator = ModelRef.parse(random_model("band-transformer")).load(running, mask="wiener")
    assert separator.network._all_stems.networks[0].config == FAST
    assert (separator.plan.stride, separator.plan.frame_stride, separator.plan.wiener_stride) == (4, 1, 4)
    music = music[:, :40_001]
    found = list(separate_blocks(separator, [music], segment_seconds=0.3))
    assert len(found) > 2
    np.testing.assert_allclose(np.concatenate(found, axis=-1), whole(separator, music), atol=1e-5)
