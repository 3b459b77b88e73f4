from __future__ import annotations

import pytest
import torch

from stemsplit.networks.wavenet import CHANNELS, CONTEXT_SAMPLES, SMALL, Config, Wavenet

ALL = [Config(stacks, layers, features=8, last=(16, 8)) for stacks, layers in ((2, 3), (1, 5), (5, 1))]
TINY = ALL[0]


def network(stems: int = 4, config: Config = TINY) -> Wavenet:
    torch.manual_seed(440)
    return Wavenet(stems, config).eval()


def sound(time: int, examples: int = 1) -> torch.Tensor:
    torch.manual_seed(1)
    return 0.3 * torch.randn(examples, CHANNELS, time)


@pytest.mark.parametrize(
    ("stems", "config", "count"),
    [
        (4, Config(), 3_277_763),
        (1, Config(), 3_277_249),
        (2, Config(), 3_277_249),
        (4, Config(stacks=1), 3_277_763 - 30 * 32_768),
        (4, Config(stacks=5), 3_277_763 + 10 * 32_768),
        (4, SMALL, 31_623),
    ],
)
def test_parameters(stems, config, count):
    with torch.device("meta"):
        built = Wavenet(stems, config)
    assert sum(parameter.numel() for parameter in built.parameters()) == count


def test_layers_are_the_paper_s():
    with torch.device("meta"):
        built = Wavenet(4)
    assert [layer.gated.dilation[0] for layer in built.layers] == [2**layer for layer in range(10)] * 4
    gated, sums = built.layers[0].gated, built.layers[0].sums
    assert gated.weight.shape == (128, 64, 3)
    assert sums.weight.shape == (128, 64, 1)
    assert (built.wide.out_channels, built.narrow.out_channels, built.output.out_channels) == (2048, 256, 3)


def test_reaches():
    assert Config().context_samples == CONTEXT_SAMPLES == 4095
    assert [Config(stacks=stacks).context_samples for stacks in range(1, 6)] == [1026, 2049, 3072, 4095, 5118]


@pytest.mark.slow
@pytest.mark.parametrize("config", [Config(), SMALL])
@pytest.mark.parametrize("time", [1, 5])
def test_the_whole_network_runs(config, time):
    with torch.inference_mode():
        answers = network(4, config)(sound(2 * config.context_samples + time))
    assert answers.shape == (1, 4, CHANNELS, time)
    assert torch.isfinite(answers).all()


@pytest.mark.parametrize("stems", [1, 2, 4])
@pytest.mark.parametrize("config", ALL)
@pytest.mark.parametrize("time", [1, 2, 33])
def test_the_input_without_its_reach_comes_out(stems, config, time):
    with torch.inference_mode():
        answers = network(stems, config)(sound(time + 2 * config.context_samples, examples=3))
    assert answers.shape == (3, stems, CHANNELS, time)


@pytest.mark.parametrize("config", [*ALL, SMALL])
@pytest.mark.parametrize("place", [0, 3])
def test_a_sample_hears_exactly_its_reach(config, place):
    built = network(2, config).double()
    mixture = sound(2 * config.context_samples + 6).double().requires_grad_()
    (gradient,) = torch.autograd.grad(built(mixture)[0, 0, 0, place], mixture)
    places = gradient[0, 0].nonzero()
    assert (int(places.min()), int(places.max())) == (place, place + 2 * config.context_samples)


@pytest.mark.parametrize("config", ALL)
@pytest.mark.parametrize("shift", [1, 7])
def test_streamed_equals_whole(config, shift):
    built, mixture = network(4, config), sound(100 + 2 * config.context_samples)
    with torch.inference_mode():
        whole = built(mixture)
        window = mixture[..., shift : shift + 40 + 2 * config.context_samples]
        torch.testing.assert_close(built(window), whole[..., shift : shift + 40], atol=1e-6, rtol=0)
    assert whole[:, 0].std() > 1e-3


def test_gates_let_nothing_through_when_shut():
    """With all layers' signals at nought, nothing but the mixture comes out, and from where it stood."""
    built, mixture = network(2), sound(50 + 2 * TINY.context_samples)
    for layer in built.layers:
        torch.nn.init.zeros_(layer.gated.weight[: TINY.features])
    with torch.inference_mode():
        answers = built(mixture)
    torch.testing.assert_close(answers[:, 1], mixture[..., TINY.context_samples : -TINY.context_samples])
    assert (answers[:, 0] == 0).all()


def test_all_layers_reach_the_end():
    built, mixture = network(2), sound(20 + 2 * TINY.context_samples)
    built(mixture)[:, 0].square().sum().backward()
    for layer in built.layers:
        further, skipped = layer.sums.weight.grad.chunk(2)
        assert skipped.abs().max() > 0
        assert (further.abs().max() > 0) == (layer is not built.layers[-1])


@pytest.mark.parametrize("open_layer", range(6))
def test_each_layer_alone_hears_as_far_to_both_sides_as_it_should(open_layer):
    """What comes in goes on past the shut layers before it, and what it gives stays where it is."""
    built = network(2).double()
    for place, layer in enumerate(built.layers):
        if place != open_layer:
            torch.nn.init.zeros_(layer.gated.weight)
    mixture = sound(2 * TINY.context_samples + 1).double().requires_grad_()
    (gradient,) = torch.autograd.grad(built(mixture)[0, 0, 0, 0], mixture)
    heard = [int(place) - TINY.context_samples for place in gradient[0, 0].nonzero()]
    furthest = 1 + 2 ** (open_layer % TINY.layers) + 2
    assert (heard[0], heard[-1]) == (-furthest, furthest)


def test_stems_add_up():
    mixture = sound(50 + 2 * TINY.context_samples)
    with torch.inference_mode():
        answers = network()(mixture)
    torch.testing.assert_close(answers.sum(1), mixture[..., TINY.context_samples : -TINY.context_samples])


@pytest.mark.parametrize("level", [0.0, 1.0, 100.0])
def test_answers_are_numbers(level):
    with torch.inference_mode():
        assert torch.isfinite(network()(level * sound(50 + 2 * TINY.context_samples))).all()


def test_an_input_that_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match="34 samples"):
        network()(torch.zeros(1, CHANNELS, 2 * TINY.context_samples))


def test_low_precision():
    built, mixture = network(), sound(50 + 2 * TINY.context_samples)
    with torch.inference_mode():
        exact = built(mixture)
        with torch.autocast("cpu", torch.bfloat16):
            rough = built(mixture)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=0.02, rtol=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_traces():
    built, mixture = network(), sound(50 + 2 * TINY.context_samples)
    with torch.inference_mode():
        traced = torch.jit.trace(built, mixture)
        torch.testing.assert_close(traced(mixture * 0.5), built(mixture * 0.5))


@pytest.mark.slow
def test_trains():
    """Tells a high noise from a low one."""
    torch.manual_seed(0)
    built = Wavenet(2, TINY).train()
    optimizer = torch.optim.Adam(built.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        noise = torch.randn(2, 4, CHANNELS, 100 + 2 * TINY.context_samples + 2)
        low = 0.1 * (noise[0, ..., 2:] + 2 * noise[0, ..., 1:-1] + noise[0, ..., :-2])
        high = 0.1 * (noise[1, ..., 2:] - 2 * noise[1, ..., 1:-1] + noise[1, ..., :-2])
        stems = torch.stack([low, high], 1)[..., TINY.context_samples : -TINY.context_samples]
        loss = (built(low + high) - stems).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) / 10 < 0.5 * losses[0]
