"""Running networks: library, device, precision, batch size and threads."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol, TypeAlias

from stemsplit.defaults import install_extra
from stemsplit.errors import DeviceUnavailable, UsageError
from stemsplit.networks import factory, registry
from stemsplit.networks.info import NetworkInfo
from stemsplit.options import RuntimeOptions
from stemsplit.separation.separator import Samples

if TYPE_CHECKING:
    from torch import Tensor

    from stemsplit.networks.base import Network

    Weights: TypeAlias = Mapping[str, Mapping[str, Tensor]]
    """Part of a model (a stem, or all stems) -> tensors of its network, by name."""

DEVICES = ("auto", "cpu", "cuda", "mps")
MOST_THREADS = 8
"""Default maximum of threads; each processes a separate segment, about 110 MB for the default."""


@dataclass(frozen=True)
class Networks:
    """The networks to run, one per requested part of a model."""

    name: str
    """Name in the registry."""
    parts: tuple[str, ...]
    stems: int
    """Number of stems that each network outputs."""
    tensors: Callable[[], Weights]
    """A function that loads the weights of the parts."""
    content: Callable[[], bytes]
    """A function that returns the content of the weights file: the key of cached compiled networks."""

    @property
    def info(self) -> NetworkInfo:
        """Return the registry entry of the networks."""
        return registry.find(self.name)

    def build(self) -> list[Network]:
        """Return a network for each part, with its weights.

        Raises:
            BadWeights: the weights file is damaged.
        """
        return factory.build(self.name, self.tensors(), self.stems)


class Runtime(Protocol):
    """Networks that are loaded and ready to run."""

    name: str
    device: str
    precision: str
    batch: int
    workers: int
    """The best number of parallel calls."""

    def __call__(self, features: Samples) -> Samples:
        """Return outputs `(stem, channel, position, ...)` for features `(view, position, ...)`.

        Positions are frames (a bin axis follows) or samples.
        """


def start(options: RuntimeOptions, networks: Networks) -> Runtime:
    """Return loaded networks.

    Raises:
        DeviceUnavailable: the device, runtime or precision does not exist. There is no fallback.
        BadWeights: the weights file is damaged.
        UsageError: the networks do not support the frame stride.
    """
    info, stride = networks.info, options.frame_stride
    if stride not in info.frame_strides:
        others = registry.REGISTRY.items()
        able = ", ".join(name for name, other in others if stride in other.frame_strides)
        raise UsageError(f"There is no --fast for {networks.name}", f"leave it out, or use --model {able}")
    device = pick_device(options.device)
    threads = options.threads or min(MOST_THREADS, cores())
    # The rounding noise of half precision is harmless in masks, but not in waveforms.
    exact = info.predicts_waveforms and options.precision == "auto"
    precision = "float32" if exact else options.precision
    batch = info.context.whole_strides(options.batch or info.batch)
    streams = info.part and device == "cpu" and not options.batch
    if _with_openvino(options.runtime, device):
        from stemsplit.runtime.openvino_runtime import OpenVinoRuntime, OpenVinoStream

        if streams:
            return OpenVinoStream(networks, precision=precision, threads=threads)
        return OpenVinoRuntime(
            networks, batch=batch, precision=precision, threads=threads, frame_stride=stride
        )
    from stemsplit.runtime.torch_runtime import AllStems, TorchRuntime, TorchStream

    if streams:
        (network,) = networks.build()
        return TorchStream(network, info.context, part=info.part, precision=precision, threads=threads)
    if device != "cpu" and not options.batch:
        batch = info.gpu_batch or 4 * batch
    all_stems = AllStems(networks.build(), info.context, frame_stride=stride)
    return TorchRuntime(all_stems, batch=batch, device=device, precision=precision, threads=threads)


def _with_openvino(runtime: str, device: str) -> bool:
    installed = find_spec("openvino") is not None
    if runtime != "openvino":
        return runtime == "auto" and installed and device == "cpu"
    if device != "cpu":
        raise DeviceUnavailable(f"OpenVINO runs on CPUs only, not on {device}", "use --device cpu")
    if not installed:
        raise DeviceUnavailable("OpenVINO is not installed", install_extra("openvino"))
    return True


def cores() -> int:
    """Return how many CPU cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def pick_device(name: str) -> str:
    """Return the device called `name`; `auto` is the first available of cuda, mps and cpu.

    Raises:
        DeviceUnavailable: the device does not exist. It is never replaced by another one.
    """
    if name not in DEVICES:
        raise DeviceUnavailable(f"No device called `{name}`", f"choose one of {', '.join(DEVICES)}")
    if name == "cpu" or (name == "auto" and not _gpu_may_exist()):
        return "cpu"
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device, here in there.items() if here)
    if not there[name]:
        raise DeviceUnavailable(
            f"There is no {name} device", "use --device cpu, or see what `stemsplit doctor` reports"
        )
    return name


def _gpu_may_exist() -> bool:
    """Return whether a GPU driver may exist, without importing torch, which takes a second."""
    if sys.platform == "linux":
        # The drivers of NVIDIA, of NVIDIA in the Windows Subsystem for Linux, and of AMD.
        return any(os.path.exists(f"/dev/{node}") for node in ("nvidiactl", "dxg", "kfd"))
    return True
