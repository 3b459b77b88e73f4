"""The band-split Transformer: attention across the bands of a spectrum, then along time within each band.

W.-T. Lu, J.-C. Wang, Q. Kong and Y.-N. Hung, "Music source separation with band-split RoPE Transformer",
ICASSP 2024 (arXiv 2309.02612), section 2: the spectrum is split into bands, Transformers with rotary position
embeddings alternate between time and bands, and each band has a mask head. The band split is from
Y. Luo and J. Yu, "Music source separation with band-split RNN", IEEE/ACM Transactions on Audio, Speech, and
Language Processing 31, 2023 (arXiv 2209.15174). The input is the log magnitudes of left, right, mid and side.
The outputs are scores of all stems for each channel, frame and bin; a softmax over the stems gives the masks.

Not specified by the papers, or different here: this network is for CPUs and far smaller than the paper's.
Its sizes are this project's choice (the paper's: some 60 bands, 384 features, 12 blocks).

* Time: the paper attends to the whole excerpt. Here a frame attends to `window` frames on either side. So
  outputs depend on `context_frames` frames on either side and no more, and are the same in a stream.
* Silence: no frame attends to frames of digital silence. Training excerpts end where they are cut, so the
  network is not trained to ignore the silence before and after a song.
* Mono: the side signal of mono and nearly mono frames is raised (see `_sides`).
* Frames: 93 ms long and 23 ms apart (the paper's: 46 and 10 ms), which resolves the harmonics of low voices
  and makes fewer tokens.
* Positions: up to 5.9 kHz, a position is one bin, 11 Hz wide. Above, two bins share a position. From 10.7 kHz
  on, where half of all bins are, four do, which loses nothing.
* Bands: 33, narrower at low frequencies as in both papers. Bands of one size share a batched matrix product.
* Steps: `HALF` runs on every second frame; the frame after it is input as additional views. Scores of skipped
  frames are the means of their neighbors' scores.
* Masks: real, from log magnitudes, between 0 and 1, with a sum of 1 (in the papers: complex, from complex
  spectra). One network has outputs for all stems; the papers train one network per stem.
* Heads: one linear layer per band (in the papers, an MLP with a hidden layer). A band's few features cannot
  describe each of its many bins. So 3 x 3 convolutions, over frames and pairs of positions, compute `details`
  feature maps, for example of ridges, clicks or panning. A band's head outputs the weights of these maps in
  each stem's scores, so the masks follow harmonics that a band's features could not describe. `refinements`
  are residual blocks of two more convolutions over the maps, with an offset from the band's features
  between the two: the maps depend on what the Transformers computed.
* Order: across bands first, then along time. Feed-forward layers are gated (SwiGLU: N. Shazeer, "GLU variants
  improve Transformer", 2020) instead of GELU. Norms are LayerNorm instead of RMSNorm, which was no faster.
  There is no dropout.

Each block drops one window of context frames at either end, because no later block depends on them.
Convolutions run on pairs of positions with twice as many channels, in channels-last format: on a CPU this is
more than twice as fast, for the same memory traffic.
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
from stemsplit.networks._bands import BandLinear, Bands, Refinement, positions_of, scores_of, tokens_of
from stemsplit.networks._growth import grown
from stemsplit.networks._sides import with_side
from stemsplit.networks.base import StreamNetwork

BINS = 2048
CHANNELS = 2
VIEWS = 4
SILENCE = math.log(FLOOR) + 1e-3
PAIR = 2
"""Adjacent positions that the convolutions process as one."""


@dataclass(frozen=True)
class Config:
    """The sizes, chosen for this project; `width` must be a multiple of `2 * heads`."""

    bands: Bands = (
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
    width: int = 64
    """Features per token (one band of one frame)."""
    heads: int = 4
    blocks: int = 5
    """Pairs of Transformer blocks: one across bands, one along time."""
    window: int = 16
    """Steps on either side that a block along time attends to."""
    step: int = 1
    """Frames from one token to the next; scores of the frames between are interpolated."""
    seen: int = 1
    """Frames of each step that are input, starting with its first."""
    expansion: int = 2
    """Inner size of the feed-forward layers, in multiples of `width`."""
    details: int = 16
    """Feature maps of the convolutions."""
    refinements: int = 2
    """Residual blocks over the details, conditioned on the bands' features."""

    @property
    def context_frames(self) -> int:
        """Frames on either side that an output depends on."""
        return _frame_steps.context_frames(self.context_steps, step=self.step, seen=self.seen)

    @property
    def context_steps(self) -> int:
        """Steps on either side that a score depends on; refinements spread the tokens' context further."""
        return max(self.context_of_details, self.blocks * self.window + self.passed_on)

    @property
    def passed_on(self) -> int:
        """Steps on either side over which the refinements spread the tokens."""
        return max(0, 2 * self.refinements - 1)

    @property
    def steps_back(self) -> int:
        """Earlier steps whose features a stream keeps: for the silence mask, or for the details."""
        of_details = self.blocks * self.window + self.passed_on + self.context_of_details
        return max((self.blocks + 1) * self.window, of_details)

    @property
    def context_of_details(self) -> int:
        """The same, through the convolutions alone."""
        return 1 + 2 * self.refinements


