"""Separators made of others: the mean of several, and one with a residual."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from stemsplit.separation.separator import Samples, Separator, Spec


@dataclass(frozen=True)
class Ensemble:
    """The mean of what several separators give: where they err in different ways, it errs less than any."""

    separators: tuple[Separator, ...]
    """Of the same stems, in the same order, at the same sample rate."""

    @cached_property
    def spec(self) -> Spec:
        """The context is the longest that any of them needs, the stride the least common multiple."""
        specs = [separator.spec for separator in self.separators]
        stride = math.lcm(*(spec.stride for spec in specs))

        def whole_strides(samples: int) -> int:
            return math.ceil(samples / stride) * stride

        return Spec(
            stems=specs[0].stems,
            sample_rate=specs[0].sample_rate,
            context=whole_strides(max(spec.context for spec in specs)),
            stride=stride,
            complete=all(spec.complete for spec in specs),
            segment=whole_strides(max(spec.segment for spec in specs)),
            workers=max(spec.workers for spec in specs),
            how=specs[0].how,
        )

    def separate(self, window: Samples) -> Samples:
        """Return stems `(stem, channel, time)` of the segment in the middle of a window."""
        stems = np.float32(0)
        for separator in self.separators:
            edge = self.spec.context - separator.spec.context
            stems = stems + separator.separate(window[:, edge : window.shape[-1] - edge])
        found: Samples = stems / np.float32(len(self.separators))
        return found


@dataclass(frozen=True)
class WithResidual:
    """A separator with one more stem, the residual: the mixture minus all others."""

    separator: Separator
    name: str

    @property
    def spec(self) -> Spec:
        """The separator's own, with the stem added."""
        spec = self.separator.spec
        return replace(spec, stems=(*spec.stems, self.name), complete=True)

    def separate(self, window: Samples) -> Samples:
        """Return stems `(stem, channel, time)` of the segment in the middle of a window."""
        stems = self.separator.separate(window)
        context = self.separator.spec.context
        segment = window[:, context : window.shape[-1] - context]
        return np.concatenate([stems, (segment - stems.sum(axis=0))[None]])
