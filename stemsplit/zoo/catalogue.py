"""All models that are available on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stemsplit import spatial
from stemsplit.errors import BadWeights, StemsplitError
from stemsplit.zoo import installed, store
from stemsplit.zoo.ref import ModelRef
from stemsplit.zoo.variants import Spatial, Trained

if TYPE_CHECKING:
    from stemsplit.zoo.plugins import Plugin


def trained_models() -> list[Trained]:
    """Return the shipped models, sorted by SDR on the validation songs, the best one first."""
    return [Trained.find(name) for name in store.ranked()]


def installed_models() -> list[ModelRef | BadWeights]:
    """Return the installed models, and errors for those that cannot be used."""
    found: list[ModelRef | BadWeights] = []
    for name in installed.names():
        try:
            found.append(ModelRef.parse(name))
        except BadWeights as error:
            found.append(error)
    return found


def plugin_models() -> list[Plugin | StemsplitError]:
    """Return the models listed by other packages, and errors for packages that do not work."""
    from stemsplit.zoo import plugins

    return list(plugins.every())


def spatial_methods() -> list[Spatial]:
    """Return the spatial methods, which are fitted to each track."""
    return [Spatial(name) for name in spatial.METHODS]


def names() -> tuple[str, ...]:
    """Return all names that `ModelRef.parse` accepts, except files."""
    from stemsplit.zoo import plugins

    return (*store.available(), store.BEST, *installed.names(), *spatial.METHODS, *plugins.names())
