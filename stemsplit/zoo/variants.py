"""The kinds of models that a name can refer to.

Trained    a shipped model, the `best` of them, or a weights file
Installed  a third-party model in the models folder
Plugin     a model of another package, see `stemsplit.zoo.plugins`
Ensemble   several of these joined by `+`: the mean of their stems
Spatial    a method of `stemsplit.spatial`, which is fitted to each track
"""

# ruff: noqa: D102 (ModelRef documents what its variants implement)
from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemsplit import spatial
from stemsplit.errors import UsageError
from stemsplit.files.digest import sha256
from stemsplit.networks import registry
from stemsplit.options import RuntimeOptions
from stemsplit.zoo import installed, page, store
from stemsplit.zoo.card import MASKS, ModelCard
from stemsplit.zoo.installed import InstalledCard
from stemsplit.zoo.ref import ForeignRef, ModelRef

if TYPE_CHECKING:
    from stemsplit.dsp.stft import Stft
    from stemsplit.separation.separator import FittedMethod, Method, Separator
    from stemsplit.zoo.plugins import Plugin


def parse(text: str, sources: int | None, azimuths: tuple[float, ...]) -> ModelRef:
    """Look up a name. For errors, see `ModelRef.parse`."""
    if text in spatial.METHODS:
        return Spatial(text, sources, azimuths)
    if sources is not None or azimuths:
        methods = ", ".join(spatial.METHODS)
        raise UsageError(f"`{text}` has fixed stems", f"--sources and --azimuth are for {methods}")
    if "+" not in text or os.path.isfile(text):
        return _single(text)
    return Ensemble(text, tuple(map(_single, text.split("+"))))


def needs_plugin(text: str) -> bool:
    """Whether a name, or one of several joined by `+`, refers to another package's model."""
    names = [text] if os.path.isfile(text) else text.split("+")
    return any(_is_plugin(name) for name in names)


def _is_plugin(name: str) -> bool:
    own = (*store.available(), *store.MORE, store.BEST, *spatial.METHODS)
    if name in own or installed.is_installed(name) or os.path.isfile(name):
        return False
    from stemsplit.zoo import plugins

    return plugins.is_offered(name)


def _single(name: str) -> Trained | Installed | Plugin:
    """Look up one trained model."""
    if _is_plugin(name):
        from stemsplit.zoo import plugins

        return plugins.find(name)
    if name in (*store.available(), store.BEST) or not installed.is_installed(name):
        return Trained.find(name)
    card = installed.read(name)
    if card.kind == "stemsplit":
        return Trained.at(installed.weights(card), name)
    return Installed(name, card)


@dataclass(frozen=True)
class Trained(ModelRef):
    """One weights file and its card."""

    text: str
    path: Path
    card: ModelCard
    fits_each_track = False

    @classmethod
    def find(cls, model: str | os.PathLike[str]) -> Trained:
        """Look up a shipped model, `best`, or a weights file.

        Raises:
            UnknownModel, BadWeights: see `ModelRef.parse`.
        """
        return cls.at(store.find(model), str(model))

    @classmethod
    def at(cls, path: Path, text: str) -> Trained:
        """Return the model of a weights file. Raises BadWeights if it is not one."""
        return cls(text, path, store.read_card(path))

    @property
    def name(self) -> str:
        return self.card.name

    @property
    def stems(self) -> tuple[str, ...]:
        return self.card.stems

    @property
    def sample_rate(self) -> int:
        return self.card.sample_rate

    @cached_property
    def fingerprint(self) -> str:
        with self.path.open("rb") as file:
            return sha256(file)

    @property
    def masks(self) -> tuple[str, ...]:
        return () if registry.find(self.card.network).predicts_waveforms else MASKS

    @property
    def system(self) -> str:
        return self.card.mask

    @property
    def threshold(self) -> float:
        return self.card.threshold

    @property
    def stft(self) -> Stft:
        from stemsplit.dsp.stft import Stft

        return Stft(self.card.n_fft, self.card.hop_length)

    @property
    def bins(self) -> int:
        return registry.find(self.card.network).bins if self.masks else self.stft.bins

    def describe(self) -> str:
        return page.page(self.card)

    def facts(self) -> dict[str, Any]:
        return {**asdict(self.card), "path": self.path}

    def _load(self, running: RuntimeOptions, stems: tuple[str, ...], mask: str | None) -> Separator:
        from stemsplit.zoo import separators

        refuse_segments(self.name, running)
        return separators.load(self.card, self.path, stems, mask, running)


