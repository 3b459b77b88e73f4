"""Wave-U-Net: a U-Net over samples instead of spectra, waveform in and waveforms out.

D. Stoller, S. Ewert and S. Dixon, "Wave-U-Net: A Multi-Scale Neural Network for End-to-End Audio Source
Separation", ISMIR 2018 (arXiv 1806.03185): section 3.1 and the table of layers there, with the difference
output layer (3.2.1), proper input context (3.2.2), stereo (3.2.3) and, where `learned` says so, learned
upsampling (3.2.4). With linear upsampling it is the paper's M4 on two stems and its M6 on four; with learned
upsampling its M5. Its input is both channels of a mixture, its output those of all stems. A level halves the
rate: convolution of 15 samples, kept for later, then every second sample; on the way up samples are
interpolated between each two, joined to what was kept, and convolved with filters of 5. No convolution is
padded, so no output depends on zeros that are not in the sound, and there are fewer samples out than in.

Sizes: of L levels with filters of 2 h + 1 samples down and 2 k + 1 up, n samples at the bottom come of
2**L (n - 1 + 4 h) + 1 - 2 h samples and give 2**L (n - 1 - 2 k) + 1 + 2 k. With L = 12, h = 7, k = 2 and
n = 9 these are the 147,443 and 16,389 of the paper's code. What is lost at either end is C - h - k, where
the context is C = 2**L (2 h + k): 65,536 samples, three seconds at 22.05 kHz. So of a multiple of the stride
S = 2**L samples, h - 1 are left out at the front and h at the end, and the outputs are exactly the input
without C samples at either end, for every such length and without padding.

Decimation makes the answers depend on where the input begins: equal inputs give equal answers when they
begin a multiple of S apart, and others do not. A segment of whole strides that begins at a multiple of S
depends on C samples on either side of it, and on nothing else. A single sample depends on no more than the
stride that it lies in, but that may be up to C + S - h - k - 1 samples away from it.

Parameters: 10,263,498 for four stems in stereo (elsewhere stated as 10.2 M, which is the same cut off), and
1,546,302 for SMALL, which has the paper's filters, 10 levels of 12 and a context of 16,384 samples, 0.74 s.

Not specified by the paper, or different here: the leaky ReLU's slope (0.2) and the initial weights (Glorot's
uniform ones, no biases) are those of the authors' code. The last stem is the mixture minus the others, as in
the paper, but is not clipped to [-1, 1], so that the stems sum to the mixture; its order of stems ends on
the vocals, ours on whatever the last one is. A network for one stem gives a difference network's first
of two outputs. Training: the paper takes the mean squared error of the samples (Adam, rate 1e-4, then 1e-5).
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
    """How many filters each level has more than the one above."""
    down: int = 15
    """Samples of a filter on the way down, an odd number; also at the bottom."""
    up: int = 5
    """Samples of a filter on the way up, an odd number."""
    learned: bool = False
    """Whether a sample between two others is a learned mixture of them, or their mean."""

    @property
    def stride(self) -> int:
        """Inputs must begin at a multiple of this many samples for equal outputs."""
        return int(2**self.levels)

    @property
    def context_samples(self) -> int:
        """Samples on either side of a segment of whole strides that its outputs depend on."""
        return self.stride * (self.down - 1 + self.up // 2)

    def sizes(self, bottom: int) -> tuple[int, int]:
        """Return the numbers of input and output samples for a number left after the way down."""
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
    """Maps the waveform of a mixture to those of its stems."""

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
        # Of the samples that unpadded convolutions can give, those in the middle.
        outputs = self.valid(mixture[..., half - 1 : time - half])
        first = self.config.up // 2 + 1
        return outputs[..., first : first + time - 2 * self.context_samples]

    def valid(self, mixture: Tensor) -> Tensor:
        """Return all answers of unpadded convolutions, for one of the lengths that `Config.sizes` gives."""
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
    """Puts one more sample between each two: n in, 2 n - 1 out."""

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
