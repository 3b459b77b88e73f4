"""Third-party networks as torch modules that map a segment of sound to its stems."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from stemsplit.errors import DeviceUnavailable
from stemsplit.options import RuntimeOptions
from stemsplit.runtime import cores, pick_device
from stemsplit.runtime.torch_runtime import best_precision
from stemsplit.separation.separator import Execution, Samples

# SCNet's transform has no window by design.
warnings.filterwarnings("ignore", "A window was not provided", UserWarning)

CPU_WORKERS = 2
"""Number of parallel segments on a CPU; they share the cores, and each can take hundreds of MB."""


class _ComplexInFloat32(TorchFunctionMode):
    """Converts parts of complex numbers to float32, because torch has no complex bfloat16."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.view_as_complex and args[0].dtype is not torch.float32:
            args = (args[0].float(),)
        return func(*args, **(kwargs or {}))


class TorchSegments:
    """Runs a module that maps sound `(batch, channel, time)` to `(batch, output, channel, time)`.

    A module with one output can omit its axis. A mono module gets left and right as a batch. With `half`, the
    module can run in half precision, which is the default on GPUs. On CPUs the default is float32, because
    emulated bfloat16 takes five times as long.

    Raises:
        DeviceUnavailable: the device does not exist, or does not support this precision.
    """

    def __init__(
        self, module: nn.Module, options: RuntimeOptions, *, channels: int = 2, half: bool = False
    ) -> None:
        if options.runtime == "openvino":
            raise DeviceUnavailable("This model runs in torch, not in OpenVINO", "leave out --runtime")
        self.device, self._channels = pick_device(options.device), channels
        on_cpu = self.device == "cpu"
        self.precision = options.precision
        if self.precision == "auto":
            self.precision = best_precision(self.device) if half and not on_cpu else "float32"
        if self.precision != "float32" and not half:
            raise DeviceUnavailable("This model runs in float32 only", "use --precision auto")
        if self.precision == "float16" and on_cpu:
            raise DeviceUnavailable("Torch has no float16 for CPUs", "use --precision auto")
        threads = options.threads or cores()
        self.workers = min(CPU_WORKERS, threads) if on_cpu else 1
        self._threads = threads // self.workers
        self._module = module.eval().requires_grad_(False).to(self.device)

    @property
    def execution(self) -> Execution:
        """How the module runs, and the best number of parallel calls."""
        return Execution(workers=self.workers, how=f"torch on {self.device} in {self.precision}")

    def __call__(self, segment: Samples) -> Samples:
        """Return the outputs `(output, channel, time)` for a segment `(channel, time)`.

        Raises:
            DeviceUnavailable: the device is out of memory.
        """
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(self._threads)  # for calls from this thread only
            return self._run(segment)
        except RuntimeError as error:
            if self.device == "cpu" or "out of memory" not in str(error).lower():
                raise
            raise DeviceUnavailable(
                f"Out of memory on {self.device} for a segment", "close other programs, or use --device cpu"
            ) from error
        finally:
            torch.set_num_threads(threads)

    @torch.inference_mode()
    def _run(self, segment: Samples) -> Samples:
        channels, length = segment.shape
        mixture = torch.from_numpy(segment).to(self.device).reshape(-1, self._channels, length)
        half = self.precision != "float32"
        with torch.autocast(self.device, getattr(torch, self.precision), enabled=half), _ComplexInFloat32():
            found: Tensor = self._module(mixture)
        found = found.float().reshape(len(mixture), -1, self._channels, found.shape[-1])
        stems = found.transpose(0, 1).reshape(-1, channels, found.shape[-1])
        return np.ascontiguousarray(stems.cpu().numpy())
