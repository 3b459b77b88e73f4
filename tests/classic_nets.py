"""What is asked of every network that estimates amplitudes."""

from __future__ import annotations

import torch
from torch import nn


def music_like(config, frames, seed=440, examples=1):
    """Log magnitudes that differ from frame to frame and from bin to bin."""
    torch.manual_seed(seed)
    shape = (examples, config.channels, frames, config.bins)
    loudness = 2 * torch.randn(examples, 1, frames, 1)
    return (-5 + loudness + 1.5 * torch.randn(shape)).clamp_min(-11.5)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def changed_outside(network, config, before, after, seed=1):
    """How much a frame's answer, of some size, changes with all that is outside its context."""
    frame = before + 20
    x = music_like(config, before + after + 41, seed)
    other = music_like(config, before + after + 41, seed + 1)
    other[:, :, frame - before : frame + after + 1] = x[:, :, frame - before : frame + after + 1]
    with torch.inference_mode():
        here, there = network(x)[:, :, :, frame], network(other)[:, :, :, frame]
    assert here.abs().max() > 0.01
    return float((network.masks(here) - network.masks(there)).abs().max())


def changed_by_shift(network, config, context, frames=1):
    """How much answers far from both ends change when the input begins some frames later."""
    x = music_like(config, 2 * context + 31)
    with torch.inference_mode():
        here = network(x)[..., frames:, :]
        there = network(x[:, :, frames:])
    difference = (network.masks(here) - network.masks(there)).abs()
    return float(difference[..., context : difference.shape[-2] - context, :].max())


def two_stems(config, examples=8, frames=40, seed=7):
    """Log magnitudes of mixtures of steady notes and of short noises, and the stems' ratios to them."""
    torch.manual_seed(seed)
    size = (examples, config.channels)
    notes = torch.zeros(*size, frames, config.bins)
    notes[..., 3::8] = torch.rand(examples, 1, 1, 1) + 0.5
    noises = torch.zeros(*size, frames, 1)
    noises[:, :, ::10] = torch.rand(*size, 1, 1) + 0.5
    stems = torch.stack([notes, noises.expand_as(notes)], dim=1)
    stems = stems * torch.rand(examples, 1, 1, 1, 1)
    mixture = stems.sum(dim=1) + 0.01
    return mixture.log(), stems / mixture.unsqueeze(1)


def loss(network, features, truth):
    """The papers' own: squared errors of amplitudes."""
    return ((network(features) - truth) * features.exp().unsqueeze(1)).square().mean()


def learns(network, config, steps=120, rate=3e-3):
    """The loss after some steps, relative to that of who gives half of the mixture to each stem."""
    features, truth = two_stems(config)
    network.mean.copy_(features.mean(dim=(0, 1, 2)))
    network.deviation.copy_(features.std(dim=(0, 1, 2)).clamp_min(0.1))
    optimizer = torch.optim.Adam(network.parameters(), rate)
    network.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss(network, features, truth).backward()
        optimizer.step()
    network.eval()
    with torch.inference_mode():
        return loss(network, features, truth).item() / loss(half_of_it, features, truth).item()


def half_of_it(features):
    return torch.full((len(features), 2, *features.shape[1:]), 0.5)


def traced(network, x):
    """The greatest difference between a network and what is recorded of it."""
    with torch.inference_mode():
        recorded = torch.jit.trace(network, x)
        other = x.flip(2)
        return float((recorded(other) - network(other)).abs().max())
