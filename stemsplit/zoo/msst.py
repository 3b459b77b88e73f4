"""Separators of Music-Source-Separation-Training: a checkpoint, and the YAML file that describes it.

The package pymss-core builds their networks. It gets plain numbers and names from the YAML file, and never
the checkpoint, which only `stemsplit.zoo.tensors` reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stemsplit.defaults import install_extra
from stemsplit.errors import BadWeights, DeviceUnavailable
from stemsplit.options import MOST_OVERLAP, RuntimeOptions
from stemsplit.zoo import tensors
from stemsplit.zoo.foreign import Loaded
from stemsplit.zoo.installed import InstalledCard, residual_of
from stemsplit.zoo.pymss import TYPES, arguments_of, build, channels_of

SUFFIX = ".safetensors"
HINT = "use the YAML file that belongs to this checkpoint"
RECURRENT = ("scnet", "bandit", "bandit_v2")
"""Types with recurrent layers, which run in float32."""
MOST_VALUES = 10_000
"""Maximum number of values in a YAML file, because aliases can multiply them."""
MOST_BYTES = 1 << 16
"""Maximum size of a YAML file in bytes."""


def adopt(source: Path, target: Path, config: Path | None) -> dict[str, Any]:
    """Store the tensors of a checkpoint, and return the facts in its YAML file.

    Raises:
        BadWeights: the checkpoint cannot be used, or the package that builds its network is missing.
        ValueError: the YAML file is invalid, or does not match the checkpoint.
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
        module, channels = build(card.network, tensors.stored(path)), channels_of(card.network)
    except ValueError as error:
        raise BadWeights(
            f"`{path}` does not match its description: {error}", "add the model again"
        ) from error
    network = TorchSegments(module, running, channels=channels, half=card.half)
    return network, network.execution


def _check_installed() -> None:
    if not find_spec("pymss_core"):
        raise DeviceUnavailable("The package that builds such networks is missing", install_extra("msst"))


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the content of a YAML file, as plain numbers, names and lists.

    Raises:
        ValueError: it is invalid, too large, or contains Python objects.
        OSError: it cannot be read.
    """
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Supports Python tuples, which published files contain, and no other Python objects."""

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
    """Return a value for JSON: dates and other objects become text."""
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
        ValueError: it is invalid, or for another kind of model.
    """
    kind = _type(config)
    audio, training, inference = (_section(config, name) for name in ("audio", "training", "inference"))
    arguments = _section(config, arguments_of(kind))
    if "flash_attn" in arguments:  # the same attention, without the full attention matrix in memory
        arguments["flash_attn"] = True
    rate = audio.get("sample_rate") or training.get("samplerate") or arguments.get("fs") or 44_100
    outputs, residual = _stems(training, arguments)
    overlaps = _whole(inference.get("num_overlap") or 2, "num_overlap")
    given = {
        arguments_of(kind): arguments,
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
    """Return the names of the outputs and of the residual.

    The residual of a single output is its counterpart, or the only other named instrument.
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
    """Return the name of an instrument as a stem name: `No Reverb` becomes `no-reverb`."""
    return re.sub(r"[^\w]+", "-", str(name).lower()).strip("-")


def _hop_length(config: Mapping[str, Any]) -> int:
    """Return the hop length; segments must have a whole number of hops."""
    arguments = {**config["audio"], **config.get("model", {}), **config.get("kwargs", {})}
    keys = ("stft_hop_length", "hop_size", "hop_length")
    return _whole(next((arguments[key] for key in keys if key in arguments), 512), "hop_length")
