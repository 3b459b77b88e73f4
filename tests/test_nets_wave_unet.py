from __future__ import annotations

import pytest
import torch

from stemsplit.networks.wave_unet import CHANNELS, CONTEXT_SAMPLES, LEARNED, SMALL, STRIDE, Config, WaveUNet

TINY = Config(levels=3, filters=8)
DEEP = Config(levels=5, filters=2)
ALL = [TINY, DEEP, Config(levels=3, filters=4, learned=True), Config(levels=2, filters=4, down=9, up=3)]


def network(stems: int = 4, config: Config = TINY) -> WaveUNet:
    torch.manual_seed(440)
    built = WaveUNet(stems, config).eval()
    for name, parameter in built.named_parameters():
        if "bias" in name or "between" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return built


def sound(blocks: int, config: Config = TINY, examples: int = 1) -> torch.Tensor:
    torch.manual_seed(1)
    return 0.3 * torch.randn(examples, CHANNELS, blocks * config.stride + 2 * config.context_samples)


def heard(built: WaveUNet, first: int, last: int) -> tuple[int, int]:
    """The first and the last sample of the input that answers first to last, as places in it, depend on."""
    mixture = sound(7, built.config).requires_grad_()
    answers = built(mixture)[0, :, :, first - built.context_samples : last - built.context_samples + 1]
    (gradient,) = torch.autograd.grad((answers * torch.randn_like(answers)).sum(), mixture)
    places = gradient[0].abs().sum(0).nonzero()
    return int(places.min()), int(places.max())


def test_sizes_are_the_paper_s():
    assert Config().sizes(9) == (147_443, 16_389)
    assert (CONTEXT_SAMPLES, STRIDE) == (65_536, 4096)
    assert (SMALL.context_samples, SMALL.stride) == (16_384, 1024)


def test_layers_are_the_paper_s():
    with torch.device("meta"):
        built = WaveUNet(4)
    down = [(layer.in_channels, layer.out_channels, *layer.kernel_size) for layer in built.down]
    assert down[:2] == [(2, 24, 15), (24, 48, 15)]
    assert down[-2:] == [(264, 288, 15), (288, 312, 15)]
    up = [(layer.in_channels, layer.out_channels, *layer.kernel_size) for layer in built.up]
    assert up[0] == (312 + 288, 288, 5)
    assert up[-1] == (48 + 24, 24, 5)
    assert built.output.in_channels == 24 + CHANNELS


@pytest.mark.parametrize(
    ("stems", "config", "count"),
    [
        (4, Config(), 10_263_498),
        (2, Config(), 10_263_390),
        (1, Config(), 10_263_390),
        (4, LEARNED, 10_263_498 + 24 * sum(range(2, 14))),
        (4, SMALL, 1_546_302),
    ],
)
def test_parameters(stems, config, count):
    with torch.device("meta"):
        built = WaveUNet(stems, config)
    assert sum(parameter.numel() for parameter in built.parameters()) == count


@pytest.mark.parametrize("config", ALL)
@pytest.mark.parametrize("bottom", [6, 9, 20])
def test_unpadded_convolutions_give_what_sizes_says(config, bottom):
    time, left = config.sizes(bottom)
    with torch.inference_mode():
        assert network(4, config).valid(torch.randn(1, CHANNELS, time)).shape[-1] == left


@pytest.mark.parametrize("stems", [1, 2, 4])
@pytest.mark.parametrize("config", ALL)
@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_the_input_without_its_reach_comes_out(stems, config, blocks):
    with torch.inference_mode():
        answers = network(stems, config)(sound(blocks, config, examples=3))
    assert answers.shape == (3, stems, CHANNELS, blocks * config.stride)


@pytest.mark.slow
@pytest.mark.parametrize("config", [Config(), SMALL])
def test_the_whole_network_runs(config):
    with torch.inference_mode():
        answers = network(4, config)(sound(1, config))
    assert answers.shape == (1, 4, CHANNELS, config.stride)


def test_answers_stand_where_the_input_stood():
    """A network that only lets the mixture through, sample by sample."""
    built = network(2)
    torch.nn.init.zeros_(built.output.weight)
    torch.nn.init.zeros_(built.output.bias)
    for channel in range(CHANNELS):
        built.output.weight.data[channel, channel] = 1.0
    mixture = sound(4)
    with torch.inference_mode():
        answers = built(mixture)
    inside = mixture[..., TINY.context_samples : -TINY.context_samples]
    torch.testing.assert_close(answers[:, 0], torch.tanh(inside))


