"""Scores of several models side by side, on the same songs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from stemsplit.datasets.songs import Song
from stemsplit.errors import UsageError
from stemsplit.evaluation.bsseval import Pool
from stemsplit.evaluation.evaluate import SongScores, Systems, card_of, systems_of
from stemsplit.options import DEFAULT_RUNTIME, RuntimeOptions
from stemsplit.zoo.store import ModelCard


@dataclass(frozen=True)
class Comparison:
    """Several models, the first of them with the mixture and the oracles; no two systems share a name."""

    models: tuple[Systems, ...]

    def measure(self, split: str, song: Song, pool: Pool | None = None) -> SongScores:
        """Return a song's scores: those of all models first, without the accuracy of their masks."""
        found = SongScores(split, song.name)
        for systems in self.models:
            found.systems.update(systems.measure(split, song, pool).systems)
        found.systems.pop("bins", None)
        separated = [name for systems in self.models for name in systems.separators]
        ordered = {name: found.systems.pop(name) for name in separated}
        return replace(found, systems=ordered | found.systems)


def compare(
    models: Sequence[str],
    *,
    masks: Sequence[str] = (),
    oracles: Sequence[str] = (),
    mixture: bool = True,
    running: RuntimeOptions = DEFAULT_RUNTIME,
) -> tuple[ModelCard, Comparison]:
    """Return several models to measure, and a card that names all of them; the rest as `systems_of`.

    A system is called `MODEL (MASK)`. The oracles work on the spectrum of the first model.

    Raises:
        UsageError: the models have different stems.
        StemsplitError: see `systems_of`.
    """
    cards = [card_of(model) for model in models]
    for card in cards:
        if card.stems != cards[0].stems:
            raise UsageError(
                f"{cards[0].name} and {card.name} have different stems", "measure them one by one"
            )
    names = [card.name for card in cards]
    if len(set(names)) < len(names):  # copies of one model, for example
        names = list(models)
    measured = []
    for number, (model, name) in enumerate(zip(models, names, strict=True)):
        systems = systems_of(
            model,
            masks=masks,
            oracles=() if number else oracles,
            mixture=mixture and not number,
            running=running,
        )
        renamed = {f"{name} ({mask})": each for mask, each in systems.separators.items()}
        measured.append(replace(systems, separators=renamed))
    return replace(cards[0], name=" and ".join(names), scores={}), Comparison(tuple(measured))
