"""The band-split Transformer: bands of a spectrum attend to each other, and each to its own past and future.

W.-T. Lu, J.-C. Wang, Q. Kong and Y.-N. Hung, "Music source separation with band-split RoPE Transformer",
ICASSP 2024 (arXiv 2309.02612), section 2: a spectrum in bands, Transformers along time and across bands in
turn with rotary position embeddings, and masks band by band. The split is that of Y. Luo and J. Yu, "Music
source separation with band-split RNN", IEEE/ACM Transactions on Audio, Speech, and Language Processing 31,
2023 (arXiv 2209.15174). It hears the log magnitudes of left, right, mid and side, and gives scores of all
stems for each channel, frame and bin; a softmax over the stems makes masks of them.

Left open by the papers, or done otherwise here: this is a network for processors, far smaller than the
paper's, and all sizes are its own (the paper's: some 60 bands, 384 features, 12 blocks).

* Time: the paper attends to the whole of its excerpt. Here a frame attends to `window` frames on either side,
  so that the network depends on `Config.reach` frames and no more, and gives the same numbers in a stream.
* Frames: 93 ms long and 23 ms apart (the paper's: 46 and 10 ms), which tells harmonics of a low voice
  apart, and makes fewer tokens.
* Bands: 33, the finer the lower as in both papers, but (save the last) of powers of two in bins, and all
  bands of one size are one product of matrices.
* Masks: real ones from log magnitudes, where the papers make complex ones from complex spectra; these are
  between 0 and 1 and add up to one. One network gives all stems; the papers train one a stem.
* A band's head is one linear layer (in the papers a perceptron with a hidden layer). But few features cannot
  say which of a wide band's many bins stand out. So a convolution over 3 x 3 bins finds `details` of each
  bin, such as whether it is a ridge, a click, or from one side, and a band's head says how much each of them
  counts in the scores of each stem: the mask follows harmonics that no band could describe.
* Order: across bands first, then along time. Feed-forward layers are gated (SwiGLU: N. Shazeer, "GLU variants
  improve Transformer", 2020) in the place of the GELU; norms are LayerNorms in the place of RMSNorms, which
  were no faster. There is no dropout.

A softmax between products of matrices is as fast on one thread as `scaled_dot_product_attention`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BINS = 2049
CHANNELS = 2
VIEWS = 4


@dataclass(frozen=True)
class Config:
    """The sizes, this project's own; `width` must be a multiple of twice the `heads`."""

    bands: tuple[tuple[int, int], ...] = ((8, 8), (6, 16), (6, 32), (6, 64), (5, 128), (1, 256), (1, 417))
    """From the lowest frequency up: how many bands, of how many bins each."""
    width: int = 64
    """Features of a band in a frame."""
    heads: int = 4
    blocks: int = 3
    """Pairs of Transformers, one across bands and one along time."""
    window: int = 16
    """Frames on either side that a Transformer along time attends to."""
    expansion: int = 2
    """How many times `width` the inner size of the feed-forward layers is."""
    details: int = 12
    """What is known of each bin from those next to it."""

    @property
    def reach(self) -> int:
        """Frames on either side that an answer depends on."""
        return max(1, self.blocks * self.window)


REACH = Config().reach