def test_what_was_kept_lies_beside_what_comes_up():
    """An impulse stays where it is through each level, for filters that take the middle sample only."""
    built = network(2, Config(levels=3, filters=1))
    for layer in (*built.down, *built.up, built.output):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        layer.weight.data[..., layer.kernel_size[0] // 2] = 1.0
    mixture = torch.zeros_like(sound(5))
    for block in range(5):
        inputs = mixture.clone()
        # Impulses where all levels sample: the grid of the unpadded convolutions.
        place = TINY.context_samples + block * TINY.stride + 5
        inputs[..., place] = 0.01
        with torch.inference_mode():
            answer = built(inputs)[0, 0, 0]
        assert answer.argmax() == place - TINY.context_samples
        around = answer[max(0, place - TINY.context_samples - 7) : place - TINY.context_samples + 8]
        if len(around) == 15:
            torch.testing.assert_close(around, around.flip(0))


@pytest.mark.parametrize("config", ALL)
def test_streamed_equals_whole(config):
    built, mixture = network(4, config), sound(12, config)
    with torch.inference_mode():
        whole = built(mixture)
        for start, stop in [(0, 1), (1, 4), (4, 11), (11, 12)]:
            window = mixture[..., start * config.stride : stop * config.stride + 2 * config.context_samples]
            segment = whole[..., start * config.stride : stop * config.stride]
            torch.testing.assert_close(built(window), segment, atol=1e-6, rtol=0)
    assert whole.std() > 0.05


@pytest.mark.parametrize("config", ALL)
def test_segments_on_the_grid_hear_what_reach_says(config):
    built = network(2, config)
    stride, context = config.stride, config.context_samples
    for block in (2, 5):
        first, last = heard(built, context + block * stride, context + (block + 1) * stride - 1)
        assert first >= block * stride
        assert last < (block + 1) * stride + 2 * context
        assert first < block * stride + config.down  # and no less would do
        assert last >= (block + 1) * stride + 2 * context - config.down - 1


def test_a_sample_alone_hears_a_grid_further_but_no_more_than_its_segment():
    built, config = network(2, DEEP), DEEP
    start = config.context_samples + 3 * config.stride
    spans = [heard(built, place, place) for place in range(start, start + config.stride)]
    left = [place - first for place, (first, _) in enumerate(spans, start)]
    right = [last - place for place, (_, last) in enumerate(spans, start)]
    furthest = config.context_samples - 7 - 2 + config.stride - 1
    assert (max(left), max(right)) == (furthest, furthest)
    assert furthest > config.context_samples
    assert min(first for first, _ in spans) >= start - config.context_samples
    assert max(last for _, last in spans) < start + config.stride + config.context_samples


@pytest.mark.parametrize("config", ALL)
def test_inputs_a_grid_apart_get_the_same_answers_and_others_do_not(config):
    built, mixture = network(4, config), sound(8, config)
    stride = config.stride
    with torch.inference_mode():
        whole = built(mixture)
        for shift in range(1, stride + 1):
            answers = built(mixture[..., shift : mixture.shape[-1] - stride + shift])
            apart = (answers - whole[..., shift : shift + answers.shape[-1]]).abs().max()
            assert (apart < 1e-6) == (shift == stride)


@pytest.mark.parametrize(("weight", "between"), [(0.0, 1.5), (50.0, 1.0), (-50.0, 2.0)])
def test_a_learned_sample_lies_between_its_neighbours(weight, between):
    layer = network(2, Config(levels=1, filters=1, learned=True)).between[0]
    torch.nn.init.constant_(layer.weight, weight)
    expected = torch.tensor([1.0, between, 2.0]).expand(1, 2, 3)
    torch.testing.assert_close(layer(torch.tensor([1.0, 2.0]).expand(1, 2, 2)), expected)


def test_stems_add_up():
    mixture = sound(3)
    with torch.inference_mode():
        answers = network()(mixture)
    inside = mixture[..., TINY.context_samples : -TINY.context_samples]
    torch.testing.assert_close(answers.sum(1), inside, atol=1e-6, rtol=0)


@pytest.mark.parametrize("level", [0.0, 1.0, 100.0])
def test_answers_are_numbers(level):
    with torch.inference_mode():
        assert torch.isfinite(network()(level * sound(2))).all()


def test_other_lengths_are_refused():
    for time in (2 * TINY.context_samples, 2 * TINY.context_samples + TINY.stride - 1):
        with pytest.raises(ValueError, match=f"{time} samples"):
            network()(torch.zeros(1, CHANNELS, time))


@pytest.mark.parametrize("config", ALL)
def test_low_precision(config):
    built, mixture = network(4, config), sound(3, config)
    with torch.inference_mode():
        exact = built(mixture)
        with torch.autocast("cpu", torch.bfloat16):
            rough = built(mixture)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=0.05, rtol=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_traces():
    built, mixture = network(), sound(2)
    with torch.inference_mode():
        traced = torch.jit.trace(built, mixture)
        torch.testing.assert_close(traced(mixture * 0.5), built(mixture * 0.5))


@pytest.mark.slow
def test_trains():
    """Tells a high noise from a low one."""
    torch.manual_seed(0)
    built = WaveUNet(2, TINY).train()
    optimizer = torch.optim.Adam(built.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        noise = torch.randn(2, 2, CHANNELS, 24 * TINY.stride + 2 * TINY.context_samples + 2)
        low = 0.1 * (noise[0, ..., 2:] + 2 * noise[0, ..., 1:-1] + noise[0, ..., :-2])
        high = 0.1 * (noise[1, ..., 2:] - 2 * noise[1, ..., 1:-1] + noise[1, ..., :-2])
        stems = torch.stack([low, high], 1)[..., TINY.context_samples : -TINY.context_samples]
        loss = (built(low + high) - stems).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) / 10 < 0.2 * losses[0]
