"""Work in threads that ends when the main thread is interrupted."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Iterator


class Stop:
    """Tells threads to end: at their next `check`, or at once in work that has none."""

    def __init__(self) -> None:
        self._set = False
        self._lock = threading.Lock()
        self._unchecked: set[int] = set()

    def check(self) -> None:
        """Raise KeyboardInterrupt if the work is to end."""
        if self._set:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Let this thread be interrupted as signals interrupt the main thread: between any two steps."""
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
        """End the work. To call it again changes nothing: it would interrupt the cleanup."""
        with self._lock:
            if not self._set:
                self._set = True
                for thread in self._unchecked:
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(thread), ctypes.py_object(KeyboardInterrupt)
                    )
