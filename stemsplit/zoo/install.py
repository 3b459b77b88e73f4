"""Installing and removing third-party models."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stemsplit import spatial
from stemsplit.errors import BadWeights, EncodeError, UnknownModel, UsageError
from stemsplit.files.claims import claim, writing
from stemsplit.files.digest import sha256
from stemsplit.missing import not_found
from stemsplit.options import RuntimeOptions
from stemsplit.separation.segments import CHANNELS
from stemsplit.zoo import foreign, installed, store, tensors
from stemsplit.zoo.installed import InstalledCard

RESERVED = ("add", "remove")


def add(file: Path, name: str | None = None, config: Path | None = None) -> InstalledCard:
    """Copy a model's file into the folder of installed models, and try it on a segment of noise.

    `config` is the description of the model, if the file has none.

    Raises:
        UsageError: the name cannot be used.
        BadWeights: the file cannot be used, or does not match its description.
        DeviceUnavailable: no package that runs such a file is installed.
        EncodeError: the file cannot be copied.
    """
    for path in filter(None, (file, config)):
        if not os.path.isfile(path):
            raise not_found(path)
    name = name or file.stem
    check_name(name)
    kind = _kind(file)
    target = installed.folder() / f"{name}{foreign.kind(kind).SUFFIX}"
    page = target.with_name(f"{name}{installed.SUFFIX}")
    with _hints(), claim([page]):
        check_name(name)  # another program may have added it in the meantime
        with writing(target) as part:
            card = _card(kind, file, part, {"name": name, "file": target.name}, config)
        try:
            with writing(page, force=False) as part:
                part.write_text(installed.dump(card), encoding="utf-8")
        except BaseException:
            target.unlink(missing_ok=True)
            raise
    return card


@contextlib.contextmanager
def _hints() -> Iterator[None]:
    """In hints, replace `--out`, an option of other commands, with the models folder's variable."""
    try:
        yield
    except EncodeError as error:
        error.hint = (error.hint or "").replace("--out", installed.FOLDER_VARIABLE)
        raise


def check_name(name: str) -> None:
    """Raise UsageError for a name that a new model cannot have."""
    if not installed.is_name(name):
        raise UsageError(
            f"A model cannot be called `{name}`",
            "choose a --name of letters, digits, `.`, `_` and `-`, 64 at most",
        )
    own = (*store.available(), *store.MORE, store.BEST, *spatial.METHODS)
    if name in RESERVED or name in own:
        raise UsageError(f"`{name}` is a reserved name", "choose another --name")
    if installed.is_installed(name):
        raise UsageError(
            f"A model called {name} is already installed",
            f"choose another --name, or first run `stemsplit models remove {name}`",
        )


def remove(name: str) -> InstalledCard | None:
    """Remove an installed model, and return its card, if it could be read.

    Raises:
        UsageError: it is a shipped model.
        UnknownModel: it is not installed.
        EncodeError: it cannot be removed.
    """
    if name in store.available() or name in spatial.METHODS:
        raise UsageError(f"{name} is part of stemsplit", "only installed models can be removed")
    if not installed.is_installed(name):
        there = installed.names()
        hint = f"there are {', '.join(there)}" if there else "there are none"
        raise UnknownModel(f"No model called `{name}` is installed", hint)
    card = None
    with contextlib.suppress(BadWeights):
        card = installed.read(name)
    folder = installed.folder()
    with _hints(), claim([folder / f"{name}{installed.SUFFIX}"]):
        (folder / f"{name}{installed.SUFFIX}").unlink(missing_ok=True)
        if card:
            (folder / card.file).unlink(missing_ok=True)
    return card


def _kind(file: Path) -> str:
    """Return the kind of a file, from its suffix, and from its header if it is a safetensors file."""
    suffix = file.suffix.lower()
    if suffix == ".onnx":
        return "onnx"
    if suffix == store.SUFFIX and store.is_ours(file):
        return "stemsplit"
    if suffix in tensors.SUFFIXES:
        return "msst"
    raise BadWeights(
        f"`{file}` is not a supported model",
        "give an .onnx file, or a checkpoint and its YAML file",
    )


def _card(kind: str, file: Path, part: Path, own: dict[str, Any], config: Path | None) -> InstalledCard:
    """Copy a file, try it, and return its card."""
    try:
        facts = foreign.kind(kind).adopt(file, part, config)
        with part.open("rb") as copied:
            own |= {"kind": kind, "sha256": sha256(copied)}
        card = InstalledCard.from_facts({"origin": file.name, **facts, **own})
        return replace(card, speed=_trial(card, part))
    except BadWeights as error:  # the error names the copy
        raise BadWeights(error.message.replace(str(part), str(file)), error.hint) from error
    except ValueError as error:
        raise BadWeights(
            f"`{file}` does not match its description: {error}", foreign.kind(kind).HINT
        ) from error


def _trial(card: InstalledCard, path: Path) -> float:
    """Return the speed of the model for a segment of noise, in multiples of real time.

    Raises:
        ValueError: it does not run, or its stems have another shape or are not finite.
    """
    network, execution = foreign.kind(card.kind).load(card, path, RuntimeOptions())
    noise = np.random.default_rng(0).normal(0, 0.1, (CHANNELS, card.segment)).astype(np.float32)
    began = time.perf_counter()
    try:
        stems = network(noise)
    except (RuntimeError, TypeError, IndexError, AssertionError) as error:  # e.g. a wrong segment length
        said = str(error).partition("\n")[0][:200]
        raise ValueError(f"it does not run on a segment of {card.segment} samples: {said}") from error
    elapsed = (time.perf_counter() - began) / execution.workers
    if stems.shape != (len(card.outputs), *noise.shape):
        raise ValueError(f"its stems have the shape {stems.shape}")
    if not np.isfinite(stems).all():
        raise ValueError("its samples are not finite")
    return round((1 - card.overlap) * card.segment / card.sample_rate / elapsed, 2)
