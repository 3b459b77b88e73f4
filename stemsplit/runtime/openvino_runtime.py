"""OpenVINO: on CPUs, more than twice as fast as torch.

A network is converted from torch and compiled for this CPU once. The result is cached; later runs do not even
import torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from stemsplit import _compat
from stemsplit.defaults import VERSION
from stemsplit.errors import DeviceUnavailable
from stemsplit.networks import factory
from stemsplit.runtime import cache
from stemsplit.separation.separator import Samples

if TYPE_CHECKING:
    from torch import nn

    from stemsplit.networks.base import Network
    from stemsplit.runtime import Networks

HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
CAPABILITIES = {"float32": "FP32", "bfloat16": "BF16", "float16": "FP16"}


class OpenVinoRuntime:
    """Runs networks on frames or samples, with outputs for every `frame_stride`-th.

    `batch` is the number of outputs at a time.

    Raises:
        DeviceUnavailable: the CPU does not support this precision.
        BadWeights: the weights file is damaged.
    """

    name = "openvino"
    device = "cpu"

    def __init__(
        self,
        networks: Networks,
        *,
        batch: int,
        precision: str = "auto",
        threads: int = 1,
        frame_stride: int = 1,
    ) -> None:
        openvino = _compat.openvino()
        core = openvino.Core()
        self.precision = best_precision(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"), precision)
        self.batch, self.workers = batch, threads
        self._around, self._frame_stride = 2 * networks.info.context.frames, frame_stride
        self._positions = (batch - 1) * frame_stride + self._around + 1
        apart = networks.info.prepares and self.precision != "float32"
        graphs = _Graphs(networks, self._positions, frame_stride, apart=apart)
        cpu, content = core.get_property("CPU", "FULL_DEVICE_NAME"), networks.content()
        source = factory.source(networks.name)

        def compiled(graph: Callable[[], Any], precision: str) -> Any:
            config = configuration(precision, threads)
            made_of = [VERSION, openvino.get_version(), cpu, config, frame_stride, batch, *networks.parts]
            key = cache.key(graph.__name__.encode(), repr(made_of).encode(), source, content)
            blob = cache.kept(
                key, lambda: core.compile_model(graph(), "CPU", config).export_model().getvalue()
            )
            return core.import_model(blob, "CPU", config)

        models = [compiled(graphs.preparation, "float32")] if apart else []
        models.append(compiled(graphs.all_stems, self.precision))
        self._requests: SimpleQueue[list[Any]] = SimpleQueue()
        for _ in range(threads):
            self._requests.put([model.create_infer_request() for model in models])

    def __call__(self, features: Samples) -> Samples:
        """Return outputs `(stem, channel, position, ...)` for features `(view, position, ...)`."""
        count = (features.shape[1] - self._around - 1) // self._frame_stride + 1
        outputs: Samples | None = None
        requests = self._requests.get()
        try:
            for start in range(0, count, self.batch):
                part = features[:, start * self._frame_stride :][:, : self._positions]
                missing = self._positions - part.shape[1]
                if missing:
                    part = np.pad(part, ((0, 0), (0, missing), *[(0, 0)] * (part.ndim - 2)))
                output = part[None]
                with _compat.openvino_call():
                    for request in requests:
                        results = request.infer([output], share_inputs=True, share_outputs=True)
                        (output,) = results.values()
                if outputs is None:
                    outputs = np.empty((*output.shape[:2], count, *output.shape[3:]), np.float32)
                kept = outputs[:, :, start : start + self.batch]
                kept[:] = output[:, :, : kept.shape[2]]
        finally:
            self._requests.put(requests)
        assert outputs is not None
        return outputs


class _Graphs:
    """The networks of a model as graphs with a fixed number of input positions.

    Weights are loaded when needed. If `apart`, the first step of the network is a separate graph, which runs
    in float32.
    """

    def __init__(self, networks: Networks, positions: int, frame_stride: int, *, apart: bool) -> None:
        views, *bins = networks.info.input_shape
        self._shape = (1, views, positions, *bins)
        self._networks, self._frame_stride, self._apart = networks, frame_stride, apart

    @cached_property
    def _built(self) -> list[Network]:
        return self._networks.build()

    def preparation(self) -> Any:
        """Return the graph of the first step of the only network."""
        from stemsplit.runtime.torch_runtime import Preparation

        (alone,) = self._built
        return translated(Preparation(alone), self._shape)

    def all_stems(self) -> Any:
        """Return the graph of all networks, without the first step if `apart`."""
        import torch

        from stemsplit.runtime.torch_runtime import AllStems

        networks, context = self._built, self._networks.info.context
        shape = networks[0].prepare(torch.zeros(self._shape)).shape if self._apart else self._shape
        together = AllStems(networks, context, frame_stride=self._frame_stride, prepared=self._apart)
        return translated(together, tuple(shape))


def best_precision(capabilities: Sequence[str], wanted: str) -> str:
    """Return the compute precision: the requested one or, by default, bfloat16 if the CPU supports it."""
    if wanted == "auto":
        return "bfloat16" if CAPABILITIES["bfloat16"] in capabilities else "float32"
    if CAPABILITIES[wanted] not in capabilities:
        raise DeviceUnavailable(f"This CPU does not support {wanted}", "use --precision auto")
    return wanted


def configuration(precision: str, threads: int) -> dict[str, Any]:
    """Return the settings to compile a network for `threads` parallel calls, each in one thread."""
    return {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "NUM_STREAMS": threads,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,  # with pinning, another process would use the same cores
    }


def translated(module: nn.Module, shape: tuple[int, ...]) -> Any:
    """Return the graph of a torch module with one output, for one input of a fixed shape."""
    import torch

    openvino = _compat.openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with torch.no_grad(), warnings.catch_warnings():
        # torch.export takes eight times as long, and its graph of binary-mask-cnn is 25 % slower.
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is (deprecated|not supported)")
        # The shape is fixed, and so are decisions that depend on it.
        warnings.filterwarnings("ignore", "Converting a tensor to a Python")
        traced = torch.jit.trace(module, torch.zeros(shape), check_trace=False)  # type: ignore[no-untyped-call]
        traced = torch.jit.freeze(traced)
    # As in openvino.convert_model, but without a second trace, in a fifth of the time.
    front_end = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(traced, skip_freeze=True)  # must outlive the graph
    graph = front_end.load(decoder)
    (place,) = graph.get_inputs()
    graph.set_element_type(place, openvino.Type.f32)
    graph.set_partial_shape(place, openvino.PartialShape(list(shape)))
    return front_end.convert(graph)