class BandTransformer(nn.Module):
    """Log magnitudes of left, right, mid and side in, scores of all stems in each channel out."""

    bins = BINS
    channels = CHANNELS
    mean: Tensor
    deviation: Tensor

    def __init__(self, stems: int, config: Config | None = None) -> None:
        super().__init__()
        self.stems = stems
        self.config = config = config or Config()
        if sum(count * size for count, size in config.bands) != BINS:
            raise ValueError(f"bands={config.bands} must be of {BINS} bins together")
        self.register_buffer("mean", torch.zeros(BINS))
        self.register_buffer("deviation", torch.ones(BINS))
        width, scores = config.width, stems * CHANNELS
        self.split = nn.ModuleList(_BandLinear(count, VIEWS * size, width) for count, size in config.bands)
        self.across = nn.ModuleList(_Transformer(config) for _ in range(config.blocks))
        self.along = nn.ModuleList(_Transformer(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(width)
        self.details = nn.Conv2d(VIEWS, config.details, 3, padding=1)
        self.heads = nn.ModuleList(
            _BandLinear(count, width, scores * (config.details + size)) for count, size in config.bands
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return scores `(example, stem, channel, frame, bin)` for `(example, view, frame, bin)`."""
        config, frames = self.config, features.shape[2]
        x = (features.float() - self.mean) / self.deviation
        details = F.relu(self.details(x))
        x = F.pad(x, (0, 0, 0, -frames % config.window))
        tokens = self._split(x)
        bands, steps, size = tokens.shape[1], tokens.shape[2], config.width // config.heads
        turns_across, turns_along = _turns(bands, size, x.device), _turns(steps, size, x.device)
        heard = _heard(steps, frames, config.window, x.device)
        for across, along in zip(self.across, self.along, strict=True):
            tokens = across(tokens.transpose(1, 2), turns_across).transpose(1, 2)
            tokens = along(tokens, turns_along, heard)
        return self._scores(self.norm(tokens[:, :, :frames]), details)

    def masks(self, outputs: Tensor) -> Tensor:
        """Return masks for scores, of one stem alone a sigmoid."""
        outputs = outputs.float()
        return outputs.softmax(1) if self.stems > 1 else outputs.sigmoid()

    def _split(self, x: Tensor) -> Tensor:
        """Return `(example, band, frame, feature)` for `(example, view, frame, bin)`."""
        tokens = [layer(run.flatten(3)) for layer, run in zip(self.split, self._runs(x), strict=True)]
        return torch.cat(tokens).transpose(0, 1)

    def _scores(self, tokens: Tensor, details: Tensor) -> Tensor:
        """Return `(example, stem, channel, frame, bin)` for tokens as `_split` gives them."""
        examples, _, frames, _ = tokens.shape
        scores = []
        bands = torch.split(tokens.transpose(0, 1), [count for count, _ in self.config.bands])
        for (count, size), layer, band, run in zip(
            self.config.bands, self.heads, bands, self._runs(details), strict=True
        ):
            y = layer(band).view(-1, self.stems * CHANNELS, self.config.details + size)
            weights, offsets = y.split([self.config.details, size], -1)
            y = torch.baddbmm(offsets, weights, run.flatten(0, 2))
            y = y.view(count, examples, frames, self.stems, CHANNELS, size)
            scores.append(y.permute(1, 3, 4, 2, 0, 5).flatten(4))
        return torch.cat(scores, -1)

    def _runs(self, x: Tensor) -> Iterator[Tensor]:
        """Yield bands of one size, `(band, example, frame, map, bin)`, of `(example, map, frame, bin)`."""
        runs = torch.split(x, [count * size for count, size in self.config.bands], -1)
        for run, (count, size) in zip(runs, self.config.bands, strict=True):
            yield torch.unflatten(run, -1, (count, size)).permute(3, 0, 2, 1, 4)


class _BandLinear(nn.Module):
    """A linear layer for each of several bands."""

    def __init__(self, bands: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(bands, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(bands, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(band, example, frame, feature)` to as many other features."""
        return torch.unflatten(torch.baddbmm(self.bias, x.flatten(1, 2), self.weight), 1, x.shape[1:3])


class _Transformer(nn.Module):
    """Attention along one axis and a gated feed-forward layer, each added to what it is given."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, inner = config.width, config.expansion * config.width
        self.heads, self.window = config.heads, config.window
        self.norm = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width, bias=False)
        self.together = nn.Linear(width, width, bias=False)
        self.norm_wide = nn.LayerNorm(width)
        self.wide = nn.Linear(width, 2 * inner)
        self.narrow = nn.Linear(inner, width)

    def forward(self, x: Tensor, turns: Tensor, heard: Tensor | None = None) -> Tensor:
        """Map `(example, row, place, feature)` to the same, each row by itself.

        Each place hears its whole row, or of three windows around it what `heard` says.
        """
        y = torch.unflatten(self.queries_keys_values(self.norm(x)), -1, (3, self.heads, -1))
        queries, keys, values = y.permute(3, 0, 1, 4, 2, 5).unbind()  # (example, row, head, place, feature)
        queries, keys = _turned(queries * queries.shape[-1] ** -0.5, turns), _turned(keys, turns)
        if heard is None:
            y = (queries @ keys.transpose(-1, -2)).softmax(-1) @ values
        else:
            queries = torch.unflatten(queries, 3, (-1, self.window))
            keys, values = _around(keys, self.window), _around(values, self.window)
            y = ((queries @ keys.transpose(-1, -2) + heard).softmax(-1) @ values).flatten(3, 4)
        x = x + self.together(y.transpose(2, 3).flatten(3))
        y, gate = self.wide(self.norm_wide(x)).chunk(2, -1)
        added: Tensor = self.narrow(y * F.silu(gate))
        return x + added


def _around(x: Tensor, window: int) -> Tensor:
    """Return, for each window of `(example, row, head, place, feature)`, three: with those beside it."""
    x = torch.unflatten(F.pad(x, (0, 0, window, window)), 3, (-1, window))
    return torch.cat([x[:, :, :, :-2], x[:, :, :, 1:-1], x[:, :, :, 2:]], 4)


def _heard(steps: int, real: int, window: int, device: torch.device) -> Tensor:
    """Return `(window, query, key)`: 0 where a key is near enough and real, -infinity elsewhere."""
    queries = torch.arange(steps, device=device).view(-1, window, 1)
    keys = queries[:, :1] + torch.arange(-window, 2 * window, device=device)
    heard = ((queries - keys).abs() <= window) & (keys >= 0) & (keys < real)
    return torch.zeros(heard.shape, device=device).masked_fill(~heard, -torch.inf)


def _turned(x: Tensor, turns: Tensor) -> Tensor:
    """Turn pairs of features of `(..., place, feature)` by angles that grow with the place."""
    a, b = x.chunk(2, -1)
    cosines, sines = turns[0].to(x.dtype), turns[1].to(x.dtype)
    return torch.cat([a * cosines - b * sines, a * sines + b * cosines], -1)


def _turns(places: int, size: int, device: torch.device) -> Tensor:
    """Return cosines and sines `(2, place, pair)`, computed as doubles: far places are as exact as near."""
    pairs = torch.arange(size // 2, device=device, dtype=torch.float64)
    speeds = 10_000.0 ** (-2 / size * pairs)
    angles = torch.arange(places, device=device)[:, None] * speeds
    return torch.stack([angles.cos(), angles.sin()]).float()
