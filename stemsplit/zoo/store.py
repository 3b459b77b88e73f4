"""Self-describing weights: one safetensors file per model, with its card as JSON in the header.

The header is read with the standard library only, so that listing models is fast. Tensors are named
`STEM.LAYER...`, or `network.LAYER...` if one network has all stems, and are stored as float16. Pickle is not
used.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from stemsplit.defaults import MODELS_DISTRIBUTION, install_models
from stemsplit.errors import BadWeights, UnknownModel
from stemsplit.files.claims import writing
from stemsplit.zoo import installed
from stemsplit.zoo.card import ModelCard

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".safetensors"
BEST = "best"
"""A name for the shipped model with the highest scores."""
MORE_PACKAGE = "stemsplit_models"
MORE = frozenset(
    {
        *("band-transformer-full", "blend-small", "blstm-small", "deep-conv-sep", "deep-nmf-small"),
        *("fnn-small", "mdensenet-small"),
        *("mmdensenet-joint", "mmdensenet-small", "nug-small", "sub-band-unet", "wave-u-net-small"),
        *("wavenet-small", "wavenet-small-dissimilar"),
    }
)
"""The models of the distribution `MODELS_DISTRIBUTION`, which may be missing."""
HEADER_LIMIT = 1 << 20
"""Maximum length of a header in bytes; headers of stemsplit have a few thousand."""

# Errors when a card is read from another kind of file.
_NO_CARD = (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError)


def available() -> dict[str, Path]:
    """Return the shipped models that are on this machine: name to weights file."""
    files = {path.stem: path for folder in _folders() for path in folder.glob(f"*{SUFFIX}")}
    return dict(sorted(files.items()))


def not_available() -> list[str]:
    """Return the names of the shipped models whose package is not installed."""
    return sorted(MORE - available().keys())


def _folders() -> Iterator[Path]:
    own = Path(str(resources.files("stemsplit.models")))
    package = find_spec(MORE_PACKAGE)
    if package and package.origin:
        yield Path(package.origin).parent
    yield own / "more"  # in a checkout
    yield own


def ranked() -> list[str]:
    """Return the names of the shipped models, sorted by SDR on the validation songs, the best one first.

    The SDR is a mean over stems. Test songs are not used to choose a model.
    """
    return sorted(available(), key=lambda name: -_mean_sdr(read_card(name)))


def _mean_sdr(card: ModelCard) -> float:
    measured = card.scores.get("valid", {}).get(card.mask, {})
    ratios = [measured.get(stem, {}).get("sdr_db") for stem in card.stems]
    return -math.inf if None in ratios else sum(ratios) / len(ratios)


def find(model: str | os.PathLike[str]) -> Path:
    """Return the weights file of a model given by name or by path, or of the `best` one.

    Raises:
        UnknownModel: no shipped model or file has this name, or the model is in a package that is not
            installed.
    """
    shipped = available()
    if str(model) == BEST:
        return shipped[ranked()[0]]
    if str(model) in shipped:
        return shipped[str(model)]
    path = Path(model)
    named = isinstance(model, Path) or path.suffix == SUFFIX
    if named and os.path.isfile(path):  # False, not an error, for an invalid name
        return path
    if str(model) in MORE:
        said = f"The model `{model}` is in the package {MODELS_DISTRIBUTION}, which is not installed"
        raise UnknownModel(said, install_models())
    raise UnknownModel(
        f"No model called `{model}`",
        f"choose one of {', '.join([*shipped, *installed.names()])}, give a {SUFFIX} file, or see "
        "`stemsplit models` for the models of other packages",
    )


def read_card(model: str | os.PathLike[str]) -> ModelCard:
    """Return the card in a weights file's header, without reading its tensors.

    Raises:
        UnknownModel: there is no such model.
        BadWeights: the file is not a weights file of this program.
    """
    path = find(model)
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(HEADER_LIMIT, path.stat().st_size - 8):
                raise ValueError("its header is longer than it may be")
            header = json.loads(file.read(length))
        card = ModelCard.from_facts(json.loads(header["__metadata__"]["stemsplit"]))
    except _NO_CARD as error:
        raise BadWeights(
            f"`{path}` is not a weights file of stemsplit: {str(error)[:200]}",
            "get a fresh copy of the file, or train a new one",
        ) from error
    return card


def is_ours(path: Path) -> bool:
    """Whether a safetensors file has a card of stemsplit."""
    try:
        read_card(path)
    except BadWeights as error:
        return not isinstance(error.__cause__, KeyError)  # a damaged card also counts
    return True


def load(model: str | os.PathLike[str], parts: Sequence[str]) -> dict[str, dict[str, Tensor]]:
    """Return the float32 tensors of some of a model's networks, by part: a stem, or `network` for all.

    Raises:
        UnknownModel: there is no such model.
        BadWeights: the file is damaged, or contains numbers that are not finite.
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
        raise BadWeights(f"`{path}` is damaged: {error}", "get a fresh copy of the file") from error
    if not all(torch.isfinite(tensor).all() for tensors in found.values() for tensor in tensors.values()):
        raise BadWeights(f"`{path}` contains numbers that are not finite", "get a fresh copy of the file")
    return found


def save(path: Path, card: ModelCard, networks: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write the tensors of all networks and the card to one file, atomically."""
    import torch
    from safetensors.torch import save_file

    tensors = {
        # Integers count the training batches, and exceed the range of float16: they become 0.
        f"{part}.{name}": (tensor.detach().cpu() * tensor.is_floating_point()).to(torch.float16).contiguous()
        for part, network in networks.items()
        for name, tensor in network.items()
    }
    with writing(path) as part:
        save_file(tensors, part, {"stemsplit": json.dumps(asdict(card))})
        part.chmod(0o644)  # safetensors makes it readable by the owner only
