"""Scores of several models side by side, on the same songs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from stemsplit.datasets.songs import Song
from stemsplit.errors import UsageError
from stemsplit.evaluation.bsseval import Pool
from stemsplit.evaluation.evaluate import EvaluationPlan, SongScores, stems_of
from stemsplit.options import RuntimeOptions
from stemsplit.zoo.ref import ModelRef


@dataclass(frozen=True)
class Comparison:
    """Several models; the first plan includes the mixture and the oracles. System names are unique."""

    plans: tuple[EvaluationPlan, ...]

    @property
    def name(self) -> str:
        """The names of all models."""
        return " and ".join(plan.name for plan in self.plans)

    @property
    def stems(self) -> tuple[str, ...]:
        """The stems, which are the same for all models."""
        return self.plans[0].stems

    @property
    def threshold(self) -> float:
        """T of the first model's binary mask, and of the oracles."""
        return self.plans[0].threshold

    @classmethod
    def of(
        cls,
        refs: Sequence[ModelRef],
        running: RuntimeOptions,
        *,
        masks: Sequence[str] = (),
        oracles: Sequence[str] = (),
        mixture: bool = True,
        held: Collection[str] | None = None,
    ) -> Comparison:
        """Load several models; for the options, see `EvaluationPlan.of`.

        A system is called `MODEL (MASK)`. The oracles use the STFT of the first model.

        Raises:
            UsageError: the models have different stems.
            StemsplitError: see `ModelRef.load`.
        """
        for ref in refs:
            if stems_of(ref, held) != stems_of(refs[0], held):
                raise UsageError(
                    f"{refs[0].name} and {ref.name} have different stems", "evaluate them one by one"
                )
        names = [ref.name for ref in refs]
        if len(set(names)) < len(names):  # e.g. copies of one model
            names = [ref.text for ref in refs]
        plans = []
        for number, (ref, name) in enumerate(zip(refs, names, strict=True)):
            plan = EvaluationPlan.of(
                ref,
                running,
                masks=masks,
                oracles=() if number else oracles,
                mixture=mixture and not number,
                held=held,
            )
            renamed = {f"{name} ({mask})": each for mask, each in plan.separators.items()}
            plans.append(replace(plan, name=name, separators=renamed))
        return cls(tuple(plans))

    def measure(self, split: str, song: Song, pool: Pool | None = None) -> SongScores:
        """Return the scores of a song, with all models first, and without mask accuracy."""
        found = SongScores(split, song.name)
        for plan in self.plans:
            found.systems.update(plan.measure(split, song, pool).systems)
        found.systems.pop("bins", None)
        separated = [name for plan in self.plans for name in plan.separators]
        ordered = {name: found.systems.pop(name) for name in separated}
        return replace(found, systems=ordered | found.systems)
