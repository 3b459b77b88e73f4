"""The mixer of a remix: gain, width, pan, delay and mute of each stem."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stemsplit.audio.reader import Block
from stemsplit.errors import StemsplitError, UsageError
from stemsplit.missing import no_stem

PRESETS = {
    "karaoke": "vocals=mute",
    "instrumental": "vocals=mute",
    "acapella": "vocals=solo",
    "drumless": "drums=mute",
}
PRACTICE_DB = -18.0
"""Gain of the stem in `practice:STEM`, in dB."""
_EXAMPLE = "`vocals=-6dB drums=+3dB other=mute bass=pan:-30`"
_NUMBER = r"[+-]?\d+(?:\.\d+)?"
_WORDS = {
    "gain_db": re.compile(rf"({_NUMBER})(?:db)?"),
    "pan": re.compile(rf"pan:({_NUMBER})"),
    "width": re.compile(rf"width:({_NUMBER})%?"),
    "delay_ms": re.compile(rf"delay:({_NUMBER})(?:ms)?"),
}
_RANGES = {
    "gain_db": (-120.0, 40.0),
    "pan": (-100.0, 100.0),
    "width": (0.0, 200.0),
    "delay_ms": (0.0, 10_000.0),
}


@dataclass(frozen=True)
class Channel:
    """The settings of one stem."""

    gain_db: float = 0.0
    mute: bool = False
    solo: bool = False
    pan: float = 0.0
    """From -100 (left) to 100 (right)."""
    width: float = 100.0
    """Width of the stereo image in percent: 0 is mono, 100 is unchanged."""
    delay_ms: float = 0.0


def parse(text: str, stems: Sequence[str]) -> dict[str, Channel]:
    """Return the settings of each stem, from a preset or from words such as `vocals=-6dB,pan:20`.

    Raises:
        UnknownStem: there is no such stem.
        UsageError: a setting is invalid.
    """
    channels = dict.fromkeys(stems, Channel())
    for word in text.split():
        word = PRESETS.get(word.lower(), word)
        name, equals, actions = word.partition("=")
        if word.startswith("practice:"):
            name, equals, actions = word.partition(":")[2], "=", f"{PRACTICE_DB}dB"
        if not equals or not actions:
            presets = ", ".join([*PRESETS, "practice:STEM"])
            raise UsageError(
                f"`{word}` is neither a preset nor a setting", f"choose one of {presets}, or write {_EXAMPLE}"
            )
        if name not in channels:
            raise no_stem(name, stems, "to mix")
        for action in actions.split(","):
            channels[name] = _changed(channels[name], action.strip().lower())
    return channels


def _changed(channel: Channel, action: str) -> Channel:
    if action in ("mute", "solo"):
        return replace(channel, **{action: True})
    for field, pattern in _WORDS.items():
        if match := pattern.fullmatch(action):
            least, most = _RANGES[field]
            if not least <= float(match[1]) <= most:
                raise UsageError(f"`{action}` is out of range", f"the range is from {least:g} to {most:g}")
            changes: dict[str, Any] = {field: float(match[1])}
            return replace(channel, **changes)
    raise UsageError(f"`{action}` is not a setting for a stem", f"write {_EXAMPLE}, width:50, delay:20ms")


class Mixer:
    """Mixes stems block by block, with buffers for delays."""

    def __init__(self, settings: Mapping[str, Channel], stems: Sequence[str], sample_rate: int) -> None:
        soloed = {name for name, channel in settings.items() if channel.solo}
        heard = soloed or set(stems)
        self._channels = [
            (index, settings[name])
            for index, name in enumerate(stems)
            if name in heard and not settings[name].mute
        ]
        self._delays = {
            index: round(channel.delay_ms * sample_rate / 1000) for index, channel in self._channels
        }
        self._held: dict[int, Block] = {}

    def mix(self, stems: Block) -> Block:
        """Return the mix `(channel, time)` of the next stems `(stem, channel, time)`, of the same length.

        Raises:
            StemsplitError: a mono stem has a pan or a width.
        """
        total = np.zeros(stems.shape[1:], np.float32)
        for index, channel in self._channels:
            total += self._delayed(index, placed(stems[index], channel))
        return total

    def _delayed(self, index: int, block: Block) -> Block:
        if not self._delays[index]:
            return block
        silence = np.zeros((len(block), self._delays[index]), np.float32)
        both = np.concatenate([self._held.get(index, silence), block], axis=-1)
        self._held[index] = both[:, block.shape[-1] :]
        return both[:, : block.shape[-1]]


def placed(block: Block, channel: Channel) -> Block:
    """Return a stem's block `(channel, time)` with its gain, width and pan.

    Width scales the difference of the channels. Panning is an equal-power balance, with 0 dB in the center
    and 3 dB at either side.

    Raises:
        StemsplitError: it is mono, and has a pan or a width.
    """
    gain = np.float32(10 ** (channel.gain_db / 20))
    if channel.pan == 0 and channel.width == 100:
        return block if gain == 1 else gain * block
    if len(block) != 2:
        raise StemsplitError("A mono track cannot be panned or widened", "leave out pan and width")
    middle, side = (block[0] + block[1]) / 2, (block[0] - block[1]) / 2 * np.float32(channel.width / 100)
    turned = math.radians((channel.pan + 100) * 0.45)
    left, right = math.sqrt(2) * math.cos(turned), math.sqrt(2) * math.sin(turned)
    return np.stack([gain * left * (middle + side), gain * right * (middle - side)]).astype(np.float32)
