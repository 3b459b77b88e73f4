"""MDenseNet and MMDenseNet: Table 1 of their paper, how far they hear, and that they learn."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from stemsplit.networks import mdensenet, mmdensenet
from stemsplit.networks.mdensenet import MDenseNet
from stemsplit.networks.mmdensenet import MMDenseNet

FEW = 16
"""Bins enough for the tests: the networks themselves do not care how many there are."""

NETWORKS = {
    "mdensenet": (MDenseNet, mdensenet.Config()),
    "mdensenet-small": (MDenseNet, mdensenet.SMALL),
    "mmdensenet": (MMDenseNet, mmdensenet.Config()),
    "mmdensenet-joint": (MMDenseNet, mmdensenet.JOINT),
    "mmdensenet-small": (MMDenseNet, mmdensenet.SMALL),
}
every = pytest.mark.parametrize("name", NETWORKS)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(name: str, stems: int = 2, bins: int = FEW, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    kind, config = NETWORKS[name]
    network = kind(stems, config).eval()
    network.mean = torch.full((bins,), -5.0)
    network.deviation = torch.full((bins,), 2.0)
    return network


def music_like(frames: int, bins: int = FEW, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(1, 2, frames, bins, generator=generator) - 5


@pytest.mark.parametrize(
    ("name", "stems", "count"),
    [
        ("mdensenet", 1, 121_030),
        ("mmdensenet", 1, 270_100),
        ("mdensenet-small", 4, 112_984),
        ("mmdensenet-joint", 4, 277_306),
        ("mmdensenet-small", 4, 177_992),
    ],
)
def test_parameters(name, stems, count):
    kind, config = NETWORKS[name]
    assert sum(p.numel() for p in kind(stems, config).parameters()) == count


def test_small_networks_take_one_network_for_all_stems():
    outputs = make("mmdensenet-small", stems=4)(music_like(8))
    assert outputs.shape == (1, 4, 2, 8, FEW)
    assert make("mdensenet", stems=1)(music_like(8)).shape == (1, 1, 2, 8, FEW)


def given(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """What every module gives for 16 frames of 1024 bins (the paper has 128 frames)."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in network.named_modules():
        if name:
            module.register_forward_hook(
                lambda _, __, outputs, name=name: shapes.__setitem__(name, tuple(outputs.shape[1:]))
            )
    with torch.inference_mode():
        network(music_like(16, bins=1024))
    return shapes


COLUMNS = {
    "low": ((3, 4), 512, (14, 16, 16, 16, 16, 16, 16), (4, 4, 4, 4, 4, 4, 4)),
    "high": ((3, 3), 512, (10, 10, 10, 10, 10, 10, 10), (3, 3, 3, 3, 3, 3, 3)),
    "full": ((3, 4), 1024, (6, 6, 6, 6, 6, 6, 6), (2, 2, 2, 4, 2, 2, 2)),
    "trunk": ((3, 4), 1024, (12, 12, 12, 12, 12, 12, 12), (4, 4, 4, 4, 4, 4, 4)),
}


