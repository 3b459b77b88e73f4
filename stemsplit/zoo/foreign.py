"""From an installed model's card to a method that separates."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from stemsplit.errors import UsageError
from stemsplit.options import RuntimeOptions
from stemsplit.separation.compose import shifted
from stemsplit.separation.segments import NormalizedSegments, Segmentation, SegmentSeparator
from stemsplit.separation.separator import Execution, Method, Samples
from stemsplit.zoo.installed import InstalledCard

if TYPE_CHECKING:
    from stemsplit.zoo.plugins import PluginCard

Loaded = tuple[Callable[[Samples], Samples], Execution]
"""A network for segments, as `SegmentSeparator` takes it, and how it runs."""


class Kind(Protocol):
    """What a module for one kind of files offers."""

    SUFFIX: str
    """Of the installed file."""
    HINT: str
    """What to do if a file does not fit its description."""

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


MODULES = {"msst": "stemsplit.zoo.msst", "onnx": "stemsplit.zoo.onnx", "stemsplit": "stemsplit.zoo.own"}


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
    return separator(card, card.outputs, kind(card.kind).load(card, path, running), stems, running)


def separator(
    card: InstalledCard | PluginCard,
    outputs: tuple[str, ...],
    loaded: Loaded,
    stems: tuple[str, ...],
    running: RuntimeOptions,
    *,
    any_length: bool = False,
) -> Method:
    """Return a separator for some of a model's stems, by a network for segments that estimates `outputs`."""
    network, execution = loaded
    overlap = card.overlap if running.overlap is None else running.overlap
    separator = SegmentSeparator(
        stems=stems,
        sample_rate=card.sample_rate,
        outputs=outputs,
        residual=card.residual,
        segmentation=Segmentation.of(card.segment, overlap),
        network=network,
        execution=execution,
        any_length=any_length,
    )
    method: Method = NormalizedSegments(separator) if card.normalize else separator
    return shifted(method, running.shifts, SHIFT_SECONDS) if running.shifts > 1 else method


def refuse_options(name: str, running: RuntimeOptions, mask: str | None) -> None:
    """Raise UsageError for options that models from elsewhere do not have."""
    if mask:
        raise UsageError(f"{name} gives the stems themselves, without masks", "leave out --mask")
    if running.fast:
        raise UsageError(f"There is no --fast for {name}", "leave it out, or choose --overlap 0.1")
