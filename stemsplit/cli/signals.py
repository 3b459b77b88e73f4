"""Signals that end the program: exceptions, so that nothing half-written is left behind."""

from __future__ import annotations

import signal
import time
from typing import Any

PATIENCE_SECONDS = 10.0
"""After a signal, further ones are ignored for this long: they would interrupt the cleanup."""

_last = -PATIENCE_SECONDS


def install() -> None:
    """Turn signals into KeyboardInterrupt, except those that are ignored: after `nohup`, or behind `&`."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        number = getattr(signal, name, None)  # not every system has all of them
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def status(interrupt: KeyboardInterrupt) -> int:
    """Return the exit status of programs that such a signal ends."""
    return 128 + (interrupt.args[0] if interrupt.args else signal.SIGINT)


def _interrupt(number: int, _: Any) -> None:
    global _last
    now = time.monotonic()
    if now - _last >= PATIENCE_SECONDS:
        _last = now
        raise KeyboardInterrupt(number)