@pytest.mark.parametrize("column", COLUMNS)
def test_rows_of_table_1(column):
    kernel, bins, growth, layers = COLUMNS[column]
    network = make("mdensenet" if column == "trunk" else "mmdensenet", stems=1, bins=1024)
    shapes, trunk = given(network), getattr(network, column)
    assert trunk.convolution.kernel_size == kernel
    assert shapes[f"{column}.convolution"] == (32, 16, bins)
    heard = [32, *growth[:3], *(growth[3 + i] + growth[2 - i] for i in range(3))]
    for i, scale in enumerate((1, 2, 4, 8, 4, 2, 1)):
        assert shapes[f"{column}.dense.{i}"] == (growth[i], 16 // scale, bins // scale)
        convolutions = trunk.dense[i].convolutions
        assert [c.in_channels for c in convolutions] == [heard[i] + j * growth[i] for j in range(layers[i])]
        assert {(c.kernel_size, c.out_channels) for c in convolutions} == {((3, 3), growth[i])}
    for i, scale in enumerate((4, 2, 1)):
        assert trunk.up[i].kernel_size == (2, 2)
        assert shapes[f"{column}.up.{i}"] == (growth[3 + i], 16 // scale, bins // scale)


@pytest.mark.parametrize(("name", "heard"), [("mdensenet", 12), ("mmdensenet", 16 + 6)])
def test_last_rows_of_table_1(name, heard):
    network = make(name, stems=1, bins=1024)
    shapes = given(network)
    assert [c.in_channels for c in network.head.dense.convolutions] == [heard, heard + 4]
    assert shapes["head.dense"] == (4, 16, 1024)
    assert shapes["head.convolution"] == (2, 16, 1024)
    assert network.head.convolution.kernel_size == (1, 2)


@pytest.mark.slow
@every
def test_reach_is_measured(name):
    network = make(name).double()
    context = network.context_frames
    assert context == {"mdensenet": 98, "mmdensenet": 98}.get(name, context)
    middle = -(-context // 8) * 8
    before, after = 0, 0
    features = music_like(2 * middle + 8).double().requires_grad_()
    answers = network(features)
    for frame in range(middle, middle + 8):
        (gradient,) = torch.autograd.grad(answers[:, :, :, frame].sum(), features, retain_graph=True)
        heard = gradient.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
        before, after = max(before, frame - int(heard[0])), max(after, int(heard[-1]) - frame)
    assert (before, after) == (context, context)


@every
def test_what_lies_beyond_the_reach_changes_nothing(name):
    network = make(name)
    context, frame = network.context_frames, network.context_frames + 5
    features = music_like(2 * context + 20)
    other = features.clone()
    other[:, :, : frame - context] = 3
    other[:, :, frame + context + 1 :] = -11
    with torch.inference_mode():
        a, b = network(features), network(other)
    torch.testing.assert_close(a[:, :, :, frame], b[:, :, :, frame], atol=1e-6, rtol=0)
    assert not torch.allclose(a, b, atol=1e-3)


@pytest.mark.slow
@every
def test_grid(name):
    network = make(name).double()
    context, stride = network.context_frames, network.stride
    features = music_like(2 * context + 24).double()
    with torch.inference_mode():
        whole, later, off = (
            network(features[:, :, k:])[:, :, :, context:-context] for k in (0, stride, stride // 2)
        )
    torch.testing.assert_close(later, whole[:, :, :, stride:], atol=1e-12, rtol=0)
    assert (off - whole[:, :, :, stride // 2 :]).abs().max() > 1e-7


@every
def test_any_number_of_frames_and_extremes(name):
    network = make(name)
    for frames, level in ((1, -11.5), (7, 5.0), (17, -5.0)):
        with torch.inference_mode():
            outputs = network(torch.full((1, 2, frames, FEW), level))
        assert outputs.shape == (1, 2, 2, frames, FEW)
        assert torch.isfinite(outputs).all()
        masks = network.masks(outputs * 9)
        assert masks.shape == outputs.shape
        assert masks.min() >= 0
        assert masks.max() == 1 or outputs.max() * 9 < 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["mdensenet-small", "mmdensenet-small"])
def test_traced_and_at_half_precision(name):
    network, features = make(name), music_like(16)
    with torch.inference_mode():
        expected = network(features)
        torch.testing.assert_close(torch.jit.trace(network, features)(features), expected)
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(features)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, expected, atol=0.05, rtol=0.1)


def tones_and_clicks(examples: int, seed: int) -> torch.Tensor:
    """Magnitudes `(example, stem, channel, frame, bin)`: tones that last, and clicks of all frequencies."""
    generator = torch.Generator().manual_seed(seed)
    tones = (torch.rand(examples, 2, 1, FEW, generator=generator) > 0.7).float().expand(-1, -1, 16, -1)
    clicks = (torch.rand(examples, 2, 16, 1, generator=generator) > 0.7).float().expand(-1, -1, -1, FEW)
    return torch.stack([tones, clicks], dim=1) * 0.1 + 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mdensenet-small", "mmdensenet-small"])
def test_learns_to_tell_tones_from_clicks(name):
    network = make(name).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    losses = []
    for step in range(40):
        stems = tones_and_clicks(4, seed=step)
        mixture = stems.sum(dim=1)
        outputs = network(mixture.log())
        loss = (outputs * mixture[:, None] - stems).abs().sum() / mixture.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) / 5 < 0.35 * losses[0]


def test_configs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        mdensenet.SMALL.last_growth = 3
