"""Weights that describe themselves: one safetensors file a model, its card as JSON in the header.

The header is read with the standard library alone, so that listing models costs nothing. Tensors are named
`STEM.LAYER...`, or `network.LAYER...` where one network gives all stems, and are stored as float16. There is
no pickle anywhere.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemsplit.errors import BadWeights, UnknownModel
from stemsplit.files.claims import writing

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".safetensors"
BEST = "best"
"""What the shipped model with the highest scores can be called, whichever it is."""
HEADER_LIMIT = 1 << 20
"""Bytes: a safetensors header of ours has a few thousand."""

# What reading a card raises where there is none.
_NO_CARD = (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError)
# Facts of these are printed, or become sizes.
_KINDS: dict[str, type] = {
    **dict.fromkeys(("name", "title", "network", "mask", "data", "licence", "commit", "limits"), str),
    **dict.fromkeys(("sample_rate", "n_fft", "hop_length", "parameters", "seed"), int),
    **{"complete": bool, "recipe": dict, "scores": dict},
}


@dataclass(frozen=True)
class ModelCard:
    """What a weights file says of itself."""

    name: str
    title: str
    network: str
    stems: tuple[str, ...]
    sample_rate: int
    n_fft: int
    hop_length: int
    parameters: int
    """Of all stems together."""
    mask: str
    """The rule that is used unless another one is asked for."""
    mask_power: float
    threshold: float
    """T of the binary mask B = (S > T * M) that the network learnt."""
    data: str
    licence: str
    commit: str
    seed: int
    complete: bool = True
    """Whether the stems are all that songs consist of, so that their masks add up to one."""
    combination: tuple[tuple[float, ...], ...] = ()
    """One row per stem for soft masks, as `masks.matrix_scaled_softmax` takes them."""
    recipe: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    """Split to system (a kind of mask, mixture, oracle) to stem to measure: medians over songs."""
    limits: str = ""
    """What to expect of it, and what not, in markdown."""

    def __post_init__(self) -> None:
        # A file may come from anywhere: stems become file names, numbers become sizes.
        if not self.stems or len(set(self.stems)) < len(self.stems):
            raise ValueError(f"stems={self.stems} must be one or more different names")
        for name in self.stems:
            if not re.fullmatch(r"[\w-]{1,64}", name):
                raise ValueError(f"a stem cannot be called {name!r}")
        # More than is sensible would take all memory.
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


def available() -> dict[str, Path]:
    """Return the shipped models: name to weights file."""
    folder = Path(str(resources.files("stemsplit.models")))
    return {path.stem: path for path in sorted(folder.glob(f"*{SUFFIX}"))}


def ranked() -> list[str]:
    """Return the names of the shipped models, that with the highest SDR on the validation songs first.

    A mean over stems. The test songs are for judging what was chosen, and not for choosing.
    """
    return sorted(available(), key=lambda name: -_mean_sdr(read_card(name)))


def _mean_sdr(card: ModelCard) -> float:
    measured = card.scores.get("valid", {}).get(card.mask, {})
    ratios = [measured.get(stem, {}).get("sdr_db") for stem in card.stems]
    return -math.inf if None in ratios else sum(ratios) / len(ratios)


def find(model: str | os.PathLike[str]) -> Path:
    """Return the weights file of a model given by name or by path, or of the `best` one.

    Raises:
        UnknownModel: no shipped model has this name, and no file either.
    """
    shipped = available()
    if str(model) == BEST:
        return shipped[ranked()[0]]
    if str(model) in shipped:
        return shipped[str(model)]
    path = Path(model)
    if path.suffix == SUFFIX and os.path.isfile(path):  # false, not an error, for a name that cannot be
        return path
    raise UnknownModel(
        f"No model called `{model}`", f"choose one of {', '.join(shipped)}, or give a {SUFFIX} file"
    )


def members(model: str | os.PathLike[str]) -> tuple[str | os.PathLike[str], ...]:
    """Return the models that a name stands for: one, or several joined by `+` whose mean is meant."""
    if "+" not in str(model) or os.path.isfile(model):
        return (model,)
    return tuple(str(model).split("+"))


def read_card(model: str | os.PathLike[str]) -> ModelCard:
    """Return the card in a weights file's header, without reading its tensors.

    Raises:
        UnknownModel: there is no such model.
        BadWeights: the file is no weights file of ours.
    """
    path = find(model)
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(HEADER_LIMIT, path.stat().st_size - 8):
                raise ValueError("its header is longer than it may be")
            header = json.loads(file.read(length))
        facts = json.loads(header["__metadata__"]["stemsplit"])
        _check_kinds(facts)
        rows = tuple(tuple(row) for row in facts.pop("combination", ()))
        card = ModelCard(**{**facts, "stems": tuple(facts["stems"]), "combination": rows})
    except _NO_CARD as error:
        raise BadWeights(
            f"`{path}` is not a weights file of stemsplit: {str(error)[:200]}",
            "get the file again, or train a new one",
        ) from error
    return card


def _check_kinds(facts: dict[str, Any]) -> None:
    """Raise one of `_NO_CARD` for facts that `cards` could not print."""
    json.dumps(facts, ensure_ascii=False).encode()  # JSON has characters that are none
    for name, kind in _KINDS.items():
        if type(facts.get(name, kind())) is not kind:
            raise ValueError(f"{name} must be of type {kind.__name__}")
    for systems in facts.get("scores", {}).values():
        for system, stems in systems.items():
            for measures in stems.values() if system != "songs" else ():
                if not all(map(_is_score, measures.values())):
                    raise ValueError("its scores are no numbers")
    if not _is_shallow(facts.get("recipe")):
        raise ValueError("its recipe is nested too deeply")


def _is_score(value: Any) -> bool:
    return value is None or type(value) is float or (type(value) is int and abs(value) < 1 << 53)


def _is_shallow(tree: Any, most: int = 9) -> bool:
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return most > 0 and all(_is_shallow(value, most - 1) for value in inner)


def load(model: str | os.PathLike[str], parts: Sequence[str]) -> dict[str, dict[str, Tensor]]:
    """Return the tensors, in float32, of some of a model's networks: by stem, or of the one for all stems.

    Raises:
        UnknownModel: there is no such model.
        BadWeights: the file is damaged, or holds numbers that are not finite.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    path = find(model)
    found: dict[str, dict[str, Tensor]] = {part: {} for part in parts}
    try:
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118 (no mapping)
                part, _, name = key.partition(".")
                if part in found:
                    tensor = file.get_tensor(key)
                    if tensor.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
                        raise ValueError(f"{key} is of type {tensor.dtype}")
                    found[part][name] = tensor.to(torch.float32)
    except (SafetensorError, OSError, ValueError) as error:
        raise BadWeights(f"`{path}` is damaged: {error}", "get the file again") from error
    if not all(torch.isfinite(tensor).all() for tensors in found.values() for tensor in tensors.values()):
        raise BadWeights(f"`{path}` holds numbers that are not finite", "get the file again")
    return found


def save(path: Path, card: ModelCard, networks: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write the tensors of each network and the card into one file, whole or not at all."""
    import torch
    from safetensors.torch import save_file

    tensors = {
        # Whole numbers only count the batches that were learnt from, and soon more than float16 can.
        f"{part}.{name}": (tensor.detach().cpu() * tensor.is_floating_point()).to(torch.float16).contiguous()
        for part, network in networks.items()
        for name, tensor in network.items()
    }
    with writing(path) as part:
        save_file(tensors, part, {"stemsplit": json.dumps(asdict(card))})
        part.chmod(0o644)  # safetensors makes it the owner's alone, which no one else could then install
