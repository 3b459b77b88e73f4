"""DeepConvSep: its layers, its excerpts, and that it learns."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from stemsplit.networks.deep_conv_sep import BINS, BLOCK, CONTEXT_FRAMES, STRIDE, Config, DeepConvSep


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(stems: int = 4, seed: int = 0) -> DeepConvSep:
    torch.manual_seed(seed)
    return DeepConvSep(stems).eval()


def music_like(frames: int, examples: int = 1, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(examples, 1, frames, BINS, generator=generator) - 3


def test_parameters_and_layers():
    network = make()
    assert sum(p.numel() for p in network.parameters()) == 357_482
    assert network.vertical.weight.shape == (50, 513)
    assert network.horizontal.weight.shape == (30, 50, 15)
    assert network.bottleneck.weight.shape == (128, 30 * 16)
    assert [branch.weight.shape for branch in network.branches] == [(30 * 16, 128)] * 4
    assert len(make(1).branches) == 2


def one_excerpt(network: DeepConvSep, magnitudes: torch.Tensor) -> torch.Tensor:
    """The paper's network: shares `(stem, frame, bin)` of 30 frames `(frame, bin)`, as 2-D convolutions."""
    x = magnitudes[None, None] * network.config.scale
    vertical = network.vertical.weight[:, None, None]
    horizontal = network.horizontal.weight[..., None]
    x = F.conv2d(x, vertical, network.vertical.bias)
    x = F.conv2d(x, horizontal, network.horizontal.bias)
    assert x.shape == (1, 30, 16, 1)
    x = F.relu(network.bottleneck(x.flatten(1)))
    decoded = []
    for branch, bias in zip(network.branches, network.bias, strict=True):
        y = F.relu(branch(x)).reshape(1, 30, 16, 1)
        y = F.conv_transpose2d(F.conv_transpose2d(y, horizontal), vertical)
        decoded.append(F.relu(y[0, 0] + bias) + network.config.share)
    return torch.stack(decoded) / sum(decoded)


def test_frames_are_the_fade_of_two_excerpts():
    network, features = make(), music_like(4 * STRIDE)
    with torch.inference_mode():
        outputs = network(features)[0, :, 0]
        magnitudes = features[0, 0].exp()
        first = one_excerpt(network, magnitudes[:BLOCK])[:, STRIDE:]
        second = one_excerpt(network, magnitudes[STRIDE : STRIDE + BLOCK])[:, :STRIDE]
    weight = ((torch.arange(STRIDE) + 0.5) / STRIDE)[:, None]
    expected = (1 - weight) * first + weight * second
    torch.testing.assert_close(outputs[:, STRIDE:BLOCK], expected, atol=1e-5, rtol=0)
    assert expected.std() > 0.02


@pytest.mark.slow
def test_reach_is_measured():
    network = make().double()
    features = music_like(8 * STRIDE).double().requires_grad_()
    outputs, reaches = network(features)[:, :2], []
    for frame in range(4 * STRIDE, 5 * STRIDE):
        (gradient,) = torch.autograd.grad(outputs[..., frame, :].square().sum(), features, retain_graph=True)
        heard = gradient.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
        reaches.append((frame - int(heard[0]), int(heard[-1]) - frame))
    assert (
        max(before for before, _ in reaches)
        == max(after for _, after in reaches)
        == CONTEXT_FRAMES
        == network.context_frames
    )


def test_grid():
    network, features = make(), music_like(100)
    with torch.inference_mode():
        whole, later, off = (
            network(features[:, :, k:])[..., CONTEXT_FRAMES:-CONTEXT_FRAMES, :] for k in (0, STRIDE, 1)
        )
    torch.testing.assert_close(later, whole[..., STRIDE:, :], atol=1e-5, rtol=0)
    assert (off - whole[..., 1:, :]).abs().max() > 1e-3


@pytest.mark.parametrize("stems", [1, 4])
def test_any_number_of_frames_and_extremes(stems):
    network = make(stems)
    for frames, level in ((1, -11.5), (14, 5.0), (15, -5.0), (31, 0.0)):
        with torch.inference_mode():
            outputs = network(torch.full((2, 1, frames, BINS), level))
        assert outputs.shape == (2, stems, 1, frames, BINS)
        assert torch.isfinite(outputs).all()
        masks = network.masks(outputs)
        assert masks.min() >= 0
        assert masks.max() <= 1
        if stems == 4:
            torch.testing.assert_close(masks.sum(dim=1), torch.ones(2, 1, frames, BINS))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_traced_and_at_half_precision():
    network, features = make(), music_like(40)
    with torch.inference_mode():
        expected = network(features)
        torch.testing.assert_close(torch.jit.trace(network, features)(features), expected)
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(features)
    assert rough.dtype == torch.float32
    assert (rough - expected).abs().mean() < 0.02


@pytest.mark.slow
def test_learns_two_bands():
    torch.manual_seed(0)
    network = DeepConvSep(1, Config())
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    low = torch.arange(BINS) < BINS // 2
    losses = []
    for step in range(40):
        loud = music_like(2 * STRIDE, examples=4, seed=step).exp()
        shares = network(loud.log())
        loss = ((shares[:, 0] - low.float()) * loud).abs().sum() / loud.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) / 5 < 0.3 * losses[0]
