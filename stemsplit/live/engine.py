"""Live separation in small blocks, with a known latency.

A block is separated as soon as all its input has arrived: the block, and the separator's context after it.
The algorithmic latency is the block length plus the context, on any CPU. The computation may take as long as
a block lasts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np

from stemsplit.defaults import LIVE_MODEL
from stemsplit.errors import StemsplitError, UsageError
from stemsplit.networks import registry
from stemsplit.options import RuntimeOptions
from stemsplit.separation.separator import FittedMethod, Samples, Separator, StreamSeparator
from stemsplit.separation.stream import separate_blocks
from stemsplit.zoo.card import ModelCard
from stemsplit.zoo.ref import ModelRef
from stemsplit.zoo.separators import as_run, mask_plan
from stemsplit.zoo.variants import Ensemble, Trained

BLOCK_MS = 100.0


@dataclass(frozen=True)
class Summary:
    """Statistics of a run. Times are in milliseconds."""

    seconds: float
    """Duration of the output."""
    block_ms: float
    latency_ms: float
    """The expected latency: block plus context; for sound cards, in whole blocks plus device latency."""
    median_ms: float | None
    """Median time from the arrival of a block's first sample to its output; None for sound cards."""
    worst_ms: float | None
    blocks: int
    late: int
    """Number of blocks that were so late that playback had a gap."""
    times_real_time: float | None
    """Ratio of the duration of the sound to the computing time."""


def find(model: str | os.PathLike[str]) -> Trained:
    """Look up a model that can separate block by block.

    Raises:
        UsageError: it needs a whole track or long segments, or is an ensemble.
        UnknownModel, BadWeights: see `ModelRef.parse`.
    """
    ref = ModelRef.parse(model)
    if isinstance(ref, Trained):
        return ref
    if isinstance(ref, Ensemble):
        raise UsageError(f"`{model}` is an ensemble of several models", "choose one of them")
    if ref.blind:
        raise UsageError(f"{model} needs a whole track before it can start", "choose a trained model")
    raise UsageError(
        f"{model} works in segments of several seconds, which is too slow for live sound",
        f"use --model {LIVE_MODEL}",
    )


def load(
    ref: Trained,
    stem: str | None = None,
    *,
    block_ms: float = BLOCK_MS,
    fast: bool = False,
    **running: Any,
) -> Separator:
    """Return a separator for small blocks, with the networks for one stem or for all.

    Raises:
        StemsplitError: see `ModelRef.load`.
    """
    options = RuntimeOptions(**{"threads": 1, "fast": fast, **running})
    method = ref.load(
        replace(options, batch=_batch(ref.card, options, block_ms)), stems=None if stem is None else [stem]
    )
    assert not isinstance(method, FittedMethod | StreamSeparator)
    return method


def _batch(card: ModelCard, running: RuntimeOptions, block_ms: float) -> int:
    """Return the number of network outputs (frames or samples) per block."""
    network = registry.find(card.network)
    if network.predicts_waveforms:
        return block_length(network.context.stride, card.sample_rate, block_ms)
    card, running = as_run(card, None, running)
    plan = mask_plan(card, card.mask, running)
    return plan.batch_for(block_length(plan.stride_samples, card.sample_rate, block_ms))


def block_length(stride: int, sample_rate: int, block_ms: float) -> int:
    """Return the length in samples of a block of about `block_ms`: a multiple of the separator's stride."""
    return max(1, round(block_ms / 1000 * sample_rate / stride)) * stride


def only(stems: Samples) -> Samples:
    """Return the only stem."""
    return stems.reshape(stems.shape[1:])


class Live:
    """Runs a separator on small blocks, and `mix` on the stems of each block."""

    def __init__(
        self, separator: Separator, mix: Callable[[Samples], Samples], *, block_ms: float = BLOCK_MS
    ) -> None:
        self.spec = separator.spec
        self.block = block_length(self.spec.stride, self.spec.sample_rate, block_ms)
        self.latency = self.block + self.spec.context
        """The delay from input to output, in samples."""
        self.made = self.blocks = 0
        self._separator, self._mix, self._busy_seconds = separator, mix, 0.0

    def check(self, sample_rate: int, channels: int) -> None:
        """Separate and mix silence, to raise errors and do slow initialization early."""
        if sample_rate != self.spec.sample_rate:
            raise StemsplitError(
                f"The input is at {sample_rate} Hz, but the model works at {self.spec.sample_rate} Hz",
                f"resample it first: ffmpeg -i - -f wav -ar {self.spec.sample_rate} -",
            )
        silence = np.zeros((channels, self.block + 2 * self.spec.context), np.float32)
        self._mix(self._separator.separate(silence))

    def run(self, blocks: Iterable[Samples]) -> Iterator[Samples]:
        """Yield the output for blocks `(channel, time)`, delayed by `latency` samples.

        The rest follows at the end, so input and output have the same length.
        """
        seconds = self.block / self.spec.sample_rate
        for stems in separate_blocks(self, blocks, segment_seconds=seconds, workers=1):
            began = time.perf_counter()
            made = self._mix(stems)
            self._busy_seconds += time.perf_counter() - began
            self.made += made.shape[-1]
            self.blocks += 1
            yield made

    def separate(self, window: Samples) -> Samples:
        """Separate a window, and measure the time."""
        began = time.perf_counter()
        stems = self._separator.separate(window)
        self._busy_seconds += time.perf_counter() - began
        return stems

    def milliseconds(self, samples: float) -> float:
        """Return the duration of `samples` samples in milliseconds."""
        return 1000 * samples / self.spec.sample_rate

    def summary(self, latency: float, late: int, measured: Iterable[float] = ()) -> Summary:
        """Return statistics; `latency` is in samples, `measured` latencies are in seconds."""
        times = [1000 * seconds for seconds in measured]
        seconds = self.made / self.spec.sample_rate
        return Summary(
            seconds=seconds,
            block_ms=self.milliseconds(self.block),
            latency_ms=self.milliseconds(latency),
            median_ms=median(times) if times else None,
            worst_ms=max(times) if times else None,
            blocks=self.blocks,
            late=late,
            times_real_time=seconds / self._busy_seconds if self._busy_seconds else None,
        )
