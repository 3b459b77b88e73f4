"""Loading networks of the Open-Unmix package from files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from stemsplit import _compat
from stemsplit.errors import BadWeights
from stemsplit.options import RuntimeOptions
from stemsplit.runtime.segments import TorchSegments

CHANNELS = 2
TRANSFORM = {"sample_rate": 44_100, "nfft": 4096, "nhop": 1024, "nb_channels": CHANNELS}
"""Settings of the published models."""


class Chosen(nn.Module):
    """Selects some of a module's outputs."""

    def __init__(self, module: nn.Module, outputs: Sequence[int]) -> None:
        super().__init__()
        self.module, self._outputs = module, list(outputs)

    def forward(self, mixture: Tensor) -> Tensor:
        """Return estimates `(batch, output, channel, time)` for a mixture `(batch, channel, time)`."""
        estimates: Tensor = self.module(mixture)
        return estimates[:, self._outputs]


def start(
    networks: Mapping[str, nn.Module],
    stems: Sequence[str],
    running: RuntimeOptions,
    transform: Mapping[str, int] = MappingProxyType({}),
) -> TorchSegments:
    """Return the package's separator for some networks, with outputs for `stems` only.

    It has the package's defaults: one iteration of the Wiener filter, on 300 frames at a time. `transform`
    overrides TRANSFORM.

    Raises:
        DeviceUnavailable: it cannot run as requested.
    """
    facts = {**TRANSFORM, **transform}
    separator: nn.Module = _compat.openunmix().model.Separator(
        networks,
        niter=1,
        residual="other" not in networks,
        sample_rate=facts["sample_rate"],
        n_fft=facts["nfft"],
        n_hop=facts["nhop"],
        nb_channels=facts["nb_channels"],
    )
    names = list(networks)
    return TorchSegments(Chosen(separator, [names.index(name) for name in stems]), running)


def read(path: Path, bins: int, hidden_size: int) -> nn.Module:
    """Return the network in a file.

    Raises:
        BadWeights: it is damaged, or not a network of the package.
    """
    model = _compat.openunmix().model
    try:
        state: Any = torch.load(path, "cpu", weights_only=True)
        network: nn.Module = model.OpenUnmix(bins, CHANNELS, hidden_size, max_bin=len(state["input_mean"]))
        if missing := network.load_state_dict(state, strict=False).missing_keys:
            raise ValueError(f"it has no {', '.join(missing)}")
    except OSError as error:
        raise BadWeights(f"Cannot read `{path}`: {error.strerror or error}", "download it again") from error
    except Exception as error:  # torch and the package can raise any error
        said = " ".join(str(error).split())[:200]
        raise BadWeights(
            f"`{path}` is not a model of the openunmix package: {said}", "download it again"
        ) from error
    return network
