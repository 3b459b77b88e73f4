"""Matrix scaling of the networks' logits, fitted on validation songs after training.

Source: Guo et al., "On calibration of modern neural networks", 2017, section 4.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stemsplit.datasets.songs import Song
from stemsplit.dsp.masks import logits
from stemsplit.networks import registry
from stemsplit.options import RuntimeOptions
from stemsplit.separation.masking import MaskSeparator
from stemsplit.separation.separator import Samples
from stemsplit.zoo import page
from stemsplit.zoo.variants import Trained

EXCERPT_SECONDS = 8.0
EXCERPTS = 128
"""Maximum number of excerpts, spread evenly over all songs. They take 0.4 GB; more made no difference."""
FRAME_STRIDE = 8
"""Adjacent frames are similar, so every eighth frame suffices."""
STEPS = 150
LEARNING_RATE = 0.05


def calibrate(path: Path, songs: Sequence[Song], *, device: str) -> None:
    """Store in a model's card whether its stems are complete and, if so, the scaling of its logits.

    A joint network for all stems needs no scaling. Use validation songs, because the networks are
    overconfident on training songs.
    """
    whole = [song for song in songs if all(song.known)]
    complete = bool(whole) and not any(song.parts[-1].any() for song in whole)
    scaling: tuple[tuple[float, ...], ...] = ()
    model = Trained.find(path)
    if complete and not registry.find(model.card.network).joint:
        separator = model.load(RuntimeOptions(device=device, precision="float32"), mask="binary")
        assert isinstance(separator, MaskSeparator)
        scaling = fit(separator, whole)
    page.rewrite(path, complete=complete, combination=scaling)


def fit(separator: MaskSeparator, songs: Sequence[Song]) -> tuple[tuple[float, ...], ...]:
    """Return the `scaling` of `masks.matrix_scaled_softmax` with the highest mean SDR on songs.

    The SDR of a stem in an excerpt is sum|S|**2 / sum|S - m X|**2 over the bins of the networks' band, in dB.
    Four stems have 20 parameters: too few to overfit.
    """
    stems = len(separator.stems)
    statistics = [_statistics(separator, parts) for parts in _excerpts(separator, songs)]
    predicted, mixture, products, energies = (torch.stack(each) for each in zip(*statistics, strict=True))
    scaling = torch.eye(stems, stems + 1, requires_grad=True)
    optimizer = torch.optim.Adam([scaling], LEARNING_RATE)
    audible = energies > 0
    if not audible.any():
        return ()
    for _ in range(STEPS):
        scaled = torch.einsum("jk,ekctf->ejctf", scaling[:, :-1], predicted)
        masks = torch.softmax(scaled + scaling[:, -1, None, None, None], dim=1)
        # sum|S - m X|**2, expanded; the products depend on the phases of mixture and stem.
        errors = energies + (masks * (masks * mixture[:, None] - 2 * products)).sum(dim=(2, 3, 4))
        ratios = errors.clamp_min(1e-12) / energies.clamp_min(1e-12)
        loss = torch.log10(ratios)[audible].mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return tuple(tuple(round(weight, 4) for weight in row) for row in scaling.tolist())


def _excerpts(separator: MaskSeparator, songs: Sequence[Song]) -> Iterable[Samples]:
    """Yield excerpts `(part, channel, time)`, spread evenly over the songs."""
    time = round(EXCERPT_SECONDS * separator.sample_rate)
    starts = [(song, start) for song in songs for start in range(0, max(1, song.length - time // 2), time)]
    chosen = np.linspace(0, len(starts), min(EXCERPTS, len(starts)), endpoint=False).astype(int)
    for song, start in (starts[index] for index in chosen):
        excerpt = song.parts[..., start : start + time].astype(np.float32)
        yield np.pad(excerpt, ((0, 0), (0, 0), (0, time - excerpt.shape[-1])))


def _statistics(separator: MaskSeparator, parts: Samples) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return logits, the mixture's energy per bin, its products with the stems, and the stems' energies.

    If one mask is used for all channels, energies and products are summed over the channels.
    """
    reach, bins = separator.plan.context, separator.bins
    spectra = separator.stft.transform(parts)[..., :bins]
    mixture, stems = spectra.sum(axis=0), spectra[: len(separator.stems)]
    predicted = logits(separator.probabilities(mixture)[:, :, ::FRAME_STRIDE])
    kept = slice(reach, -reach, FRAME_STRIDE)
    mixture, stems = mixture[:, kept], stems[:, :, kept]
    energy, products = np.square(np.abs(mixture)), (stems * mixture.conj()).real
    if predicted.shape[1] == 1:
        energy, products = energy.sum(axis=0, keepdims=True), products.sum(axis=1, keepdims=True)
    return (
        torch.from_numpy(predicted),
        torch.from_numpy(energy),
        torch.from_numpy(products),
        torch.from_numpy(np.square(np.abs(stems)).sum(axis=(1, 2, 3))),
    )
