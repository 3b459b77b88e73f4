"""Kinds of network inputs. Without numpy, for the registry, which listing models imports."""

from __future__ import annotations

from enum import Enum


class InputFeatures(Enum):
    """Which magnitudes of a mixture are the input of a mask network."""

    RMS = "rms"
    """The root mean square over channels."""
    STEREO = "stereo"
    """Left and right."""
    MID_SIDE = "mid-side"
    """Left, right, their mean (mid) and half their difference (side)."""

    @property
    def views(self) -> int:
        """Number of magnitudes per bin."""
        return {InputFeatures.RMS: 1, InputFeatures.STEREO: 2, InputFeatures.MID_SIDE: 4}[self]
