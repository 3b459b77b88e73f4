"""The Wavenet for music: stacks of dilated convolutions over samples, waveform in and waveforms out.

F. Lluís, J. Pons and X. Serra, "End-to-end music source separation: is it possible in the waveform domain?",
Interspeech 2019 (arXiv 1810.12187), the model of its figure 1; after D. Rethage, J. Pons and X. Serra, "A
Wavenet for speech denoising", ICASSP 2018 (arXiv 1706.07162). Its input is one channel at 16 kHz. A
convolution of three samples makes 64 features; then come stacks of ten layers whose three taps lie 1, 2, 4,
... 512 samples apart, to both sides alike. Each multiplies the tanh of 64 of its features by the sigmoid of
64 others; of this one sum goes on to the next layer, beside what came in, and another one to the end. There
all layers' sums are added up, and two more convolutions of three samples (2048 and 256 features) end in a
sample of each stem but the last. That one is the mixture without the others.

No convolution is padded: the output is shorter by the context at either end, stacks * (2**layers - 1) + 3
samples: one for the first convolution, 1023 for a stack of ten, and two for the last convolutions; 4095
samples, 0.26 s, for the paper's four stacks. An input may begin at any sample: the stride is 1.

Parameters: 3,277,763 for four stems and 3,277,249 for one, the numbers that the authors' code keeps with its
trained models (the paper's 3.3 M).

Not specified by the paper, or different here: biases (none but in the last layer), initial weights (Glorot's
uniform ones) and the order of stems, of which the last has no output of its own, are those of the authors'
code; that pads its convolutions and drops all outputs that depend on zeros, which gives the same numbers. It
names a receptive field of 8,185 samples, without the first and the two last convolutions; with them it is
8,191. Each channel of stereo is an example of its own here, where the paper makes one channel of two. Of the
128 features that the last layer gives, the 64 for a layer after it are not used, there as here. Training:
mean absolute error, in part with `l1_dissimilar` of `training/losses.py` (Adam, rate 1e-3, batches of 10
excerpts of 9,785 samples, of which 1,601 come out).

SMALL is for CPUs: two stacks of layers of 12 features, with 64 and 32 at the end; a context of 2049
samples, 31,623 parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stemsplit.networks.base import Network

SAMPLE_RATE = 16_000
CHANNELS = 1
TAPS = 3


@dataclass(frozen=True)
class Config:
    """The paper's."""

    stacks: int = 4
    """The paper tries one to five."""
    layers: int = 10
    """Of each stack; the taps of the last lie 2**(layers - 1) samples apart."""
    features: int = 64
    last: tuple[int, int] = (2048, 256)
    """Features of the two convolutions at the end."""

    @property
    def context_samples(self) -> int:
        """Samples on either side that an output depends on."""
        return int(self.stacks * (2**self.layers - 1) + 3)


SMALL = Config(stacks=2, features=12, last=(64, 32))
"""For CPUs."""
CONTEXT_SAMPLES = Config().context_samples


class Wavenet(Network):
    """Maps one channel of a mixture to that channel of its stems."""

    sample_rate = SAMPLE_RATE
    channels = CHANNELS

    def __init__(self, stems: int, config: Config | None = None) -> None:
        super().__init__(stems)
        self.config = config = config or Config()
        self.context_samples = config.context_samples
        self.first = nn.Conv1d(CHANNELS, config.features, TAPS, bias=False)
        self.layers = nn.ModuleList(
            _Layer(config.features, 2**layer) for _ in range(config.stacks) for layer in range(config.layers)
        )
        wide, narrow = config.last
        self.wide = nn.Conv1d(config.features, wide, TAPS, bias=False)
        self.narrow = nn.Conv1d(wide, narrow, TAPS, bias=False)
        self.output = nn.Conv1d(narrow, max(1, stems - 1), 1)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.xavier_uniform_(parameter)

    def forward(self, mixture: Tensor, *, margin: int = 0, frame_stride: int = 1) -> Tensor:
        """Return `(example, stem, 1, time - 2 * context_samples)` for `(example, 1, time)`."""
        time = mixture.shape[-1] - 2 * self.context_samples
        if time < 1:
            raise ValueError(f"{mixture.shape[-1]} samples must be over {2 * self.context_samples}")
        x = self.first(mixture)
        total = x.new_zeros(())
        for layer in self.layers:
            x, skipped = layer(x, time + 2 * TAPS - 2)
            total = total + skipped
        x = self.narrow(F.relu(self.wide(F.relu(total))))
        outputs: Tensor = self.output(x).float()[:, :, None]
        if self.stems == 1:
            return outputs
        mixture_part = mixture[..., self.context_samples : self.context_samples + time]
        return torch.cat([outputs, (mixture_part - outputs.sum(1))[:, None]], 1)


class _Layer(nn.Module):
    """A gated convolution of three samples, `dilation` apart."""

    def __init__(self, features: int, apart: int) -> None:
        super().__init__()
        self.apart = apart
        self.gated = nn.Conv1d(features, 2 * features, TAPS, dilation=apart, bias=False)
        self.sums = nn.Conv1d(features, 2 * features, 1, bias=False)

    def forward(self, x: Tensor, time: int) -> tuple[Tensor, Tensor]:
        """Return the next layer's input, and `time` samples in the middle for the end."""
        signal, gate = self.gated(x).chunk(2, 1)
        further, skipped = self.sums(torch.tanh(signal) * torch.sigmoid(gate)).chunk(2, 1)
        start = (further.shape[-1] - time) // 2
        return x[..., self.apart : -self.apart] + further, skipped[..., start : start + time]
