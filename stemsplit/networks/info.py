"""The facts about a network, without importing torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal

from stemsplit.dsp.input_features import InputFeatures

WHOLE = "network"
"""The part of a model that holds the tensors of a network for all stems."""


class OutputKind(Enum):
    """What a network's outputs are; its method `masks` turns all but waveforms into masks from 0 to 1."""

    WAVEFORM = auto()
    """Samples of the stems."""
    LOGITS = auto()
    """Logits of masks, of each stem by itself."""
    RATIO = auto()
    """Ratios of the stem's magnitude to the mixture's, not yet bounded by one."""
    SCORES = auto()
    """Scores of all stems, of which a softmax makes masks."""


@dataclass(frozen=True)
class Context:
    """The input that outputs depend on. Lengths are in frames, those of waveform networks in samples."""

    frames: int
    """Length on either side of an output: the receptive field is twice as long, plus one."""
    stride: int = 1
    """An input must start at a multiple of this for equal outputs."""
    padding: Literal["same", "valid"] = "same"
    """`same`: one output for each input frame. `valid`: outputs only where the whole context is given."""

    @property
    def margin(self) -> int:
        """Frames at either end of an input without outputs."""
        return self.frames if self.padding == "valid" else 0

    def whole_strides(self, frames: int) -> int:
        """Return the least multiple of the stride that is no shorter than `frames`."""
        return math.ceil(frames / self.stride) * self.stride


@dataclass(frozen=True)
class NetworkInfo:
    """A network's class, its input and output, and the settings that suit it.

    A mask network maps log magnitudes `(example, view, frame, bin)` to outputs `(example, stem, channel,
    frame, bin)`, with a single channel if both get the same masks. A waveform network maps a mixture
    `(example, channel, time)` to stems `(example, stem, channel, time)`.
    """

    module: str
    name: str
    title: str
    """One line, for cards and lists."""
    context: Context
    output: OutputKind
    config: str = ""
    """The module's constant with its configuration; empty for the paper's."""
    input: InputFeatures = InputFeatures.RMS
    """Of a mask network."""
    bins: int = 0
    """The lowest bins, which are its input and get masks; 0: a waveform network."""
    channels: int = 2
    """Of a waveform network's input; with one, it runs for each channel by itself."""
    joint: bool = True
    """Whether one network has outputs for all stems; else there is one network per stem."""
    prepares: bool = False
    """Whether its methods `prepare`, which needs float32, and `scores` together do what `forward` does."""
    frame_strides: tuple[int, ...] = (1,)
    """Supported distances in frames between outputs."""
    step: int = 1
    """Frames from one that the network runs on to the next, if it has outputs of all. Divides the stride."""
    fast: str = ""
    """The network that runs faster with the same weights, if there is one: `--fast` runs it instead."""
    sample_rate: int = 44_100
    n_fft: int = 2048
    hop_length: int = 512
    batch: int = 256
    """The fastest number of outputs at a time on a CPU, in frames or samples."""
    gpu_batch: int = 0
    """The same on a GPU; 0: four times as many."""

    def __post_init__(self) -> None:
        if self.predicts_waveforms != (self.bins == 0):
            raise ValueError(f"{self.name}: waveform networks have no bins, and others need them")

    @property
    def predicts_waveforms(self) -> bool:
        """Whether its outputs are samples, and not masks."""
        return self.output is OutputKind.WAVEFORM

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The number of views or channels, and of bins if there are any: all sizes but that of time."""
        return (self.input.views, self.bins) if self.bins else (self.channels,)

    def parts(self, stems: Sequence[str]) -> tuple[str, ...]:
        """Return the name of each of a model's networks: one for all stems, or one per stem."""
        return (WHOLE,) if self.joint else tuple(stems)
