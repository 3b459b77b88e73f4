"""Torch: on any device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stemsplit.errors import DeviceUnavailable
from stemsplit.separation.separator import Samples


class AllStems(nn.Module):
    """The networks of a model, side by side, each of which gives one stem or all of them.

    With a `step` they are asked for every so many frames. `prepared` features come from `Preparation`.
    """

    def __init__(
        self, networks: Sequence[nn.Module], *, reach: int, step: int = 1, prepared: bool = False
    ) -> None:
        super().__init__()
        self.networks, self.reach, self.step = nn.ModuleList(networks), reach, step
        self.prepared = prepared
        self.eval().requires_grad_(False)

    def forward(self, features: Tensor) -> Tensor:
        """Return answers `(stem, channel, position, ...)` for features `(1, view, position, ...)`.

        Positions are frames, followed by bins, or samples; there are `reach` fewer at either end.
        """
        return torch.cat([self._answers(network, features) for network in self.networks], dim=1)[0]

    def _answers(self, network: Any, features: Tensor) -> Tensor:
        outputs: Tensor
        if self.prepared:
            outputs = network.scores(features, margin=self.reach)
        else:
            outputs = network(features, margin=self.reach, frame_stride=self.step)
        outputs = network.masks(outputs.float())
        if self.step == 1:
            margin = (features.shape[2] - outputs.shape[3]) // 2
            outputs = outputs.narrow(3, self.reach - margin, features.shape[2] - 2 * self.reach)
        return outputs


class Preparation(nn.Module):
    """The first step of a network, which must compute in float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.eval().requires_grad_(False)

    def forward(self, features: Tensor) -> Tensor:
        """Return what the rest of the network takes."""
        network: Any = self.network
        prepared: Tensor = network.prepare(features)
        return prepared


class TorchRuntime:
    """Runs networks over a song: over its frames, of which every `step`-th is asked for, or its samples.

    On a processor each call keeps to one thread: segments are separated side by side, which takes less time
    than sharing out each layer. `batch` is a multiple of `grid`, at which the networks' input begins. Raises
    DeviceUnavailable for a precision that the device does not have.
    """

    name = "torch"

    def __init__(
        self,
        networks: Sequence[nn.Module],
        *,
        reach: int,
        batch: int,
        grid: int = 1,
        device: str = "cpu",
        precision: str = "float32",
        threads: int = 1,
        step: int = 1,
    ) -> None:
        self.device, self.reach, self.step, self.grid = device, reach, step, grid
        on_cpu = device == "cpu"
        self.precision = best_precision(device) if precision == "auto" else precision
        if on_cpu and self.precision == "float16":
            raise DeviceUnavailable("Torch has no float16 for processors", "use --precision auto")
        self.batch = batch
        self.workers = threads if on_cpu else 1
        self._threads = torch.get_num_threads()
        self._all = AllStems(networks, reach=reach, step=step).to(self.device)

    def __call__(self, features: Samples) -> Samples:
        """Return answers `(stem, channel, position, ...)` for features `(view, position, ...)`.

        Raises:
            DeviceUnavailable: the device is out of memory even for the smallest part.
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
        count = (features.shape[1] - around - 1) // step + 1
        found = []
        half = self.precision != "float32"
        start = 0
        while start < count:
            stop = min(start + self.batch, count)
            try:
                part = features[None, :, start * step : (stop - 1) * step + around + 1]
                with torch.autocast(self.device, getattr(torch, self.precision), enabled=half):
                    found.append(self._all(torch.from_numpy(part).to(self.device)).cpu().numpy())
            except RuntimeError as error:
                if "out of memory" not in str(error).lower():  # as the messages of cuda and mps have it
                    raise
                if self.batch == self.grid:
                    raise DeviceUnavailable(
                        f"Out of memory on {self.device} for even one frame",
                        "close other programs, or use --device cpu",
                    ) from error
                # Half as much fits where a batch did not; the result does not depend on it.
                self.batch = max(1, self.batch // 2 // self.grid) * self.grid
                continue
            start = stop
        return np.concatenate(found, axis=2)


def best_precision(device: str) -> str:
    """Return the fastest precision that costs nothing one could hear, of those the device computes in."""
    if device == "cuda":
        if torch.cuda.get_device_capability() >= (8, 0):
            return "bfloat16"
        return "float16" if torch.cuda.get_device_capability() >= (7, 0) else "float32"
    # Where a processor only imitates bfloat16 it is slower than float32. Older versions of torch cannot tell.
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bfloat16" if device == "cpu" and native() else "float32"
