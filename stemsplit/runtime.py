"""Where a network runs: the device, and how many frames at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .errors import DeviceUnavailable
from .nets.binary_mask_cnn import BinaryMaskCNN
from .separator import Samples

CPU_BATCH = 64
"""Frames at a time: so many stay in a processor's cache (32, 100 and 256 were slower or no faster)."""
GPU_BATCH = 4096
PRECISIONS = ("float32", "bfloat16")


def pick_device(name: str) -> torch.device:
    """Return the device called `name`; `auto` is the first there is of cuda, mps and cpu.

    Raises:
        DeviceUnavailable: the device asked for is not there. It is never replaced by another one.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, here in there.items() if here)
    if name not in there:
        raise DeviceUnavailable(f"No device called `{name}`", f"choose one of auto, {', '.join(there)}")
    if not there[name]:
        raise DeviceUnavailable(
            f"No {name} device here", "use --device cpu, or see `stemsplit doctor` for what torch finds"
        )
    return torch.device(name)


class TorchRuntime:
    """Runs one network a stem over the frames of a song."""

    def __init__(
        self,
        networks: Sequence[BinaryMaskCNN],
        *,
        device: torch.device,
        batch: int | None = None,
        precision: str = "float32",
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision={precision!r} must be one of {', '.join(PRECISIONS)}")
        self.bfloat16 = precision == "bfloat16"
        self.device = device
        self.batch = batch or (CPU_BATCH if device.type == "cpu" else GPU_BATCH)
        self.networks = [network.eval().requires_grad_(False).to(device) for network in networks]

    @torch.inference_mode()
    def __call__(self, features: Samples) -> Samples:
        """Return probabilities `(stem, frame, bin)` for features `(frame + 2 * reach, bin)`.

        Raises:
            DeviceUnavailable: the device is out of memory even for a single frame.
        """
        around = 2 * self.networks[0].reach
        count = len(features) - around
        found = np.empty((len(self.networks), count, features.shape[1]), np.float32)
        start = 0
        while start < count:
            stop = min(start + self.batch, count)
            try:
                frames = torch.from_numpy(features[None, start : stop + around]).to(self.device)
                for row, network in zip(found, self.networks, strict=True):
                    with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
                        logits = network.forward_frames(frames)
                    row[start:stop] = torch.sigmoid(logits.float())[0].cpu().numpy()
            except RuntimeError as error:
                if "out of memory" not in str(error).lower():  # as the messages of cuda and mps have it
                    raise
                if self.batch == 1:
                    raise DeviceUnavailable(
                        f"Out of memory on {self.device} for even one frame",
                        "close other programs, or use --device cpu",
                    ) from error
                # Half as much fits where a batch did not; the result does not depend on it.
                self.batch = max(1, self.batch // 2)
                continue
            start = stop
        return found
