"""Sources that read one file with several decoders in turn."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from stemsplit.audio import ffmpeg
from stemsplit.audio.decoding.decoder import Decoder
from stemsplit.audio.decoding.ogg import Link
from stemsplit.audio.decoding.sndfile import Libsndfile
from stemsplit.errors import DecodeError, StemsplitError
from stemsplit.files.scratch import shown

_SKIPPED_AT_ONCE = 65_536


class Relay:
    """Decodes with libsndfile until it fails, then with ffmpeg from the next frame on.

    With `continues`, ffmpeg also looks for audio beyond the length in the header.
    """

    remark = None

    def __init__(
        self, first: Libsndfile, path: Path, part: range | None = None, *, continues: bool = False
    ) -> None:
        self._first, self._path, self._part, self._continues = first, path, part, continues
        self._second: Decoder | None = None
        self._relayed = False
        self._position = 0
        self.sample_rate, self.channels, self.depth = first.sample_rate, first.channels, first.depth
        self.seconds, self.promised_seconds = first.seconds, first.promised_seconds
        self.slack_seconds = first.slack_seconds
        self.frames = None if continues else first.frames

    def read(self, frames: int) -> NDArray[np.float32]:
        """Return the next `(channel, time)` block, shorter where the decoder changes, empty at the end."""
        if self._second:
            block = self._second.read(frames)
            self._relayed |= bool(block.shape[1])
            return block
        block = self._first.read(frames)
        self._position += block.shape[1]
        if block.shape[1] or not (self._first.failed or self._continues):
            return block
        self._second = self._open_second()
        return self.read(frames) if self._second else block

    def _open_second(self) -> Decoder | None:
        """Return ffmpeg at the same frame, or None if it cannot read the file."""
        try:
            decoder = Decoder(self._path, 0, self._part)
        except StemsplitError:
            return None
        if (decoder.sample_rate, decoder.channels) == (self.sample_rate, self.channels):
            rest = self._position
            while rest:
                skipped = decoder.read(min(rest, _SKIPPED_AT_ONCE)).shape[1]
                rest -= skipped
                if not skipped:
                    break
            else:
                return decoder
        decoder.close()
        return None

    def seek(self, frames: int) -> bool:
        """Return False: only decoding from the start is exact in every format."""
        return False

    def close(self) -> None:
        """Close both decoders."""
        self._first.close()
        if self._second:
            self._second.close()

    @property
    def complaint(self) -> str | None:
        """The first fault found; ffmpeg's counts only if it found audio that libsndfile did not find."""
        return self._first.complaint or (self._second.complaint if self._second and self._relayed else None)


class Chain:
    """Decodes the links of an Ogg file one by one, because all their headers can differ."""

    slack_seconds = 0.0

    def __init__(self, path: Path, links: tuple[Link, ...], track: int = 0) -> None:
        self._path, self._links, self._track = path, links, track
        self._faults: list[str] = []
        self.remark: str | None = None
        self._rest = iter(links)
        self._source = self._open_first()
        self._position = 0
        self.sample_rate, self.channels = self._source.sample_rate, self._source.channels
        self.seconds: float | None = sum(link.seconds for link in links)
        self.frames = self.promised_seconds = None
        if len(links) > 1:
            self.remark = f"contains {len(links)} recordings in a row; all were used."
        elif isinstance(self._source, Relay):
            self.frames, self.seconds = self._source.frames, self._source.seconds
            self.promised_seconds = self._source.promised_seconds

    def _open_first(self) -> Decoder | Relay:
        """Open the first link that can be decoded."""
        problem = DecodeError(f"`{shown(self._path)}` has no sound in it")
        for link in self._rest:
            try:
                return self._open(link)
            except DecodeError as error:
                problem = error
                self._faults.append("a part cannot be decoded")
        raise problem

    def _open(self, link: Link) -> Decoder | Relay:
        part = range(link.start, link.end) if len(self._links) > 1 else None
        if link.fault:
            self._faults.append(link.fault)
        if not self._track and (link.suits_libsndfile or not ffmpeg.executable()):
            with contextlib.suppress(soundfile.LibsndfileError):
                return Relay(Libsndfile(self._path, part), self._path, part)
        return Decoder(self._path, self._track, part)

    def read(self, frames: int) -> NDArray[np.float32]:
        """Return the next `(channel, time)` block, shorter at the end of a link, empty at the end of all."""
        block = self._source.read(frames)
        while not block.shape[1] and self._next():
            block = self._source.read(frames)
        self._position += block.shape[1]
        return block

    def _next(self) -> bool:
        """Open the next link; return whether there is one that continues the audio."""
        for link in self._rest:
            try:
                source = self._open(link)
            except DecodeError:
                self._faults.append("a part cannot be decoded")
                continue
            if (source.sample_rate, source.channels) == (self.sample_rate, self.channels):
                self.close()
                self._source = source
                return True
            source.close()
            seconds = self._position / self.sample_rate
            self.remark = (
                f"goes on after {seconds:.2f} s with another sample rate or number of channels; "
                "only the part before was used."
            )
            self._rest = iter(())
        return False

    def seek(self, frames: int) -> bool:
        """Return False: only decoding from the start is exact in every format."""
        return False

    def close(self) -> None:
        """Close the link's decoder, and keep its complaint."""
        self._source.close()
        if self._source.complaint:
            self._faults.append(self._source.complaint)

    @property
    def depth(self) -> str:
        """The depth of the link that was read last."""
        return self._source.depth

    @property
    def complaint(self) -> str | None:
        """The first fault found in any link."""
        return self._faults[0] if self._faults else None
