"""Torch: on any device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import DeviceUnavailable
from ..separator import Samples

CPU_BATCH = 64
"""Frames at a time: so many stay in a processor's cache (32, 100 and 256 were slower or no faster)."""
GPU_BATCH = 4096


class AllStems(nn.Module):
    """One network a stem, side by side."""

    def __init__(self, networks: Sequence[nn.Module], step: int) -> None:
        super().__init__()
        self.networks, self.step = nn.ModuleList(networks), step
        self.eval().requires_grad_(False)

    def forward(self, frames: Tensor) -> Tensor:
        """Return probabilities `(stem, window, bin)` for features `(1, frame, bin)`."""
        logits = [self._logits(network, frames) for network in self.networks]
        return torch.sigmoid(torch.cat(logits).float())

    def _logits(self, network: Any, frames: Tensor) -> Tensor:
        logits: Tensor = network.forward_frames(frames, self.step)
        return logits


class TorchRuntime:
    """Runs one network a stem over the frames of a song, for every `step`-th of them.

    On a processor each call keeps to one thread: segments are separated side by side, which takes less time
    than sharing out each layer. Raises DeviceUnavailable for a precision that the device does not have.
    """

    name = "torch"

    def __init__(
        self,
        networks: Sequence[nn.Module],
        *,
        reach: int,
        device: str = "cpu",
        precision: str = "float32",
        batch: int | None = None,
        threads: int = 1,
        step: int = 1,
    ) -> None:
        self.device, self.reach, self.step = device, reach, step
        on_cpu = device == "cpu"
        self.precision = _best_precision(device) if precision == "auto" else precision
        if on_cpu and self.precision == "float16":
            raise DeviceUnavailable("Torch has no float16 for processors", "use --precision auto")
        self.batch = batch or (CPU_BATCH if on_cpu else GPU_BATCH)
        self.workers = threads if on_cpu else 1
        self._threads = torch.get_num_threads()
        self._all = AllStems(networks, step).to(self.device)

    def __call__(self, features: Samples) -> Samples:
        """Return probabilities `(stem, window, bin)` for features `(frame, bin)`.

        Raises:
            DeviceUnavailable: the device is out of memory even for a single frame.
        """
        if self.device != "cpu":
            return self._run(features)
        try:
            torch.set_num_threads(1)  # of those that a call from this very thread uses
            return self._run(features)
        finally:
            torch.set_num_threads(self._threads)

    @torch.inference_mode()
    def _run(self, features: Samples) -> Samples:
        around, step = 2 * self.reach, self.step
        count = (len(features) - around - 1) // step + 1
        found = np.empty((len(self._all.networks), count, features.shape[1]), np.float32)
        half = self.precision != "float32"
        start = 0
        while start < count:
            stop = min(start + self.batch, count)
            try:
                frames = features[None, start * step : (stop - 1) * step + around + 1]
                with torch.autocast(self.device, getattr(torch, self.precision), enabled=half):
                    probabilities = self._all(torch.from_numpy(frames).to(self.device))
                found[:, start:stop] = probabilities.cpu().numpy()
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


def _best_precision(device: str) -> str:
    """Return the fastest precision that costs nothing one could hear, of those the device computes in."""
    if device == "cuda":
        if torch.cuda.get_device_capability() >= (8, 0):
            return "bfloat16"
        return "float16" if torch.cuda.get_device_capability() >= (7, 0) else "float32"
    # Where a processor only imitates bfloat16 it is slower than float32. Older versions of torch cannot tell.
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bfloat16" if device == "cpu" and native() else "float32"
