"""Several masking methods of one model: the network, which takes most of the time, runs once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from stemsplit.datasets.songs import Song
from stemsplit.dsp.masks import interpolate_frames
from stemsplit.separation.masking import MaskSeparator
from stemsplit.separation.plan import MaskPlan
from stemsplit.separation.separator import Samples, Spec
from stemsplit.separation.stream import separate_blocks


@dataclass
class CachedNetwork:
    """A network that runs once for repeated calls with the same features, or the middle part of them."""

    network: Callable[[Samples], Samples]
    plan: MaskPlan
    features: Samples = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))
    probabilities: Samples = field(default_factory=lambda: np.zeros((0, 0, 0, 0), np.float32))

    def __call__(self, features: Samples) -> Samples:
        """Return the network's probabilities `(stem, channel, output, bin)`."""
        frames = features.shape[1]
        edge = max(0, self.features.shape[1] - frames) // 2
        if not np.array_equal(features, self.features[:, edge : edge + frames]):
            self.features, self.probabilities, edge = features, self.network(features), 0
        first = edge // self.plan.frame_stride
        return self.probabilities[:, :, first:][:, :, : self.plan.outputs(frames)]


@dataclass(frozen=True)
class PaddedContext:
    """A separator with more context than it needs."""

    separator: MaskSeparator
    spec: Spec

    def separate(self, window: Samples) -> Samples:
        """Return stems `(stem, channel, time)` of the segment in the middle of a window."""
        edge = self.spec.context - self.separator.spec.context
        return self.separator.separate(window[:, edge : window.shape[-1] - edge])


def separate_by_rules(
    separators: Mapping[str, MaskSeparator], song: Song
) -> tuple[dict[str, Samples], Samples]:
    """Return each separator's stems `(stem, channel, time)` of a song, and their network's probabilities.

    The separators differ only in how they use the probabilities, so the network runs once. The
    probabilities `(stem, frame, bin)` are means over channels, for frames entirely within the song.
    """
    # The widest context first: the inputs of the others are the middle of its input.
    order = sorted(separators, key=lambda name: -separators[name].spec.context)
    widest = separators[order[0]]
    cached = CachedNetwork(widest.network, widest.plan)
    sharing = {name: replace(separators[name], network=cached) for name in order}
    spec = sharing[order[0]].spec
    streams = [
        separate_blocks(PaddedContext(each, spec), [song.mixture], workers=1) for each in sharing.values()
    ]
    pieces: dict[str, list[Samples]] = {name: [] for name in separators}
    seen: list[Samples] = []
    plan = widest.plan
    # Segment by segment, so that the cached output belongs to the current segment.
    for segments in zip(*streams, strict=True):
        for name, stems in zip(order, segments, strict=True):
            pieces[name].append(stems)
        frames = -(-segments[0].shape[-1] // plan.stft.hop_length)
        found = cached.probabilities.mean(axis=1)
        seen.append(interpolate_frames(found, plan.frame_stride)[:, plan.edge :][:, :frames])
    probabilities = np.concatenate(seen, axis=1)[:, : plan.stft.frames(song.length)]
    return {name: np.concatenate(kept, axis=-1) for name, kept in pieces.items()}, probabilities
