"""The sizes of a band transformer, and the context that follows from them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from stemsplit.networks._bands import Bands

BANDS: Bands = (
    (8, 8, 1),
    (6, 16, 1),
    (6, 32, 1),
    (3, 64, 1),
    (3, 32, 2),
    (2, 64, 2),
    (3, 32, 4),
    (1, 64, 4),
    (1, 104, 4),
)


@dataclass(frozen=True)
class Config:
    """The sizes, chosen for this project; `width` must be a multiple of `2 * heads`.

    Properties are in frames, and count them on either side of an output unless they say otherwise.
    """

    bands: Bands = BANDS
    width: int = 64
    """Features per token (one band of one frame)."""
    heads: int = 4
    blocks: int = 5
    """Pairs of Transformer blocks: one across bands, one along time."""
    window: int = 8
    """Tokens on either side that a block along time attends to."""
    step: int = 2
    """Frames from one token to the next; tokens of the frames between are interpolated."""
    beside: int = 1
    """Frames on either side of a token's own that are its input, too; less than `step`."""
    expansion: int = 2
    """Inner size of the feed-forward layers, in multiples of `width`."""
    details: int = 16
    """Feature maps of the convolutions."""
    refinements: int = 2
    """Residual blocks over the details, conditioned on the bands' features."""
    refined: int = 3
    """Number of entries of `bands` that have refinements, from the lowest."""

    @property
    def context_frames(self) -> int:
        """Frames that an output depends on: whole steps, so that an input begins with a token."""
        return self.step * math.ceil(self.context_of_scores / self.step)

    @property
    def context_of_scores(self) -> int:
        """The same, not rounded up."""
        of_tokens = self.context_of_blocks + self.beside + self.step - 1
        return max(self.context_of_details, of_tokens + self.spread)

    @property
    def context_of_blocks(self) -> int:
        """Frames that a token depends on after the last block."""
        return self.blocks * self.window * self.step

    @property
    def context_of_details(self) -> int:
        """Frames that a score depends on through the convolutions alone."""
        return 1 + 2 * self.refinements

    @property
    def spread(self) -> int:
        """Frames over which the refinements spread the tokens."""
        return max(0, 2 * self.refinements - 1)

    @property
    def frames_back(self) -> int:
        """Earlier frames whose features a stream keeps: for the silence mask, or for the details."""
        of_details = self.context_frames + self.context_of_details
        return max(self.context_of_blocks + self.window * self.step, of_details)

    @property
    def tokens_back(self) -> int:
        """Earlier tokens that a stream keeps for the refinements."""
        return math.ceil((self.context_frames + self.spread - self.context_of_blocks) / self.step)


FULL = Config(window=16, step=1, beside=0, refined=len(BANDS))
