"""Separation while it sounds: in small blocks, a stated time behind.

A block is separated as soon as all that it depends on has come: itself and the separator's context behind
it. Its first sample is then as old as block and context are long. This is the latency, which no processor
makes any shorter; for the work itself there is as much time as a block lasts.
"""

from __future__ import annotations

import math
import os
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from queue import Queue, SimpleQueue
from statistics import median
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from stemsplit.audio.raw import Outlet, Raw, WavSamples
from stemsplit.audio.reader import check_finite
from stemsplit.defaults import install_extra
from stemsplit.errors import DecodeError, DeviceUnavailable, StemsplitError, UsageError
from stemsplit.networks import registry
from stemsplit.options import RuntimeOptions
from stemsplit.separation.separator import FittedMethod, Samples, Separator, Spec
from stemsplit.separation.stream import separate_blocks
from stemsplit.zoo.card import ModelCard
from stemsplit.zoo.ref import ModelRef, Trained
from stemsplit.zoo.separators import mask_plan

BLOCK_MS = 100.0
MOST_BEHIND = 50
"""Blocks from a sound card that may wait: a machine that is further behind does not keep up."""


@dataclass(frozen=True)
class Summary:
    """How it went. Times are in milliseconds."""

    seconds: float
    """Of sound that came out."""
    block_ms: float
    latency_ms: float
    """What is to be expected: block and context; between sound cards, all of the way."""
    median_ms: float | None
    """What was measured, from when a block's first sample came until it was written; not of sound cards."""
    worst_ms: float | None
    blocks: int
    late: int
    """Blocks that took so long that who plays them has heard a gap."""
    times_real_time: float | None
    """How much faster than it lasts the sound was separated."""


def find(model: str | os.PathLike[str]) -> Trained:
    """Look up a model that can separate block by block.

    Raises:
        UsageError: it needs a whole song, or is an ensemble.
        UnknownModel, BadWeights: as of `ModelRef.parse`.
    """
    ref = ModelRef.parse(model)
    if ref.fits_each_track:
        raise UsageError(
            f"{model} must hear all of a song before it separates any", "choose a model that was trained"
        )
    if not isinstance(ref, Trained):
        raise UsageError(f"`{model}` is more than one model", "choose one of them")
    return ref


def load(
    ref: Trained,
    stem: str | None = None,
    *,
    block_ms: float = BLOCK_MS,
    fast: bool = False,
    **running: Any,
) -> Separator:
    """Return a model whose networks are ready for small blocks: that of one stem, or all of them.

    Raises:
        StemsplitError: as of `ModelRef.load`.
    """
    options = RuntimeOptions(**{"threads": 1, "fast": fast, **running})
    method = ref.load(
        replace(options, batch=_batch(ref.card, options, block_ms)), stems=None if stem is None else [stem]
    )
    assert not isinstance(method, FittedMethod)
    return method


def _batch(card: ModelCard, running: RuntimeOptions, block_ms: float) -> int:
    """Return how many frames, or samples, the networks process for each block."""
    network = registry.find(card.network)
    if network.hears_waves:
        return block_length(network.grid, card.sample_rate, block_ms)
    plan = mask_plan(card, card.mask, running)
    return plan.batch_for(block_length(plan.stride_samples, card.sample_rate, block_ms))


def block_length(grid: int, sample_rate: int, block_ms: float) -> int:
    """Return the samples of a block of about so many milliseconds, on a separator's grid."""
    return max(1, round(block_ms / 1000 * sample_rate / grid)) * grid


def only(stems: Samples) -> Samples:
    """Mix one stem: there is nothing to do."""
    return stems.reshape(stems.shape[1:])


class Live:
    """A separator at work on small blocks, and what becomes of the stems of each: `mix`, by and by."""

    def __init__(
        self, separator: Separator, mix: Callable[[Samples], Samples], *, block_ms: float = BLOCK_MS
    ) -> None:
        self.spec = separator.spec
        self.block = block_length(self.spec.grid, self.spec.sample_rate, block_ms)
        self.latency = self.block + self.spec.context
        """In samples: this long after it came, a sample's turn has come."""
        self.made = self.blocks = 0
        self._separator, self._mix, self._busy_seconds = separator, mix, 0.0

    def check(self, sample_rate: int, channels: int) -> None:
        """Refuse what cannot be separated or mixed, by doing it to silence; whatever is slow once is done."""
        if sample_rate != self.spec.sample_rate:
            raise StemsplitError(
                f"The sound has {sample_rate} Hz, and the model works at {self.spec.sample_rate}",
                f"resample it before: ffmpeg -i - -f wav -ar {self.spec.sample_rate} -",
            )
        silence = np.zeros((channels, self.block + 2 * self.spec.context), np.float32)
        self._mix(self._separator.separate(silence))

    def run(self, blocks: Iterable[Samples]) -> Iterator[Samples]:
        """Yield what is made of blocks `(channel, time)`: after so many samples, all but `latency` of them.

        At the end come the others, so that it is exactly as long.
        """
        seconds = self.block / self.spec.sample_rate
        for stems in separate_blocks(self, blocks, segment_seconds=seconds, workers=1):
            began = time.perf_counter()
            made = self._mix(stems)
            self._busy_seconds += time.perf_counter() - began
            self.made += made.shape[-1]
            self.blocks += 1
            yield made

    def separate(self, window: Samples) -> Samples:
        """Separate as the separator does, and see how long it takes."""
        began = time.perf_counter()
        stems = self._separator.separate(window)
        self._busy_seconds += time.perf_counter() - began
        return stems

    def milliseconds(self, samples: float) -> float:
        """Return how long so many samples last."""
        return 1000 * samples / self.spec.sample_rate

    def summary(self, latency: float, late: int, measured: Iterable[float] = ()) -> Summary:
        """Sum up; `latency` is in samples, `measured` in seconds."""
        times = [1000 * seconds for seconds in measured]
        seconds = self.made / self.spec.sample_rate
        return Summary(
            seconds=seconds,
            block_ms=self.milliseconds(self.block),
            latency_ms=self.milliseconds(latency),
            median_ms=median(times) if times else None,
            worst_ms=max(times) if times else None,
            blocks=self.blocks,
            late=late,
            times_real_time=seconds / self._busy_seconds if self._busy_seconds else None,
        )


