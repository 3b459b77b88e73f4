"""The band-split Transformer: bands of a spectrum attend to each other, and each to its own past and future.

W.-T. Lu, J.-C. Wang, Q. Kong and Y.-N. Hung, "Music source separation with band-split RoPE Transformer",
ICASSP 2024 (arXiv 2309.02612), section 2: a spectrum in bands, Transformers along time and across bands in
turn with rotary position embeddings, and masks band by band. The split is that of Y. Luo and J. Yu, "Music
source separation with band-split RNN", IEEE/ACM Transactions on Audio, Speech, and Language Processing 31,
2023 (arXiv 2209.15174). The input is the log magnitudes of left, right, mid and side. The outputs are scores
of all stems for each channel, frame and bin; a softmax over the stems makes masks of them.

Not specified by the papers, or different here: this is a network for CPUs, far smaller than the
paper's, and all sizes are its own (the paper's: some 60 bands, 384 features, 12 blocks).

* Time: the paper attends to the whole of its excerpt. Here a frame attends to `window` frames on either side,
  so that the network depends on `context_frames` frames and no more, and gives the same numbers in a stream.
* Silence: no frame attends to one of nothing but digital silence. Training excerpts end where
  they are cut; what lies before and after a song must be ignored without training for it.
* Mono: the side signal of frames that are mono, or almost, is raised (see `_sides`).
* Frames: 93 ms long and 23 ms apart (the paper's: 46 and 10 ms), which tells harmonics of a low voice
  apart, and makes fewer tokens.
* Positions: up to 5.9 kHz a position is a bin, 11 Hz wide. Above, two bins share one, and from 10.7 kHz four,
  where nothing is lost by it and half of all bins would be.
* Bands: 33, the finer the lower as in both papers, and all bands of one size are one product of matrices.
* Steps: `HALF` runs on every second frame, with the one after it as further views. Scores of frames between
  are means of those beside them.
* Masks: real ones from log magnitudes, where the papers make complex ones from complex spectra; these are
  between 0 and 1 and sum to one. One network gives all stems; the papers train one per stem.
* A band's head is one linear layer (in the papers a perceptron with a hidden layer). But few features cannot
  say which of a wide band's many bins stand out. So convolutions over 3 x 3 positions find `details` of each,
  such as whether it is a ridge, a click, or from one side, and a band's head says how much each of them
  counts in the scores of each stem: the mask follows harmonics that no band could describe. What counts as a
  detail depends on what the bands know by then: `refinements` add to the details what two more convolutions
  make of them, with an offset between these from the band's features.
* Order: across bands first, then along time. Feed-forward layers are gated (SwiGLU: N. Shazeer, "GLU variants
  improve Transformer", 2020) instead of the GELU; norms are LayerNorms instead of RMSNorms, which
  were no faster. There is no dropout.

Of frames that are only context, each block computes a window less than the one before: no later block depends
on the rest. The input of convolutions is pairs of positions with twice as many channels, and channels last:
on a CPU that is more than twice as fast, for the same traffic in memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stemsplit.dsp.features import FLOOR
from stemsplit.networks import _frame_steps
from stemsplit.networks._attention import TransformerBlock, rotary, silence_mask, window_mask
from stemsplit.networks._growth import grown
from stemsplit.networks._sides import with_side
from stemsplit.networks.base import Network

BINS = 2048
CHANNELS = 2
VIEWS = 4
SILENCE = math.log(FLOOR) + 1e-3
PAIR = 2
"""Positions that are one to the convolutions."""


@dataclass(frozen=True)
class Config:
    """The sizes, this project's own; `width` must be a multiple of twice the `heads`."""

    bands: tuple[tuple[int, int, int], ...] = (
        (8, 8, 1),
        (6, 16, 1),
        (6, 32, 1),
        (3, 64, 1),
        (3, 32, 2),
        (2, 64, 2),
        (3, 32, 4),
        (1, 64, 4),
        (1, 104, 4),
    )
    """From the lowest frequency up: how many bands, of how many positions each, and how many bins share one.

    Positions are in pairs, in each band, and in all bands with as many bins to one.
    """
    width: int = 64
    """Features of a band in a frame."""
    heads: int = 4
    blocks: int = 5
    """Pairs of Transformers, one across bands and one along time."""
    window: int = 16
    """Steps on either side that a Transformer along time attends to."""
    step: int = 1
    """Frames from one that has a token to the next; scores of those between are interpolated."""
    seen: int = 1
    """Frames of a step that are input, from its first on."""
    expansion: int = 2
    """How many times `width` the inner size of the feed-forward layers is."""
    details: int = 16
    """What is known of each position from those next to it."""
    refinements: int = 2
    """Of the details, in the light of what the bands know."""

    @property
    def context_frames(self) -> int:
        """Frames on either side that an output depends on."""
        return _frame_steps.context_frames(self.context_steps, step=self.step, seen=self.seen)

    @property
    def context_steps(self) -> int:
        """Steps on either side that a token depends on: refinements pass on what the bands know."""
        passed_on = max(0, 2 * self.refinements - 1)
        return max(self.context_of_details, self.blocks * self.window + passed_on)

    @property
    def context_of_details(self) -> int:
        """The same, by way of the convolutions alone."""
        return 1 + 2 * self.refinements


