"""Running networks in torch, on any device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from stemsplit.errors import DeviceUnavailable
from stemsplit.networks.base import Network, StreamNetwork
from stemsplit.networks.info import Context
from stemsplit.runtime.parts import InParts, Step
from stemsplit.separation import stopping
from stemsplit.separation.separator import Samples


class AllStems(nn.Module):
    """The networks of a model, each with outputs for one stem or for all.

    With a `frame_stride`, there are outputs for every `frame_stride`-th frame only. `prepared` features are
    the outputs of `Preparation`.
    """

    def __init__(
        self, networks: Sequence[Network], context: Context, *, frame_stride: int = 1, prepared: bool = False
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.context, self.frame_stride, self.prepared = context, frame_stride, prepared
        self.eval().requires_grad_(False)

    def forward(self, features: Tensor) -> Tensor:
        """Return outputs `(stem, channel, position, ...)` for features `(1, view, position, ...)`.

        Positions are frames (a bin axis follows) or samples. There are no outputs for context at either end.
        """
        networks = cast(Iterable[Network], self.networks)
        return torch.cat([self._outputs(network, features) for network in networks], dim=1)[0]

    def _outputs(self, network: Network, features: Tensor) -> Tensor:
        context = self.context.frames
        outputs: Tensor
        if self.prepared:  # features are steps of one or more frames, and `scores` drops the context
            return network.masks(network.scores(features, margin=context).float())
        outputs = network(features, margin=context, frame_stride=self.frame_stride)
        outputs = network.masks(outputs.float())
        if self.frame_stride == 1:
            margin = (features.shape[2] - outputs.shape[3]) // 2
            outputs = outputs.narrow(3, context - margin, features.shape[2] - 2 * context)
        return outputs


class Preparation(nn.Module):
    """The first step of a network, computed in float32."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.eval().requires_grad_(False)

    def forward(self, features: Tensor) -> Tensor:
        """Return the input of the rest of the network."""
        return self.network.prepare(features)


class NextPart(nn.Module):
    """A network that continues a stream of frames; `prepared` features are the outputs of `Preparation`."""

    def __init__(self, network: StreamNetwork, *, prepared: bool = False) -> None:
        super().__init__()
        self.network, self.prepared = network, prepared
        self.eval().requires_grad_(False)

    def forward(self, features: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        """Return outputs `(stem, channel, frame, bin)` for `(1, view, frame, bin)`, and the next `past`."""
        prepared = features if self.prepared else self.network.prepare(features)
        scores, kept = self.network.scores_after(past, prepared)
        return (self.network.masks(scores.float())[0], *kept)


class TorchRuntime:
    """Runs networks on frames or samples.

    On a CPU each call uses one thread: parallel calls for several segments are faster than parallel layers.
    `batch` is the number of outputs at a time, a multiple of the context's stride.

    Raises:
        DeviceUnavailable: the device does not support this precision.
    """

    name = "torch"

    def __init__(
        self,
        all_stems: AllStems,
        *,
        batch: int,
        device: str = "cpu",
        precision: str = "float32",
        threads: int = 1,
    ) -> None:
        self.device, self.batch = device, batch
        on_cpu = device == "cpu"
        if on_cpu:
            self.precision = _on_cpu(precision)
        else:
            self.precision = best_precision(device) if precision == "auto" else precision
        self.workers = threads if on_cpu else 1
        self._threads = torch.get_num_threads()
        self._all_stems = all_stems.to(device)

    def __call__(self, features: Samples) -> Samples:
        """Return outputs `(stem, channel, position, ...)` for features `(view, position, ...)`.

        Raises:
            DeviceUnavailable: the device is out of memory even for the smallest part.
        """
        if self.device != "cpu":
            return self._run(features)
        try:
            torch.set_num_threads(1)  # for calls from this thread only
            return self._run(features)
        finally:
            torch.set_num_threads(self._threads)

    @torch.inference_mode()
    def _run(self, features: Samples) -> Samples:
        around, frame_stride = 2 * self._all_stems.context.frames, self._all_stems.frame_stride
        count = (features.shape[1] - around - 1) // frame_stride + 1
        found = []
        half = self.precision != "float32"
        start = 0
        while start < count:
            stopping.check()
            stop = min(start + self.batch, count)
            try:
                part = features[None, :, start * frame_stride : (stop - 1) * frame_stride + around + 1]
                with torch.autocast(self.device, getattr(torch, self.precision), enabled=half):
                    found.append(self._all_stems(torch.from_numpy(part).to(self.device)).cpu().numpy())
            except RuntimeError as error:
                if "out of memory" not in str(error).lower():  # in the messages of CUDA and MPS
                    raise
                stride = self._all_stems.context.stride
                if self.batch == stride:
                    raise DeviceUnavailable(
                        f"Out of memory on {self.device}, even for one frame",
                        "close other programs, or use --device cpu",
                    ) from error
                # Half a batch may fit; the result does not depend on the batch size.
                self.batch = max(1, self.batch // 2 // stride) * stride
                continue
            start = stop
        return np.concatenate(found, axis=2)


class TorchStream(InParts):
    """Runs a network on a stream of frames, on the CPU; each stream uses one thread.

    Raises:
        DeviceUnavailable: torch does not support this precision on CPUs.
    """

    name = "torch"
    device = "cpu"

    def __init__(
        self, network: Network, context: Context, *, part: int, precision: str = "float32", threads: int = 1
    ) -> None:
        assert isinstance(network, StreamNetwork)
        self.batch, self.around, self.workers = part, 2 * context.frames, threads
        self.precision = _on_cpu(precision)
        self._network, self._threads = NextPart(network), torch.get_num_threads()

    @contextmanager
    def steps(self) -> Iterator[Step]:
        """Begin a stream, after silence."""
        past = self._network.network.past()

        @torch.inference_mode()
        def step(features: Samples) -> Samples:
            half = self.precision != "float32"
            try:
                torch.set_num_threads(1)  # for calls from this thread only
                with torch.autocast("cpu", getattr(torch, self.precision), enabled=half):
                    outputs, *past[:] = self._network(torch.from_numpy(features), *past)
                found: Samples = outputs.numpy()
                return found
            finally:
                torch.set_num_threads(self._threads)

        yield step


def _on_cpu(precision: str) -> str:
    if precision == "float16":
        raise DeviceUnavailable("Torch has no float16 on CPUs", "use --precision auto")
    return best_precision("cpu") if precision == "auto" else precision


def best_precision(device: str) -> str:
    """Return the fastest precision of the device without audible loss."""
    if device == "cuda":
        if torch.cuda.get_device_capability() >= (8, 0):
            return "bfloat16"
        return "float16" if torch.cuda.get_device_capability() >= (7, 0) else "float32"
    # Emulated bfloat16 is slower than float32. Older versions of torch cannot detect it.
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bfloat16" if device == "cpu" and native() else "float32"
