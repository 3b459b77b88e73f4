"""Signals that end the program become exceptions, so that no partial files are left behind."""

from __future__ import annotations

import signal
import time
from typing import Any

PATIENCE_SECONDS = 10.0
"""Time after a signal during which further signals are ignored, because they would interrupt the cleanup."""

_last = -PATIENCE_SECONDS


def install() -> None:
    """Turn signals into KeyboardInterrupt, except ignored signals, e.g. after `nohup` or with `&`."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        number = getattr(signal, name, None)  # not every system has all of them
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def status(interrupt: KeyboardInterrupt) -> int:
    """Return the usual exit status of a program that this signal ended."""
    return 128 + (interrupt.args[0] if interrupt.args else signal.SIGINT)


def _interrupt(number: int, _: Any) -> None:
    global _last
    now = time.monotonic()
    if now - _last >= PATIENCE_SECONDS:
        _last = now
        raise KeyboardInterrupt(number)