HALF = Config(window=8, step=2, seen=2)
FAST = Config(window=8, step=2)
"""Takes the weights of `Config`: no frame in between is input."""
CONTEXT_FRAMES = Config().context_frames


class BandTransformer(Network):
    """Maps log magnitudes of left, right, mid and side to scores of all stems in each channel."""

    bins = BINS
    channels = CHANNELS

    def __init__(self, stems: int, config: Config | None = None) -> None:
        super().__init__(stems, bins=BINS)
        self.config = config = config or Config()
        if sum(count * size * shared for count, size, shared in config.bands) != BINS:
            raise ValueError(f"bands={config.bands} must be of {BINS} bins together")
        if any(size % PAIR for _, size, _ in config.bands):
            raise ValueError(f"bands={config.bands} must have positions in pairs")
        width, scores, views = config.width, stems * CHANNELS, VIEWS * config.seen
        sizes = [(count, size) for count, size, _ in config.bands]
        self.split = nn.ModuleList(_BandLinear(count, views * size, width) for count, size in sizes)
        self.across = nn.ModuleList(_block(config) for _ in range(config.blocks))
        self.along = nn.ModuleList(_block(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(width)
        self.details = nn.Conv2d(PAIR * views, PAIR * config.details, 3, padding=1)
        self.refinements = nn.ModuleList(_Refinement(config) for _ in range(config.refinements))
        self.heads = nn.ModuleList(
            _BandLinear(count, width, (config.details + size) * scores) for count, size in sizes
        )

    def forward(self, features: Tensor, *, margin: int = 0, frame_stride: int = 1) -> Tensor:
        """Return scores `(example, stem, channel, frame, bin)` for `(example, view, frame, bin)`.

        There are none for `margin` frames at either end, which only serve as context.
        """
        scores = self.scores(self.prepare(features), margin=margin)
        return scores[:, :, :, : features.shape[2] - 2 * margin] if self.config.step > 1 else scores

    def prepare(self, features: Tensor) -> Tensor:
        """Return normalized features `(example, view, step, position)`; those of silent steps are 0.

        In float32, whatever the precision of the rest: features rounded to bfloat16 no longer tell which
        frames are silent, which costs 0.1 to 0.2 dB. Rounding what this returns costs nothing.
        """
        features, step, seen = features.float(), self.config.step, self.config.seen
        if step > 1:
            features = _frame_steps.in_steps(features, step=step, seen=seen)
        silent = features.amax((1, 3)) < SILENCE
        x = self._positions((with_side(features) - self.mean) / self.deviation)
        if seen > 1:
            x, silent = _frame_steps.as_views(x, silent, seen=seen)
        return x.masked_fill(silent[:, None, :, None], 0)

    def scores(self, prepared: Tensor, *, margin: int = 0) -> Tensor:
        """Return what `forward` does, for features that are prepared, of whole steps."""
        step, frames = self.config.step, self.config.step * prepared.shape[2]
        if step == 1:
            return self._step_scores(prepared, margin)
        skipped = _frame_steps.steps_around(frames, step=step, margin=margin)
        every = _frame_steps.interpolated(self._step_scores(prepared, skipped), step=step)
        return every.narrow(3, margin - step * skipped, frames - 2 * margin)

    def _step_scores(self, prepared: Tensor, margin: int) -> Tensor:
        """Return scores of all steps but `margin` at either end."""
        x, config, frames = prepared, self.config, prepared.shape[2]
        silent = x.abs().amax((1, 3)) == 0
        tokens = self._split(F.pad(x, (0, 0, 0, -frames % config.window)))
        bands, padded, size = tokens.shape[1], tokens.shape[2], config.width // config.heads
        rotary_across = rotary(bands, size, x.device)
        rotary_along = rotary(padded, size, x.device, step=config.step)
        mask = window_mask(padded, frames, config.window, x.device)
        mask = mask + silence_mask(silent, padded, config.window)
        # Of a margin that is long enough, each block needs a window less at either end than the one before.
        cut = config.window if margin >= config.context_steps else 0
        for across, along in zip(self.across, self.along, strict=True):
            tokens = along(across(tokens, rotary_across), rotary_along, mask)
            if cut:
                tokens, rotary_along = (x[..., cut:-cut, :] for x in (tokens, rotary_along))
                mask = mask[..., 1:-1, :, :]
        skipped = max(0, margin - config.context_of_details)
        gone = cut * config.blocks - skipped  # frames without tokens, whose details no output depends on
        tokens = F.pad(self.norm(tokens), (0, 0, gone, gone + frames - padded)).transpose(0, 1)
        pairs = torch.unflatten(x[:, :, skipped : frames - skipped], 3, (-1, PAIR))
        pairs = pairs.permute(0, 4, 1, 2, 3).flatten(1, 2).contiguous(memory_format=torch.channels_last)
        details = F.relu(self.details(pairs))
        counts = [count for count, _, _ in config.bands]
        for refinement in self.refinements:
            details = refinement(details, torch.split(tokens, counts))
        inner = slice(margin - skipped, frames - skipped - margin)
        details = torch.unflatten(details[:, :, inner].permute(0, 2, 3, 1), 3, (PAIR, -1)).flatten(2, 3)
        return self._scores(details, torch.split(tokens[:, :, inner], counts))

    def start_from(self, tensors: Mapping[str, Tensor]) -> None:
        """Load weights, also those of a network with fewer blocks or views: at steps, it is the same."""
        self.load_state_dict(grown(self.state_dict(), tensors, pair=PAIR))

    def masks(self, outputs: Tensor) -> Tensor:
        """Return masks for scores, of one stem alone a sigmoid."""
        outputs = outputs.float()
        return outputs.softmax(1) if self.stems > 1 else outputs.sigmoid()

    def _positions(self, x: Tensor) -> Tensor:
        """Return the means of bins that share a position, `(..., position)` for `(..., bin)`."""
        runs = torch.split(x, [count * size * shared for count, size, shared in self.config.bands], -1)
        shares = [shared for _, _, shared in self.config.bands]
        return torch.cat(
            [F.avg_pool2d(run, (1, n)) if n > 1 else run for run, n in zip(runs, shares, strict=True)], -1
        )

    def _split(self, x: Tensor) -> Tensor:
        """Return `(example, band, frame, feature)` for `(example, view, frame, position)`."""
        runs = torch.split(x, [count * size for count, size, _ in self.config.bands], -1)
        tokens = [
            layer(torch.unflatten(run, -1, (count, size)).permute(3, 0, 2, 1, 4).flatten(3))
            for layer, run, (count, size, _) in zip(self.split, runs, self.config.bands, strict=True)
        ]
        return torch.cat(tokens).transpose(0, 1)

    def _scores(self, details: Tensor, known: Sequence[Tensor]) -> Tensor:
        """Return `(example, stem, channel, frame, bin)`.

        Shapes: details `(example, frame, position, detail)`; known `(band, example, frame, feature)` each.
        """
        examples, frames = details.shape[:2]
        scores = []
        runs = torch.split(details, [count * size for count, size, _ in self.config.bands], 2)
        for (count, size, shared), layer, tokens, run in zip(
            self.config.bands, self.heads, known, runs, strict=True
        ):
            y = torch.unflatten(layer(tokens), 3, (self.config.details + size, -1))
            y = y.permute(1, 2, 0, 3, 4).flatten(0, 2)
            weights, offsets = torch.split(y, [self.config.details, size], 1)
            y = torch.baddbmm(offsets, run.reshape(-1, size, self.config.details), weights)
            y = y.view(examples, frames, count * size, -1).permute(0, 3, 1, 2)
            scores.append(y.repeat_interleave(shared, 3) if shared > 1 else y)
        return torch.unflatten(torch.cat(scores, 3), 1, (self.stems, CHANNELS))


class _Refinement(nn.Module):
    """Adds to the details what two convolutions make of them, the first with offsets from each band."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        maps = PAIR * config.details
        self.sizes = [(count, size // PAIR) for count, size, _ in config.bands]
        self.inner, self.outer = (nn.Conv2d(maps, maps, 3, padding=1) for _ in range(2))
        nn.init.zeros_(self.outer.weight)  # at first it adds nothing
        self.offsets = nn.ModuleList(_BandLinear(count, config.width, maps) for count, _ in self.sizes)

    def forward(self, details: Tensor, known: Sequence[Tensor]) -> Tensor:
        """Map details `(example, map, frame, pair)`, for tokens `(band, example, frame, feature)`."""
        runs = torch.split(self.inner(details), [count * size for count, size in self.sizes], 3)
        told = []
        for (count, size), layer, tokens, run in zip(self.sizes, self.offsets, known, runs, strict=True):
            offsets = layer(tokens).permute(1, 3, 2, 0)[..., None]
            told.append((torch.unflatten(run, 3, (count, size)) + offsets).flatten(3))
        added: Tensor = self.outer(F.relu(torch.cat(told, 3)))
        return details + added


def _block(config: Config) -> TransformerBlock:
    inner = config.expansion * config.width
    return TransformerBlock(config.width, heads=config.heads, inner=inner, window=config.window)


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
