"""Wave-U-Net: a U-Net on samples instead of spectra, with waveforms as input and output.

D. Stoller, S. Ewert and S. Dixon, "Wave-U-Net: A Multi-Scale Neural Network for End-to-End Audio Source
Separation", ISMIR 2018 (arXiv 1806.03185): section 3.1 and the table of layers there, with the difference
output layer (3.2.1), proper input context (3.2.2), stereo (3.2.3) and, with `learned`, learned upsampling
(3.2.4). With linear upsampling it is the paper's M4 for two stems and M6 for four; with learned upsampling,
M5. The input is a stereo mixture, the output all stems in stereo. Each level halves the sample rate: it
convolves with kernels of 15 samples, keeps the result for the skip connection, and drops every second sample.
On the way up, each level inserts an interpolated sample between each two, concatenates the skip connection,
and convolves with kernels of 5 samples. No convolution is padded, so no output depends on zeros that are not
in the sound, and the output is shorter than the input.

Lengths: with L levels and kernels of 2 h + 1 samples down and 2 k + 1 up, n samples at the bottom require
2**L (n - 1 + 4 h) + 1 - 2 h input samples and give 2**L (n - 1 - 2 k) + 1 + 2 k outputs. With L = 12, h = 7,
k = 2 and n = 9 these are the 147,443 and 16,389 of the paper's code. Either end loses C - h - k samples,
where the context is C = 2**L (2 h + k): 65,536 samples, three seconds at 22.05 kHz. From an input of whole
strides of S = 2**L samples, `forward` drops h - 1 samples at the start and h at the end; then it drops k + 1
outputs at the start and k at the end. The rest covers exactly the input without C samples at either end.

Decimation makes outputs depend on where the input starts: the network is equivariant only to shifts by
multiples of S. A segment of whole strides that starts at a multiple of S depends on itself and C samples on
either side, and on nothing else. A single output depends on no more than the whole stride that contains it
does, but this can reach C + S - h - k - 1 samples to one side.

Parameters: 10,263,498 for four stems in stereo (10.2 M elsewhere, the same number truncated), and 1,546,302
for SMALL, which has the paper's kernels, 10 levels that add 12 filters each, and a context of 16,384 samples
(0.74 s).

Not specified by the paper, or different here: the leaky ReLU's slope (0.2) and the initial weights (Glorot
uniform, zero biases) are from the authors' code. The last stem is the mixture minus the others, as in the
paper, but is not clipped to [-1, 1], so that the stems sum to the mixture. The paper's last stem is the
vocals; here it is the last stem of the model. A network for one stem is a network for two without the
difference output. Training: the paper uses the mean squared error of samples (Adam, learning rate 1e-4, then
1e-5).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stemsplit.networks.base import Network

SAMPLE_RATE = 22_050
CHANNELS = 2
SLOPE = 0.2


@dataclass(frozen=True)
class Config:
    """The paper's M4 and M6."""

    levels: int = 12
    filters: int = 24
    """Number of filters that each level adds to the one above."""
    down: int = 15
    """Kernel size on the way down and at the bottom, an odd number."""
    up: int = 5
    """Kernel size on the way up, an odd number."""
    learned: bool = False
    """Whether upsampling inserts a learned weighted mean of two samples instead of their mean."""

    @property
    def stride(self) -> int:
        """Inputs must start at a multiple of this many samples for equal outputs."""
        return int(2**self.levels)

    @property
    def context_samples(self) -> int:
        """Samples on either side of a segment of whole strides that its outputs depend on."""
        return self.stride * (self.down - 1 + self.up // 2)

    def sizes(self, bottom: int) -> tuple[int, int]:
        """Return the numbers of input and output samples for `bottom` samples after the bottom layer."""
        margin = 2 * (self.context_samples - self.down // 2 - self.up // 2)
        out = self.stride * (bottom - self.up) + self.up
        return out + margin, out


LEARNED = Config(learned=True)
"""The paper's M5."""
SMALL = Config(levels=10, filters=12)
"""For CPUs."""
CONTEXT_SAMPLES = Config().context_samples
STRIDE = Config().stride


class WaveUNet(Network):
    """Maps the waveform of a mixture to the waveforms of its stems."""

    sample_rate = SAMPLE_RATE
    channels = CHANNELS

    def __init__(self, stems: int, config: Config | None = None) -> None:
        super().__init__(stems)
        self.config = config = config or Config()
        self.context_samples, self.stride = config.context_samples, config.stride
        widths = [config.filters * (level + 1) for level in range(config.levels + 1)]
        inputs = [CHANNELS, *widths[:-1]]
        self.down = nn.ModuleList(
            nn.Conv1d(before, width, config.down) for before, width in zip(inputs, widths, strict=True)
        )
        self.between = nn.ModuleList(_Between(width, config.learned) for width in widths[:0:-1])
        self.up = nn.ModuleList(
            nn.Conv1d(below + width, width, config.up)
            for below, width in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.output = nn.Conv1d(widths[0] + CHANNELS, max(1, stems - 1) * CHANNELS, 1)
        for layer in (*self.down, *self.up, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, mixture: Tensor, *, margin: int = 0, frame_stride: int = 1) -> Tensor:
        """Return `(example, stem, channel, time - 2 * context_samples)` for `(example, channel, time)`.

        `time` is a multiple of `stride` and more than twice the `context_samples`.
        """
        time, half = mixture.shape[-1], self.config.down // 2
        if time % self.stride or time <= 2 * self.context_samples:
            raise ValueError(
                f"{time} samples must be a multiple of {self.stride}, and over {2 * self.context_samples}"
            )
        # The middle of all outputs of the unpadded convolutions.
        outputs = self.valid(mixture[..., half - 1 : time - half])
        first = self.config.up // 2 + 1
        return outputs[..., first : first + time - 2 * self.context_samples]

    def valid(self, mixture: Tensor) -> Tensor:
        """Return all outputs of the unpadded convolutions, for an input length from `Config.sizes`."""
        x, kept = mixture, []
        for layer in self.down[:-1]:
            kept.append(F.leaky_relu(layer(x), SLOPE))
            x = kept[-1][..., ::2]
        x = F.leaky_relu(self.down[-1](x), SLOPE)
        for between, layer in zip(self.between, self.up, strict=True):
            x = between(x)
            x = F.leaky_relu(layer(torch.cat([_middle(kept.pop(), x.shape[-1]), x], 1)), SLOPE)
        mixture_part = _middle(mixture, x.shape[-1])
        x = torch.tanh(self.output(torch.cat([mixture_part, x], 1)).float())
        outputs = x.reshape(x.shape[0], -1, CHANNELS, x.shape[-1])
        if self.stems == 1:
            return outputs
        return torch.cat([outputs, (mixture_part - outputs.sum(1))[:, None]], 1)


class _Between(nn.Module):
    """Inserts a sample between each two: n in, 2 n - 1 out."""

    def __init__(self, width: int, learned: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width)) if learned else None

    def forward(self, x: Tensor) -> Tensor:
        before, after = x[..., :-1], x[..., 1:]
        if self.weight is None:
            inserted = (before + after) / 2
        else:
            share = torch.sigmoid(self.weight).to(x.dtype)[:, None]
            inserted = share * before + (1 - share) * after
        return torch.cat([torch.stack([before, inserted], -1).flatten(-2), x[..., -1:]], -1)


def _middle(x: Tensor, time: int) -> Tensor:
    start = (x.shape[-1] - time) // 2
    return x[..., start : start + time]
