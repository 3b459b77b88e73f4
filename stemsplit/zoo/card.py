"""The model card: the facts in the header of a weights file, and their validation."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

MASK_POWERS = {"clean": 1.5, "full": 0.75}
"""Powers of a model's default masks: with less bleed, and with less missing from each stem."""
MASKS = ("soft", "binary", "wiener", *MASK_POWERS)
"""The masking methods."""

# Facts that are printed or used as sizes.
_KINDS: dict[str, type] = {
    **dict.fromkeys(("name", "title", "network", "mask", "data", "licence", "commit"), str),
    **dict.fromkeys(("intended_use", "limits"), str),
    **dict.fromkeys(("sample_rate", "n_fft", "hop_length", "parameters", "seed"), int),
    **{"complete": bool, "recipe": dict, "scores": dict},
}


@dataclass(frozen=True)
class ModelCard:
    """The facts about a model, as stored in its weights file."""

    name: str
    title: str
    network: str
    stems: tuple[str, ...]
    sample_rate: int
    n_fft: int
    hop_length: int
    parameters: int
    """Number of parameters for all stems together."""
    mask: str
    """The default masking method, or `waveform` for networks without masks."""
    mask_power: float
    threshold: float
    """T of the training target B = (S > T * M), a binary mask."""
    data: str
    licence: str
    commit: str
    seed: int
    complete: bool = True
    """Whether the stems make up the whole mixture, so that their masks sum to one."""
    combination: tuple[tuple[float, ...], ...] = ()
    """The rows of `scaling` for `masks.matrix_scaled_softmax`, one per stem; empty if not calibrated."""
    recipe: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    """split -> system (a kind of mask, the mixture, an oracle) -> stem -> measure: medians over songs."""
    intended_use: str = ""
    """What the model is for, in Markdown."""
    limits: str = ""
    """Known failures and limits, in Markdown."""

    def __post_init__(self) -> None:
        # The file may be from an unknown source: stems become file names, numbers become sizes.
        if not self.stems or len(set(self.stems)) < len(self.stems):
            raise ValueError(f"stems={self.stems} must be one or more different names")
        for name in self.stems:
            if not re.fullmatch(r"[\w-]{1,64}", name):
                raise ValueError(f"a stem cannot be called {name!r}")
        # Larger values could exhaust the memory.
        if not (4_000 <= self.sample_rate <= 400_000 and 0 < self.hop_length <= self.n_fft <= 1 << 15):
            raise ValueError("sample_rate, n_fft or hop_length is out of range")
        if self.n_fft % self.hop_length or not 4 <= self.n_fft // self.hop_length <= 32:
            raise ValueError(f"n_fft={self.n_fft} must be 4 to 32 times hop_length={self.hop_length}")
        if not (0 < self.mask_power <= 16 and 0 <= self.threshold <= 1):
            raise ValueError(f"mask_power={self.mask_power} or threshold={self.threshold} is out of range")
        rows, stems = self.combination, len(self.stems)
        if rows and [len(row) for row in rows] != [stems + 1] * stems:
            raise ValueError(f"combination must have {stems} rows of {stems + 1} numbers")
        if not all(abs(number) < 1e3 for row in rows for number in row):
            raise ValueError(f"combination={rows} is out of range")

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> ModelCard:
        """Return the card for the facts in a header.

        Raises:
            ValueError, TypeError, KeyError, AttributeError, RecursionError: the facts are not a valid card.
        """
        _check_kinds(facts)
        rows = tuple(tuple(row) for row in facts.get("combination", ()))
        return cls(**{**facts, "stems": tuple(facts["stems"]), "combination": rows})


def _check_kinds(facts: dict[str, Any]) -> None:
    """Raise an error for facts that `page` could not print."""
    json.dumps(facts, ensure_ascii=False).encode()  # JSON can hold lone surrogates
    for name, kind in _KINDS.items():
        if type(facts.get(name, kind())) is not kind:
            raise ValueError(f"{name} must be of type {kind.__name__}")
    for systems in facts.get("scores", {}).values():
        for system, stems in systems.items():
            for measures in stems.values() if system != "songs" else ():
                if not all(map(_is_score, measures.values())):
                    raise ValueError("its scores are not numbers")
    if not _is_shallow(facts.get("recipe")):
        raise ValueError("its recipe is nested too deeply")


def _is_score(value: Any) -> bool:
    return value is None or type(value) is float or (type(value) is int and abs(value) < 1 << 53)


def _is_shallow(tree: Any, most: int = 9) -> bool:
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return most > 0 and all(_is_shallow(value, most - 1) for value in inner)
