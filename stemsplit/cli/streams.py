"""The standard streams: all three are open from the start, and losing one does not stop the work.

- Write errors on standard error are ignored.
- The first write error on standard output is reported. Nothing more is written there, the work continues,
  and the exit status is 1. If audio is written there (see `sound`), the program ends with an error.
- If the reader of standard output exits, the program ends with status 141.
- A stream that was closed before the program started is replaced by the null device.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any, BinaryIO, TextIO

from stemsplit.cli import console
from stemsplit.errors import EncodeError

READER_GONE = 128 + 13
"""The usual exit status of a program that SIGPIPE ended."""


def install() -> None:
    """Open the streams that are closed, and guard the output streams."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # This takes the lowest free descriptor, the closed one. Otherwise, an audio file could get it
            # later, and printed text would go into that file.
            null = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(null, True)
            setattr(sys, name, open(null, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
            _closed.add(name)
    sys.stdout, sys.stderr = _guarded(sys.stdout, _Output), _guarded(sys.stderr, _Messages)


def close(status: Any) -> Any:
    """Flush, and return the exit status: 1 instead of 0 if output was lost."""
    sys.stdout.flush()
    return status or int(getattr(sys.stdout.buffer, "lost", False))


def sound() -> BinaryIO:
    """Return standard output for audio.

    Raises:
        EncodeError: it is closed. Writing to it also raises this if it fails.
    """
    if "stdout" in _closed:
        raise EncodeError("Standard output is closed", "redirect it to a program or a file")
    if isinstance(sys.stdout.buffer, _Output):
        sys.stdout.buffer.essential = True
    return sys.stdout.buffer


_closed: set[str] = set()


class _Messages(io.BufferedWriter):
    """Standard error, which is replaced by the null device after a write error."""

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
        os.dup2(null, self.fileno())  # buffered data also goes there
        os.close(null)


class _Output(_Messages):
    """Standard output, whose first write error is reported."""

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
    """Return a guarded stream with the same settings. Windows consoles are not files, and stay unguarded."""
    given: Any = stream
    if type(getattr(given.buffer, "raw", given.buffer)) is not io.FileIO:
        return stream
    return io.TextIOWrapper(
        kind(io.FileIO(given.fileno(), "w", closefd=False)),
        encoding=given.encoding,
        errors=given.errors,
        line_buffering=given.line_buffering or given.write_through,
    )
