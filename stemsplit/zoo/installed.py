"""Installed third-party models: a weights file, and a JSON file that describes it, in the models folder.

`NAME.json` contains the facts that `NAME.onnx` or `NAME.safetensors` lacks: the names of the stems, the
segment, the transform, the licence, and the digest of the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from stemsplit.errors import BadWeights
from stemsplit.files.digest import sha256

FOLDER_VARIABLE = "STEMSPLIT_MODELS_DIR"
SUFFIX = ".json"
FORMAT = 1
"""Version of the JSON format. Later versions of stemsplit can use a higher one."""
KINDS = ("onnx", "msst", "stemsplit")
LONGEST_SECONDS = 60
REST = "rest"
"""Name of the residual of a stem that has no counterpart."""
MOST_CHARACTERS = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")
_STEM = re.compile(r"[\w-]{1,64}")
_WORDS = ("name", "file", "title", "licence", "origin", "speed")
"""Facts that do not influence the stems."""
_USUAL = ("vocals", "drums", "bass", "other")
"""The order of stems, independent of the network's output order; other stems follow."""


@dataclass(frozen=True)
class InstalledCard:
    """The card of an installed model.

    Raises:
        ValueError: a fact is out of range.
    """

    name: str
    file: str
    """The name of the weights file, in the same folder."""
    sha256: str
    kind: str
    """The kind of the file: one of KINDS."""
    outputs: tuple[str, ...]
    """The stems that the network estimates, in the order of its outputs."""
    residual: str = ""
    """The stem that gets the mixture minus the estimates; empty: all stems get equal parts of it."""
    sample_rate: int = 44_100
    segment: int = 0
    """Length of a segment in samples."""
    overlap: float = 0.25
    """Overlap of segments, as a fraction."""
    normalize: bool = False
    """Whether the network expects a track with mean 0 and standard deviation 1."""
    half: bool = False
    """Whether bfloat16 is as good as float32."""
    title: str = ""
    licence: str = "unknown"
    origin: str = ""
    speed: float = 0.0
    """Speed in multiples of real time, on the machine that added it."""
    format: int = FORMAT
    network: dict[str, Any] = field(default_factory=dict)
    """Additional facts for this kind."""

    def __post_init__(self) -> None:
        for each in fields(self):
            _check_type(each.name, getattr(self, each.name), each.type)
        if self.format != FORMAT:
            raise ValueError(f"format {self.format} belongs to another version of stemsplit")
        if not _NAME.fullmatch(self.name) or Path(self.file).name != self.file:
            raise ValueError(f"a model cannot be called {self.name!r}, or its file {self.file!r}")
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r} must be one of {', '.join(KINDS)}")
        for stem in (*self.outputs, *filter(None, [self.residual])):
            if not _STEM.fullmatch(stem):
                raise ValueError(f"a stem cannot be called {stem!r}")
        if not self.outputs or len(set(self.outputs)) < len(self.outputs) or len(self.outputs) > 64:
            raise ValueError("outputs must be different names, 64 at most")
        if len(self.stems) < 2 and self.kind != "stemsplit":
            raise ValueError("a model with one stem needs a residual")
        if not 4_000 <= self.sample_rate <= 400_000:
            raise ValueError(f"sample_rate={self.sample_rate} is out of range")
        if not 0 <= self.overlap <= 0.95:
            raise ValueError(f"overlap={self.overlap} must be from 0 to 0.95")
        if self.kind != "stemsplit" and not 256 <= self.segment <= LONGEST_SECONDS * self.sample_rate:
            raise ValueError(f"segment={self.segment} must be 256 samples to {LONGEST_SECONDS} s")

    @property
    def stems(self) -> tuple[str, ...]:
        """All stems, in the usual order."""
        return in_usual_order(self.outputs, self.residual)

    @classmethod
    def from_facts(cls, facts: Any) -> InstalledCard:
        """Return the card for a JSON object.

        Raises:
            ValueError: it is not a valid object, or has keys that are unknown, missing or of another type.
        """
        if not isinstance(facts, dict):
            raise ValueError("it is not a JSON object")
        known = {each.name: each for each in fields(cls)}
        if unknown := sorted(facts.keys() - known.keys()):
            raise ValueError(f"there is no key {', '.join(map(repr, unknown))}")
        needed = {name for name, each in known.items() if MISSING is each.default is each.default_factory}
        if missing := sorted(needed - facts.keys()):
            raise ValueError(f"{', '.join(missing)}: missing")
        outputs = facts["outputs"]
        return cls(**{**facts, "outputs": tuple(outputs) if isinstance(outputs, list) else outputs})


def in_usual_order(outputs: tuple[str, ...], residual: str) -> tuple[str, ...]:
    """Return the stems in the usual order: the outputs, and the residual if it is not one of them."""
    names = outputs if residual in ("", *outputs) else (*outputs, residual)
    return (*(name for name in _USUAL if name in names), *(name for name in names if name not in _USUAL))


