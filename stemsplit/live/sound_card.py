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
"""Maximum number of input blocks in the queue; with more, the computer is too slow."""


class SoundCard:
    """Connects the input of a sound card to its own output, or to the output of another one.

    The output starts with enough silent blocks to cover the time until the first block is ready. A late block
    is replaced by silence, and dropped when it is ready, so that the latency stays constant.
    """

    def __init__(self, live: Live, input: str | None = None, output: str | None = None) -> None:
        """Select devices by number or by part of their names; None: the system's default devices.

        Raises:
            DeviceUnavailable: there is no such device, or it does not support the settings.
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
        """The latency in samples, including the latency of the sound cards."""

    def callback(self, heard: Any, played: Any, frames: int, when: Any, status: Any) -> None:
        """Take an input block and fill an output block `(time, channel)`; another thread separates."""
        self._came.put(heard.copy())
        while self._owed and self.ready:
            self.ready.popleft()
            self._owed -= 1
        missing = not self.ready
        self._owed += missing
        self.late += bool(missing or status)
        played[:] = 0 if missing else self.ready.popleft()

    def run(self) -> None:
        """Run until the sound card is removed. Raises DeviceUnavailable if the computer is too slow."""
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
                    "This machine is too slow for live separation with these settings",
                    "choose --fast, one --stem, or longer blocks with --block 250",
                )
            yield np.ascontiguousarray(heard.T)


def devices() -> list[tuple[int, str]]:
    """Return the number and a description of each sound card."""
    return [
        (
            device["index"],
            f"{device['name']} ({device['max_input_channels']} in, {device['max_output_channels']} out)",
        )
        for device in imported().query_devices()
    ]


def imported() -> ModuleType:
    """Return the sounddevice package. Raises DeviceUnavailable if it or PortAudio is not installed."""
    try:
        import sounddevice
    except ImportError as error:
        raise DeviceUnavailable(
            "Sound cards need the Python package sounddevice", install_extra("live")
        ) from error
    except OSError as error:
        raise DeviceUnavailable(
            "The package sounddevice does not find PortAudio",
            "install PortAudio, e.g. with apt install libportaudio2",
        ) from error
    module: ModuleType = sounddevice
    return module


def _number(device: str | None) -> int | str | None:
    return int(device) if device is not None and device.isdigit() else device
