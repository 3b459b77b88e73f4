"""Reading and resampling sound files as blocks `(channel, time)`, in bounded memory."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soxr
from numpy.typing import NDArray

from stemsplit import _compat
from stemsplit.audio import ffmpeg
from stemsplit.audio.decoding import tracks
from stemsplit.audio.decoding.sources import Source, open_source
from stemsplit.errors import DecodeError, UnsupportedChannels
from stemsplit.files.scratch import shown

if TYPE_CHECKING:
    from pydub import AudioSegment

Block = NDArray[np.float32]

RATES = (1_000, 1_500_000)
"""Plausible sample rates in Hz. Others come from wrong headers, and resampling could exhaust the memory."""
LOUDEST = 1e15
"""Larger samples (300 dB above full scale) are not sound, and their squares overflow float32."""


@dataclass(frozen=True)
class Signal:
    """The sample rate, channels and length of audio in blocks."""

    sample_rate: int
    channels: int
    frames: int | None = None
    """The length, if known beforehand."""


class Reader:
    """A sound file as float32 blocks `(channel, time)`, which can be iterated repeatedly.

    For a file with several audio tracks, `track` is an index from 0 or a language such as `eng`; by default,
    the default track is read. `downmix` mixes more than two channels down to stereo. `frames` is the exact
    length, or None if it is known only after decoding, as for everything that ffmpeg decodes. In that case,
    `frames_estimate` is the length that the container states, rounded to 10 ms, for progress bars. `warnings`
    are sentences about the last iteration.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        start_seconds: float = 0.0,
        duration_seconds: float | None = None,
        block_frames: int = 65_536,
        track: int | str | None = None,
        downmix: bool = False,
    ) -> None:
        self.path, self._track, self._downmix = Path(path), track, downmix
        self.warnings: list[str] = []
        self._block_frames = block_frames
        sensible = 0 <= start_seconds < math.inf  # false for NaN too
        if not (sensible and (duration_seconds is None or 0 < duration_seconds < math.inf)):
            raise DecodeError("The start must not be negative, and the duration must be more than 0")
        self._state = self._current_state()
        source = open_source(self.path, self._track, downmix=self._downmix)
        source.close()
        self.sample_rate, self.channels, self.depth = source.sample_rate, source.channels, source.depth
        if self.channels > 2:
            raise UnsupportedChannels(
                f"`{shown(self.path)}` has {self.channels} channels; only mono and stereo can be split",
                f"mix them down to stereo with --downmix{tracks.alternatives(self.path)}",
            )
        if not RATES[0] <= self.sample_rate <= RATES[1]:
            raise DecodeError(
                f"`{shown(self.path)}` states an impossible sample rate of {self.sample_rate:,} Hz",
                "export the file again",
            )
        self._start = round(start_seconds * self.sample_rate)
        self._limit: float = math.inf
        if duration_seconds is not None:
            self._limit = max(1, round(duration_seconds * self.sample_rate))
        self.frames = self._part_of(source.frames)
        self.frames_estimate = self.frames
        if self.frames is None and source.seconds is not None:
            self.frames_estimate = self._part_of(round(source.seconds * self.sample_rate))
        if self.frames is not None and self.frames <= 0 < self._start:
            raise self._beyond_the_end()

    @property
    def signal(self) -> Signal:
        """The properties of all blocks together, with `frames_estimate` as the length."""
        return Signal(self.sample_rate, self.channels, self.frames_estimate)

    def _part_of(self, frames: int | None) -> int | None:
        return None if frames is None else int(max(0, min(frames - self._start, self._limit)))

    def __iter__(self) -> Generator[Block, None, None]:
        """Yield blocks of up to `block_frames` frames. Raises DecodeError for samples that are not finite."""
        self.warnings.clear()
        source = open_source(self.path, self._track, downmix=self._downmix)
        try:
            if (source.sample_rate, source.channels) != (self.sample_rate, self.channels):
                raise DecodeError(f"`{shown(self.path)}` changed while it was read", "split it again")
            position = self._start if source.seek(self._start) else 0
            end = self._start + self._limit
            while position < end:
                block = source.read(int(min(self._block_frames, end - position)))
                if not block.shape[1]:
                    break
                wanted = block[:, max(0, self._start - position) :]
                position += block.shape[1]
                if wanted.shape[1]:
                    check_finite(
                        wanted, f"`{shown(self.path)}`", position - wanted.shape[1], self.sample_rate
                    )
                    yield wanted
        finally:
            source.close()
        if self._current_state() != self._state:
            self.warnings.append(
                f"`{self.path.name}` changed while it was read; the part that was read was used."
            )
        if position < end:
            self._check_end(source, position)
        if source.remark:
            self.warnings.append(f"`{self.path.name}` {source.remark}")

    def _current_state(self) -> tuple[int, ...]:
        """Return a value that changes when the file is written or replaced."""
        with contextlib.suppress(OSError):
            state = self.path.stat()
            return state.st_ino, state.st_size, state.st_mtime_ns
        return ()

    def _check_end(self, source: Source, position: int) -> None:
        """Warn about a truncated or damaged file; DecodeError if no block was yielded."""
        promised = source.promised_seconds
        reason = f" ({source.complaint})" if source.complaint else ""
        if not position and source.frames == 0:
            raise DecodeError(f"`{shown(self.path)}` contains no sound: its length is 0")
        if not position:
            raise DecodeError(f"No part of `{shown(self.path)}` can be decoded{reason}")
        seconds, slack = position / self.sample_rate, source.slack_seconds + 1e-6
        if promised is not None and seconds < promised - slack:
            digits = 2 if promised - seconds >= 0.01 else 5
            self.warnings.append(
                f"`{self.path.name}` is truncated: it should be {promised:.{digits}f} s long but ends after "
                f"{seconds:.{digits}f} s{reason}; this part was used."
            )
        elif source.complaint:
            self.warnings.append(f"`{self.path.name}` is damaged{reason}; the part that decodes was used.")
        elif promised is not None and not source.slack_seconds and seconds > promised + slack:
            stated = f"only {promised:.2f} s" if promised else "no length"
            self.warnings.append(
                f"The header of `{self.path.name}` states {stated}, but the file contains {seconds:.2f} s; "
                "all of it was used."
            )
        if position <= self._start:
            raise self._beyond_the_end()

    def _beyond_the_end(self) -> DecodeError:
        start = self._start / self.sample_rate
        return DecodeError(f"The start, {start:g} s, is beyond the end of `{shown(self.path)}`")


