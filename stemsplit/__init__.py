"""Split music into stems.

    stems = stemsplit.split(samples, sample_rate)           # arrays (channel, time)
    result = stemsplit.split_file("song.mp3", "stems")      # stems/song/vocals.wav, ...

The names are resolved when they are first used, so that `import stemsplit` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stemsplit.errors import StemsplitError
    from stemsplit.pipeline import load_separator, split, split_file

    __version__: str

DEFAULT_MODEL = "band-transformer"
LIVE_MODEL = "binary-mask-cnn"
"""While sound plays: it hears a fifth of a second ahead, where the other one hears nearly three seconds."""

__all__ = ["StemsplitError", "__version__", "load_separator", "split", "split_file"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "__version__":
        return import_module("importlib.metadata").version(__name__)
    home = "errors" if name == "StemsplitError" else "pipeline"
    return getattr(import_module(f"{__name__}.{home}"), name)
