"""From an installed model's card to a method that separates."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from stemsplit.options import RuntimeOptions
from stemsplit.separation.compose import shifted
from stemsplit.separation.segments import NormalizedSegments, Segmentation, SegmentSeparator
from stemsplit.separation.separator import Execution, Method, Samples
from stemsplit.zoo.installed import InstalledCard

Loaded = tuple[Callable[[Samples], Samples], Execution]
"""A network for segments, as `SegmentSeparator` takes it, and how it runs."""


class Kind(Protocol):
    """What a module for one kind of files offers."""

    SUFFIX: str
    """Of the installed file."""

    def adopt(self, source: Path, target: Path, config: Path | None) -> dict[str, Any]:
        """Write the installed file, and return the facts for its card.

        Raises:
            BadWeights: the file or its description cannot be used.
            OSError: the file cannot be read or written.
        """

    def load(self, card: InstalledCard, path: Path, running: RuntimeOptions) -> Loaded:
        """Return the network in an installed file.

        Raises:
            BadWeights: the file is damaged, or does not fit the card.
            DeviceUnavailable: it cannot run here, or not as requested.
        """


MODULES = {"onnx": "stemsplit.zoo.onnx"}


def kind(name: str) -> Kind:
    """Return the module for a kind of files."""
    module: Any = import_module(MODULES[name])
    return module  # type: ignore[no-any-return]


SHIFT_SECONDS = 0.5
"""Within which `shifts` runs begin, as in the demucs package."""


def load(card: InstalledCard, path: Path, stems: tuple[str, ...], running: RuntimeOptions) -> Method:
    """Return a separator for some of a model's stems; it must be fitted to a track if the card says so.

    Raises:
        BadWeights: the file is damaged, or does not fit the card.
        DeviceUnavailable: it cannot run here, or not as requested.
    """
    network, execution = kind(card.kind).load(card, path, running)
    overlap = card.overlap if running.overlap is None else running.overlap
    separator = SegmentSeparator(
        stems=stems,
        sample_rate=card.sample_rate,
        outputs=card.outputs,
        residual=card.residual,
        segmentation=Segmentation.of(card.segment, overlap),
        network=network,
        execution=execution,
    )
    method: Method = NormalizedSegments(separator) if card.normalize else separator
    return shifted(method, running.shifts, SHIFT_SECONDS) if running.shifts > 1 else method
