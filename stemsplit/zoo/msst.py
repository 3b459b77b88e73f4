"""Separators of Music-Source-Separation-Training: a checkpoint, and the YAML file that describes it.

The package pymss-core builds their networks. It gets plain numbers and names from the YAML file, and never
the checkpoint, which only `stemsplit.zoo.tensors` reads.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from stemsplit.defaults import install_extra
from stemsplit.errors import BadWeights, DeviceUnavailable
from stemsplit.options import MOST_OVERLAP, RuntimeOptions
from stemsplit.separation.segments import CHANNELS
from stemsplit.zoo import tensors
from stemsplit.zoo.foreign import Loaded
from stemsplit.zoo.installed import InstalledCard, residual_of

if TYPE_CHECKING:
    from torch import Tensor, nn

SUFFIX = ".safetensors"
HINT = "get the YAML file that belongs to this checkpoint"
TYPES = {
    "bs_roformer": "BS-RoFormer (Lu, Wang, Kong, Hung 2023)",
    "bs_conformer": "BS-RoFormer with conformer layers",
    "mel_band_roformer": "Mel-Band RoFormer (Wang, Lu, Won 2023)",
    "mel_band_conformer": "Mel-Band RoFormer with conformer layers",
    "scnet": "SCNet (Tong and others 2024)",
    "mdx23c": "MDX23C: TFC-TDF-UNet v3 (Kim, Lee, Jung 2023)",
    "bandit": "Bandit (Watcharasupat and others 2023)",
    "bandit_v2": "Bandit v2 (Watcharasupat, Wu, Orife 2024)",
}
RECURRENT = ("scnet", "bandit", "bandit_v2")
"""Types with recurrent layers, which run in float32."""
MOST_VALUES = 10_000
"""In a YAML file: aliases in it can stand for any number of them."""
MOST_BYTES = 1 << 16
"""Of a YAML file."""
LIMITS = {
    **dict.fromkeys(("sample_rate", "fs"), 400_000),
    **dict.fromkeys(("heads", "num_bands", "n_bands", "num_subbands"), 1 << 10),
}
LIMIT = 1 << 15
"""Of every other number, transforms and layers among them."""
CHOICES: dict[str, tuple[Any, ...]] = {
    "window_fn": ("hann_window", "hamming_window", "blackman_window", "bartlett_window"),
    "rnn_type": ("LSTM", "GRU", "RNN"),
    "hidden_activation": ("Tanh", "ReLU", "GELU", "ELU", "SiLU", "Sigmoid", "Identity"),
    "wkwargs": (None, {}),
    "hidden_activation_kwargs": (None, {}),
    "stft_window_fn": (None,),
}
"""Of what the package looks up by name in torch, or passes on to it."""


def adopt(source: Path, target: Path, config: Path | None) -> dict[str, Any]:
    """Store a checkpoint's tensors, and return what its YAML file says of them.

    Raises:
        BadWeights: the checkpoint cannot be used, or the package that builds its network is missing.
        ValueError: the YAML file is not valid, or does not fit the checkpoint.
        OSError: a file cannot be read or written.
    """
    if config is None:
        raise BadWeights(f"`{source}` does not describe itself", "name its YAML file with --config")
    _check_installed()
    facts = describe(read_yaml(config))
    found = tensors.read(source)
    build(facts["network"], found)
    tensors.write(target, found)
    return facts


def load(card: InstalledCard, path: Path, running: RuntimeOptions) -> Loaded:
    """Return the network of an installed checkpoint, and how it runs.

    Raises:
        BadWeights: the file is damaged, or does not fit the card.
        DeviceUnavailable: it cannot run here, or not as requested.
    """
    from stemsplit.runtime.segments import TorchSegments

    _check_installed()
    try:
        module, channels = build(card.network, tensors.stored(path)), _channels(card.network)
    except ValueError as error:
        raise BadWeights(f"`{path}` does not fit its description: {error}", "add the model again") from error
    network = TorchSegments(module, running, channels=channels, half=card.half)
    return network, network.execution


def _check_installed() -> None:
    if not find_spec("pymss_core"):
        raise DeviceUnavailable("The package that builds such networks is missing", install_extra("msst"))


def read_yaml(path: Path) -> dict[str, Any]:
    """Return what a YAML file describes, as plain numbers, names and lists.

    Raises:
        ValueError: it is not valid, too large, or holds objects of Python's.
        OSError: it cannot be read.
    """
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Knows tuples of Python's, which published files have, and none of its other objects."""

    Loader.add_constructor(
        "tag:yaml.org,2002:python/tuple", lambda loader, node: loader.construct_sequence(node, deep=True)
    )
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError("its YAML file is too long")
    try:
        found = _plain(yaml.load(content.decode(), Loader), [MOST_VALUES])
    except yaml.YAMLError as error:
        said = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ValueError(f"its YAML file is not valid: {said}") from error
    except RecursionError as error:
        raise ValueError("its YAML file is nested too deep") from error
    if not isinstance(found, dict):
        raise ValueError("its YAML file has no sections")
    return found


