"""Downloads of weights by other packages: announced, and refused if the user has disabled them."""

from __future__ import annotations

import os
import sys

from stemsplit.errors import DownloadFailed
from stemsplit.options import RuntimeOptions

VARIABLE = "STEMSPLIT_OFFLINE"
"""Environment variable; the value 1 acts like `RuntimeOptions.offline` everywhere."""


def refuse_offline(what: str, source: str, running: RuntimeOptions) -> None:
    """Raise DownloadFailed if downloads are disabled."""
    if running.offline or os.environ.get(VARIABLE, "").strip().lower() in ("1", "true", "yes", "on"):
        raise DownloadFailed(
            f"{what} must be downloaded from {source}, which --offline or {VARIABLE} forbids",
            "allow the download once; the weights are then kept on this machine",
        )


def announce(what: str, source: str, size: int, licence: str) -> None:
    """Announce on stderr that `size` bytes will be downloaded."""
    sys.stderr.write(f"downloading {what} from {source}: {size / 1e6:,.0f} MB; licence: {licence}\n")


def failed(what: str, source: str, error: Exception) -> DownloadFailed:
    """Return the error for a failed download."""
    said = " ".join(str(error).split())[:200] or type(error).__name__
    return DownloadFailed(
        f"{what} cannot be downloaded from {source}: {said}", "check the network, and try again"
    )
