"""Descriptions of networks, available without importing torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal

from stemsplit.dsp.input_features import InputFeatures

WHOLE = "network"
"""Name of the model part for a network with outputs for all stems."""


class OutputKind(Enum):
    """Kinds of network outputs; `Network.masks` turns all except waveforms into masks from 0 to 1."""

    WAVEFORM = auto()
    """Samples of the stems."""
    LOGITS = auto()
    """Logits of masks, independent for each stem."""
    RATIO = auto()
    """Ratios of the stem's magnitude to the mixture's, not yet clipped to 1."""
    SCORES = auto()
    """Logits of the masks of all stems, for a softmax over stems."""


@dataclass(frozen=True)
class Context:
    """The context of outputs, in frames or, for waveform networks, in samples."""

    frames: int
    """Context on either side of an output; the receptive field is `2 * frames + 1`."""
    stride: int = 1
    """Inputs must start at a multiple of this, or the same sound gives different outputs."""
    padding: Literal["same", "valid"] = "same"
    """`same`: one output for each input frame; `valid`: outputs only for frames with full context."""

    @property
    def margin(self) -> int:
        """Frames without an output at either end of an input."""
        return self.frames if self.padding == "valid" else 0

    def whole_strides(self, frames: int) -> int:
        """Return `frames`, rounded up to a multiple of the stride."""
        return math.ceil(frames / self.stride) * self.stride


@dataclass(frozen=True)
class NetworkInfo:
    """A network's class, input, output and default settings.

    A mask network maps log magnitudes `(example, view, frame, bin)` to outputs `(example, stem, channel,
    frame, bin)`, with one channel if left and right share a mask. A waveform network maps a mixture
    `(example, channel, time)` to stems `(example, stem, channel, time)`.
    """

    module: str
    name: str
    title: str
    """One line, for cards and lists."""
    context: Context
    output: OutputKind
    config: str = ""
    """Name of the configuration in the module; empty for the paper's."""
    input: InputFeatures = InputFeatures.RMS
    """Input features of a mask network."""
    bins: int = 0
    """Number of bins, from 0 Hz up, that are input and get masks; 0: a waveform network."""
    channels: int = 2
    """Input channels of a waveform network; with 1, it runs on each channel separately."""
    joint: bool = True
    """Whether one network has outputs for all stems; otherwise there is one network per stem."""
    prepares: bool = False
    """Whether `forward` can be run as `prepare`, which needs float32, and then `scores`."""
    frame_strides: tuple[int, ...] = (1,)
    """Supported distances in frames between outputs."""
    sample_rate: int = 44_100
    n_fft: int = 2048
    hop_length: int = 512
    batch: int = 256
    """Fastest batch size on a CPU: outputs per call, in frames or samples."""
    part: int = 0
    """Frames at a time of a network that can run on a stream (see `StreamNetwork`); 0: it cannot."""
    gpu_batch: int = 0
    """The same on a GPU; 0: four times as many."""

    def __post_init__(self) -> None:
        if self.predicts_waveforms != (self.bins == 0):
            raise ValueError(f"{self.name}: waveform networks have no bins, and others need them")

    @property
    def predicts_waveforms(self) -> bool:
        """Whether its outputs are samples instead of masks."""
        return self.output is OutputKind.WAVEFORM

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Input sizes except time: views and bins, or the channels of a waveform network."""
        return (self.input.views, self.bins) if self.bins else (self.channels,)

    def parts(self, stems: Sequence[str]) -> tuple[str, ...]:
        """Return the names of a model's networks: one for all stems, or one per stem."""
        return (WHOLE,) if self.joint else tuple(stems)