def _plain(value: Any, left: list[int]) -> Any:
    """Return a value as JSON has it: dates and other objects by their text."""
    left[0] -= 1
    if left[0] < 0:
        raise ValueError("its YAML file has too many values")
    if isinstance(value, dict):
        return {str(key): _plain(each, left) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each, left) for each in value]
    return value if isinstance(value, (str, int, float, type(None))) else str(value)


def describe(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts for the card of a model with this configuration.

    Raises:
        ValueError: it is not valid, or is for another kind of model.
    """
    kind = _type(config)
    audio, training, inference = (_section(config, name) for name in ("audio", "training", "inference"))
    arguments = _section(config, _arguments(kind))
    rate = audio.get("sample_rate") or training.get("samplerate") or arguments.get("fs") or 44_100
    outputs, residual = _stems(training, arguments)
    overlaps = _whole(inference.get("num_overlap") or 2, "num_overlap")
    given = {
        _arguments(kind): arguments,
        "audio": {
            key: audio[key] for key in ("n_fft", "hop_length", "dim_f", "num_channels") if key in audio
        },
        "training": {
            "instruments": list(outputs),
            "target_instrument": outputs[0] if len(outputs) == 1 else None,
        },
    }
    chunk = _whole(inference.get("chunk_size") or audio.get("chunk_size"), "chunk_size")
    return {
        "title": TYPES[kind],
        "outputs": list(outputs),
        "residual": residual,
        "sample_rate": _whole(rate, "sample_rate"),
        "segment": chunk - chunk % _hop_length(given),
        "overlap": min(1 - 1 / overlaps, MOST_OVERLAP),
        "normalize": inference.get("normalize") is True,
        "half": kind not in RECURRENT,
        "network": {"type": kind, "config": given},
    }


def _type(config: Mapping[str, Any]) -> str:
    """Return the type of a model, as the package detects it."""
    from pymss_core import ModelTypeDetectionError, detect_model_type

    hint = f"write `model_type: TYPE` into it, one of {', '.join(TYPES)}"
    try:
        kind: str = detect_model_type(config)
    except ModelTypeDetectionError as error:
        raise ValueError(f"its YAML file does not say what type of model it is; {hint}") from error
    if kind not in TYPES:
        raise ValueError(f"models of type {kind} cannot be added; {hint}")
    return kind


def _arguments(kind: str) -> str:
    """Return the section that has the arguments of a network."""
    return "kwargs" if kind == "bandit_v2" else "model"


def _section(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = config.get(name) or {}
    if not isinstance(section, dict):
        raise ValueError(f"{name} is not a section")
    return section


def _whole(value: Any, name: str) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"{name}={value!r} must be a whole number above 0")
    return value


def _stems(training: Mapping[str, Any], arguments: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """Return the names of the outputs, and that of the residual.

    The residual of a single output is its counterpart, or the only other instrument that is named.
    """
    named = training.get("instruments") or arguments.get("sources") or arguments.get("stems")
    if not isinstance(named, list) or not named:
        raise ValueError(f"instruments={named!r} must be a list of names")
    names = tuple(map(_stem, named))
    target = training.get("target_instrument")
    outputs = (_stem(target),) if target else names
    residual = residual_of(outputs)
    others = [name for name in names if name not in outputs]
    return outputs, others[0] if residual == "rest" and len(others) == 1 else residual


def _stem(name: Any) -> str:
    """Return the name of an instrument as that of a stem: `No Reverb` is `no-reverb`."""
    return re.sub(r"[^\w]+", "-", str(name).lower()).strip("-")


def _hop_length(config: Mapping[str, Any]) -> int:
    """Return the distance of frames: whole ones give stems of a segment's own length."""
    arguments = {**config["audio"], **config.get("model", {}), **config.get("kwargs", {})}
    keys = ("stft_hop_length", "hop_size", "hop_length")
    return _whole(next((arguments[key] for key in keys if key in arguments), 512), "hop_length")


def _channels(network: Mapping[str, Any]) -> int:
    """Return the number of channels of a network's input."""
    config = network["config"]
    arguments = config[_arguments(network["type"])]
    stereo = 2 if arguments.get("stereo") else 1
    defaults = {"scnet": CHANNELS, "mdx23c": config["audio"].get("num_channels", CHANNELS)}
    keys = ("audio_channels", "in_channels", "in_channel")
    found = next((arguments[key] for key in keys if key in arguments), defaults.get(network["type"], stereo))
    if found not in (1, CHANNELS):
        raise ValueError(f"it is for {found!r} channels, not for one or two")
    return int(found)


def build(network: Mapping[str, Any], weights: Mapping[str, Tensor]) -> nn.Module:
    """Return the network that a card describes, with its weights.

    Raises:
        ValueError: there is no such network, or the weights are those of another one.
    """
    from pymss_core import get_model_from_config

    kind, config = network.get("type"), network.get("config")
    if kind not in TYPES or not isinstance(config, dict):
        raise ValueError(f"there is no network of type {kind!r}")
    _check(config)
    with TemporaryDirectory() as folder:
        path = Path(folder, "config.yaml")  # the package takes a file, and JSON is YAML
        path.write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
        try:
            with _without_tensors(sum(tensor.numel() for tensor in weights.values())):
                module: nn.Module = get_model_from_config(kind, path)[0]
        except Exception as error:  # of any kind, as the package does not check the numbers
            said = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
            raise ValueError(f"its YAML file describes no network of type {kind} ({said})") from error
    _fill(module, weights)
    return module


def _check(value: Any, key: str = "config") -> None:
    """Raise ValueError for numbers that are out of range, and for unknown names of parts of torch."""
    if key in CHOICES:
        if value not in CHOICES[key]:
            raise ValueError(f"{key}={value!r} is not supported")
    elif isinstance(value, dict):
        for name, each in value.items():
            _check(each, name)
    elif isinstance(value, list):
        for each in value:
            _check(each, key)
    elif isinstance(value, (int, float)) and not abs(value) <= LIMITS.get(key, LIMIT):
        raise ValueError(f"{key}={value!r} is out of range")


@contextmanager
def _without_tensors(limit: int) -> Iterator[None]:
    """Build modules in this thread with parameters that take no memory.

    Raises ValueError where they have more than `limit` numbers.

    The meta device would do so too, but some networks compute with their buffers while they are built.
    """
    import torch
    from torch.nn.modules.module import register_module_parameter_registration_hook

    thread, left = threading.get_ident(), limit

    def register(_module: nn.Module, _name: str, parameter: Any) -> Any:
        nonlocal left
        if threading.get_ident() != thread or parameter is None or parameter.is_meta:
            return None
        left -= parameter.numel()
        if left < 0:
            raise ValueError("it has more weights than the checkpoint")
        return torch.nn.Parameter(parameter.to("meta"), requires_grad=False)

    hook = register_module_parameter_registration_hook(register)
    try:
        yield
    finally:
        hook.remove()


def _fill(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put weights into a network. Raises ValueError if they are those of another one."""
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if wrong := sorted(
        name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
    ):
        name = wrong[0]
        raise ValueError(
            f"{len(wrong)} of its tensors differ from those of the YAML file, such as {name}: "
            f"{found.get(name, 'missing')}, not {expected.get(name, 'there')}"
        )
    module.load_state_dict(
        {name: each.float() if each.is_floating_point() else each for name, each in weights.items()},
        assign=True,
    )
