"""What else is made of a track's stems, as soon as they are there: a session for a DAW, a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from stemsplit import plots
from stemsplit.audio.reader import Reader
from stemsplit.audio.stem_folder import StemSet
from stemsplit.batch.plan import Order
from stemsplit.export import report
from stemsplit.export.daw import write as daw
from stemsplit.files.parts import refuse_to_replace
from stemsplit.output import template
from stemsplit.pipeline import SplitResult

Phase = Callable[[str], AbstractContextManager[Callable[[float], None]]]
"""Opens a phase of the work, "session" or "report", and gives a function for the share of it that is done."""


@dataclass(frozen=True)
class Beside:
    """What is wanted beside the stems of each track: a `session` of a kind that `daw` knows, a `page`."""

    session: str | None = None
    page: bool = False

    def paths(self, track: Path, outputs: Mapping[str, Path]) -> dict[str, Path]:
        """Return where it goes: into the folder of the first stem, by names that say of which track it is."""
        folder, name = next(iter(outputs.values())).parent, template.track_name(track)
        found = {}
        if self.session:
            found["session"] = folder / f"{name}{daw.SUFFIXES[self.session]}"
        if self.page:
            found["report"] = folder / ("report.html" if folder.name == name else f"{name}.html")
        return found

    def check(self, track: Path, outputs: Mapping[str, Path], *, force: bool) -> None:
        """Refuse before any work what could not be written after it.

        Raises:
            OutputExists: it is there already, and `force` is not given.
            StemsplitError: something that it needs is not installed.
        """
        if self.page:
            plots.check()
        for path in self.paths(track, outputs).values():
            refuse_to_replace(path, force=force)

    def write(self, result: SplitResult, order: Order, phase: Phase) -> dict[str, Path]:
        """Write it, and return the paths; each part of the work runs inside a `phase`.

        Raises:
            EncodeError: something cannot be written.
        """
        paths = self.paths(result.input, result.outputs)
        whole = not order.start_seconds and order.duration_seconds is None and not order.gain_db
        whole = whole and order.audio_track is None and not order.downmix
        whole = whole and Reader(result.input).sample_rate == result.sample_rate
        stems = StemSet(
            template.track_name(result.input),
            result.outputs,
            result.input if whole else None,
            result.sample_rate,
            result.channels,
        )
        if self.session:
            with phase("session") as progress:
                analysis = daw.analyse(stems, progress)
                daw.write(self.session, stems, paths["session"], analysis, order.force)
        if self.page:
            facts = report.facts(stems, order.out)
            with phase("report") as progress:
                report.write(stems, paths["report"], facts=facts, force=order.force, progress=progress)
        return paths
