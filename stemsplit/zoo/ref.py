"""Which model: what a user names to separate with, looked up once.

Trained   a shipped model, the `best` of them, or a weights file
Ensemble  several of these joined by `+`: the mean of their stems
Spatial   a method of `stemsplit.spatial`, which is fitted to each track
"""

# ruff: noqa: D102 (ModelRef documents what its variants implement)
from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemsplit import spatial
from stemsplit.errors import UnknownStem, UsageError
from stemsplit.files.digest import sha256
from stemsplit.missing import no_stem
from stemsplit.networks import registry
from stemsplit.options import refuse_exclusions
from stemsplit.zoo import page, store
from stemsplit.zoo.card import MASKS, ModelCard

if TYPE_CHECKING:
    from stemsplit.dsp.stft import Stft
    from stemsplit.options import RuntimeOptions, SplitOptions
    from stemsplit.separation import compose
    from stemsplit.separation.separator import FittedMethod, Method, Separator

RESIDUAL = "accompaniment"
"""The residual of `two_stems`: the mixture without the stem."""


class ModelRef(ABC):
    """What a user named to separate with. Only `load` reads tensors."""

    text: str
    """The name as the user gave it."""

    @staticmethod
    def parse(
        model: str | os.PathLike[str], sources: int | None = None, azimuths: Sequence[float] = ()
    ) -> ModelRef:
        """Look up a name: a shipped model, `best`, a weights file, several joined by `+`, a spatial method.

        A spatial method finds `sources` sources, or those at `azimuths` in degrees from -45 (left) to 45
        (right) and a rest.

        Raises:
            UnknownModel: no model has this name.
            BadWeights: the file is not a weights file of stemsplit.
            UsageError: the members of an ensemble do not match, or the model is trained for its stems.
        """
        text = str(model)
        if text in spatial.METHODS:
            return Spatial(text, sources, tuple(azimuths))
        if sources is not None or azimuths:
            methods = ", ".join(spatial.METHODS)
            raise UsageError(
                f"`{text}` was trained for its stems", f"--sources and --azimuth are for {methods}"
            )
        if "+" not in text or os.path.isfile(text):
            return Trained.find(text)
        return Ensemble(text, tuple(map(Trained.find, text.split("+"))))

    @staticmethod
    def of(split: SplitOptions) -> ModelRef:
        """Look up the model of a split. Raises as `parse`."""
        return ModelRef.parse(split.model, split.sources, split.azimuths)

    @property
    def name(self) -> str:
        """The model's own name."""
        return self.text

    @property
    @abstractmethod
    def stems(self) -> tuple[str, ...]:
        """All stems that it can give."""

    @property
    @abstractmethod
    def sample_rate(self) -> int | None:
        """The rate that it works at in Hz; None if it works at any."""

    @property
    @abstractmethod
    def fits_each_track(self) -> bool:
        """Whether it needs all of a track before it separates any, and makes up the names of its stems."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Differs from that of any other model, independently of names."""

    @property
    @abstractmethod
    def masks(self) -> tuple[str, ...]:
        """The masks to choose from; none if it gives stems without masks."""

    @property
    @abstractmethod
    def system(self) -> str:
        """The name of its stems in tables of scores: the default mask, if it has masks."""

    @property
    @abstractmethod
    def threshold(self) -> float:
        """T of the ideal binary mask B = (S > T * M)."""

    @property
    def stft(self) -> Stft:
        """The transform that ideal masks are made in."""
        from stemsplit.dsp.stft import Stft

        return Stft()

    @property
    def bins(self) -> int:
        """How many bins, from 0 Hz up, masks cover."""
        return self.stft.bins

    @abstractmethod
    def describe(self) -> str:
        """Return all that is known about it, in markdown."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return all that is known about it, for JSON."""

    def output_stems(
        self, stems: Sequence[str] | None = None, two_stems: str | None = None
    ) -> tuple[str, ...]:
        """Return the names of the stems that `load` would give. Raises UnknownStem as `load` does."""
        names = choose_stems(self.stems, _requested(stems, two_stems), self.name)
        return names if two_stems is None else (*names, RESIDUAL)

    def load(
        self,
        running: RuntimeOptions,
        *,
        stems: Sequence[str] | None = None,
        two_stems: str | None = None,
        mask: str | None = None,
    ) -> Method:
        """Return it ready to separate, or to be fitted to a track.

        Only the networks of the requested `stems` are loaded and run. With all stems the masks sum to one;
        with some, each stem is masked independently, unless one network gives all. `two_stems` gives one stem
        and the residual.

        Raises:
            BadWeights: a weights file is damaged.
            DeviceUnavailable: the requested device or runtime does not exist.
            UsageError: it has no such stem or mask.
        """
        if self.fits_each_track and (two_stems or mask):
            raise UsageError(f"{self.text} has no two stems, and masks of its own", "choose --stems")
        wanted = choose_stems(self.stems, _requested(stems, two_stems), self.name)
        method = self._load(running, wanted, mask)
        if two_stems is None:
            return method
        from stemsplit.separation.compose import WithResidual
        from stemsplit.separation.separator import FittedMethod

        assert not isinstance(method, FittedMethod)
        return WithResidual(method, RESIDUAL)

    @abstractmethod
    def _load(self, running: RuntimeOptions, stems: tuple[str, ...], mask: str | None) -> Method: ...


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
            UnknownModel, BadWeights: as of `ModelRef.parse`.
        """
        path = store.find(model)
        return cls(str(model), path, store.read_card(path))

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

        return separators.load(self.card, self.path, stems, mask, running)


@dataclass(frozen=True)
class Ensemble(ModelRef):
    """The mean of several models' stems. Raises UsageError if they have different stems or sample rates."""

    text: str
    members: tuple[Trained, ...]
    fits_each_track = False
    masks = ()
    system = "mean"

    def __post_init__(self) -> None:
        first, *others = self.members
        for other in others:
            if (other.stems, other.sample_rate) != (first.stems, first.sample_rate):
                raise UsageError(
                    f"{first.name} and {other.name} have other stems, or work at other sample rates",
                    "choose models that are alike in both, see `stemsplit models`",
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

    def _load(self, running: RuntimeOptions, stems: tuple[str, ...], mask: str | None) -> compose.Ensemble:
        from stemsplit.separation import compose

        return compose.Ensemble(tuple(member._load(running, stems, mask) for member in self.members))


@dataclass(frozen=True)
class Spatial(ModelRef):
    """A method that finds sources by their position in the stereo image."""

    text: str
    sources: int | None = None
    azimuths: tuple[float, ...] = ()
    sample_rate = None
    fits_each_track = True
    masks = ()
    system = "by place"
    threshold = 0.5

    @property
    def title(self) -> str:
        """What it is, in a few words."""
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
        return self._method

    @cached_property
    def _method(self) -> FittedMethod:
        return spatial.build(self.text, self.sources, self.azimuths)


def trained_models() -> list[Trained]:
    """Return the shipped models, that with the highest SDR on the validation songs first."""
    return [Trained.find(name) for name in store.ranked()]


def spatial_methods() -> list[Spatial]:
    """Return the methods that are fitted to each track."""
    return [Spatial(name) for name in spatial.METHODS]


def names() -> tuple[str, ...]:
    """Return the names that `ModelRef.parse` knows, apart from paths."""
    return (*store.available(), store.BEST, *spatial.METHODS)


def choose_stems(available: tuple[str, ...], stems: Sequence[str] | None, model: str) -> tuple[str, ...]:
    """Return the requested stems in the model's order; all of them for None.

    Raises:
        UnknownStem: no stem is requested, or one that the model does not have.
    """
    if isinstance(stems, str):
        raise ValueError(f"stems must be a list of names, got {stems!r}")
    requested = available if stems is None else tuple(stems)
    if not requested:
        raise UnknownStem("No stems were asked for", f"choose from {', '.join(available)}")
    for name in requested:
        if name not in available:
            raise no_stem(name, available, f"in {model}")
    return tuple(name for name in available if name in requested)


def _requested(stems: Sequence[str] | None, two_stems: str | None) -> Sequence[str] | None:
    refuse_exclusions({"stems": stems, "two_stems": two_stems})
    return stems if two_stems is None else [two_stems]
