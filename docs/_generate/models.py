"""The table of the shipped models, generated from the headers of their weights files."""

from __future__ import annotations

from statistics import mean

from docs._generate.included import cards
from stemsplit.defaults import DEFAULT_MODEL
from stemsplit.zoo import page, store

STEMS = ("vocals", "drums", "bass", "other")


def table() -> str:
    """Return a table with one row per model: the default first, then by mean test score."""
    rows, licences = {}, set()
    for uri, path in cards().items():
        weights = path.with_suffix(".safetensors")
        card = store.read_card(weights)
        scores = page.cells(card.scores.get("test", {}).get(card.mask, {}), STEMS, "sdr_db", 2)
        known = [float(score) for score in scores if score != "-"]
        size = f"{weights.stat().st_size / 1e6:.1f} MB"
        licences.add(card.licence.partition(",")[0])
        cells = [f"[`{card.name}`]({uri})", *scores, f"{card.parameters:,}", size]
        rank = (card.name != DEFAULT_MODEL, -mean(known) if known else 0.0, card.name)
        rows[rank] = f"| {' | '.join(cells)} |"
    heading = (
        f"| model | {' | '.join(STEMS)} | parameters | size | licence |\n|---|--:|--:|--:|--:|--:|--:|---|"
    )
    return "\n".join([heading, *(rows[rank] for rank in sorted(rows))])
