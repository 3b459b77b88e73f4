"""The page of a model, generated from the header of its weights file alone, so that the two always agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemsplit.files.claims import writing
from stemsplit.networks import registry
from stemsplit.networks.info import OutputKind
from stemsplit.zoo import store
from stemsplit.zoo.card import MASK_POWERS, ModelCard

if TYPE_CHECKING:
    from torch import Tensor

SYSTEMS = {
    "soft": "soft mask",
    "wiener": "Wiener filter after the soft mask",
    "binary": "binary mask",
    "clean": "default mask, less bleed",
    "full": "default mask, fuller stems",
    "waveform": "waveform",
    "mixture": "unprocessed mixture",
    "ideal binary": "ideal binary mask",
    "ideal ratio": "ideal ratio mask",
    "ideal wiener": "ideal multichannel Wiener filter",
}
BLEED = ("bleedless", "fullness")
BINS = {
    "accuracy": "accuracy",
    "base_rate": "base rate",
    "balanced_accuracy": "balanced accuracy",
    "mse": "mean squared error",
}


def save(path: Path, card: ModelCard, networks: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write a weights file and its page."""
    store.save(path, card, networks)
    with writing(path.with_suffix(".md")) as part:
        part.write_text(page(card), encoding="utf-8")


def rewrite(path: Path, **changes: Any) -> ModelCard:
    """Change the card in a weights file and its page, and return the new card."""
    card = replace(store.read_card(path), **changes)
    save(path, card, store.load(path, registry.find(card.network).parts(card.stems)))
    return card


def page(card: ModelCard) -> str:
    """Return the page in Markdown: intended use and known failures first, then scores, facts and training."""
    parts = [f"# {card.name}", card.title + "."]
    parts += ["## Intended use", card.intended_use] if card.intended_use else []
    parts += ["## Known failures and limits", card.limits] if card.limits else []
    for split in sorted(card.scores, key=lambda name: not name.startswith("test")):
        parts += _scores(card, split, card.scores[split])
    model = {
        "Network": _size(card),
        "Stems": ", ".join(card.stems) + ("" if card.complete else " (songs contain more than these)"),
        "STFT": f"n_fft {card.n_fft}, hop length {card.hop_length}, at {card.sample_rate / 1000:g} kHz",
        "Output": _output(card),
        "Default mask": card.mask,
        "Soft masks": "calibrated (see below)" if card.combination else f"power {card.mask_power:g}",
        "Licence": card.licence,
    }
    parts += ["## Model", _list(model)]
    if card.combination:
        rows = {
            stem: [f"{number:.2f}" for number in row]
            for stem, row in zip(card.stems, card.combination, strict=True)
        }
        parts += [
            "### Calibrated masks",
            "Softmax over stems of weighted sums of the networks' logits. The weights are fitted to the "
            "validation songs:",
            _table("Mask", (*card.stems, "offset"), rows),
        ]
    training = {
        "Data": card.data,
        "Code": f"commit {card.commit}, seed {card.seed}",
        "Recipe": _plain(card.recipe).removeprefix("(").removesuffix(")"),
    }
    return "\n\n".join([*parts, "## Training", _list(training)]) + "\n"


def _list(facts: Mapping[str, str]) -> str:
    return "\n".join(f"- **{name}**: {value}" for name, value in facts.items())


def _output(card: ModelCard) -> str:
    network = registry.find(card.network)
    if network.predicts_waveforms:
        return "waveforms of the stems"
    if network.output is OutputKind.LOGITS:
        return f"logits of the binary mask B = (S > {card.threshold:g} * M)"
    return "ratio masks: each stem's share of the mixture's magnitude"


def _size(card: ModelCard) -> str:
    network = f"`{card.network}`"
    if registry.find(card.network).joint:
        return f"{network}, {card.parameters:,} parameters for all stems"
    each = card.parameters // len(card.stems)
    return f"{network}, {each:,} parameters per stem, {card.parameters:,} in all"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        said = {name: inner for name, inner in value.items() if inner not in ("", None)}
        return f"({', '.join(f'{name} {_plain(inner)}' for name, inner in said.items())})"
    return str(value)


def _scores(card: ModelCard, split: str, scores: dict[str, Any]) -> list[str]:
    name, _, version = split.partition(", ")
    songs = f"Medians over the {scores.get('songs', '?')} excerpts of the `{name}` split"
    songs += f" ({version})." if version else "."
    sdr = {
        text + " (default)" * (name == card.mask): cells(scores.get(name, {}), card.stems, "sdr_db", 2)
        for name, text in SYSTEMS.items()
        if name in scores
    }
    lines = [
        f"## Scores: {split}",
        songs + " SDR in dB over each whole excerpt; higher is better.",
        _table("SDR", card.stems, sdr),
    ]
    bleed = {
        f"{measure}, {'default' if name == card.mask else name}": cells(scores[name], card.stems, measure, 1)
        for measure in BLEED
        for name in (card.mask, *MASK_POWERS)
        if any(measure in each for each in scores.get(name, {}).values())
    }
    if bleed:
        lines += [
            "From 0 to 100: how free a stem is of the others (bleedless), and how complete it is (fullness).",
            _table("Mask", card.stems, bleed),
        ]
    if "bins" not in scores:  # waveform networks have no masks
        return lines
    bins = {text: cells(scores["bins"], card.stems, name, 3) for name, text in BINS.items()}
    return [
        *lines,
        "The binary mask, with all bins counted alike. The base rate is the accuracy of an empty mask.",
        _table("Bins", card.stems, bins),
    ]


def cells(scores: Mapping[str, Any], stems: tuple[str, ...], measure: str, digits: int) -> list[str]:
    """Return a measure of each stem as text, `-` for a stem without a value."""
    values = [scores.get(stem, {}).get(measure) for stem in stems]
    return ["-" if value is None else f"{value:.{digits}f}" for value in values]


def _table(heading: str, columns: tuple[str, ...], rows: dict[str, list[str]]) -> str:
    lines = [
        [heading, *columns],
        ["---"] + ["--:"] * len(columns),
        *([name, *row] for name, row in rows.items()),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
