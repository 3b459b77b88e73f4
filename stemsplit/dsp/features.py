"""Network inputs: magnitudes of spectra, in numpy and in torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stemsplit.dsp.input_features import InputFeatures
from stemsplit.dsp.stft import Floats, Spectra

if TYPE_CHECKING:
    from torch import Tensor

FLOOR = 1e-5
"""Lower limit of the magnitudes in network inputs (-100 dB)."""


def magnitude(spectra: Spectra) -> Floats:
    """Return the root mean square over channels of spectra `(..., channel, frame, bin)`.

    Unlike the magnitude of a mono mixdown, it keeps sound with opposite phase in left and right.
    """
    power = np.square(spectra.real) + np.square(spectra.imag)
    found: Floats = np.sqrt(power.mean(axis=-3))
    return found


def magnitudes(spectra: Spectra, features: InputFeatures) -> Floats:
    """Return a network's magnitudes `(..., view, frame, bin)` for spectra `(..., channel, frame, bin)`.

    A single channel counts as both left and right. With more than two, left and right are the root mean
    squares of channels 0, 2, ... and 1, 3, ..., without phase.
    """
    if features is InputFeatures.RMS:
        return magnitude(spectra)[..., None, :, :]
    channels = spectra.shape[-3]
    if channels > 2:
        sides: list[Any] = [magnitude(spectra[..., k::2, :, :]) for k in (0, 1)]
    else:
        sides = [spectra[..., k, :, :] for k in (0, channels - 1)]
    if features is InputFeatures.MID_SIDE:
        left, right = sides
        sides += [(left + right) / 2, (left - right) / 2]
    found = np.empty((*spectra.shape[:-3], len(sides), *spectra.shape[-2:]), np.float32)
    for view, side in enumerate(sides):
        np.abs(side, out=found[..., view, :, :])
    return found


def log_magnitude(magnitudes: Floats) -> Floats:
    """Return the natural logarithms of magnitudes, limited below by `FLOOR`."""
    bounded: Floats = np.maximum(magnitudes, np.float32(FLOOR))
    return np.log(bounded, out=bounded)


def log_magnitudes(spectra: Tensor, features: InputFeatures) -> Tensor:
    """Return `log_magnitude(magnitudes(...))` in torch, for stereo `(example, channel, frame, bin)`."""
    import torch

    if features is InputFeatures.MID_SIDE:
        left, right = spectra[:, :1], spectra[:, 1:]
        spectra = torch.cat([spectra, (left + right) / 2, (left - right) / 2], dim=1)
    found = spectra.abs()
    if features is InputFeatures.RMS:
        found = found.square().mean(dim=1, keepdim=True).sqrt()
    return found.clamp_min(FLOOR).log()
