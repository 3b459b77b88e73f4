"""Merging models with different stems into one model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stemsplit.errors import BadWeights
from stemsplit.networks import registry
from stemsplit.training.calibration import calibrate
from stemsplit.training.sampler import DECODED, map_songs, splits
from stemsplit.zoo import page, store
from stemsplit.zoo.card import ModelCard

SAME = ("network", "sample_rate", "n_fft", "hop_length", "threshold")


def join(
    models: Sequence[str], run: Path, name: str, *, data: Sequence[str] = (), device: str = "cpu"
) -> Path:
    """Write the networks of several models with different stems to one file with one card; return its path.

    With `data` (see `splits`), the masks are calibrated on the validation songs. The card has no scores,
    because the scores of soft masks depend on all stems.

    Raises:
        DecodeError: the data has no songs, or they cannot be decoded.
        UnknownModel: there is no such model.
        BadWeights: a file is damaged, two models have a stem in common, or their settings differ.
    """
    cards = [store.read_card(model) for model in models]
    _check_joinable(cards)
    card = _joined_card(name, cards)
    networks = {
        stem: state
        for model, each in zip(models, cards, strict=True)
        for stem, state in store.load(model, each.stems).items()
    }
    run.mkdir(parents=True, exist_ok=True)
    path = run / f"{name}{store.SUFFIX}"
    page.save(path, card, networks)
    if data:
        sources = splits(data, card.stems)["valid"]
        songs = map_songs(sources, sample_rate=card.sample_rate, cache=run / DECODED)
        calibrate(path, songs, device=device)
    return path


def _check_joinable(cards: Sequence[ModelCard]) -> None:
    for fact in SAME:
        if len({getattr(card, fact) for card in cards}) > 1:
            raise BadWeights(f"The models differ in {fact}", "join models with the same settings")
    if registry.find(cards[0].network).joint:
        raise BadWeights(
            f"A {cards[0].network} has one network for all stems", "join models with one network per stem"
        )
    counts = Counter(stem for card in cards for stem in card.stems)
    if twice := sorted(stem for stem, count in counts.items() if count > 1):
        raise BadWeights(f"Two of the models have {', '.join(twice)}", "join models with different stems")


def _joined_card(name: str, cards: Sequence[ModelCard]) -> ModelCard:
    return replace(
        cards[0],
        name=name,
        stems=tuple(stem for card in cards for stem in card.stems),
        complete=False,
        combination=(),
        parameters=sum(card.parameters for card in cards),
        data=_all(cards, "data"),
        licence=_all(cards, "licence"),
        commit=_all(cards, "commit"),
        recipe=_recipes(cards),
        scores={},
        intended_use=_all(cards, "intended_use"),
        limits=_all(cards, "limits"),
    )


def _all(cards: Sequence[ModelCard], fact: str) -> str:
    return "; ".join(dict.fromkeys(getattr(card, fact) for card in cards))


def _recipes(cards: Sequence[ModelCard]) -> dict[str, Any]:
    """Return the entries of all recipes; different values become a mapping from stems to values."""
    recipes = {", ".join(card.stems): card.recipe for card in cards}
    keys = dict.fromkeys(key for recipe in recipes.values() for key in recipe)
    joined: dict[str, Any] = {}
    for key in keys:
        values = {stems: recipe.get(key) for stems, recipe in recipes.items()}
        first = next(iter(values.values()))
        joined[key] = first if all(value == first for value in values.values()) else values
    return joined
