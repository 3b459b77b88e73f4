"""Model references: names of models given by users, looked up once.

The kinds of models are in `stemsplit.zoo.variants`.
"""

# ruff: noqa: D102 (ModelRef documents what its variants implement)
from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from stemsplit.errors import UnknownStem, UsageError
from stemsplit.exclusions import refuse_exclusions
from stemsplit.missing import no_stem

if TYPE_CHECKING:
    from stemsplit.dsp.stft import Stft
    from stemsplit.options import RuntimeOptions, SplitOptions
    from stemsplit.separation.separator import Method

RESIDUAL = "accompaniment"
"""The residual of `two_stems`: the mixture without the stem."""


class ModelRef(ABC):
    """A model that a user named. Only `load` reads tensors."""

    text: str
    """The name as the user gave it."""

    @staticmethod
    def parse(
        model: str | os.PathLike[str], sources: int | None = None, azimuths: Sequence[float] = ()
    ) -> ModelRef:
        """Look up a shipped or installed model, `best`, a weights file, `A+B`, or a spatial method.

        A spatial method finds `sources` sources, or sources at `azimuths` in degrees from -45 (left) to 45
        (right) and a residual.

        Raises:
            UnknownModel: no model has this name.
            BadWeights: the file is not a weights file of stemsplit.
            UsageError: the members of an ensemble do not match, or the model has fixed stems.
        """
        from stemsplit.zoo.variants import parse

        return parse(str(model), sources, tuple(azimuths))

    @staticmethod
    def of(split: SplitOptions) -> ModelRef:
        """Look up the models of a split. For errors, see `parse` and `then`."""
        return ModelRef.parse(split.model, split.sources, split.azimuths).then(split.then)

    def then(self, models: Mapping[str, str]) -> ModelRef:
        """Return a model that splits stems further: `models` maps stems to names of models.

        Raises:
            UnknownStem: there is no such stem.
            UsageError: two stems would have the same name.
            StemsplitError: see `parse`.
        """
        from stemsplit.zoo.chain import Chain

        ref = self
        for stem, model in models.items():
            ref = Chain(f"{ref.text}, then {stem}={model}", ref, stem, ModelRef.parse(model))
        return ref

    @property
    def name(self) -> str:
        """The name of the model."""
        return self.text

    @property
    @abstractmethod
    def stems(self) -> tuple[str, ...]:
        """All stems of the model."""

    @property
    @abstractmethod
    def sample_rate(self) -> int | None:
        """The sample rate of the model in Hz; None: any."""

    @property
    @abstractmethod
    def fits_each_track(self) -> bool:
        """Whether it needs the whole track before it can start."""

    @property
    def segmented(self) -> bool:
        """Whether it runs on overlapping segments: supports `overlap` and `shifts`, but not `fast`."""
        return False

    @property
    def blind(self) -> bool:
        """Whether its stems are sources found in each track, with generic names."""
        return False

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A value that identifies the model, independently of its name."""

    @property
    @abstractmethod
    def masks(self) -> tuple[str, ...]:
        """The available masking methods; none for models without masks."""

    @property
    @abstractmethod
    def system(self) -> str:
        """The name of the system in score tables: the default mask, if it uses masks."""

    @property
    @abstractmethod
    def threshold(self) -> float:
        """T of the ideal binary mask B = (S > T * M)."""

    @property
    def stft(self) -> Stft:
        """The transform for ideal masks."""
        from stemsplit.dsp.stft import Stft

        return Stft()

    @property
    def bins(self) -> int:
        """Number of bins, from 0 Hz up, that masks cover."""
        return self.stft.bins

    @abstractmethod
    def describe(self) -> str:
        """Return all facts about the model, in Markdown."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return all facts about the model, for JSON."""

    def output_stems(
        self, stems: Sequence[str] | None = None, two_stems: str | None = None
    ) -> tuple[str, ...]:
        """Return the names of the stems of the model that `load` returns. Raises UnknownStem like `load`."""
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
        """Load the model: a separator, or a method to fit to a track.

        Only the networks of the requested `stems` are loaded and run. With all stems, the masks sum to one.
        With some stems, each mask is independent, unless one network predicts all stems. `two_stems` gives
        one stem and the residual.

        Raises:
            BadWeights: a weights file is damaged.
            DeviceUnavailable: the requested device or runtime does not exist.
            UsageError: it has no such stem or mask.
        """
        if self.blind and (two_stems or mask):
            raise UsageError(f"{self.text} does not support --two-stems", "choose --stems")
        wanted = choose_stems(self.stems, _requested(stems, two_stems), self.name)
        method = self._load(running, wanted, mask)
        if two_stems is None:
            return method
        from stemsplit.separation.compose import with_residual

        return with_residual(method, RESIDUAL)

    @abstractmethod
    def _load(self, running: RuntimeOptions, stems: tuple[str, ...], mask: str | None) -> Method: ...


class ForeignCard(Protocol):
    """The common fields of the cards of third-party models."""

    @property
    def stems(self) -> tuple[str, ...]:
        """All stems, in the usual order."""

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz."""

    @property
    def normalize(self) -> bool:
        """Whether the network expects a track with mean 0 and standard deviation 1."""


class ForeignRef(ModelRef):
    """A third-party model, which returns stems without masks."""

    card: ForeignCard
    masks = ()
    system = "waveform"
    threshold = 0.5

    @property
    def stems(self) -> tuple[str, ...]:
        return self.card.stems

    @property
    def sample_rate(self) -> int:
        return self.card.sample_rate

    @property
    def fits_each_track(self) -> bool:
        return self.card.normalize


def choose_stems(available: tuple[str, ...], stems: Sequence[str] | None, model: str) -> tuple[str, ...]:
    """Return the requested stems in the model's order; all of them for None.

    Raises:
        UnknownStem: no stem is requested, or one that the model does not have.
    """
    if isinstance(stems, str):
        raise ValueError(f"stems must be a list of names, got {stems!r}")
    requested = available if stems is None else tuple(stems)
    if not requested:
        raise UnknownStem("No stems were requested", f"choose from {', '.join(available)}")
    for name in requested:
        if name not in available:
            raise no_stem(name, available, f"in {model}")
    return tuple(name for name in available if name in requested)


def _requested(stems: Sequence[str] | None, two_stems: str | None) -> Sequence[str] | None:
    refuse_exclusions({"stems": stems, "two_stems": two_stems})
    return stems if two_stems is None else [two_stems]
