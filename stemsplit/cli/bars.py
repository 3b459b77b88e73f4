"""Progress bars on stderr, if it is a terminal."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING

from stemsplit.cli import console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rich.progress import Progress, TaskID

    from stemsplit.audio.raw import RawReader
    from stemsplit.audio.reader import Reader

OTHER_COLUMNS = 50
"""Total width of a bar's columns, except the title."""


class Bars:
    """Shows the progress of each track, and of all tracks together, in seconds of sound.

    While it is open, all messages of `console` are printed above the bars. When it closes, the bars
    disappear.
    """

    def __init__(self, tracks: Iterable[Reader] = (), *, enabled: bool) -> None:
        self._progress: Progress | None = None
        self._all: TaskID | None = None
        self._seconds, self._began = (
            [console.seconds_of(reader) or 0.0 for reader in tracks],
            time.monotonic(),
        )
        self._open = contextlib.ExitStack()
        if not (enabled and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"):
            return
        from rich import progress
        from rich.console import Console

        # With redirect_stdout, rich would send stdout to this console, which writes to stderr.
        self._progress = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(bar_width=20),
            progress.TaskProgressColumn(),
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[speed]}"),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=False,
        )

    def __enter__(self) -> Bars:
        if self._progress:
            self._open.enter_context(console.above(self._progress))
            self._open.enter_context(self._progress)
            if len(self._seconds) > 1:
                title = f"{len(self._seconds)} tracks"
                self._all = self._progress.add_task(title, total=sum(self._seconds), speed="")
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @contextlib.contextmanager
    def of(self, title: str, reader: Reader | RawReader) -> Iterator[Callable[[int, int | None], None]]:
        """Show the bar of a track, and yield a function `(frames done, total)` that updates it."""
        bars = self._progress
        if bars is None:
            yield lambda done, total: None
            return
        task = bars.add_task(self._fitting(title), total=reader.frames_estimate, speed="")
        began, before = time.monotonic(), 0

        def update(done: int, _: int | None) -> None:
            nonlocal before
            speed = done / reader.sample_rate / (time.monotonic() - began)
            bars.update(task, completed=done, speed=f"{speed:.1f} x")
            self._advance((done - before) / reader.sample_rate)
            before = done

        try:
            yield update
        finally:
            bars.remove_task(task)
            # The whole track counts as done, even if it failed.
            self._advance(max(0.0, (console.seconds_of(reader) or 0.0) - before / reader.sample_rate))

    @contextlib.contextmanager
    def shares(self, title: str) -> Iterator[Callable[[float], None]]:
        """Show a bar for work on a whole track, and yield a function that sets the fraction done, 0 to 1."""
        bars = self._progress
        if bars is None:
            yield lambda share: None
            return
        task = bars.add_task(self._fitting(title), total=1.0, speed="")
        try:
            yield lambda share: bars.update(task, completed=share)
        finally:
            bars.remove_task(task)

    @contextlib.contextmanager
    def counting(self, tracks: int, title: str = "{} tracks") -> Iterator[Callable[[], None]]:
        """Show a bar for the number of tracks done, and yield a function that increments it."""
        bars = self._progress
        if bars is None:
            yield lambda: None
            return
        task = bars.add_task(title.format(tracks), total=tracks, speed="")
        yield lambda: bars.advance(task)

    def _fitting(self, title: str) -> str:
        from rich.text import Text

        assert self._progress is not None
        label = Text(console.printable(title))
        label.truncate(max(10, self._progress.console.width - OTHER_COLUMNS), overflow="ellipsis")
        return label.plain

    def _advance(self, seconds: float) -> None:
        if self._progress and self._all is not None:
            self._progress.update(self._all, advance=seconds)
            done = next(task.completed for task in self._progress.tasks if task.id == self._all)
            speed = done / (time.monotonic() - self._began)
            self._progress.update(self._all, speed=f"{speed:.1f} x")
