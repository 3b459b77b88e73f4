from __future__ import annotations

import math

import pytest
import torch

from stemsplit.nets.band_transformer import BINS, CHANNELS, REACH, VIEWS, BandTransformer, Config, _turns

EQUAL = 1e-5  # in scores, float32
NARROW = Config(width=16, heads=2, blocks=2, window=3, expansion=1, details=4)
CONFIGS = [
    NARROW,
    Config(width=16, heads=2, blocks=1, window=4, details=4),
    Config(width=16, heads=1, blocks=3, window=2, details=4),
]


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(stems=4, config=NARROW):
    torch.manual_seed(440)
    return BandTransformer(stems, config).eval()


def attentive(config):
    """A network that looks at few places, so that what the farthest one says can be measured."""
    network = build(2, config)
    with torch.no_grad():
        for block in network.along:
            block.queries_keys_values.weight.mul_(4)
    return network


def music_like(frames, examples=1, seed=1):
    torch.manual_seed(seed)
    return (-6 + 2 * torch.randn(examples, VIEWS, frames, BINS)).clamp_min(math.log(1e-5))


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_sizes_are_those_of_the_docstring():
    network = BandTransformer(4)
    width, details, (bands, bins) = 64, 12, (33, 2049)
    assert sum(count for count, _ in network.config.bands) == bands
    block = 4 * width**2 + 4 * width + width * 4 * width + 4 * width + 2 * width**2 + width
    split = VIEWS * bins * width + bands * width
    heads = (width + 1) * 4 * 2 * (bins + details * bands)
    assert [count(part) for part in (network.across, network.along)] == [3 * block] * 2
    assert (count(network.split), count(network.heads)) == (split, heads)
    rest = 2 * width + details * (9 * VIEWS + 1)
    assert count(network) == 6 * block + split + heads + rest == 2_047_844
    assert REACH == 48


def test_bands_that_leave_bins_out_are_an_error():
    with pytest.raises(ValueError, match="bands="):
        BandTransformer(4, Config(bands=((8, 128),)))


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("frames", [1, 2, 5, 6, 7, 26])
def test_any_number_of_frames_gives_as_many(config, frames):
    network = build(3, config)
    with torch.inference_mode():
        outputs = network(music_like(frames, examples=2))
    assert outputs.shape == (2, 3, CHANNELS, frames, BINS)
    assert outputs.isfinite().all()


@pytest.mark.parametrize("config", CONFIGS)
def test_nothing_beyond_the_reach_is_heard_and_all_within(config):
    reach, network = config.reach, attentive(config)
    frames = 2 * reach + 8
    frame = reach + 4
    features = music_like(frames)
    changed = {
        name: torch.cat([features[:, :, :first], music_like(many, seed=2), features[:, :, first + many :]], 2)
        for name, first, many in (
            ("after", frame + reach + 1, frames - frame - reach - 1),
            ("farthest", frame + reach, 1),
            ("before", 0, frame - reach),
        )
    }
    with torch.inference_mode():
        before = network(features)[:, :, :, frame]
        moved = {name: (network(x)[:, :, :, frame] - before).abs().max() for name, x in changed.items()}
    assert moved["after"] < 1e-6
    assert moved["before"] < 1e-6
    assert moved["farthest"] > EQUAL


@pytest.mark.parametrize("config", CONFIGS)
def test_wherever_it_begins_it_gives_the_same_answers(config):
    reach, network = config.reach, attentive(config)
    features = music_like(2 * reach + 9)
    with torch.inference_mode():
        whole = network(features)
        for start in (1, 5):
            part = network(features[:, :, start:])[:, :, :, reach:-reach]
            assert (part - whole[:, :, :, start + reach : -reach]).abs().max() < EQUAL


def test_far_places_are_as_exact_as_near_ones():
    cosines, sines = _turns(20_004, 12, torch.device("cpu"))
    for first in (0, 20_000):
        a, b = torch.complex(cosines, sines)[[first, first + 3]]
        assert torch.allclose((b / a).angle(), 3 * 10_000.0 ** (-torch.arange(6) / 6), rtol=0, atol=1e-6)


def test_every_band_hears_every_other():
    network = build()
    features = music_like(6)
    with torch.inference_mode():
        before = network(features)
        features[..., 1000] -= 2
        assert (network(features) - before)[..., :4].abs().max() > EQUAL


def test_bins_are_in_their_places():
    """A head puts each bin's own details into that very bin, frame, channel and stem's score."""
    network = build()
    features = music_like(7)
    network.mean.copy_(torch.linspace(-8, -4, BINS))
    with torch.no_grad():
        network.details.weight.zero_()
        network.details.weight[1, 3, 1, 1] = 1  # the second detail is the side's own magnitude
        for layer, (_, size) in zip(network.heads, network.config.bands, strict=True):
            layer.weight.zero_()
            scores = layer.bias.unflatten(-1, (4, CHANNELS, -1))
            assert scores.shape[-1] == 4 + size
            scores.zero_()[..., 1] = torch.arange(8.0).view(4, CHANNELS)
        network.details.bias.zero_()
        offsets = network.heads[0].bias.unflatten(-1, (4, CHANNELS, -1))
        offsets[3, 0, 2, 1, 4 + 1] = 100  # the fourth band's second bin
        outputs = network(features)
    expected = torch.arange(8.0).view(4, CHANNELS, 1, 1) * (features[:, 3:] - network.mean)[:, None].relu()
    expected[:, 2, 1, :, 3 * 8 + 1] += 100
    assert torch.allclose(outputs, expected, rtol=1e-5, atol=1e-4)


