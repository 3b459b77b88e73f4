"""Networks built by the package pymss-core, from numbers and names that are checked first."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from stemsplit.separation.segments import CHANNELS

if TYPE_CHECKING:
    from torch import Tensor, nn

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
LIMITS = {
    **dict.fromkeys(("sample_rate", "fs"), 400_000),
    **dict.fromkeys(("heads", "num_bands", "n_bands", "num_subbands"), 1 << 10),
}
LIMIT = 1 << 15
"""Limit of all other numbers, such as sizes of transforms and layers."""
CHOICES: dict[str, tuple[Any, ...]] = {
    "window_fn": ("hann_window", "hamming_window", "blackman_window", "bartlett_window"),
    "rnn_type": ("LSTM", "GRU", "RNN"),
    "hidden_activation": ("Tanh", "ReLU", "GELU", "ELU", "SiLU", "Sigmoid", "Identity"),
    "wkwargs": (None, {}),
    "hidden_activation_kwargs": (None, {}),
    "stft_window_fn": (None,),
}
"""Allowed names of functions that the package looks up in torch."""


def arguments_of(kind: str) -> str:
    """Return the section with the arguments of a network."""
    return "kwargs" if kind == "bandit_v2" else "model"


def channels_of(network: Mapping[str, Any]) -> int:
    """Return the number of channels of a network's input."""
    config = network["config"]
    arguments = config[arguments_of(network["type"])]
    stereo = 2 if arguments.get("stereo") else 1
    defaults = {"scnet": CHANNELS, "mdx23c": config.get("audio", {}).get("num_channels", CHANNELS)}
    keys = ("audio_channels", "in_channels", "in_channel")
    found = next((arguments[key] for key in keys if key in arguments), defaults.get(network["type"], stereo))
    if found not in (1, CHANNELS):
        raise ValueError(f"it is for {found!r} channels, not for one or two")
    return int(found)


def build(network: Mapping[str, Any], weights: Mapping[str, Tensor]) -> nn.Module:
    """Return the network that a card describes, with its weights.

    Raises:
        ValueError: there is no such network, or the weights do not fit it.
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
        except Exception as error:  # errors of any kind, because the package does not check the numbers
            said = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
            raise ValueError(f"its YAML file describes no network of type {kind} ({said})") from error
    _fill(module, weights)
    return module


def _check(value: Any, key: str = "config") -> None:
    """Raise ValueError for numbers that are out of range, and for names that are not in CHOICES."""
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
    """Build modules in this thread with parameters that use no memory.

    Raises ValueError if they have more than `limit` elements in total.

    Building on the meta device does not work, because some networks compute with their buffers when built.
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
    """Load weights into a network. Raises ValueError if they do not fit."""
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
