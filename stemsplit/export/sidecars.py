"""Sidecars, files made from a track's stems: a DAW session and a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from stemsplit import plots
from stemsplit.analysis.music import analyse_stems
from stemsplit.audio.reader import Reader
from stemsplit.audio.stem_folder import StemSet
from stemsplit.export import daw, report
from stemsplit.files.parts import refuse_to_replace
from stemsplit.options import Options
from stemsplit.output import template
from stemsplit.pipeline import SplitResult

Phase = Callable[[str], AbstractContextManager[Callable[[float], None]]]
"""A function that starts a phase, "session" or "report", and yields a function for its progress (0 to 1)."""


@dataclass(frozen=True)
class Sidecars:
    """The files to write next to the stems of each track: a `session` (see `daw.SUFFIXES`), and a `page`."""

    session: str | None = None
    page: bool = False

    def paths(self, track: Path, outputs: Mapping[str, Path]) -> dict[str, Path]:
        """Return the paths of these files: in the folder of the first stem, with the track's name."""
        folder, name = next(iter(outputs.values())).parent, template.track_name(track)
        found = {}
        if self.session:
            found["session"] = folder / f"{name}{daw.SUFFIXES[self.session]}"
        if self.page:
            found["report"] = folder / ("report.html" if folder.name == name else f"{name}.html")
        return found

    def check(self, track: Path, outputs: Mapping[str, Path], *, force: bool) -> None:
        """Raise errors about these files before any work is done.

        Raises:
            OutputExists: a file already exists, and `force` is not given.
            StemsplitError: a required package or program is not installed.
        """
        if self.page:
            plots.check()
        for path in self.paths(track, outputs).values():
            refuse_to_replace(path, force=force)

    def write(self, result: SplitResult, options: Options, phase: Phase) -> dict[str, Path]:
        """Write the files, and return their paths; each part of the work runs inside a `phase`.

        Raises:
            EncodeError: a file cannot be written.
        """
        paths, force = self.paths(result.input, result.outputs), options.output.force
        split = options.split
        same = not split.gain_db and Reader(result.input, **split.reading).sample_rate == result.sample_rate
        stems = StemSet(
            template.track_name(result.input),
            result.outputs,
            result.input if same else None,
            result.sample_rate,
            result.channels,
            split.reading,
        )
        if self.session:
            with phase("session") as progress:
                music = analyse_stems(stems, progress)
                daw.write(self.session, stems, paths["session"], music, force)
        if self.page:
            facts = report.facts(stems, options.output.out)
            with phase("report") as progress:
                report.write(stems, paths["report"], facts=facts, force=force, progress=progress)
        return paths
