"""A Wavenet for music: stacks of dilated convolutions, with waveforms as input and output.

F. Lluís, J. Pons and X. Serra, "End-to-end music source separation: is it possible in the waveform domain?",
Interspeech 2019 (arXiv 1810.12187), the model of its figure 1; after D. Rethage, J. Pons and X. Serra, "A
Wavenet for speech denoising", ICASSP 2018 (arXiv 1706.07162). The input is one channel at 16 kHz. A
convolution with a kernel of three samples outputs 64 features. Then come stacks of ten non-causal layers with
kernels of three samples and dilations of 1, 2, 4, ... 512. Each multiplies the tanh of 64 features by the
sigmoid of 64 others. From this product, a 1 x 1 convolution computes a residual, which is added to the
layer's input for the next layer, and a skip output. The skip outputs of all layers are summed. Two more
convolutions with kernels of three samples (2048 and 256 features) and a 1 x 1 convolution output all stems
except the last, which is the mixture minus the others.

No convolution is padded: the output is shorter by the context at either end, stacks * (2**layers - 1) + 3
samples. The first convolution needs one, each stack of ten layers 1023, and the last convolutions two. The
paper's four stacks need 4095 samples (0.26 s). An input may start at any sample: the stride is 1.

Parameters: 3,277,763 for four stems and 3,277,249 for one, the same numbers as in the authors' code for its
trained models (the paper's 3.3 M).

Not specified by the paper, or different here: biases (only in the last layer), initial weights (Glorot
uniform) and the order of stems, of which the last has no output of its own, are from the authors' code. Their
code pads its convolutions and drops all outputs that depend on zeros, which gives the same numbers. It states
a receptive field of 8,185 samples, without the first and the two last convolutions; with them it is 8,191.
Here each channel of a stereo mixture is a separate example; the paper mixes them to mono. The last layer's 64
features for a next layer are unused, in the authors' code too. Training: mean absolute error, in part with
`l1_dissimilar` of `training/losses.py` (Adam, learning rate 1e-3, batches of 10 excerpts of 9,785 samples, of
which 1,601 have outputs).

SMALL is for CPUs: two stacks, layers of 12 features, 64 and 32 features at the end, a context of 2049
samples, and 31,623 parameters.
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
    """The paper's sizes."""

    stacks: int = 4
    """The paper tries one to five."""
    layers: int = 10
    """Layers per stack; the last has a dilation of 2**(layers - 1)."""
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
    """Maps one channel of a mixture to the same channel of its stems."""

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
    """A gated convolution of three samples with the dilation `apart`."""

    def __init__(self, features: int, apart: int) -> None:
        super().__init__()
        self.apart = apart
        self.gated = nn.Conv1d(features, 2 * features, TAPS, dilation=apart, bias=False)
        self.sums = nn.Conv1d(features, 2 * features, 1, bias=False)

    def forward(self, x: Tensor, time: int) -> tuple[Tensor, Tensor]:
        """Return the next layer's input, and the middle `time` samples of the skip output."""
        signal, gate = self.gated(x).chunk(2, 1)
        further, skipped = self.sums(torch.tanh(signal) * torch.sigmoid(gate)).chunk(2, 1)
        start = (further.shape[-1] - time) // 2
        return x[..., self.apart : -self.apart] + further, skipped[..., start : start + time]
