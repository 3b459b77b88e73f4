"""OpenVINO: on CPUs, more than twice as fast as torch.

A network is converted from torch and compiled for this CPU once. The result is cached; later runs do not even
import torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from stemsplit import _compat
from stemsplit.defaults import VERSION
from stemsplit.errors import DeviceUnavailable
from stemsplit.networks import factory
from stemsplit.runtime import cache
from stemsplit.runtime.parts import InParts, Step, padded
from stemsplit.separation import stopping
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
        self.batch, self.workers = batch, threads
        self._around, self._frame_stride = 2 * networks.info.context.frames, frame_stride
        self._positions = (batch - 1) * frame_stride + self._around + 1
        made = _Compiler(networks, precision, threads)
        graphs = _Graphs(networks, self._positions, frame_stride, apart=made.apart)
        self.precision = made.precision
        self._requests = made.requests(graphs.preparation, graphs.all_stems, f"{batch}, {frame_stride}")

    def __call__(self, features: Samples) -> Samples:
        """Return outputs `(stem, channel, position, ...)` for features `(view, position, ...)`."""
        count = (features.shape[1] - self._around - 1) // self._frame_stride + 1
        outputs: Samples | None = None
        requests = self._requests.get()
        try:
            for start in range(0, count, self.batch):
                stopping.check()
                part = features[:, start * self._frame_stride :][:, : self._positions]
                output, *_ = _infer(requests, padded(part, self._positions))
                if outputs is None:
                    outputs = np.empty((*output.shape[:2], count, *output.shape[3:]), np.float32)
                kept = outputs[:, :, start : start + self.batch]
                kept[:] = output[:, :, : kept.shape[2]]
        finally:
            self._requests.put(requests)
        assert outputs is not None
        return outputs


class OpenVinoStream(InParts):
    """Runs a network on a stream of frames.

    Raises:
        DeviceUnavailable: the CPU does not support this precision.
        BadWeights: the weights file is damaged.
    """

    name = "openvino"
    device = "cpu"

    def __init__(self, networks: Networks, *, precision: str = "auto", threads: int = 1) -> None:
        self.batch, self.around = networks.info.part, 2 * networks.info.context.frames
        self.workers = threads
        made = _Compiler(networks, precision, threads)
        graphs = _Graphs(networks, self.batch, 1, apart=made.apart)
        self.precision = made.precision
        self._requests = made.requests(graphs.preparation, graphs.next_part, f"parts of {self.batch}")

    @contextmanager
    def steps(self) -> Iterator[Step]:
        """Begin a stream, after silence."""
        requests = self._requests.get()
        past = [np.zeros(tuple(port.shape), np.float32) for port in requests[-1].model_inputs[1:]]

        def step(features: Samples) -> Samples:
            outputs, *kept = _infer(requests, features, *past)
            for earlier, later in zip(past, kept, strict=True):
                earlier[:] = later
            return outputs

        try:
            yield step
        finally:
            self._requests.put(requests)


def _infer(requests: Sequence[Any], features: Samples, *past: Samples) -> list[Samples]:
    """Return the outputs of the last of several models, each of which gets the output of the one before."""
    *first, last = requests
    with _compat.openvino_call():
        for request in first:
            (features,) = request.infer([features], share_inputs=True, share_outputs=True).values()
        outputs = last.infer([features, *past], share_inputs=True, share_outputs=True)
        return list(outputs.values())


class _Compiler:
    """Compiles graphs for this CPU, and keeps the results in the cache.

    `apart` says whether the first step of the network is to be a separate graph, which runs in float32.
    """

    def __init__(self, networks: Networks, precision: str, threads: int) -> None:
        self._core = _compat.openvino().Core()
        capabilities = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self.precision = best_precision(capabilities, precision)
        self.apart = networks.info.prepares and self.precision != "float32"
        self._networks, self._threads = networks, threads

    def requests(
        self, preparation: Callable[[], Any], rest: Callable[[], Any], form: str
    ) -> SimpleQueue[list[Any]]:
        """Return requests for the models to run one after the other, as often as there are threads."""
        models = [self._compiled(preparation, "float32", form)] if self.apart else []
        models.append(self._compiled(rest, self.precision, form))
        queue: SimpleQueue[list[Any]] = SimpleQueue()
        for _ in range(self._threads):
            queue.put([model.create_infer_request() for model in models])
        return queue

    def _compiled(self, graph: Callable[[], Any], precision: str, form: str) -> Any:
        core, networks = self._core, self._networks
        cpu, config = core.get_property("CPU", "FULL_DEVICE_NAME"), configuration(precision, self._threads)
        made_of = [VERSION, _compat.openvino().get_version(), cpu, config, form, *networks.parts]
        key = cache.key(
            graph.__name__.encode(),
            repr(made_of).encode(),
            factory.source(networks.name),
            networks.content(),
        )
        blob = cache.kept(key, lambda: core.compile_model(graph(), "CPU", config).export_model().getvalue())
        return core.import_model(blob, "CPU", config)


class _Graphs:
    """The networks of a model as graphs with a fixed number of input positions.

    Weights are loaded when needed. If `apart`, the first step of the network is a separate graph.
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
        from stemsplit.runtime.torch_runtime import AllStems

        networks, context = self._built, self._networks.info.context
        together = AllStems(networks, context, frame_stride=self._frame_stride, prepared=self._apart)
        return translated(together, self._input_shape())

    def next_part(self) -> Any:
        """Return the graph of the network for one part of a stream, without the first step if `apart`."""
        from stemsplit.networks.base import StreamNetwork
        from stemsplit.runtime.torch_runtime import NextPart

        (alone,) = self._built
        assert isinstance(alone, StreamNetwork)
        past = [tuple(each.shape) for each in alone.past()]
        return translated(NextPart(alone, prepared=self._apart), self._input_shape(), *past)

    def _input_shape(self) -> tuple[int, ...]:
        import torch

        if not self._apart:
            return self._shape
        return tuple(self._built[0].prepare(torch.zeros(self._shape)).shape)


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


def translated(module: nn.Module, *shapes: tuple[int, ...]) -> Any:
    """Return the graph of a torch module, for inputs of fixed shapes."""
    import torch

    openvino = _compat.openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with torch.no_grad(), warnings.catch_warnings():
        # torch.export takes eight times as long, and its graph of binary-mask-cnn is 25 % slower.
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is (deprecated|not supported)")
        # The shape is fixed, and so are decisions that depend on it.
        warnings.filterwarnings("ignore", "Converting a tensor to a Python")
        examples = tuple(torch.zeros(shape) for shape in shapes)
        traced = torch.jit.trace(module, examples, check_trace=False)  # type: ignore[no-untyped-call]
        traced = torch.jit.freeze(traced)
    # As in openvino.convert_model, but without a second trace, in a fifth of the time.
    front_end = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(traced, skip_freeze=True)  # must outlive the graph
    graph = front_end.load(decoder)
    for place, shape in zip(graph.get_inputs(), shapes, strict=True):
        graph.set_element_type(place, openvino.Type.f32)
        graph.set_partial_shape(place, openvino.PartialShape(list(shape)))
    return front_end.convert(graph)
