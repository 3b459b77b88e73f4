"""Stopping work that runs in several threads."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Iterator

_here = threading.local()


def check() -> None:
    """Raise KeyboardInterrupt if the work of this thread must stop. Long computations call it in between."""
    if stop := current():
        stop.check()


def current() -> Stop | None:
    """Return the `Stop` that applies to this thread, if any."""
    stop: Stop | None = getattr(_here, "stop", None)
    return stop


class Stop:
    """Stops threads at their next check, or immediately inside `at_once`.

    A stop `within` another one is set as soon as that one is.
    """

    def __init__(self, within: Stop | None = None) -> None:
        self._within = within
        self._set = False
        self._lock = threading.Lock()
        self._unchecked: set[int] = set()

    def apply_here(self) -> None:
        """Apply to this thread from now on, instead of any other one."""
        _here.stop = self

    def check(self) -> None:
        """Raise KeyboardInterrupt if the work must stop."""
        if self._set:
            raise KeyboardInterrupt
        if self._within:
            self._within.check()

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Allow this thread to be interrupted at any point, as signals interrupt the main thread."""
        thread = threading.get_ident()
        with self._lock:
            self.check()
            self._unchecked.add(thread)
        try:
            yield
        finally:
            with self._lock:
                self._unchecked.discard(thread)

    def set(self) -> None:
        """Stop the work. Further calls have no effect, because they would interrupt the cleanup."""
        with self._lock:
            if not self._set:
                self._set = True
                for thread in self._unchecked:
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(thread), ctypes.py_object(KeyboardInterrupt)
                    )
