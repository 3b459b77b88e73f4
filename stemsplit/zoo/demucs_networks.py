"""Networks of the demucs package, loaded from files without running code in them, and averaged."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stemsplit.errors import BadWeights
from stemsplit.options import RuntimeOptions
from stemsplit.runtime.segments import TorchSegments

NETWORKS = {"HTDemucs": "demucs.htdemucs", "HDemucs": "demucs.hdemucs", "Demucs": "demucs.demucs"}
"""The classes of networks, and their modules."""


class WeightedMean(nn.Module):
    """The weighted mean of networks, for some of their outputs.

    `shares` are the weights of each network for each of these outputs.
    """

    def __init__(
        self, networks: Sequence[nn.Module], shares: Sequence[Sequence[float]], outputs: Sequence[int]
    ) -> None:
        super().__init__()
        self.networks, self._outputs = nn.ModuleList(networks), list(outputs)
        self.shares: Tensor
        self.register_buffer("shares", torch.tensor(shares)[:, None, :, None, None])

    def forward(self, mixture: Tensor) -> Tensor:
        """Return estimates `(batch, output, channel, time)` for a mixture `(batch, channel, time)`."""
        found = [network(mixture)[:, self._outputs] for network in self.networks]
        return sum(
            (share * each for share, each in zip(self.shares, found, strict=True)), start=torch.zeros(())
        )


def start(
    networks: Sequence[Any], shares: Sequence[Sequence[float]], stems: Sequence[str], running: RuntimeOptions
) -> TorchSegments:
    """Return the weighted mean of networks, ready to run.

    Raises:
        DeviceUnavailable: it cannot run as requested.
    """
    outputs = [networks[0].sources.index(name) for name in stems]
    return TorchSegments(WeightedMean(networks, shares, outputs), running)


def read(path: Path) -> Any:
    """Return the network in a file.

    Raises:
        BadWeights: it is damaged, or not a network of the package.
    """
    try:
        return (_from_safetensors if path.suffix == ".safetensors" else _from_pickle)(path)
    except OSError as error:
        raise BadWeights(f"Cannot read `{path}`: {error.strerror or error}", "download it again") from error
    except Exception as error:  # the package can raise any error for an unexpected file
        if isinstance(error, BadWeights):
            raise
        said = " ".join(str(error).split())[:200]
        raise BadWeights(
            f"`{path}` is not a model of the demucs package: {said}", "download it again"
        ) from error


def _from_safetensors(path: Path) -> Any:
    from demucs.hf import load_safetensors_model
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata: Mapping[str, str] = file.metadata() or {}
    module, _, name = metadata.get("klass", "").rpartition(".")
    if NETWORKS.get(name) != module:
        raise ValueError(f"it names no network of the package, but `{metadata.get('klass')}`")
    if classes := set(re.findall(r'"_class": *"([^"]*)"', metadata.get("structure", ""))):
        if not find_spec("diffq"):
            raise BadWeights(f"`{path}` is quantized and requires diffq", "run `pip install diffq`")
        if not all(each.startswith("diffq.") for each in classes):
            raise ValueError(f"it names {', '.join(sorted(classes))}")
    return load_safetensors_model(path)


def _from_pickle(path: Path) -> Any:
    from demucs.states import load_model

    networks = [getattr(import_module(module), name) for name, module in NETWORKS.items()]
    with torch.serialization.safe_globals([*networks, Fraction]):
        package = torch.load(path, "cpu", weights_only=True)
    if not isinstance(package, dict) or package.get("klass") not in networks:
        raise ValueError("it names no network of the package")
    if package["state"].get("__quantized"):
        raise ValueError("it is quantized")
    network: Any = load_model(package)  # type: ignore[no-untyped-call]
    return network
