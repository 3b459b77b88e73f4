"""A teacher: a model whose masks are the targets of another network's training.

G. Hinton, O. Vinyals and J. Dean, "Distilling the knowledge in a neural network", 2015 (arXiv 1503.02531).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stemsplit.errors import BadWeights
from stemsplit.missing import other_stems
from stemsplit.networks import factory, registry
from stemsplit.networks.base import Network
from stemsplit.networks.info import NetworkInfo
from stemsplit.zoo import store


def load(model: str, student: NetworkInfo, stems: Sequence[str]) -> Network:
    """Return the network of a model, in evaluation mode, to teach a network of another kind.

    Raises:
        UnknownModel: there is no such model.
        BadWeights: its masks are not for the student's frames, bins, channels and stems.
    """
    card = store.read_card(model)
    teacher = registry.find(card.network)
    theirs, ours = (
        (entry.joint, entry.input, entry.output, entry.bins, entry.context.padding)
        for entry in (teacher, student)
    )
    same_frames = (card.sample_rate, card.n_fft, card.hop_length) == (
        student.sample_rate,
        student.n_fft,
        student.hop_length,
    )
    if theirs != ours or not same_frames or not student.joint:
        raise BadWeights(f"The masks of `{model}` are not of the same kind", "choose another --teacher")
    if tuple(stems) != card.stems:
        raise other_stems(model, card.stems)
    parts = teacher.parts(card.stems)
    (network,) = factory.build(card.network, store.load(model, parts), len(card.stems))
    return network.requires_grad_(False)


@torch.no_grad()
def masks(teacher: Network, inputs: Tensor) -> Tensor:
    """Return masks `(example, stem, channel, frame, bin)` for inputs `(example, view, frame, bin)`."""
    return teacher.masks(teacher(inputs).float())
