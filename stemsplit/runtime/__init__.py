"""Where a network runs: which library, device and precision, and how much at a time."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol, TypeAlias

from stemsplit.defaults import install_extra
from stemsplit.errors import DeviceUnavailable, UsageError
from stemsplit.networks import factory, registry
from stemsplit.options import RuntimeOptions
from stemsplit.separation.separator import Samples

if TYPE_CHECKING:
    from torch import Tensor

    Weights: TypeAlias = Mapping[str, Mapping[str, Tensor]]
    """Part of a model (a stem, or all of them) to its network's tensors by name."""

DEVICES = ("auto", "cpu", "cuda", "mps")
MOST_THREADS = 8
"""Unless more are asked for: each works on a segment of its own, some 50 MB."""


class Runtime(Protocol):
    """Networks that are ready to run."""

    name: str
    device: str
    precision: str
    batch: int
    workers: int
    """How many calls are best made side by side."""

    def __call__(self, features: Samples) -> Samples:
        """Return answers `(stem, channel, position, ...)` for features `(view, position, ...)`.

        Positions are frames, followed by bins, or samples.
        """


def start(
    options: RuntimeOptions,
    network: str,
    tensors: Callable[[], Weights],
    content: Callable[[], bytes],
    parts: Sequence[str],
    stems: int = 1,
) -> Runtime:
    """Return the networks of a model's `parts`, ready to run; each gives `stems` stems.

    `tensors` loads the weights of these parts. `content` reads the file that holds them: with OpenVINO it
    tells whether there is a compiled network in the cache, and the tensors are not loaded if there is.

    Raises:
        DeviceUnavailable: what is asked for is not there. It is never replaced by something else.
        BadWeights: the weights file is damaged.
        UsageError: the networks cannot be asked for every third frame only.
    """
    entry = registry.find(network)
    stride = options.frame_stride
    if stride not in entry.frame_strides:
        able = ", ".join(name for name, other in registry.REGISTRY.items() if stride in other.frame_strides)
        raise UsageError(f"There is no --fast for {network}", f"leave it out, or use --model {able}")
    device = pick_device(options.device)
    threads = options.threads or min(MOST_THREADS, cores())
    # What noise half precision makes, a mask only spreads a little; a waveform is the stem itself.
    precision = "float32" if entry.predicts_waveforms and options.precision == "auto" else options.precision
    batch = entry.context.whole_strides(options.batch or entry.batch)
    if _with_openvino(options.runtime, device):
        from stemsplit.runtime.openvino_runtime import OpenVinoRuntime

        return OpenVinoRuntime(
            network,
            tensors,
            content(),
            parts,
            stems,
            batch=batch,
            precision=precision,
            threads=threads,
            step=stride,
        )
    from stemsplit.runtime.torch_runtime import TorchRuntime

    if device != "cpu" and not options.batch:
        batch = entry.gpu_batch or 4 * batch
    return TorchRuntime(
        factory.build(network, tensors(), stems),
        reach=entry.context.frames,
        batch=batch,
        grid=entry.context.stride,
        device=device,
        precision=precision,
        threads=threads,
        step=stride,
    )


def _with_openvino(runtime: str, device: str) -> bool:
    installed = find_spec("openvino") is not None
    if runtime != "openvino":
        return runtime == "auto" and installed and device == "cpu"
    if device != "cpu":
        raise DeviceUnavailable(f"OpenVINO runs on processors only, not on {device}", "use --device cpu")
    if not installed:
        raise DeviceUnavailable("OpenVINO is not installed", install_extra("openvino"))
    return True


def cores() -> int:
    """Return how many processor cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def pick_device(name: str) -> str:
    """Return the device called `name`; `auto` is the first there is of cuda, mps and cpu.

    Raises:
        DeviceUnavailable: the device asked for is not there. It is never replaced by another one.
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
            f"No {name} device here", "use --device cpu, or see `stemsplit doctor` for what torch finds"
        )
    return name


def _gpu_may_exist() -> bool:
    """Whether to ask torch, which takes a second to import: without a driver there is nothing to find."""
    if sys.platform == "linux":
        # NVIDIA's driver, the same inside Windows' subsystem for Linux, AMD's.
        return any(os.path.exists(f"/dev/{node}") for node in ("nvidiactl", "dxg", "kfd"))
    return True
