"""Split music into stems.

    stems = stemsplit.split(samples, sample_rate)           # arrays (channel, time)
    result = stemsplit.split_file("song.mp3", "stems")      # stems/song/vocals.wav, ...

The names are resolved when they are first used, so that `import stemsplit` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stemsplit.defaults import DEFAULT_MODEL, LIVE_MODEL
from stemsplit.defaults import VERSION as __version__

if TYPE_CHECKING:
    from stemsplit.errors import StemsplitError
    from stemsplit.pipeline import load_separator, split, split_file

__all__ = [
    "DEFAULT_MODEL",
    "LIVE_MODEL",
    "StemsplitError",
    "__version__",
    "load_separator",
    "split",
    "split_file",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "errors" if name == "StemsplitError" else "pipeline"
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
