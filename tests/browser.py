"""Chromium, where there is one, as the tests of pages drive it."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator

import pytest

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextlib.contextmanager
def chromium() -> Iterator[object]:
    """Start a browser without a window; skip the test where there is none."""
    driver = pytest.importorskip("playwright.sync_api")
    if PROGRAM is None:
        pytest.skip("no Chromium")
    with driver.sync_playwright() as play:
        # Containers let no root have a sandbox.
        browser = play.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        yield browser
        browser.close()


def wait(page, condition: str, seconds: float = 20) -> None:
    """Wait until an expression is true. The page's policy forbids playwright's own way to do so."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(20)
