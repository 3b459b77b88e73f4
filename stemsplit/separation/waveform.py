"""Separation by networks that map the mixture's samples to the stems' samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stemsplit.separation.separator import Execution, Samples, Spec


@dataclass(frozen=True)
class WaveformSeparator:
    """Runs a network that predicts the stems' samples.

    `network` maps a mixture `(channel, time + 2 * context)` of `channels` channels to stems `(stem, channel,
    time)`. With one channel, it runs on each channel separately. `stem_indices` are the indices of the
    requested stems among the network's outputs; `context` and `stride` are in samples.
    """

    stems: tuple[str, ...]
    sample_rate: int
    context: int
    network: Callable[[Samples], Samples]
    stem_indices: tuple[int, ...]
    channels: int = 2
    stride: int = 1
    complete: bool = True
    execution: Execution = Execution()

    @cached_property
    def spec(self) -> Spec:
        """The context is the network's, rounded up to whole strides."""
        return Spec(
            stems=self.stems,
            sample_rate=self.sample_rate,
            context=math.ceil(self.context / self.stride) * self.stride,
            stride=self.stride,
            complete=self.complete,
            segment=max(1, self.execution.batch // self.stride) * self.stride,
            workers=self.execution.workers,
            how=self.execution.how,
        )

    def separate(self, window: Samples) -> Samples:
        """Return stems `(stem, channel, time)` of the segment in the middle of a window."""
        context, edge = self.spec.context, self.spec.context - self.context
        segment = window[:, context : window.shape[-1] - context]

        def network(group: Samples) -> Samples:
            return self.network(group)[list(self.stem_indices), :, edge:][..., : segment.shape[-1]]

        stems = in_channel_groups(network, window, self.channels)

        def near(marked: NDArray[np.bool_]) -> NDArray[np.bool_]:
            return _near(marked, self.context)[edge:][: segment.shape[-1]]

        if len(window) == 2 == self.channels:  # equal channels stay equal
            stems = np.where(near(window[0] != window[1]), stems, stems.mean(axis=1, keepdims=True))
        # Bias terms can produce output for silent input: force it to zero.
        found: Samples = np.where(near((window != 0).max(axis=0)), stems, np.float32(0))
        if self.complete:
            found[-1] = segment - found[:-1].sum(axis=0)
        return found


def _near(marked: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    """Return for each sample, except `distance` at both ends, whether any within `distance` is marked."""
    counts = np.concatenate([[0], np.cumsum(marked)])
    near: NDArray[np.bool_] = counts[2 * distance + 1 :] > counts[: -2 * distance - 1]
    return near


def in_channel_groups(network: Callable[[Samples], Samples], window: Samples, channels: int) -> Samples:
    """Run a network for `channels` channels on a signal `(channel, time)` with any number of channels.

    The last channels are repeated to fill the last group. Mono output is the mean of the network's channels.
    """
    missing = -len(window) % channels
    full = np.concatenate([window, window[-missing:]]) if missing else window
    stems = [network(group) for group in full.reshape(-1, channels, window.shape[-1])]
    if len(window) < channels:
        mono: Samples = stems[0].mean(axis=1, keepdims=True)
        return mono
    return np.concatenate(stems, axis=1)[:, : len(window)]
