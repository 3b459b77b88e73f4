"""The standard streams: all three are open from the start, and losing one of them does not end the work.

- Standard error that cannot be written is ignored.
- Standard output that cannot be written is reported once. Nothing more is written there, the work goes on,
  and the exit status is 1. Where the sound itself goes there (see `sound`), the program ends with an error.
- Standard output whose reader has gone ends the program with status 141.
- A stream that was closed before the program started is the null device.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any, BinaryIO, TextIO

from stemsplit.cli import console
from stemsplit.errors import EncodeError

READER_GONE = 128 + 13
"""The exit status of programs that SIGPIPE ends."""


def install() -> None:
    """Open the streams that are closed, and guard those that are written."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # It takes the lowest free descriptor, the closed one: no sound file can get that later, and with
            # it all that is printed.
            null = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(null, True)
            setattr(sys, name, open(null, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
            _closed.add(name)
    sys.stdout, sys.stderr = _guarded(sys.stdout, _Output), _guarded(sys.stderr, _Messages)


def close(status: Any) -> Any:
    """Flush, and return the exit status: 1 in place of 0 if output was lost."""
    sys.stdout.flush()
    return status or int(getattr(sys.stdout.buffer, "lost", False))


def sound() -> BinaryIO:
    """Return standard output for sound.

    Raises:
        EncodeError: it is closed. Writing to it raises this, too, if the sound cannot be written.
    """
    if "stdout" in _closed:
        raise EncodeError("Standard output is closed", "send the sound to a program or a file")
    if isinstance(sys.stdout.buffer, _Output):
        sys.stdout.buffer.essential = True
    return sys.stdout.buffer


_closed: set[str] = set()


class _Messages(io.BufferedWriter):
    """Standard error: when it cannot be written, it becomes the null device."""

    lost = False

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:  # a full disk, a pipe without a reader, a terminal that was closed
            self._lose(error)
            return memoryview(data).nbytes

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        self.lost = True
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())  # what is buffered still goes there, too
        os.close(null)


class _Output(_Messages):
    """Standard output: its loss is told."""

    essential = False

    def _lose(self, error: OSError) -> None:
        super()._lose(error)
        if isinstance(error, BrokenPipeError):
            raise SystemExit(READER_GONE) from None
        hint = "free some space, or redirect it"
        problem = EncodeError(f"Cannot write to standard output: {error.strerror}", hint)
        if self.essential:
            raise problem from error
        console.error(problem)


def _guarded(stream: TextIO, kind: type[_Messages]) -> TextIO:
    """Return a stream of the same form; one that is not a plain file, as Windows' consoles, is left alone."""
    given: Any = stream
    if type(getattr(given.buffer, "raw", given.buffer)) is not io.FileIO:
        return stream
    return io.TextIOWrapper(
        kind(io.FileIO(given.fileno(), "w", closefd=False)),
        encoding=given.encoding,
        errors=given.errors,
        line_buffering=given.line_buffering or given.write_through,
    )
