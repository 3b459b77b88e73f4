"""Installed models made by `stemsplit train`, whose files describe themselves."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from stemsplit.errors import BadWeights
from stemsplit.options import RuntimeOptions
from stemsplit.separation.separator import Execution, Samples
from stemsplit.separation.stream import separate_blocks
from stemsplit.zoo import separators, store
from stemsplit.zoo.foreign import Loaded
from stemsplit.zoo.installed import InstalledCard

SUFFIX = store.SUFFIX
HINT = "get a fresh copy of the file"
TRIAL_SECONDS = 10


def adopt(source: Path, target: Path, config: Path | None) -> dict[str, Any]:
    """Copy a weights file, and return the facts in its card.

    Raises:
        BadWeights: it is not a weights file of stemsplit, or a description is given.
        OSError: the file cannot be read or written.
    """
    if config:
        raise BadWeights(f"`{source}` describes itself", "leave out --config")
    card = store.read_card(source)
    shutil.copyfile(source, target)
    return {
        "outputs": list(card.stems),
        "residual": card.stems[-1] if card.complete else "",
        "sample_rate": card.sample_rate,
        "segment": TRIAL_SECONDS * card.sample_rate,
        "overlap": 0.0,
        "title": card.title,
        "licence": card.licence,
    }


def load(card: InstalledCard, path: Path, running: RuntimeOptions) -> Loaded:
    """Return the model for its trial. For separation, `ModelRef.parse` loads it like any weights file.

    Raises:
        BadWeights: the file is damaged.
    """
    separator = separators.load(store.read_card(path), path, card.outputs, None, running)

    def network(segment: Samples) -> Samples:
        return np.concatenate(list(separate_blocks(separator, [segment])), axis=-1)

    return network, Execution(how=separator.spec.how)
