"""The files of a training run: log, learning curves and checkpoint."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stemsplit.errors import StemsplitError
from stemsplit.training import checkpoint, curves
from stemsplit.training.loop import Progress, Trainer

LOG_STEPS = 50
SAVE_SECONDS = 60
SHOW_SECONDS = 0.5

LogEntry = dict[str, Any]
"""The metrics of a step: `step`, `seconds`, `done` (0 to 1), `seconds_left`, `frames_per_second`; for each
network, `loss`, `accuracy`, `learning_rate` and, after a validation, `valid` with all measures. Losses and
accuracies are means since the last log entry."""
Display = Callable[[LogEntry, bool], None]
"""Called with logged entries and, at most twice per second, others; the flag is True if logged."""


class TrainingLogger:
    """Logs every 50 steps; logs, draws curves and saves after each validation; saves every minute."""

    def __init__(self, trainer: Trainer, run: Path, display: Display) -> None:
        self.trainer, self.run, self.display = trainer, run, display
        self.log = run / "log.jsonl"
        # A killed run can have logged steps after its last checkpoint.
        entries = [entry for entry in read(self.log) if entry["step"] <= trainer.step]
        self.log.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
        self.recent: list[Progress] = []
        self.saved = self.shown = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        """Record a step.

        Raises:
            StemsplitError: a loss is not finite.
        """
        self.recent.append(progress)
        now = time.monotonic()
        logged = bool(progress.valid) or progress.step % LOG_STEPS == 0
        if logged or now - self.shown > SHOW_SECONDS:
            entry = self._entry(progress)
            if lost := [stem for stem, loss in entry["loss"].items() if not math.isfinite(loss)]:
                raise StemsplitError(
                    f"The loss of {', '.join(lost)} is no longer finite", "lower --learning-rate"
                )
            if logged:
                self._write(entry)
            self.display(entry, logged)
            self.shown = now
        if progress.valid or now - self.saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write a checkpoint."""
        checkpoint.save(self.trainer, self.run / "checkpoint.safetensors")
        self.saved = time.monotonic()

    def _write(self, entry: LogEntry) -> None:
        with self.log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")
        self.recent.clear()
        if "valid" in entry:
            curves.draw(read(self.log), self.run / "curves.png")

    def _entry(self, progress: Progress) -> LogEntry:
        examples = self.trainer.samplers.training.size * self.trainer.fabric.world_size
        seconds = sum(each.seconds for each in self.recent) / len(self.recent)
        frames = examples * self.trainer.frames
        entry = {
            "step": progress.step,
            "seconds": round(self.trainer.seconds, 1),
            "done": round(min(1.0, self.trainer.done), 4),
            "seconds_left": round(self._seconds_left(seconds)),
            "frames_per_second": round(frames / max(seconds, 1e-9)),
            "loss": self._mean("loss"),
            "accuracy": self._mean("accuracy"),
            "learning_rate": _rounded(progress.learning_rate, 8),
        }
        if progress.valid:
            entry["valid"] = {stem: _rounded(scores, 4) for stem, scores in progress.valid.items()}
        return entry

    def _seconds_left(self, seconds: float) -> float:
        """Return the remaining training time, at `seconds` per step."""
        recipe = self.trainer.recipe
        if recipe.minutes:
            return max(0.0, 60 * recipe.minutes - self.trainer.seconds)
        return seconds * (recipe.steps - self.trainer.step)

    def _mean(self, measure: str) -> dict[str, float]:
        values = [getattr(progress, measure) for progress in self.recent]
        # Without networks whose training has stopped since the last entry.
        means = {stem: sum(float(each[stem]) for each in values) / len(values) for stem in values[-1]}
        return _rounded(means, 4)


def read(log: Path) -> list[LogEntry]:
    """Return the entries of a log, without an incomplete last line."""
    entries = []
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else []:
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return entries


def _rounded(values: dict[str, float], digits: int) -> dict[str, float]:
    return {name: round(value, digits) for name, value in values.items()}
