"""Stems in two groups that are stretched differently: drums, and everything else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from stemsplit.audio.reader import Block
from stemsplit.errors import UsageError
from stemsplit.practice.stretch import Passage, Read, stretched_drums, transposed
from stemsplit.remix.mixer import Channel, Mixer

_DRUMS = {"drums", "drum", "percussion", "kick", "snare", "hihat", "toms", "cymbals"}


def is_drums(stem: str) -> bool:
    """Whether a stem has only drums, including parts split from them such as `drums-kick`."""
    return stem.lower().partition("-")[0] in _DRUMS


@dataclass(frozen=True)
class Group:
    """Stems that are mixed first and then stretched together."""

    drums: bool
    mixer: Mixer

    def render(self, read: Read, passage: Passage, sample_rate: int, semitones: float) -> Iterator[Block]:
        """Return the blocks of a passage. Drums are not transposed, because they have no key."""
        if self.drums:
            return stretched_drums(read, passage, sample_rate)
        return transposed(read, passage, sample_rate, semitones)


def groups(settings: Mapping[str, Channel], stems: Sequence[str], sample_rate: int) -> list[Group]:
    """Return the groups that have audible stems. Raises UsageError if all stems are muted."""
    found = []
    soloed = any(channel.solo for channel in settings.values())
    for drums in (True, False):
        mine = [name for name in stems if is_drums(name) == drums]
        audible = [name for name in mine if not settings[name].mute and (settings[name].solo or not soloed)]
        others = {name: replace(settings[name], mute=True) for name in stems if name not in audible}
        if audible:
            found.append(Group(drums, Mixer({**settings, **others}, stems, sample_rate)))
    if not found:
        raise UsageError("Every stem is muted", f"keep at least one of {', '.join(stems)}")
    return found