class Clock:
    """When samples came, when they went, and which of them were late.

    A block is late if it is not done within the time that one lasts, counted from when it was complete with
    its context, and its first sample as old as the latency.
    """

    def __init__(self, spec: Spec, block: int) -> None:
        self._needed, self._rate, self._block = block + spec.context, spec.sample_rate, block
        self._came: deque[tuple[float, float]] = deque()  # how many samples there were, and when
        self._gone = 0
        self.latencies, self.late = array("f"), 0

    def came(self, total: float, when: float) -> None:
        """Note when there were so many samples in all; at the end they are infinitely many."""
        self._came.append((total, when))

    def went(self, samples: int, when: float) -> None:
        """Note when the next samples were written."""
        while self._came[0][0] <= self._gone:
            self._came.popleft()
        first = self._came[0][1]
        complete = next(came for total, came in self._came if total >= self._gone + self._needed)
        due = max(first + self._needed / self._rate, complete) + self._block / self._rate
        self.late += when > due
        self.latencies.append(when - first)
        self._gone += samples


class Pipe:
    """From one stream to another, each block as soon as it is made."""

    def __init__(
        self, live: Live, stream: BinaryIO, raw: Raw, outlet: Outlet, *, length: int | None = None
    ) -> None:
        self._live, self._raw, self._outlet = live, raw, outlet
        self._stream = WavSamples(stream, length)
        self._clock = Clock(live.spec, live.block)
        self._remarks: list[str] = []
        self.latency = live.latency

    def run(self) -> None:
        """Go on until there is no more.

        Raises:
            DecodeError: nothing comes, or what is no sound.
            BrokenPipeError: nobody reads the stream any more.
        """
        for block in self._live.run(self._blocks()):
            self._outlet.write(block)
            self._clock.went(block.shape[-1], time.monotonic())
        self._outlet.finish()

    @property
    def summary(self) -> Summary:
        """How it went until now."""
        return self._live.summary(self.latency, self._clock.late, self._clock.latencies)

    @property
    def warnings(self) -> list[str]:
        """What was wrong with the sound."""
        loud = self._raw.depth != "32f" and self._outlet.peak > 1
        above_db = 20 * math.log10(self._outlet.peak) if loud else 0.0
        clipped = [f"It went up to {above_db:.1f} dB above full scale and was clipped."] if loud else []
        return [*self._remarks, *clipped]

    def _blocks(self) -> Iterator[Samples]:
        """Yield whole frames, as many as there are."""
        width, total, rest = self._raw.bytes_per_frame, 0, b""
        for when, data in self._arrivals():
            if not data:
                break
            data = rest + data
            rest = data[len(data) // width * width :]
            block = self._raw.decode(data[: len(data) - len(rest)])
            check_finite(block, "standard input", total, self._raw.sample_rate)
            total += block.shape[1]
            self._clock.came(total, when)
            yield block
        self._clock.came(math.inf, when)
        if rest:
            self._remarks.append(f"The last {len(rest)} bytes of standard input are no whole frame.")
        if self._stream.remark:
            self._remarks.append(self._stream.remark)
        if not total:
            raise DecodeError("Nothing came through standard input")

    def _arrivals(self) -> Iterator[tuple[float, bytes]]:
        """Yield what comes and when it came, and at the end nothing.

        It is read on a thread of its own, that the time be right while a block is being made; no more than a
        block ahead, for what comes faster than it sounds must wait.
        """
        size = max(1, self._live.block * self._raw.bytes_per_frame // 4)
        came: Queue[tuple[float, bytes | OSError]] = Queue(maxsize=4)

        def read() -> None:
            data: bytes | OSError = b"more"
            while data and not isinstance(data, OSError):
                try:
                    data = self._stream.read(size)
                except OSError as error:
                    data = error
                came.put((time.monotonic(), data))

        threading.Thread(target=read, daemon=True, name="standard input").start()
        data: bytes | OSError = b"more"
        while data:
            when, data = came.get()
            if isinstance(data, OSError):
                raise DecodeError(f"Cannot read standard input: {data.strerror}") from data
            yield when, data


class Card:
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
        """In samples, with what the cards say of their own."""

    def callback(self, heard: Any, played: Any, frames: int, when: Any, status: Any) -> None:
        """Take a block `(time, channel)` and give one, both at once; all work is done elsewhere."""
        self._came.put(heard.copy())
        while self._owed and self.ready:
            self.ready.popleft()
            self._owed -= 1
        missing = not self.ready
        self._owed += missing
        self.late += bool(missing or status)
        played[:] = 0 if missing else self.ready.popleft()

    def run(self) -> None:
        """Go on until the card is taken away, or for ever. Raises DeviceUnavailable at what is too slow."""
        with self._stream:
            for block in self._live.run(self._blocks()):
                self.ready.append(block.T)

    @property
    def summary(self) -> Summary:
        """How it went until now."""
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
