from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

from stemsplit.errors import DeviceUnavailable
from stemsplit.runtime import TorchRuntime
from stemsplit.separator import MaskSeparator
from stemsplit.stft import Stft
from stemsplit.stream import separate_blocks
from tests.conftest import SAMPLE_RATE, mask_separator, random_network


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_the_batch_does_not_change_the_stems(music, batch):
    expected = mask_separator().separate(music)
    np.testing.assert_allclose(mask_separator(batch=batch).separate(music), expected, atol=1e-5)


def test_half_precision_gives_nearly_the_same_stems(music):
    expected = mask_separator().separate(music)
    found = mask_separator(precision="bfloat16").separate(music)
    error_db = 10 * np.log10(np.sum((found - expected) ** 2) / np.sum(expected**2))
    assert -80 < error_db < -30  # not the same, or it was not half precision
    with pytest.raises(ValueError, match="must be one of"):
        mask_separator(precision="int4")


class Crowded(torch.nn.Module):
    """A network on a device that has room for so many frames."""

    reach = 12

    def __init__(self, room):
        super().__init__()
        self.room, self.tried = room, []

    def forward_frames(self, frames):
        self.tried.append(frames.shape[1] - 24)
        if self.tried[-1] > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return frames[:, 12:-12]


def test_out_of_memory_halves_the_batch_and_goes_on():
    network = Crowded(room=10)
    runtime = TorchRuntime([network], device=torch.device("cpu"), batch=64)
    features = np.random.default_rng(440).standard_normal((124, 513)).astype(np.float32)
    found = runtime(features)
    assert network.tried[:5] == [64, 32, 16, 8, 8]
    np.testing.assert_allclose(found[0], 1 / (1 + np.exp(-features[12:-12])), rtol=1e-5)


def test_out_of_memory_for_one_frame_is_an_error():
    runtime = TorchRuntime([Crowded(room=0)], device=torch.device("cpu"), batch=4)
    with pytest.raises(DeviceUnavailable, match="one frame"):
        runtime(np.zeros((30, 513), np.float32))


def test_running_leaves_the_networks_as_they_are():
    network = random_network(0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    TorchRuntime([network], device=torch.device("cpu"))(np.zeros((30, 513), np.float32))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_memory_does_not_grow_with_the_length():
    """The engine alone, with a network that costs nothing; `make bench` measures the whole program."""
    separator = MaskSeparator(
        stems=("one", "two"),
        sample_rate=SAMPLE_RATE,
        stft=Stft(),
        bins=513,
        reach=12,
        network=lambda features: np.broadcast_to(features[12:-12], (2, len(features) - 24, 513)),
        rule=lambda found: 0 * found + np.float32(0.5),
    )

    def peak(seconds):
        blocks = (np.ones((2, SAMPLE_RATE), np.float32) for _ in range(seconds))
        tracemalloc.start()
        for _ in separate_blocks(separator, blocks, segment_seconds=5.0):
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(120) < 1.05 * peak(20)