HALF = Config(window=8, step=2, seen=2)
FAST = Config(window=8, step=2)
"""Runs with the weights of `Config()`; the skipped frames are not input."""
CONTEXT_FRAMES = Config().context_frames


class BandTransformer(StreamNetwork):
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
        self.split = nn.ModuleList(BandLinear(count, views * size, width) for count, size in sizes)
        self.across = nn.ModuleList(_block(config) for _ in range(config.blocks))
        self.along = nn.ModuleList(_block(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(width)
        self.details = nn.Conv2d(PAIR * views, PAIR * config.details, 3, padding=1)
        self.refinements = nn.ModuleList(
            Refinement(config.bands, width, PAIR, config.details) for _ in range(config.refinements)
        )
        self.heads = nn.ModuleList(
            BandLinear(count, width, (config.details + size) * scores) for count, size in sizes
        )

    def forward(self, features: Tensor, *, margin: int = 0, frame_stride: int = 1) -> Tensor:
        """Return scores `(example, stem, channel, frame, bin)` for `(example, view, frame, bin)`.

        There are none for `margin` frames at either end, which are only context.
        """
        scores = self.scores(self.prepare(features), margin=margin)
        return scores[:, :, :, : features.shape[2] - 2 * margin] if self.config.step > 1 else scores

    def prepare(self, features: Tensor) -> Tensor:
        """Return normalized features `(example, view, step, position)`, which are 0 in silent steps.

        Runs in float32, whatever the precision of the rest: features rounded to bfloat16 no longer show which
        frames are silent, which costs 0.1 to 0.2 dB. Rounding the returned features costs nothing.
        """
        features, step, seen = features.float(), self.config.step, self.config.seen
        if step > 1:
            features = _frame_steps.in_steps(features, step=step, seen=seen)
        silent = features.amax((1, 3)) < SILENCE
        x = positions_of((with_side(features) - self.mean) / self.deviation, self.config.bands)
        if seen > 1:
            x, silent = _frame_steps.as_views(x, silent, seen=seen)
        return x.masked_fill(silent[:, None, :, None], 0)

    def scores(self, prepared: Tensor, *, margin: int = 0) -> Tensor:
        """Return the scores of `forward` for prepared features; the last step counts as complete."""
        step, frames = self.config.step, self.config.step * prepared.shape[2]
        if step == 1:
            return self._step_scores(prepared, margin)
        skipped = _frame_steps.steps_around(frames, step=step, margin=margin)
        every = _frame_steps.interpolated(self._step_scores(prepared, skipped), step=step)
        return every.narrow(3, margin - step * skipped, frames - 2 * margin)

    def _step_scores(self, prepared: Tensor, margin: int) -> Tensor:
        """Return scores of all steps, except `margin` steps at either end."""
        x, config, frames = prepared, self.config, prepared.shape[2]
        silent = x.abs().amax((1, 3)) == 0
        tokens = tokens_of(F.pad(x, (0, 0, 0, -frames % config.window)), self.split, config.bands)
        bands, padded, size = tokens.shape[1], tokens.shape[2], config.width // config.heads
        rotary_across = rotary(bands, size, x.device)
        rotary_along = rotary(padded, size, x.device, step=config.step)
        mask = window_mask(padded, frames, config.window, x.device)
        mask = mask + silence_mask(silent, padded, config.window)
        # If the margin is long enough, each block drops a window at either end: no later block needs it.
        inner = margin >= config.context_steps
        for across, along in zip(self.across, self.along, strict=True):
            if inner:
                mask = mask[..., 1:-1, :, :]
            tokens = along(across(tokens, rotary_across), rotary_along, mask, inner=inner)
            if inner:
                rotary_along = rotary_along[:, config.window : -config.window]
        skipped = max(0, margin - config.context_of_details)
        # Pad steps that have details but no tokens: no output depends on these tokens. Crop if negative.
        gone = (config.window * config.blocks if inner else 0) - skipped
        tokens = F.pad(self.norm(tokens), (0, 0, gone, gone + frames - padded))
        return self._decoded(x[:, :, skipped : frames - skipped], tokens, margin - skipped)

    def _decoded(self, x: Tensor, tokens: Tensor, margin: int) -> Tensor:
        """Return scores of all steps, except `margin` steps at either end.

        Shapes: x `(example, view, step, position)`; tokens `(example, band, step, feature)`.
        """
        counts = [count for count, _, _ in self.config.bands]
        tokens = tokens.transpose(0, 1)
        pairs = torch.unflatten(x, 3, (-1, PAIR))
        pairs = pairs.permute(0, 4, 1, 2, 3).flatten(1, 2).contiguous(memory_format=torch.channels_last)
        details = F.relu(self.details(pairs))
        for refinement in self.refinements:
            details = refinement(details, torch.split(tokens, counts))
        inner = slice(margin, x.shape[2] - margin)
        details = torch.unflatten(details[:, :, inner].permute(0, 2, 3, 1), 3, (PAIR, -1)).flatten(2, 3)
        scores = scores_of(details, torch.split(tokens[:, :, inner], counts), self.heads, self.config.bands)
        return torch.unflatten(scores, 1, (self.stems, CHANNELS))

    def past(self) -> list[Tensor]:
        """Return what `scores_after` needs of earlier steps at the start of a stream, after silence."""
        config, bands = self.config, sum(count for count, _, _ in self.config.bands)
        positions = sum(count * size for count, size, _ in config.bands)
        features = torch.zeros(1, VIEWS * config.seen, config.steps_back, positions)
        tokens = [torch.zeros(1, bands, 2 * config.window, config.width) for _ in range(config.blocks)]
        last = torch.zeros(1, bands, 2 * config.passed_on, config.width)
        scores = torch.zeros(1, self.stems, CHANNELS, 1, BINS)
        return [features, *tokens, last, *[scores] * (config.step > 1)]

    def scores_after(self, past: Sequence[Tensor], prepared: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return scores of a stream, and the `past` of the next call; parts are whole windows of steps.

        `past` holds the last prepared features, the last tokens before each block along time and after the
        last one, and, if there are frames between steps, the last scores.
        """
        config, steps = self.config, prepared.shape[2]
        window, size = config.window, config.width // config.heads
        features, last, tokens = (
            past[0],
            past[1 + config.blocks],
            tokens_of(prepared, self.split, config.bands),
        )
        features = torch.cat([features, prepared], 2)
        silent = features.abs().amax((1, 3)) == 0
        rotary_across = rotary(tokens.shape[1], size, prepared.device)
        rotary_along = rotary(steps + 2 * window, size, prepared.device, step=config.step)
        near = window_mask(steps + 2 * window, steps + 2 * window, window, prepared.device)[1:-1]
        kept = [features[:, :, steps:]]
        end = features.shape[2]
        for earlier, across, along in zip(past[1:], self.across, self.along, strict=False):
            tokens = torch.cat([earlier, across(tokens, rotary_across)], 2)
            kept.append(tokens[:, :, steps:])
            quiet = silence_mask(silent[:, end - tokens.shape[2] : end], tokens.shape[2], window)
            mask = near + quiet[..., 1:-1, :, :]
            tokens, end = along(tokens, rotary_along, mask, inner=True), end - window
        tokens = torch.cat([last, self.norm(tokens)], 2)
        kept.append(tokens[:, :, steps:])
        # Steps with details but no tokens, at either end: no output depends on these tokens.
        around = config.context_of_details
        tokens = F.pad(tokens, (0, 0, around - config.passed_on, around - config.passed_on))
        end += around - config.passed_on
        scores = self._decoded(features[:, :, end - tokens.shape[2] : end], tokens, around)
        if config.step > 1:
            scores = torch.cat([past[-1], scores], 3)
            kept.append(scores[:, :, :, -1:])
            scores = _frame_steps.interpolated(scores, step=config.step)[:, :, :, : -config.step]
        return scores, kept

    def start_from(self, tensors: Mapping[str, Tensor]) -> None:
        """Load weights, also of a network with fewer blocks or views; added ones initially have no effect."""
        self.load_state_dict(grown(self.state_dict(), tensors, pair=PAIR))

    def masks(self, outputs: Tensor) -> Tensor:
        """Return masks: the softmax of scores over stems, or the sigmoid if there is only one stem."""
        outputs = outputs.float()
        return outputs.softmax(1) if self.stems > 1 else outputs.sigmoid()


def _block(config: Config) -> TransformerBlock:
    inner = config.expansion * config.width
    return TransformerBlock(config.width, heads=config.heads, inner=inner, window=config.window)
