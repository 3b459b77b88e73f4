"""Live separation from one stream to another."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from queue import Queue
from typing import BinaryIO

from stemsplit.audio.raw import RawFormat, StreamWriter, WavSamples
from stemsplit.audio.reader import check_finite
from stemsplit.errors import DecodeError
from stemsplit.live.clock import Clock
from stemsplit.live.engine import Live, Summary
from stemsplit.separation.separator import Samples


class Pipe:
    """Reads one stream and writes another; each block is written as soon as it is ready."""

    def __init__(
        self, live: Live, stream: BinaryIO, raw: RawFormat, outlet: StreamWriter, *, length: int | None = None
    ) -> None:
        self._live, self._raw, self._outlet = live, raw, outlet
        self._stream = WavSamples(stream, length)
        self._clock = Clock(live.spec, live.block)
        self._remarks: list[str] = []
        self.latency = live.latency

    def run(self) -> None:
        """Run until the input ends.

        Raises:
            DecodeError: the stream is empty or is not sound.
            BrokenPipeError: the reader of the output has closed it.
        """
        for block in self._live.run(self._blocks()):
            self._outlet.write(block)
            self._clock.went(block.shape[-1], time.monotonic())
        self._outlet.finish()

    @property
    def summary(self) -> Summary:
        """Statistics so far."""
        return self._live.summary(self.latency, self._clock.late, self._clock.latencies)

    @property
    def warnings(self) -> list[str]:
        """Defects of the input, and clipping of the output."""
        loud = self._raw.depth != "32f" and self._outlet.peak > 1
        above_db = 20 * math.log10(self._outlet.peak) if loud else 0.0
        clipped = [f"The output reached {above_db:.1f} dB above full scale and was clipped."] if loud else []
        return [*self._remarks, *clipped]

    def _blocks(self) -> Iterator[Samples]:
        """Yield whole frames as they arrive."""
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
            self._remarks.append(f"The last {len(rest)} bytes of standard input are not a complete frame.")
        if self._stream.remark:
            self._remarks.append(self._stream.remark)
        if not total:
            raise DecodeError("Standard input is empty")

    def _arrivals(self) -> Iterator[tuple[float, bytes]]:
        """Yield data with its arrival time; empty data at the end.

        A separate thread reads it, so that the times are right while a block is computed. It reads at most
        about one block ahead, so input that is faster than real time has to wait.
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
