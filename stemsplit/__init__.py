"""Split music into stems.

    stems = stemsplit.split(samples, sample_rate)           # arrays (channel, time)
    result = stemsplit.split_file("song.mp3", "stems")      # stems/song/vocals.wav, ...

split           split an array into stems
split_file      split a sound file into sound files
estimate_masks  compute the masks for an array's spectrum
load_separator  load a model once, to split many tracks
StemsplitError  the base class of all errors, with `message` and `hint`
DEFAULT_MODEL   the name of the model that these functions use
LIVE_MODEL      the name of the model that `stemsplit live` uses
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stemsplit.defaults import DEFAULT_MODEL, LIVE_MODEL
from stemsplit.defaults import VERSION as __version__

if TYPE_CHECKING:
    from stemsplit.arrays import estimate_masks, split
    from stemsplit.errors import StemsplitError
    from stemsplit.pipeline import split_file
    from stemsplit.zoo.loading import load_separator

__all__ = [
    "DEFAULT_MODEL",
    "LIVE_MODEL",
    "StemsplitError",
    "__version__",
    "estimate_masks",
    "load_separator",
    "split",
    "split_file",
]

# Imported on first use, so that `import stemsplit` is fast.
_HOMES = {
    "StemsplitError": "errors",
    "estimate_masks": "arrays",
    "load_separator": "zoo.loading",
    "split": "arrays",
    "split_file": "pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
