"""Loading the models of plugins as separators."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stemsplit.options import RuntimeOptions
from stemsplit.separation.separator import Execution, Method, Samples
from stemsplit.zoo import foreign
from stemsplit.zoo.plugins import Network, Plugin, PluginCard, guarded
from stemsplit.zoo.variants import refuse_segments


def load(plugin: Plugin, running: RuntimeOptions, stems: tuple[str, ...], mask: str | None) -> Method:
    """Load a plugin's model, and return it as a separator.

    Raises:
        UsageError: an option does not apply to such models.
        BadPlugin: the plugin does not work.
    """
    card = plugin.card
    foreign.refuse_options(plugin.text, running, mask)
    if not card.segment:
        refuse_segments(plugin.text, running)
        with guarded(plugin.text):
            separator: Method = plugin.model.load(running, stems)
            if separator.spec.stems != stems:  # type: ignore[union-attr]
                raise ValueError(f"it returned other stems than {', '.join(stems)}")
        return separator
    outputs = _needed(card, stems)
    with guarded(plugin.text):
        network = plugin.model.load(running, outputs)
    execution = getattr(network, "execution", Execution())
    checked = _Checked(plugin.text, network, len(outputs))
    loaded = checked, execution
    return foreign.separator(card, outputs, loaded, stems, running, any_length=card.any_length)


def _needed(card: PluginCard, stems: tuple[str, ...]) -> tuple[str, ...]:
    """Return the outputs that the stems need: the residual needs all others."""
    if not card.residual:
        return card.outputs
    every = card.residual in stems
    return tuple(name for name in card.outputs if name != card.residual and (every or name in stems))


@dataclass(frozen=True)
class _Checked:
    """A plugin's network, whose estimates are checked."""

    name: str
    network: Network
    outputs: int

    def __call__(self, segment: Samples) -> Samples:
        with guarded(self.name):
            found = np.asarray(self.network(segment), np.float32)
            if found.shape != (self.outputs, *segment.shape):
                raise ValueError(f"it returned estimates of shape {found.shape}")
            if not np.isfinite(found).all():
                raise ValueError("it returned samples that are not finite")
        return found
