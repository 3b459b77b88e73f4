"""A model that splits a stem of another model further."""

# ruff: noqa: D102 (ModelRef documents what its variants implement)
from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from stemsplit.errors import UsageError
from stemsplit.missing import no_stem
from stemsplit.options import RuntimeOptions
from stemsplit.zoo.ref import ModelRef

if TYPE_CHECKING:
    from stemsplit.dsp.stft import Stft
    from stemsplit.separation.separator import Method


@dataclass(frozen=True)
class Chain(ModelRef):
    """Two models: the second splits a `stem` of the first into stems called `stem-part`.

    Raises:
        UnknownStem: the first has no such stem.
        UsageError: two stems would have the same name.
    """

    text: str
    first: ModelRef
    stem: str
    second: ModelRef
    masks = ()
    system = "chain"

    def __post_init__(self) -> None:
        if self.stem not in self.first.stems:
            raise no_stem(self.stem, self.first.stems, f"in {self.first.name}")
        if twice := {name for name in self.stems if self.stems.count(name) > 1}:
            raise UsageError(
                f"{self.text} would have {', '.join(sorted(twice))} twice", "choose another model"
            )

    @property
    def _parts(self) -> dict[str, str]:
        """The stems of the second model, by their names in the chain."""
        return {f"{self.stem}-{part}": part for part in self.second.stems}

    @cached_property
    def stems(self) -> tuple[str, ...]:
        parts = tuple(self._parts)
        return tuple(name for stem in self.first.stems for name in (parts if stem == self.stem else (stem,)))

    @property
    def sample_rate(self) -> int | None:
        return self.first.sample_rate

    @property
    def fits_each_track(self) -> bool:
        return self.first.fits_each_track or self.second.fits_each_track

    @property
    def blind(self) -> bool:
        return self.first.blind

    @property
    def segmented(self) -> bool:
        return self.first.segmented or self.second.segmented

    @property
    def fingerprint(self) -> str:
        return f"{self.first.fingerprint},{self.stem}={self.second.fingerprint}"

    @property
    def threshold(self) -> float:
        return self.first.threshold

    @property
    def stft(self) -> Stft:
        return self.first.stft

    def describe(self) -> str:
        return f"{self.first.describe()}\n{self.second.describe()}"

    def facts(self) -> dict[str, Any]:
        return {"name": self.name, "first": self.first.facts(), self.stem: self.second.facts()}

    def _load(self, running: RuntimeOptions, stems: tuple[str, ...], mask: str | None) -> Method:
        """Load both, or only the first if no part of the stem is requested. `mask` is for the first."""
        parts = self._parts
        wanted = tuple(name for name in stems if name in parts)
        kept = tuple(name for name in self.first.stems if name in stems or (wanted and name == self.stem))
        first = self.first._load(_suited(running, self.first, self.second), kept, mask)
        if not wanted:
            return first
        second_running = _suited(running, self.second, self.first)
        second = self.second._load(second_running, tuple(parts[name] for name in wanted), None)
        from stemsplit.separation.chain import chained

        return chained(first, second, self.stem, wanted)


def _suited(running: RuntimeOptions, ref: ModelRef, other: ModelRef) -> RuntimeOptions:
    """Return the options for one of two models, without those that only the other one supports."""
    if ref.segmented and not other.segmented:
        return replace(running, fast=False)
    if other.segmented and not ref.segmented:
        return replace(running, overlap=None, shifts=1)
    return running
