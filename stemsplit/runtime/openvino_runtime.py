"""OpenVINO: on processors, twice as fast as torch and more.

A network is translated from torch and compiled for this very processor once. What comes of it is kept, and
from then on torch need not even be imported.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from stemsplit import _compat
from stemsplit.defaults import VERSION
from stemsplit.errors import DeviceUnavailable
from stemsplit.networks import factory, registry
from stemsplit.runtime import cache
from stemsplit.separation.separator import Samples

if TYPE_CHECKING:
    from torch import nn

    from stemsplit.runtime import Weights

HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
CAPABILITIES = {"float32": "FP32", "bfloat16": "BF16", "float16": "FP16"}


class OpenVinoRuntime:
    """Runs networks over a song: over its frames, of which every `step`-th is asked for, or its samples.

    The networks are those of a model's `parts`, each of which gives so many `stems`; `batch` is how many
    frames or samples they answer for at a time.

    Raises:
        DeviceUnavailable: the processor does not compute in this precision.
        BadWeights: the weights file is damaged.
    """

    name = "openvino"
    device = "cpu"

    def __init__(
        self,
        network: str,
        tensors: Callable[[], Weights],
        content: bytes,
        parts: Sequence[str],
        stems: int,
        *,
        batch: int,
        precision: str = "auto",
        threads: int = 1,
        step: int = 1,
    ) -> None:
        openvino = _compat.openvino()
        core = openvino.Core()
        entry = registry.find(network)
        self.precision = best_precision(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"), precision)
        self.reach, self.step = entry.context.frames, step
        self.batch, self.workers = batch, threads
        views, *bins = entry.input_shape
        self._positions = (batch - 1) * step + 2 * entry.context.frames + 1
        shape = (1, views, self._positions, *bins)
        apart = entry.prepares and self.precision != "float32"

        @functools.cache
        def networks() -> list[Any]:
            return factory.build(network, tensors(), stems)

        def preparation() -> Any:
            from stemsplit.runtime.torch_runtime import Preparation

            (alone,) = networks()
            return translated(Preparation(alone), shape)

        def all_stems() -> Any:
            import torch

            from stemsplit.runtime.torch_runtime import AllStems

            inputs = networks()[0].prepare(torch.zeros(shape)).shape if apart else shape
            return translated(
                AllStems(networks(), reach=entry.context.frames, step=step, prepared=apart), tuple(inputs)
            )

        processor = core.get_property("CPU", "FULL_DEVICE_NAME")
        source = factory.source(network)

        def compiled(graph: Callable[[], Any], precision: str) -> Any:
            config = configuration(precision, threads)
            made_of = [VERSION, openvino.get_version(), processor, config, step, batch, *parts]
            key = cache.key(graph.__name__.encode(), repr(made_of).encode(), source, content)
            blob = cache.kept(
                key, lambda: core.compile_model(graph(), "CPU", config).export_model().getvalue()
            )
            return core.import_model(blob, "CPU", config)

        models = [compiled(preparation, "float32")] if apart else []
        models.append(compiled(all_stems, self.precision))
        self._requests: SimpleQueue[list[Any]] = SimpleQueue()
        for _ in range(threads):
            self._requests.put([model.create_infer_request() for model in models])

    def __call__(self, features: Samples) -> Samples:
        """Return answers `(stem, channel, position, ...)` for features `(view, position, ...)`."""
        count = (features.shape[1] - 2 * self.reach - 1) // self.step + 1
        found: Samples | None = None
        requests = self._requests.get()
        try:
            for start in range(0, count, self.batch):
                part = features[:, start * self.step :][:, : self._positions]
                missing = self._positions - part.shape[1]
                if missing:
                    part = np.pad(part, ((0, 0), (0, missing), *[(0, 0)] * (part.ndim - 2)))
                answer = part[None]
                with _compat.openvino_call():
                    for request in requests:
                        answers = request.infer([answer], share_inputs=True, share_outputs=True)
                        (answer,) = answers.values()
                if found is None:
                    found = np.empty((*answer.shape[:2], count, *answer.shape[3:]), np.float32)
                kept = found[:, :, start : start + self.batch]
                kept[:] = answer[:, :, : kept.shape[2]]
        finally:
            self._requests.put(requests)
        assert found is not None
        return found


def best_precision(capabilities: Sequence[str], wanted: str) -> str:
    """Return the precision to compute in: bfloat16 where the processor has it, unless another is wanted."""
    if wanted == "auto":
        return "bfloat16" if CAPABILITIES["bfloat16"] in capabilities else "float32"
    if CAPABILITIES[wanted] not in capabilities:
        raise DeviceUnavailable(f"This processor does not compute in {wanted}", "use --precision auto")
    return wanted


def configuration(precision: str, threads: int) -> dict[str, Any]:
    """Return how to compile a network that runs in `threads` at a time, each call in one of them."""
    return {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "NUM_STREAMS": threads,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,  # another process would be pinned to the same cores
    }


def translated(module: nn.Module, shape: tuple[int, ...]) -> Any:
    """Return the graph of a torch module that maps one tensor of a shape to another."""
    import torch

    openvino = _compat.openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with torch.no_grad(), warnings.catch_warnings():
        # torch.export takes eight times as long, and the graph of binary-mask-cnn runs a quarter slower.
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is (deprecated|not supported)")
        traced = torch.jit.trace(module, torch.zeros(shape), check_trace=False)  # type: ignore[no-untyped-call]
        traced = torch.jit.freeze(traced)
    # What openvino.convert_model does, without a second trace: a fifth of the time.
    front_end = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(traced, skip_freeze=True)  # must outlive the graph that it reads
    graph = front_end.load(decoder)
    (place,) = graph.get_inputs()
    graph.set_element_type(place, openvino.Type.f32)
    graph.set_partial_shape(place, openvino.PartialShape(list(shape)))
    return front_end.convert(graph)
