"""Downloads of weights by other packages: announced, and refused where the user wants none."""

from __future__ import annotations

import os
import sys

from stemsplit.errors import DownloadFailed
from stemsplit.options import RuntimeOptions

VARIABLE = "STEMSPLIT_OFFLINE"
"""Its value 1 has the effect of `RuntimeOptions.offline` everywhere."""


def begin(what: str, source: str, licence: str, running: RuntimeOptions) -> None:
    """Say on stderr that a download begins.

    Raises:
        DownloadFailed: the user wants none.
    """
    if running.offline or os.environ.get(VARIABLE, "").strip().lower() in ("1", "true", "yes", "on"):
        raise DownloadFailed(
            f"{what} must be downloaded from {source}, which --offline forbids",
            f"leave out --offline, and unset {VARIABLE}",
        )
    sys.stderr.write(f"downloading {what} from {source}; licence: {licence}\n")


def failed(what: str, source: str, error: Exception) -> DownloadFailed:
    """Return the error for a download that did not work."""
    said = " ".join(str(error).split())[:200] or type(error).__name__
    return DownloadFailed(
        f"{what} cannot be downloaded from {source}: {said}", "check the network, and try again"
    )