def test_a_band_s_features_are_of_its_own_bins_and_frame():
    network = build(config=Config(width=16, heads=2, blocks=0, window=2, details=4))
    features = music_like(8)
    with torch.no_grad():
        network.details.weight.zero_()
        before = network(features)
        features[0, 1, 5, 64 + 16 + 3] -= 2
        moved = (network(features) != before)[0].any(0)
    where = moved.nonzero()
    assert moved.sum() == CHANNELS * 16
    assert set(where[:, 1].tolist()) == {5}
    assert set(where[:, 2].tolist()) == set(range(64 + 16, 64 + 32))


def test_details_are_of_the_bins_next_to_it():
    network = build(config=Config(width=16, heads=2, blocks=0, window=2, details=4))
    features = music_like(8)
    with torch.no_grad():
        for layer, head in zip(network.split, network.heads, strict=True):
            layer.weight.zero_()
            head.bias.fill_(1)
        before = network(features)
        features[0, 1, 5, 83] += 9
        moved = (network(features) != before)[0].any(0).any(0)
    where = moved.nonzero()
    assert set(where[:, 0].tolist()) == {4, 5, 6}
    assert set(where[:, 1].tolist()) == {82, 83, 84}


def test_what_is_filled_up_with_is_not_heard():
    """Where all frames hear all, the window makes no difference but to how much is filled up."""
    features = music_like(13)
    with torch.inference_mode():
        exact, *filled = (
            build(config=Config(width=16, heads=2, blocks=2, window=window, details=4))(features)
            for window in (13, 16, 20)
        )
    for outputs in filled:
        assert torch.allclose(outputs, exact, rtol=0, atol=EQUAL)


@pytest.mark.parametrize("axis", ["time", "bands"])
def test_order_counts(axis):
    """Turned round in time, or with all bands alike and turned round, a song is not only turned round."""
    config = Config(bands=((683, 3),), width=16, heads=2, blocks=1, window=8, details=4)
    network = attentive(config)
    with torch.no_grad():
        network.details.weight.zero_()
        for layer in (*network.split, *network.heads):
            layer.weight.copy_(layer.weight[:1].clone())
    features = music_like(6)
    turned = features.flip(2) if axis == "time" else features.unflatten(-1, (683, 3)).flip(3).flatten(3)
    with torch.inference_mode():
        there, back = network(features), network(turned)
    back = back.flip(3) if axis == "time" else back.unflatten(-1, (683, 3)).flip(4).flatten(4)
    assert (there - back).abs().max() > 100 * EQUAL


def test_masks_share_the_mixture_out():
    network = build()
    with torch.inference_mode():
        masks = network.masks(network(music_like(5)))
        alone = build(1).masks(build(1)(music_like(5)))
    assert masks.min() >= 0
    assert torch.allclose(masks.sum(1), torch.ones(()), atol=1e-6)
    assert masks.std() > 0.01
    assert alone.shape == (1, 1, CHANNELS, 5, BINS)
    assert ((alone > 0) & (alone < 1)).all()
    assert alone.std() > 0.01


@pytest.mark.parametrize("level", [math.log(1e-5), 5.0])
def test_silence_and_loudness_give_numbers(level):
    network = build()
    with torch.inference_mode():
        masks = network.masks(network(torch.full((1, VIEWS, 9, BINS), level)))
    assert masks.isfinite().all()


def test_bfloat16_is_near():
    network = build()
    with torch.inference_mode():
        exact = network.masks(network(music_like(9)))
        with torch.autocast("cpu", torch.bfloat16):
            near = network.masks(network(music_like(9)))
    assert near.dtype == torch.float32
    assert (near - exact).abs().max() < 0.05


def test_openvino_gives_the_same():
    pytest.importorskip("openvino")
    from stemsplit.runtime.openvino_runtime import configuration, imported, translated

    network = build()
    features = music_like(21)
    graph = translated(network, tuple(features.shape))
    model = imported().Core().compile_model(graph, "CPU", configuration("float32", 1))
    (answer,) = model(features.numpy()).values()
    with torch.inference_mode():
        assert abs(answer - network(features).numpy()).max() < 1e-4


def test_it_learns_to_tell_tones_from_clicks():
    """What stays on in a band is one stem, and what is on in all bands at times the other."""
    torch.manual_seed(2)
    tones = (torch.rand(2, CHANNELS, 1, 683, 1) < 0.5).float().expand(-1, -1, 12, -1, 3).flatten(3)
    clicks = (torch.arange(12) % 4 == 1).float().view(12, 1) * (1 - tones)
    stems = 0.1 * torch.stack([tones, clicks], 1) * torch.rand(2, 2, CHANNELS, 12, BINS)
    mixture = stems.sum(1)
    sides = (mixture[:, :1] + mixture[:, 1:]) / 2, (mixture[:, :1] - mixture[:, 1:]).abs() / 2
    features = torch.cat([mixture, *sides], 1).clamp_min(1e-5).log()
    network = build(2).train()
    network.mean.copy_(features.mean((0, 1, 2)))
    network.deviation.copy_(features.std((0, 1, 2)))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        loss = (network.masks(network(features)) * mixture[:, None] - stems).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.25 * losses[0]
