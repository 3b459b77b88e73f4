from __future__ import annotations

import pytest
import torch

from stemsplit.networks import factory
from stemsplit.networks.binary_mask_cnn import FRAMES, PARAMETERS, BinaryMaskCNN
from stemsplit.zoo import store
from tests.conftest import random_network

EQUAL = 1e-5  # in probability, float32


def window_by_window(network, frames):
    """The reference: each of the 25-frame windows on its own."""
    windows = frames.unfold(0, FRAMES, 1).transpose(1, 2)
    return torch.sigmoid(network.forward_windows(windows))


def music_like(frames, seed=440):
    torch.manual_seed(seed)
    return -6 + 3 * torch.randn(frames, 1) + 2 * torch.randn(frames, 513)


def test_the_layers_are_the_paper_s():
    network = BinaryMaskCNN()
    layers = (network.conv1, network.conv2, network.conv3, network.conv4, network.dense, network.output)
    counts = [sum(parameter.numel() for parameter in layer.parameters()) for layer in layers]
    assert counts == [320, 4_624, 9_280, 9_232, 233_600, 66_177]
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS == 323_233


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 3, 7, 24, 25, 64])
def test_shared_columns_equal_window_by_window(count):
    network = random_network(1)
    frames = music_like(count + 24)
    with torch.inference_mode():
        shared = torch.sigmoid(network.forward_frames(frames[None]))[0]
        reference = window_by_window(network, frames)
    assert shared.shape == (count, 513)
    assert reference.std() > 0.1  # or anything would be equal
    torch.testing.assert_close(shared, reference, atol=EQUAL, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_every_third_window_is_the_same_as_among_all(count):
    network = random_network(1)
    frames = music_like((count - 1) * 3 + 25)[None]
    with torch.inference_mode():
        every, third = network.forward_frames(frames), network.forward_frames(frames, 3)
    assert third.shape == (1, count, 513)
    torch.testing.assert_close(third, every[:, ::3], atol=1e-4, rtol=0)  # of logits as large as 10
    with pytest.raises(ValueError, match="step=2"):
        network.forward_frames(frames, 2)


@pytest.mark.slow
@pytest.mark.parametrize("stem", range(4))
def test_shared_columns_equal_window_by_window_on_trained_weights(stem):
    card = store.read_card("binary-mask-cnn")
    (network,) = factory.build(card.network, store.load("binary-mask-cnn", [card.stems[stem]]))
    network.eval()
    frames = torch.cat([music_like(40), torch.full((10, 513), -11.5), music_like(20, seed=1)])
    with torch.inference_mode():
        shared = torch.sigmoid(network.forward_frames(frames[None]))[0]
        reference = window_by_window(network, frames)
    torch.testing.assert_close(shared, reference, atol=EQUAL, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 3])
def test_both_forms_learn_alike(step):
    network = random_network(2)
    frames = music_like(31)
    gradients = []
    windows = frames.unfold(0, 25, step).transpose(1, 2)
    for logits in (network.forward_frames(frames[None], step)[0], network.forward_windows(windows)):
        network.zero_grad()
        logits.square().mean().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in network.parameters()]))
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-3)


def test_examples_of_a_batch_do_not_mix():
    network = random_network(3)
    first, second = music_like(30), music_like(30, seed=1)
    with torch.inference_mode():
        both = network.forward_frames(torch.stack([first, second]))
        alone = network.forward_frames(second[None])
    torch.testing.assert_close(both[1], alone[0], atol=1e-4, rtol=0)
