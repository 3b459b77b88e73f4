"""Runs trained one at a time, as one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stemsplit.errors import BadWeights
from stemsplit.networks import registry
from stemsplit.training.calibration import combine
from stemsplit.training.sampler import DECODED, map_songs, splits
from stemsplit.zoo import page, store
from stemsplit.zoo.card import ModelCard

SAME = ("network", "sample_rate", "n_fft", "hop_length", "threshold")


def join(
    models: Sequence[str], run: Path, name: str, *, data: Sequence[str] = (), device: str = "cpu"
) -> Path:
    """Write the networks of several models, each with other stems, into one file with one card; return it.

    With `data`, as `splits` takes it, their masks are fitted to each other. Scores are left out: those of
    soft masks depend on all stems.

    Raises:
        DecodeError: the data has no songs, or they cannot be decoded.
        UnknownModel: a model is not there.
        BadWeights: a file is damaged, two models have a stem in common, or they were not trained alike.
    """
    parts = [store.read_card(model) for model in models]
    stems = tuple(stem for card in parts for stem in card.stems)
    for fact in SAME:
        if len({getattr(card, fact) for card in parts}) > 1:
            raise BadWeights(f"The models differ in {fact}", "join models that were trained alike")
    if registry.find(parts[0].network).joint:
        raise BadWeights(f"One {parts[0].network} gives all stems", "join models with a network a stem")
    if twice := sorted({stem for stem in stems if stems.count(stem) > 1}):
        raise BadWeights(f"Two of the models have {', '.join(twice)}", "join models of different stems")
    card = replace(
        parts[0],
        name=name,
        stems=stems,
        complete=False,
        combination=(),
        parameters=sum(card.parameters for card in parts),
        data=_all(parts, "data"),
        licence=_all(parts, "licence"),
        commit=_all(parts, "commit"),
        recipe=_recipes(parts),
        scores={},
        limits=_all(parts, "limits"),
    )
    networks = {
        stem: state
        for model, part in zip(models, parts, strict=True)
        for stem, state in store.load(model, part.stems).items()
    }
    run.mkdir(parents=True, exist_ok=True)
    path = run / f"{name}{store.SUFFIX}"
    page.save(path, card, networks)
    if data:
        songs = map_songs(splits(data, stems)["valid"], sample_rate=card.sample_rate, cache=run / DECODED)
        combine(path, songs, device=device)
    return path


def _all(parts: Sequence[ModelCard], fact: str) -> str:
    return "; ".join(dict.fromkeys(getattr(card, fact) for card in parts))


def _recipes(parts: Sequence[ModelCard]) -> dict[str, Any]:
    """Return what all recipes say, and by stems what only some of them say or say differently."""
    recipes = {", ".join(card.stems): card.recipe for card in parts}
    keys = dict.fromkeys(key for recipe in recipes.values() for key in recipe)
    joined: dict[str, Any] = {}
    for key in keys:
        said = {stems: recipe.get(key) for stems, recipe in recipes.items()}
        first = next(iter(said.values()))
        joined[key] = first if all(value == first for value in said.values()) else said
    return joined
