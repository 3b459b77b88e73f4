"""Running ONNX files: in OpenVINO on a CPU if it is installed, otherwise in onnxruntime."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np

from stemsplit import _compat
from stemsplit.defaults import install_extra
from stemsplit.errors import BadWeights, DeviceUnavailable
from stemsplit.options import RuntimeOptions
from stemsplit.runtime import cores
from stemsplit.separation.separator import Samples


@dataclass(frozen=True)
class Port:
    """An input or output of a graph; an axis of -1 has any length."""

    name: str
    shape: tuple[int, ...]


class Graph(Protocol):
    """A network from an ONNX file, ready to run."""

    name: str
    device: str
    precision: str
    workers: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def __call__(self, arrays: Sequence[Samples]) -> list[Samples]:
        """Return the outputs for the inputs, both in the graph's order; thread-safe."""


def load(path: Path, options: RuntimeOptions, *, half: bool = False) -> Graph:
    """Return the network of an ONNX file; with `half`, bfloat16 is used if the CPU supports it.

    Raises:
        BadWeights: the file is not an ONNX file, or is damaged.
        DeviceUnavailable: the device, runtime or precision is not available.
    """
    if options.runtime == "torch":
        raise DeviceUnavailable("Torch cannot run an ONNX file", "leave out --runtime")
    if options.device == "mps":
        raise DeviceUnavailable("ONNX files do not run on mps", "use --device cpu")
    on_cpu = options.device in ("auto", "cpu")
    if find_spec("openvino") and on_cpu:
        return OpenVinoGraph(path, options, half=half)
    if options.runtime == "openvino" or not find_spec("onnxruntime"):
        missing = "openvino" if on_cpu else "onnx"
        raise DeviceUnavailable("No package that runs ONNX files is installed", install_extra(missing))
    return OnnxRuntimeGraph(path, options)


class OpenVinoGraph:
    """Runs on the CPU; one call uses all cores, which is worthwhile for large layers."""

    name = "openvino"
    device = "cpu"
    workers = 2  # transform one segment while the network runs on another

    def __init__(self, path: Path, options: RuntimeOptions, *, half: bool) -> None:
        from stemsplit.runtime.openvino_runtime import best_precision, configuration

        openvino = _compat.openvino()
        core = openvino.Core()
        precision = options.precision if half or options.precision != "auto" else "float32"
        self.precision = best_precision(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"), precision)
        try:
            model = core.read_model(path)
            self.inputs, self.outputs = _ports(model.inputs), _ports(model.outputs)
            config = configuration(self.precision, options.threads or cores()) | {"NUM_STREAMS": 1}
            compiled = core.compile_model(model, "CPU", config)
        except RuntimeError as error:
            raise not_onnx(path, error) from error
        self._requests: SimpleQueue[Any] = SimpleQueue()
        self._requests.put(compiled.create_infer_request())

    def __call__(self, arrays: Sequence[Samples]) -> list[Samples]:
        """Return the outputs for the inputs, both in the graph's order."""
        request = self._requests.get()
        try:
            with _compat.openvino_call():
                found = request.infer(list(arrays), share_inputs=True, share_outputs=True)
                return [np.array(array, np.float32) for array in found.values()]
        finally:
            self._requests.put(request)


class OnnxRuntimeGraph:
    """Runs in onnxruntime, on the CPU or on an NVIDIA GPU."""

    name = "onnxruntime"
    precision = "float32"
    workers = 1

    def __init__(self, path: Path, options: RuntimeOptions) -> None:
        onnxruntime = import_module("onnxruntime")

        if options.precision not in ("auto", "float32"):
            raise DeviceUnavailable("onnxruntime runs ONNX files in float32", "use --precision auto")
        provider = {"cuda": "CUDAExecutionProvider"}.get(options.device, "CPUExecutionProvider")
        if provider not in onnxruntime.get_available_providers():
            raise DeviceUnavailable(
                "onnxruntime has no CUDA here", "install onnxruntime-gpu, or use --device cpu"
            )
        self.device = "cuda" if options.device == "cuda" else "cpu"
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads or cores()
        settings.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(path, settings, [provider])
        except Exception as error:  # its errors have only the package in common
            if type(error).__module__.partition(".")[0] != "onnxruntime":
                raise
            raise not_onnx(path, error) from error
        self.inputs, self.outputs = (
            tuple(
                Port(each.name, tuple(axis if isinstance(axis, int) else -1 for axis in each.shape))
                for each in ports
            )
            for ports in (self._session.get_inputs(), self._session.get_outputs())
        )

    def __call__(self, arrays: Sequence[Samples]) -> list[Samples]:
        """Return the outputs for the inputs, both in the graph's order."""
        feed = {port.name: array for port, array in zip(self.inputs, arrays, strict=True)}
        return [np.asarray(array, np.float32) for array in self._session.run(None, feed)]


def ports(path: Path) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Return the inputs and outputs of an ONNX file.

    Raises:
        BadWeights: the file is not an ONNX file, or is damaged.
        DeviceUnavailable: no package that reads ONNX files is installed.
    """
    if not find_spec("openvino"):
        graph = load(path, RuntimeOptions(device="cpu"))
        return graph.inputs, graph.outputs
    try:
        model = _compat.openvino().Core().read_model(path)
    except RuntimeError as error:
        raise not_onnx(path, error) from error
    return _ports(model.inputs), _ports(model.outputs)


def _ports(ends: Sequence[Any]) -> tuple[Port, ...]:
    return tuple(
        Port(
            next(iter(sorted(end.get_names())), ""),
            tuple(axis.get_length() if axis.is_static else -1 for axis in end.get_partial_shape()),
        )
        for end in ends
    )


def not_onnx(path: Path, error: Exception) -> BadWeights:
    """Return the error for a file that the runtime cannot read."""
    # Drop the position in the runtime's source code.
    said = re.sub(r"(Exception from|Check '[^']*' failed at) \S+:\d+:", "", str(error))
    said = " ".join(said.split())[:200]
    return BadWeights(f"`{path}` is damaged, or not a supported ONNX file: {said}", "download it again")
