"""Display of a run's progress: a live table, or one line per log entry."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING

from stemsplit.training.logger import LogEntry

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table


class Lines:
    """Prints each log entry as a line."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say

    def __call__(self, entry: LogEntry, logged: bool) -> None:
        """Print a logged entry."""
        if not logged:
            return
        stems = [
            f"{stem} loss {loss:.4f}" + _accuracy(entry, stem) + _validated(entry, stem)
            for stem, loss in entry["loss"].items()
        ]
        self.say("; ".join([summary(entry), *stems]))


def _accuracy(entry: LogEntry, stem: str) -> str:
    return f" accuracy {entry['accuracy'][stem]:.3f}" if stem in entry["accuracy"] else ""


def _validated(entry: LogEntry, stem: str) -> str:
    scores = entry.get("valid", {}).get(stem)
    if not scores:
        return ""
    accuracy = f", {scores['weighted_accuracy']:.3f}" if "weighted_accuracy" in scores else ""
    sdr = f", {scores['sdr_db']:.2f} dB" if "sdr_db" in scores else ""
    mono = f", mono {scores['mono_sdr_db']:.2f} dB" if "mono_sdr_db" in scores else ""
    return f" (validation {scores['loss']:.4f}{accuracy}{sdr}{mono})"


def summary(entry: LogEntry) -> str:
    """Return the progress of a run, its speed, and the remaining time."""
    left = timedelta(seconds=entry["seconds_left"])
    return (
        f"step {entry['step']:,} ({entry['done']:.0%}), {entry['frames_per_second']:,} frames/s, {left} left"
    )


class LiveTable:
    """A table in the terminal: the last entry and the last and best validation, one row per stem."""

    def __init__(self) -> None:
        self.live: Live | None = None
        self.validations: dict[str, list[dict[str, float]]] = {}

    def __call__(self, entry: LogEntry, logged: bool) -> None:
        """Show an entry."""
        for stem, scores in entry.get("valid", {}).items():
            self.validations.setdefault(stem, []).append(scores)
        if self.live is None:  # not before the first entry, and only in the process that displays it
            self.live = _live()
            self.live.start()
        self.live.update(self._table(entry))

    def __enter__(self) -> LiveTable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live is not None:
            self.live.stop()

    def _table(self, entry: LogEntry) -> Table:
        from rich.table import Table

        table = Table(title=summary(entry), box=None, header_style="bold", title_justify="left")
        headings = ("loss", "accuracy", "validation loss", "accuracy", "lowest loss", "accuracy", "rate")
        table.add_column("stem")
        for heading in headings:
            table.add_column(heading, justify="right")
        for stem in {**entry["loss"], **self.validations}:
            now = [_cell(entry["loss"].get(stem)), _cell(entry["accuracy"].get(stem))]
            rate = entry["learning_rate"].get(stem)
            table.add_row(stem, *now, *self._cells(stem), "stopped" if rate is None else f"{rate:.1e}")
        return table

    def _cells(self, stem: str) -> list[str]:
        found = self.validations.get(stem, [])
        chosen = [found[-1], min(found, key=lambda scores: scores["loss"])] if found else [{}, {}]
        # Waveform networks have no accuracy.
        return [
            _cell(value)
            for scores in chosen
            for value in (scores.get("loss"), scores.get("weighted_accuracy", scores.get("sdr_db")))
        ]


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _live() -> Live:
    from rich.console import Console
    from rich.live import Live

    # Otherwise rich would redirect stdout to this console, which writes to stderr.
    return Live(console=Console(stderr=True), redirect_stdout=False, refresh_per_second=4)
