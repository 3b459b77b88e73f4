"""Sounds that the tests make themselves, and separators with weights that no one trained."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from stemsplit import masks
from stemsplit.nets.binary_mask_cnn import BinaryMaskCNN
from stemsplit.runtime import TorchRuntime
from stemsplit.separator import MaskSeparator, WithRest
from stemsplit.stft import Stft

STEMS = ("vocals", "drums", "bass", "other")
SAMPLE_RATE = 44_100


def random_network(seed: int) -> BinaryMaskCNN:
    """A network in its initial state, whose outputs are spread over all probabilities."""
    torch.manual_seed(seed)
    network = BinaryMaskCNN().eval()
    network.mean.fill_(-6.0)
    network.deviation.fill_(3.0)
    torch.nn.init.normal_(network.output.weight, std=0.2)
    return network


def mask_separator(mask: str = "soft", stems: tuple[str, ...] = STEMS, **options: object) -> MaskSeparator:
    networks = [random_network(STEMS.index(name)) for name in stems]
    complete = stems == STEMS
    return MaskSeparator(
        stems=stems,
        sample_rate=SAMPLE_RATE,
        stft=Stft(2048, 512),
        bins=513,
        reach=networks[0].reach,
        network=TorchRuntime(networks, device=torch.device("cpu"), **options),
        rule=partial({"soft": masks.soft, "binary": masks.binary}[mask], complete=complete),
        complete=complete,
    )


METHODS = {
    "soft": lambda: mask_separator("soft"),
    "binary": lambda: mask_separator("binary"),
    "one stem": lambda: mask_separator("soft", ("bass",)),
    "two stems": lambda: WithRest(mask_separator("soft", ("vocals",)), "accompaniment"),
}


@pytest.fixture(params=METHODS)
def method(request):
    """Every kind of separator there is, one after the other."""
    return METHODS[request.param]()


@pytest.fixture(scope="session")
def music():
    """One and a half seconds of stereo: a chord that swells, clicks, and noise; `(channel, time)`."""
    rng = np.random.default_rng(440)
    time = np.arange(3 * SAMPLE_RATE // 2 + 123) / SAMPLE_RATE
    chord = sum(np.sin(2 * np.pi * hz * time + hz) for hz in (110.0, 277.2, 329.6, 1318.5))
    clicks = np.zeros_like(time)
    clicks[:: SAMPLE_RATE // 4] = 1.0
    noise = rng.standard_normal((2, time.size)) * np.abs(np.sin(2 * np.pi * time))
    left_right = np.array([[0.9], [0.4]])
    sound = left_right * chord * 0.1 * time + 0.5 * clicks + 0.03 * noise
    return sound.astype(np.float32)
