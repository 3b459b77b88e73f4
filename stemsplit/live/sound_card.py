"""Live separation between sound cards."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from queue import SimpleQueue
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stemsplit.defaults import install_extra
from stemsplit.errors import DeviceUnavailable
from stemsplit.live.engine import Live, Summary
from stemsplit.separation.separator import Samples

MOST_BEHIND = 50
"""Blocks from a sound card that may wait: with more, the computer is too slow."""


class SoundCard:
    """From a sound card's input to its output, or to another's.

    What is played is silence at first, for as many blocks as it takes until the first one is made; a block
    that is not there in time is silence, and left out when it comes. The latency stays what it is.
    """

    def __init__(self, live: Live, input: str | None = None, output: str | None = None) -> None:
        """Choose devices by number or a part of their names; else those of the system.

        Raises:
            DeviceUnavailable: there is no such device, or it does not do what is needed.
        """
        sounddevice = imported()
        self._live = live
        self.warnings: list[str] = []
        self._came: SimpleQueue[NDArray[np.float32] | None] = SimpleQueue()
        waiting = 1 + math.ceil(live.spec.context / live.block)
        silence = np.zeros((live.block, 1), np.float32)
        self.ready: deque[NDArray[np.float32]] = deque([silence] * waiting)
        self.late = self._owed = 0
        names = _number(input), _number(output)
        try:
            there = [
                min(2, sounddevice.query_devices(name, kind)[f"max_{kind}_channels"])
                for name, kind in zip(names, ("input", "output"), strict=True)
            ]
            self.channels = min(there)
            self._stream = sounddevice.Stream(
                samplerate=live.spec.sample_rate,
                blocksize=live.block,
                device=names,
                channels=(self.channels, there[1]),
                dtype="float32",
                callback=self.callback,
                finished_callback=lambda: self._came.put(None),
            )
        except (sounddevice.PortAudioError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise DeviceUnavailable(
                f"Cannot use the sound card: {reason}", "see `stemsplit live --devices`"
            ) from error
        self.latency = waiting * live.block + live.spec.sample_rate * sum(self._stream.latency)
        """In samples, including the latency that the sound cards report."""

    def callback(self, heard: Any, played: Any, frames: int, when: Any, status: Any) -> None:
        """Exchange an input block `(time, channel)` for an output block; another thread separates."""
        self._came.put(heard.copy())
        while self._owed and self.ready:
            self.ready.popleft()
            self._owed -= 1
        missing = not self.ready
        self._owed += missing
        self.late += bool(missing or status)
        played[:] = 0 if missing else self.ready.popleft()

    def run(self) -> None:
        """Run until the sound card is removed, or for ever. Raises DeviceUnavailable at what is too slow."""
        with self._stream:
            for block in self._live.run(self._blocks()):
                self.ready.append(block.T)

    @property
    def summary(self) -> Summary:
        """Statistics so far."""
        return self._live.summary(self.latency, self.late)

    def _blocks(self) -> Iterator[Samples]:
        while (heard := self._came.get()) is not None:
            if self._came.qsize() > MOST_BEHIND:
                raise DeviceUnavailable(
                    "This machine does not keep up with the sound",
                    "choose --fast, one --stem, or longer blocks with --block 250",
                )
            yield np.ascontiguousarray(heard.T)


def devices() -> list[tuple[int, str]]:
    """Return the number of each sound card's device, and what it is in words."""
    return [
        (
            device["index"],
            f"{device['name']} ({device['max_input_channels']} in, {device['max_output_channels']} out)",
        )
        for device in imported().query_devices()
    ]


def imported() -> ModuleType:
    """Return the sounddevice package. Raises DeviceUnavailable where it, or PortAudio, is not installed."""
    try:
        import sounddevice
    except ImportError as error:
        raise DeviceUnavailable("Sound cards need the package sounddevice", install_extra("live")) from error
    except OSError as error:
        raise DeviceUnavailable(
            "The package sounddevice does not find PortAudio", "install it, as with apt install libportaudio2"
        ) from error
    module: ModuleType = sounddevice
    return module


def _number(device: str | None) -> int | str | None:
    return int(device) if device is not None and device.isdigit() else device
