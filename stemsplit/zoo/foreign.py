"""Loading installed models: from a card to a separator."""

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
"""A network for segments, see `SegmentSeparator`, and how it runs."""


class Kind(Protocol):
    """The functions of a module for one kind of file."""

    SUFFIX: str
    """Suffix of the installed file."""
    HINT: str
    """A hint for files that do not match their description."""

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
            DeviceUnavailable: it cannot run on this machine, or not as requested.
        """


MODULES = {"msst": "stemsplit.zoo.msst", "onnx": "stemsplit.zoo.onnx", "stemsplit": "stemsplit.zoo.own"}


def kind(name: str) -> Kind:
    """Return the module for a kind of file."""
    module: Any = import_module(MODULES[name])
    return module  # type: ignore[no-any-return]


SHIFT_SECONDS = 0.5
"""Maximum shift of the input in seconds, as in the demucs package."""


def load(card: InstalledCard, path: Path, stems: tuple[str, ...], running: RuntimeOptions) -> Method:
    """Return a separator for some stems of a model, or a method to fit, if the card requires it.

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
    """Return a separator for some stems of a model, with a network that estimates `outputs`."""
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
    """Raise UsageError for options that third-party models do not support."""
    if mask:
        raise UsageError(f"{name} does not use masks", "leave out --mask")
    if running.fast:
        raise UsageError(f"{name} does not support --fast", "leave it out, or choose --overlap 0.1")