_TYPES: dict[object, Any] = {
    **{"str": str, "int": int, "bool": bool, "float": (int, float), "tuple[str, ...]": tuple}
}


def _check_type(name: str, value: Any, annotation: Any) -> None:
    kind = _TYPES.get(annotation, dict)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{name}={value!r} is not of the right type")
    if isinstance(value, tuple) and not all(isinstance(each, str) for each in value):
        raise ValueError(f"{name} must be names")


def residual_of(outputs: Sequence[str]) -> str:
    """Return the default residual stem of some outputs.

    A single output gets a separate residual: `instrumental` for vocals, and vice versa. Several outputs get
    equal parts of it: on the validation songs, each stem of HT Demucs is 0.01 to 0.12 dB better than if
    `other` gets all.
    """
    if len(outputs) > 1:
        return ""
    return {"vocals": "instrumental", "instrumental": "vocals"}.get(outputs[0], REST)


def folder() -> Path:
    """Return the folder of installed models: `STEMSPLIT_MODELS_DIR`, or the platform's default."""
    if named := os.environ.get(FOLDER_VARIABLE):
        return Path(os.path.expanduser(named))
    home = Path(os.path.expanduser("~"))
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "stemsplit" / "models"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "stemsplit" / "models"
    return Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "stemsplit" / "models"


def names() -> list[str]:
    """Return the names of the installed models."""
    try:
        entries = sorted(folder().iterdir())
    except OSError:
        return []
    return [path.stem for path in entries if path.suffix == SUFFIX and _NAME.fullmatch(path.stem)]


def is_name(name: str) -> bool:
    """Whether this is a valid name for a model."""
    return bool(_NAME.fullmatch(name))


def is_installed(name: str) -> bool:
    """Whether a model of this name is installed."""
    return is_name(name) and os.path.isfile(folder() / f"{name}{SUFFIX}")


def read(name: str) -> InstalledCard:
    """Return the card of an installed model.

    Raises:
        BadWeights: its JSON file cannot be read, or is not valid.
    """
    path = folder() / f"{name}{SUFFIX}"
    try:
        card = InstalledCard.from_facts(json.loads(_text(path)))
        if card.name != name:
            raise ValueError(f"it describes {card.name}")
    except (OSError, ValueError, RecursionError) as error:
        hint = f"remove it with `stemsplit models remove {name}`, and add it again"
        raise BadWeights(f"`{path}` does not describe a model: {str(error)[:200]}", hint) from error
    return card


def _text(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        text = file.read(MOST_CHARACTERS + 1)
    if len(text) > MOST_CHARACTERS:
        raise ValueError("it is too long")
    return text


def weights(card: InstalledCard) -> Path:
    """Return the weights file of an installed model, after checking its digest.

    Raises:
        BadWeights: it is missing, or is not the file that was added.
    """
    path = folder() / card.file
    try:
        with path.open("rb") as file:
            same = sha256(file) == card.sha256
    except OSError as error:
        raise BadWeights(f"Cannot read `{path}`: {error.strerror}", _again(card.name)) from error
    if not same:
        raise BadWeights(f"`{path}` is not the file that was installed as {card.name}", _again(card.name))
    return path


def _again(name: str) -> str:
    return f"remove the model with `stemsplit models remove {name}`, and add it again"


def dump(card: InstalledCard) -> str:
    """Return the JSON file of a card."""
    return json.dumps(asdict(card), indent=2, ensure_ascii=False) + "\n"


def fingerprint(card: InstalledCard) -> str:
    """Return a digest of the file and the facts of an installed model, which identifies it."""
    facts = {name: value for name, value in asdict(card).items() if name not in _WORDS}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def page(card: InstalledCard) -> str:
    """Return the page of a model, in Markdown."""
    size = _size(folder() / card.file)
    rate, seconds = f"{card.sample_rate / 1000:g} kHz", card.segment / card.sample_rate
    facts = {
        "Stems": ", ".join(card.stems),
        "Residual": f"the mixture minus the estimates is added to {card.residual or 'all of them'}",
        "Input": f"{rate}, in segments of {seconds:.1f} s with an overlap of {card.overlap:.0%}",
        "Speed": f"{card.speed:g} x real time, on this machine when it was added",
        "File": f"`{card.file}`, {size}, SHA-256 {card.sha256}",
        "Origin": card.origin or "unknown",
        "Licence": card.licence,
    }
    title = [f"{card.title}."] if card.title else []
    lines = "\n".join(f"- **{name}**: {value}" for name, value in facts.items())
    return "\n\n".join([f"# {card.name}", *title, lines]) + "\n"


def _size(path: Path) -> str:
    try:
        return f"{path.stat().st_size / 1e6:.1f} MB"
    except OSError:
        return "missing"
