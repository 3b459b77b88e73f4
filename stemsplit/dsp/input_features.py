"""Kinds of network inputs, free of numpy imports, because listing models imports this module."""

from __future__ import annotations

from enum import Enum


class InputFeatures(Enum):
    """The magnitudes of a mixture that are the input of a mask network."""

    RMS = "rms"
    """The root mean square over channels."""
    STEREO = "stereo"
    """Left and right."""
    MID_SIDE = "mid-side"
    """Left, right, their mean (mid) and half their difference (side)."""

    @property
    def views(self) -> int:
        """Number of magnitudes per frame and bin."""
        return {InputFeatures.RMS: 1, InputFeatures.STEREO: 2, InputFeatures.MID_SIDE: 4}[self]
