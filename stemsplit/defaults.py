"""Names shared by the whole program: version, distributions, default models."""

from __future__ import annotations

VERSION = "0.1.0"
"""pyproject.toml reads the version from here."""

DISTRIBUTION = "stemsplit-audio"
"""The name of the package for pip. On the package index, `stemsplit` is another project."""

MODELS_DISTRIBUTION = f"{DISTRIBUTION}-models"
"""The package with the models that the main package does not contain."""

PUBLIC_ADDRESS = ""
"""URL of the repository. If it is set, the build makes the README's links absolute."""

DEFAULT_MODEL = "band-transformer"
LIVE_MODEL = "binary-mask-cnn"
"""The model for live separation. Its look-ahead is 0.2 s; the default model's is almost 3 s."""


def install_extra(extra: str) -> str:
    """Return a hint: the command that installs an optional dependency group of this package."""
    return f"run `pip install '{DISTRIBUTION}[{extra}]'`"


def install_models() -> str:
    """Return a hint: the command that installs the other models, from the package index or from a file."""
    if PUBLIC_ADDRESS:
        return f"run `pip install {MODELS_DISTRIBUTION}`"
    wheel = f"{MODELS_DISTRIBUTION.replace('-', '_')}-{VERSION}-py3-none-any.whl"
    return f"run `pip install {wheel}`, or `pip install ./models/more` in a checkout"
