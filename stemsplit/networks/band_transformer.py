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
* Tokens: of every second frame, from this frame and the two beside it. Tokens of the frames between are means
  of their neighbors, which halves the computation of the Transformers. `FULL` has tokens of every frame.
* Masks: real, from log magnitudes, between 0 and 1, with a sum of 1 (in the papers: complex, from complex
  spectra). One network has outputs for all stems; the papers train one network per stem.
* Heads: one linear layer per band (in the papers, an MLP with a hidden layer). A band's few features cannot
  describe each of its many bins. So 3 x 3 convolutions, over frames and pairs of positions, compute `details`
  feature maps, for example of ridges, clicks or panning. A band's head outputs the weights of these maps in
  each stem's scores, so the masks follow harmonics that a band's features could not describe. `refinements`
  are residual blocks of two more convolutions over the maps, with an offset from the band's features
  between the two: the maps depend on what the Transformers computed. They refine up to 3.8 kHz, in `FULL`
  everything.
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

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stemsplit.dsp.features import FLOOR
from stemsplit.networks._attention import TransformerBlock, rotary, silence_mask, window_mask
from stemsplit.networks._band_config import FULL as FULL
from stemsplit.networks._band_config import Config as Config
from stemsplit.networks._bands import BandLinear, Refinement, interpolated, positions_of, scores_of, tokens_of
from stemsplit.networks._growth import grown
from stemsplit.networks._sides import with_side
from stemsplit.networks.base import StreamNetwork

