"""Frame arithmetic for masks: the frames that a network and a Wiener filter need around a segment."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from stemsplit.dsp.stft import Stft

SEGMENT_FRAMES = 450
"""Approximate length of a segment in frames: 5 s at a hop of 512, enough to keep all workers busy."""

STREAM_FRAMES = 1300
"""The same for a network that runs on a stream: longer, because each segment begins with the context."""
FRAMES_AHEAD = 5200
"""Length of all segments in work together, in frames: if a track is long enough, segments are longer."""


@dataclass(frozen=True)
class MaskPlan:
    """The frames that a segment needs. Lengths are in frames unless their names say samples or outputs.

    Network inputs start at multiples of `stride` frames, and outputs depend on `context` frames on either
    side. With a `frame_stride`, the network runs for every `frame_stride`-th frame only, and its outputs are
    interpolated.
    """

    stft: Stft
    context: int = 0
    stride: int = 1
    wiener_context_frames: int = 0
    """Frames on either side from which the Wiener filter estimates covariances. 0: no filter."""
    frame_stride: int = 1
    wiener_stride: int = 1
    """Length in frames of the runs that share positions in the Wiener filter; divides the stride."""

    @cached_property
    def edge(self) -> int:
        """Frames on either side of a segment that also need masks."""
        # Interpolation needs an output after the last frame.
        interpolated = 1 if self.frame_stride > 1 else 0
        needed = self._overlapping + interpolated + self.wiener_context_frames + self.wiener_stride - 1
        edge = self.frame_stride * math.ceil(needed / self.frame_stride)
        return edge + -(self.context + edge) % self.stride

    @cached_property
    def extra_outputs(self) -> int:
        """Number of network outputs in addition to one per `frame_stride` frames of the segment."""
        return (2 * self.edge - self._overlapping - 1) // self.frame_stride + 1

    @property
    def context_samples(self) -> int:
        """Number of samples on either side that a segment depends on."""
        return (self.context + self.edge) * self.stft.hop_length

    @property
    def stride_samples(self) -> int:
        """The start and length of a segment are multiples of this number of samples."""
        return self.frame_stride * self.stride * self.stft.hop_length

    @property
    def stem_start(self) -> int:
        """The first sample of the segment in the inverse transform of the stems' spectra."""
        return (self.edge - self.wiener_context_frames) * self.stft.hop_length

    def segment_samples(self, batch: int) -> int:
        """Return a segment length near `SEGMENT_FRAMES` with whole batches of network outputs."""
        outputs = SEGMENT_FRAMES / self.frame_stride + self.extra_outputs
        batches = max(1, round(outputs / batch))
        strides = (batches * batch - self.extra_outputs) // self.stride
        return max(1, strides) * self.stride_samples

    def stream_samples(self, part: int, frames: int = STREAM_FRAMES) -> int:
        """Return a segment length near `frames` for a network that runs on a stream in parts."""
        around = 2 * self.context + self.extra_outputs
        parts = round((frames + around) / part)
        return (parts * part - around) // self.stride * self.stride_samples

    def batch_for(self, segment_samples: int) -> int:
        """Return the number of network outputs that a segment of this length needs."""
        return segment_samples // (self.frame_stride * self.stft.hop_length) + self.extra_outputs

    def outputs(self, frames: int) -> int:
        """Return the number of network outputs for this number of input frames."""
        return (frames - 2 * self.context - 1) // self.frame_stride + 1

    def centred(self, window_samples: int) -> slice:
        """Return the slice of the frames with masks that are centered within a window's segment."""
        first = self.edge - self.stft.n_fft // 2 // self.stft.hop_length
        return slice(first, first + (window_samples - 2 * self.context_samples) // self.stft.hop_length)

    @property
    def _overlapping(self) -> int:
        """Number of frames that start before a segment and end in it."""
        return self.stft.n_fft // self.stft.hop_length - 1
