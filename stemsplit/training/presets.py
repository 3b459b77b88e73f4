"""Training settings of networks that differ from the defaults of `TrainConfig` and of the examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stemsplit.networks import registry

_SPECTRA = {"learning_rate": 2e-3, "loss": "l2", "frames": 64, "examples": 3}
_WAVES = {"learning_rate": 1e-3, "loss": "l2", "frames": 1 << 14, "examples": 2}

_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "binary-mask-cnn": {},
    "band-transformer": {**_SPECTRA, "loss": "phase-sensitive", "frames": 128},
    "band-transformer-full": {**_SPECTRA, "loss": "phase-sensitive"},
    "deep-conv-sep": {**_SPECTRA, "frames": 75},
    "wave-u-net": _WAVES,
    "wave-u-net-small": {**_WAVES, "frames": 1 << 16},
    "wavenet": {**_WAVES, "loss": "l1", "frames": 1 << 13},
    "wavenet-small": {**_WAVES, "loss": "l1", "frames": 1 << 15},
}


def preset(network: str) -> Mapping[str, Any]:
    """Return a network's settings. Raises BadWeights if there is no such network."""
    registry.find(network)
    return _PRESETS.get(network, _SPECTRA)