@dataclass(frozen=True)
class Installed(ForeignRef):
    """An installed third-party model: its weights file and the JSON file that describes it."""

    text: str
    card: InstalledCard
    segmented = True

    @property
    def fingerprint(self) -> str:
        return installed.fingerprint(self.card)

    def describe(self) -> str:
        return installed.page(self.card)

    def facts(self) -> dict[str, Any]:
        return {**asdict(self.card), "stems": self.stems, "path": installed.folder() / self.card.file}

    def _load(self, running: RuntimeOptions, stems: tuple[str, ...], mask: str | None) -> Method:
        from stemsplit.zoo import foreign

        foreign.refuse_options(self.name, running, mask)
        return foreign.load(self.card, installed.weights(self.card), stems, running)


def refuse_segments(name: str, running: RuntimeOptions) -> None:
    """Raise UsageError for options of segmented models."""
    if running.overlap is not None or running.shifts > 1:
        raise UsageError(f"{name} does not use overlapping segments", "leave out --overlap and --shifts")


@dataclass(frozen=True)
class Ensemble(ModelRef):
    """The mean of several models' stems. Raises UsageError if they have different stems or sample rates."""

    text: str
    members: tuple[Trained | Installed | Plugin, ...]
    masks = ()
    system = "mean"

    def __post_init__(self) -> None:
        first, *others = self.members
        for other in others:
            if (set(other.stems), other.sample_rate) != (set(first.stems), first.sample_rate):
                raise UsageError(
                    f"{first.name} and {other.name} have different stems or sample rates",
                    "choose models with the same stems and sample rate, see `stemsplit models`",
                )

    @property
    def stems(self) -> tuple[str, ...]:
        return self.members[0].stems

    @property
    def sample_rate(self) -> int:
        return self.members[0].sample_rate

    @property
    def fingerprint(self) -> str:
        return "+".join(member.fingerprint for member in self.members)

    @property
    def threshold(self) -> float:
        return self.members[0].threshold

    @property
    def stft(self) -> Stft:
        return self.members[0].stft

    def describe(self) -> str:
        return "\n".join(member.describe() for member in self.members)

    def facts(self) -> dict[str, Any]:
        return {"name": self.name, "members": [member.facts() for member in self.members]}

    @property
    def fits_each_track(self) -> bool:
        return any(member.fits_each_track for member in self.members)

    @property
    def segmented(self) -> bool:
        return any(member.segmented for member in self.members)

    def _load(self, running: RuntimeOptions, stems: tuple[str, ...], mask: str | None) -> Method:
        from stemsplit.separation.compose import ensemble

        return ensemble([self._member(each, running, stems, mask) for each in self.members])

    def _member(
        self,
        member: Trained | Installed | Plugin,
        running: RuntimeOptions,
        stems: tuple[str, ...],
        mask: str | None,
    ) -> Method:
        if self.segmented and not member.segmented:
            running = replace(running, overlap=None, shifts=1)
        return member._load(running, stems, mask)


@dataclass(frozen=True)
class Spatial(ModelRef):
    """A method that finds sources by their position in the stereo image."""

    text: str
    sources: int | None = None
    azimuths: tuple[float, ...] = ()
    sample_rate = None
    fits_each_track = True
    blind = True
    masks = ()
    system = "spatial"
    threshold = 0.5

    @property
    def title(self) -> str:
        """A short description."""
        return spatial.METHODS[self.text].title

    @property
    def stems(self) -> tuple[str, ...]:
        return self._method.stems

    @property
    def fingerprint(self) -> str:
        return self.text

    def describe(self) -> str:
        return import_module(f"stemsplit.spatial.{spatial.METHODS[self.text].module}").__doc__ or ""

    def facts(self) -> dict[str, Any]:
        return {"name": self.name, "title": self.title, "sources": spatial.METHODS[self.text].sources}

    def _load(self, running: RuntimeOptions, stems: tuple[str, ...], mask: str | None) -> FittedMethod:
        refuse_segments(self.name, running)
        return self._method

    @cached_property
    def _method(self) -> FittedMethod:
        return spatial.build(self.text, self.sources, self.azimuths)