BINS = 2048
CHANNELS = 2
VIEWS = 4
SILENCE = math.log(FLOOR) + 1e-3
PAIR = 2
"""Adjacent positions that the convolutions process as one."""
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
        width, scores, views = config.width, stems * CHANNELS, VIEWS * (1 + 2 * config.beside)
        sizes = [(count, size) for count, size, _ in config.bands]
        self.split = nn.ModuleList(BandLinear(count, views * size, width) for count, size in sizes)
        self.across = nn.ModuleList(_block(config) for _ in range(config.blocks))
        self.along = nn.ModuleList(_block(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(width)
        self.details = nn.Conv2d(PAIR * VIEWS, PAIR * config.details, 3, padding=1)
        refined = config.bands[: config.refined]
        self.refinements = nn.ModuleList(
            Refinement(refined, width, PAIR, config.details) for _ in range(config.refinements)
        )
        self.heads = nn.ModuleList(
            BandLinear(count, width, (config.details + size) * scores) for count, size in sizes
        )

    def forward(self, features: Tensor, *, margin: int = 0, frame_stride: int = 1) -> Tensor:
        """Return scores `(example, stem, channel, frame, bin)` for `(example, view, frame, bin)`.

        There are none for `margin` frames at either end, which are only context.
        """
        return self.scores(self.prepare(features), margin=margin)

    def prepare(self, features: Tensor) -> Tensor:
        """Return normalized features `(example, view, frame, position)`, which are 0 in silent frames.

        Runs in float32, whatever the precision of the rest: features rounded to bfloat16 no longer show which
        frames are silent, which costs 0.1 to 0.2 dB. Rounding the returned features costs nothing.
        """
        features = features.float()
        silent = features.amax((1, 3)) < SILENCE
        x = positions_of((with_side(features) - self.mean) / self.deviation, self.config.bands)
        return x.masked_fill(silent[:, None, :, None], 0)

    def scores(self, prepared: Tensor, *, margin: int = 0) -> Tensor:
        """Return the scores of `forward` for prepared features."""
        x, config, frames = prepared, self.config, prepared.shape[2]
        silent = (x.abs().amax((1, 3)) == 0)[:, :: config.step]
        count = silent.shape[1]
        tokens = self._tokens(F.pad(x, (0, 0, config.beside, -frames % (config.window * config.step))))
        bands, places, size = tokens.shape[1], tokens.shape[2], config.width // config.heads
        rotary_across = rotary(bands, size, x.device)
        rotary_along = rotary(places, size, x.device, step=config.step)
        mask = window_mask(places, count, config.window, x.device)
        mask = mask + silence_mask(silent, places, config.window)
        # If the margin is long enough, each block drops a window at either end: no later block needs it.
        inner = margin >= config.context_of_scores
        for across, along in zip(self.across, self.along, strict=True):
            if inner:
                mask = mask[..., 1:-1, :, :]
            tokens = along(across(tokens, rotary_across), rotary_along, mask, inner=inner)
            if inner:
                rotary_along = rotary_along[:, config.window : -config.window]
        gone = config.blocks * config.window * inner
        tokens = interpolated(self.norm(tokens[:, :, : count - 2 * gone]), step=config.step)
        # Pad frames that have details but no tokens: no output depends on these tokens. Crop if negative.
        skipped = max(0, margin - config.context_of_details)
        first = gone * config.step - skipped
        tokens = F.pad(tokens, (0, 0, first, frames - 2 * skipped - first - tokens.shape[2]))
        return self._decoded(x[:, :, skipped : frames - skipped], tokens, margin - skipped)

    def _tokens(self, x: Tensor) -> Tensor:
        """Return tokens `(example, band, token, feature)` for `(example, view, frame, position)`.

        The first token's own frame comes after the `beside` frames before it, and the last token has `step`
        frames.
        """
        step, beside = self.config.step, self.config.beside
        places = (x.shape[2] - beside) // step
        first = [beside, *range(beside + 1, 2 * beside + 1), *range(beside)]  # the token's own frame first
        views = [x[:, :, at::step][:, :, :places] for at in first]
        return tokens_of(torch.cat(views, 1) if beside else views[0], self.split, self.config.bands)

    def _decoded(self, x: Tensor, tokens: Tensor, margin: int) -> Tensor:
        """Return scores of all frames, except `margin` frames at either end.

        Shapes: x `(example, view, frame, position)`; tokens `(example, band, frame, feature)`.
        """
        bands, refined = self.config.bands, self.config.refined
        known = torch.split(tokens.transpose(0, 1), [count for count, _, _ in bands])
        sizes = [count * size for count, size, _ in bands]
        pairs = torch.unflatten(x, 3, (-1, PAIR))
        pairs = pairs.permute(0, 4, 1, 2, 3).flatten(1, 2).contiguous(memory_format=torch.channels_last)
        details = F.relu(self.details(pairs))
        end = sum(sizes[:refined]) // PAIR
        low, high = details[..., :end], details[..., end:]
        for refinement in self.refinements:
            low = refinement(low, known[:refined])
        inner = slice(margin, x.shape[2] - margin)
        runs: list[Tensor] = []
        for maps, part in ((low, sizes[:refined]), (high, sizes[refined:])):
            if part:
                maps = torch.unflatten(maps[:, :, inner].permute(0, 2, 3, 1), 3, (PAIR, -1)).flatten(2, 3)
                runs += torch.split(maps, part, 2)
        scores = scores_of(runs, [each[:, :, inner] for each in known], self.heads, bands)
        return torch.unflatten(scores, 1, (self.stems, CHANNELS))

    def past(self) -> list[Tensor]:
        """Return what `scores_after` needs of earlier frames at the start of a stream, after silence."""
        config, bands = self.config, sum(count for count, _, _ in self.config.bands)
        positions = sum(count * size for count, size, _ in config.bands)
        features = torch.zeros(1, VIEWS, config.frames_back, positions)
        tokens = [torch.zeros(1, bands, 2 * config.window, config.width) for _ in range(config.blocks)]
        last = torch.zeros(1, bands, config.tokens_back, config.width)
        return [features, *tokens, last]

    def scores_after(self, past: Sequence[Tensor], prepared: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return scores of a stream, and the `past` of the next call; parts are whole windows of tokens.

        `past` holds the last prepared features, and the last tokens before each block along time and after
        the last one.
        """
        config, frames, device = self.config, prepared.shape[2], prepared.device
        window, size, step = config.window, config.width // config.heads, config.step
        features, last = torch.cat([past[0], prepared], 2), past[1 + config.blocks]
        end = features.shape[2]
        tokens = self._tokens(features[:, :, end - frames - config.beside :])
        count = tokens.shape[2]
        silent = (features.abs().amax((1, 3)) == 0)[:, end % step :: step]
        at = silent.shape[1]
        rotary_across = rotary(tokens.shape[1], size, device)
        rotary_along = rotary(count + 2 * window, size, device, step=step)
        near = window_mask(count + 2 * window, count + 2 * window, window, device)[1:-1]
        kept = [features[:, :, frames:]]
        for earlier, across, along in zip(past[1:], self.across, self.along, strict=False):
            tokens = torch.cat([earlier, across(tokens, rotary_across)], 2)
            kept.append(tokens[:, :, count:])
            quiet = silence_mask(silent[:, at - tokens.shape[2] : at], tokens.shape[2], window)
            mask = near + quiet[..., 1:-1, :, :]
            tokens, at = along(tokens, rotary_along, mask, inner=True), at - window
        tokens = torch.cat([last, self.norm(tokens)], 2)
        kept.append(tokens[:, :, count:])
        spread, end = config.spread, end - config.context_frames
        first = config.tokens_back * step - config.context_frames - spread + config.context_of_blocks
        tokens = interpolated(tokens, step=step)[:, :, first : first + frames + 2 * spread]
        # Frames with details but no tokens, at either end: no output depends on these tokens.
        around = config.context_of_details
        tokens = F.pad(tokens, (0, 0, around - spread, around - spread))
        return self._decoded(features[:, :, end - frames - around : end + around], tokens, around), kept

    def start_from(self, tensors: Mapping[str, Tensor]) -> None:
        """Load weights, also of a network with fewer blocks or views, or with more refined bands."""
        self.load_state_dict(grown(self.state_dict(), tensors))

    def masks(self, outputs: Tensor) -> Tensor:
        """Return masks: the softmax of scores over stems, or the sigmoid if there is only one stem."""
        outputs = outputs.float()
        return outputs.softmax(1) if self.stems > 1 else outputs.sigmoid()


def _block(config: Config) -> TransformerBlock:
    inner = config.expansion * config.width
    return TransformerBlock(config.width, heads=config.heads, inner=inner, window=config.window)
