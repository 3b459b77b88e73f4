"""How the networks' opinions are weighed against each other: fitted once they are trained."""

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
from stemsplit.zoo.ref import Trained

EXCERPT_SECONDS = 8.0
EXCERPTS = 128
"""At most, spread evenly over all songs: so much fits into 0.4 GB, and more changed nothing."""
FRAME_STEP = 8
"""Neighbouring frames say much the same."""
STEPS = 150
LEARNING_RATE = 0.05


def combine(path: Path, songs: Sequence[Song], *, device: str) -> None:
    """Find out whether a model's stems are all there is in songs, and how its masks add up to one then.

    Both are written into the card; one network for all stems knows the latter by itself. The songs are those
    to validate on: where the networks have learnt from songs, they are surer of themselves than elsewhere.
    """
    whole = [song for song in songs if all(song.known)]
    complete = bool(whole) and not any(song.parts[-1].any() for song in whole)
    combination: tuple[tuple[float, ...], ...] = ()
    model = Trained.find(path)
    if complete and not registry.find(model.card.network).joint:
        separator = model.load(RuntimeOptions(device=device, precision="float32"), mask="binary")
        assert isinstance(separator, MaskSeparator)
        combination = fit(separator, whole)
    page.rewrite(path, complete=complete, combination=combination)


def fit(separator: MaskSeparator, songs: Sequence[Song]) -> tuple[tuple[float, ...], ...]:
    """Return the weights of `masks.matrix_scaled_softmax` with the highest mean SDR on songs of known stems.

    It is the mean over excerpts and stems, in dB, of sum|S|**2 / sum|S - m X|**2 over the bins of the
    networks' band. Twenty numbers for four stems: too few to learn songs by heart.
    """
    stems = len(separator.stems)
    excerpts = [_excerpt(separator, parts) for parts in _cut(separator, songs)]
    opinions, mixture, products, energies = (torch.stack(each) for each in zip(*excerpts, strict=True))
    combination = torch.eye(stems, stems + 1, requires_grad=True)
    optimizer = torch.optim.Adam([combination], LEARNING_RATE)
    audible = energies > 0
    if not audible.any():
        return ()
    for _ in range(STEPS):
        scores = torch.einsum("jk,ekctf->ejctf", combination[:, :-1], opinions)
        masks = torch.softmax(scores + combination[:, -1, None, None, None], dim=1)
        # sum|S - m X|**2, multiplied out; the mixture's and the stem's phases are in the products.
        errors = energies + (masks * (masks * mixture[:, None] - 2 * products)).sum(dim=(2, 3, 4))
        ratios = errors.clamp_min(1e-12) / energies.clamp_min(1e-12)
        loss = torch.log10(ratios)[audible].mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return tuple(tuple(round(weight, 4) for weight in row) for row in combination.tolist())


def _cut(separator: MaskSeparator, songs: Sequence[Song]) -> Iterable[Samples]:
    """Yield excerpts `(part, channel, time)`, spread evenly."""
    time = round(EXCERPT_SECONDS * separator.sample_rate)
    places = [(song, start) for song in songs for start in range(0, max(1, song.length - time // 2), time)]
    chosen = np.linspace(0, len(places), min(EXCERPTS, len(places)), endpoint=False).astype(int)
    for song, start in (places[index] for index in chosen):
        excerpt = song.parts[..., start : start + time].astype(np.float32)
        yield np.pad(excerpt, ((0, 0), (0, 0), (0, time - excerpt.shape[-1])))


def _excerpt(separator: MaskSeparator, parts: Samples) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return logits, the mixture's energy, its products with the stems, and the stems' energies.

    Where masks are for all channels together, so are energies and products.
    """
    reach, bins = separator.plan.context, separator.bins
    spectra = separator.stft.transform(parts)[..., :bins]
    mixture, stems = spectra.sum(axis=0), spectra[: len(separator.stems)]
    opinions = logits(separator.probabilities(mixture)[:, :, ::FRAME_STEP])
    kept = slice(reach, -reach, FRAME_STEP)
    mixture, stems = mixture[:, kept], stems[:, :, kept]
    energy, products = np.square(np.abs(mixture)), (stems * mixture.conj()).real
    if opinions.shape[1] == 1:
        energy, products = energy.sum(axis=0, keepdims=True), products.sum(axis=1, keepdims=True)
    return (
        torch.from_numpy(opinions),
        torch.from_numpy(energy),
        torch.from_numpy(products),
        torch.from_numpy(np.square(np.abs(stems)).sum(axis=(1, 2, 3))),
    )
