"""Decoding with the ffmpeg program through a pipe."""

from __future__ import annotations

import re
import struct
import subprocess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stemsplit.audio import ffmpeg
from stemsplit.audio.formats import other_kind
from stemsplit.errors import DecodeError
from stemsplit.files.scratch import shown


class Decoder:
    """Decodes one audio track of a file to float32 blocks; ffmpeg's messages are complete once it is closed.

    `track` counts from 0; `part` is the range of bytes to read. The audio is preceded by `delay_seconds` of
    silence; with `timed`, gaps between time stamps are filled with silence. `downmix` gives two channels.
    """

    frames = None
    remark: str | None = None
    slack_seconds = 0.25  # `seconds` is rounded, and older versions count the padding

    def __init__(
        self,
        path: Path,
        track: int = 0,
        part: range | None = None,
        *,
        delay_seconds: float = 0.0,
        timed: bool = False,
        downmix: bool = False,
    ) -> None:
        program = ffmpeg.executable()
        if program is None:
            raise _other_kind(path) or DecodeError(
                f"Cannot decode `{shown(path)}` without ffmpeg", ffmpeg.INSTALL
            )
        name = f"subfile,,start,{part.start},end,{part.stop},,:file:{path}" if part else f"file:{path}"
        arguments = ["-v", "level+info", *ffmpeg.LOCAL, "-i", name, "-map", f"0:a:{track}"]
        # Float, because the downmix can exceed full scale. Small errors of time stamps are ignored.
        options = ["osf=flt", *["async=1:min_hard_comp=0.05"] * timed, *["ochl=stereo"] * downmix]
        arguments += ["-af", f"aresample={':'.join(options)}"] if timed or downmix else []
        self._process = ffmpeg.Process(
            program,
            *[*arguments, "-f", "au", "-c:a", "pcm_f32be", "-"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        header = self._bytes(24)
        if len(header) < 24:
            self._process.end()
            raise _refusal(path, track, self._process.log, self.complaint)
        _, offset, _, _, self.sample_rate, self.channels = struct.unpack(">4s5I", header)
        self._bytes(offset - 24)
        self._silence = round(delay_seconds * self.sample_rate)

    def _bytes(self, count: int) -> bytes:
        assert self._process.popen.stdout is not None
        return self._process.popen.stdout.read(count)

    def read(self, frames: int) -> NDArray[np.float32]:
        """Return the next `(channel, time)` block, shorter at the end, then empty."""
        if self._silence:
            count = min(frames, self._silence)
            self._silence -= count
            return np.zeros((self.channels, count), np.float32)
        width = 4 * self.channels
        data = self._bytes(frames * width)
        samples = np.frombuffer(data[: len(data) // width * width], ">f4").reshape(-1, self.channels)
        if len(samples) < frames:
            self._process.popen.wait()  # at the end: read ffmpeg's last messages
        return np.ascontiguousarray(samples.T, np.float32)

    def seek(self, frames: int) -> bool:
        """Return False: only decoding from the start is exact in every format."""
        return False

    def close(self) -> None:
        """End the program, whatever its state, and reap it."""
        self._process.end(kill=True)

    @property
    def complaint(self) -> str | None:
        """The first fault found in the file."""
        return self._process.complaint

    @property
    def depth(self) -> str:
        """The bit depth, see `Writer`. Lossy decoders return planar floats (fltp), which count as "16"."""
        found = re.search(r" Audio: .*, (s32p?|flt|dbl)\b", self._description)
        return "16" if not found else "24" if found[1].startswith("s") else "32f"

    @property
    def _description(self) -> str:
        """ffmpeg's description of the input, before it starts decoding."""
        return self._process.log.partition("Stream mapping")[0]

    @property
    def seconds(self) -> float | None:
        """The duration that the container states, rounded; good enough for a progress bar."""
        found = re.search(r"Duration: (\d+):(\d+):([\d.]+)", self._process.log)
        return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3]) if found else None

    @property
    def promised_seconds(self) -> float | None:
        """`seconds`, unless it is an estimate or the duration of a longer video stream."""
        log = self._description
        tracks = [line for line in log.splitlines() if "  Stream #0:" in line and "attached pic" not in line]
        if len(tracks) != 1 or "Estimating duration" in log or self.seconds is None:
            return None
        late = re.search(r"Duration: [\d:.]+, start: ([\d.]+)", log)
        start = float(late[1]) if late else 0.0  # a small one can be the encoder's delay
        return self.seconds - (start if start > self.slack_seconds else 0.0)


def _refusal(path: Path, track: int, log: str, complaint: str | None) -> DecodeError:
    """Return the error for a file in which ffmpeg found no audio, from its messages."""
    if other := _other_kind(path):
        return other
    if "matches no streams" in log:
        missing = f"fewer than {track + 1} audio tracks" if track else "no sound in it"
        return DecodeError(f"`{shown(path)}` has {missing}")
    if "moov atom not found" in log:
        return DecodeError(f"`{shown(path)}` is incomplete: its index, at the end, is missing")
    if "not on whitelist" in log:
        hint = "it is a playlist, a picture or a text; name the audio files instead"
        return DecodeError(f"`{shown(path)}` contains no sound itself", hint)
    said = f"; ffmpeg says: {complaint}" if complaint else ""
    return DecodeError(
        f"`{shown(path)}` is not a sound file that can be decoded",
        f"check whether other programs play it{said}",
    )


def _other_kind(path: Path) -> DecodeError | None:
    other = other_kind(path.name)
    return other and DecodeError(f"`{shown(path)}` is {other[0]}", other[1])
