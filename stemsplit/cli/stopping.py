"""Stopping worker threads when the main thread is interrupted."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Iterator


class Stop:
    """Stops threads at their next `check`, or immediately inside `at_once`."""

    def __init__(self) -> None:
        self._set = False
        self._lock = threading.Lock()
        self._unchecked: set[int] = set()

    def check(self) -> None:
        """Raise KeyboardInterrupt if the work must stop."""
        if self._set:
            raise KeyboardInterrupt

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