def check_finite(block: Block, name: str, position: int, sample_rate: int) -> None:
    """Raise DecodeError for samples that are not finite or far too large; `position` is the first frame."""
    sound = (np.abs(block) < LOUDEST).all(axis=0)  # false for NaN too
    if not sound.all():
        seconds = (position + int(np.argmin(sound))) / sample_rate
        raise DecodeError(
            f"{name} contains NaN, infinite or absurdly large samples from {seconds:.3f} s on",
            "export the file again, or split the part before with --duration",
        )


def resample(blocks: Iterable[Block], source_rate: int, target_rate: int, channels: int) -> Iterator[Block]:
    """Yield the audio at another sample rate, without delay, as if it were resampled in one call."""
    if source_rate == target_rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(source_rate, target_rate, channels, dtype="float32", quality="VHQ")
    for block in blocks:
        part = stream.resample_chunk(np.ascontiguousarray(block.T))
        if len(part):
            yield np.ascontiguousarray(part.T)
    rest = stream.resample_chunk(np.zeros((0, channels), np.float32), last=True)
    if len(rest):
        yield np.ascontiguousarray(rest.T)


def to_segment(samples: Block, sample_rate: int) -> AudioSegment:
    """Return samples `(channel, time)` as a 16-bit pydub segment."""
    pydub = _compat.pydub_with(ffmpeg.executable())
    full_scale = 2.0**15
    data = np.clip(np.rint(samples * full_scale), -full_scale, full_scale - 1).astype("<i2").T.tobytes()
    segment: AudioSegment = pydub.AudioSegment(
        data, sample_width=2, frame_rate=sample_rate, channels=len(samples)
    )
    return segment
