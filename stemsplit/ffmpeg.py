"""The ffmpeg program: decoding and encoding through pipes.

It serves what libsndfile cannot do. Arguments are lists, never a shell; input names carry the `file:`
prefix, so that a leading `-` or a colon means nothing, and no input may open the network or another file.
"""

from __future__ import annotations

import base64
import contextlib
import re
import shutil
import struct
import subprocess
import tempfile
import threading
from collections import deque
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stemsplit.errors import DecodeError

_COMMON = ("-hide_banner", "-nostdin", "-nostats")
# What holds its sound itself. Playlists, session descriptions and sequences of pictures name other files.
_CONTAINERS = (
    "aac,ac3,ac4,aiff,amr,ape,apc,asf,au,avi,caf,dsf,dts,dtshd,eac3,flac,flv,gsm,iff,ircam,loas,matroska,mlp,mov,"
    "mp3,mpc,mpc8,mpeg,mpegts,mxf,nut,ogg,oma,qoa,rm,shn,swf,tak,truehd,tta,voc,vqf,w64,wav,wtv,wv,xwma"
)
_LOCAL = ("-protocol_whitelist", "file,pipe", "-format_whitelist", _CONTAINERS)
INSTALL = "install ffmpeg, or `pip install imageio-ffmpeg`, and try again"

_CODECS = {
    "flac": ("-c:a", "flac", "-f", "flac"),
    "mp3": ("-c:a", "libmp3lame", "-id3v2_version", "3", "-f", "mp3"),
    "ogg": ("-c:a", "libvorbis", "-f", "ogg"),
    "m4a": ("-c:a", "aac", "-f", "ipod"),
}
# Near transparent: a separated stem is often mixed again, which uncovers what a codec hid.
_DEFAULT_QUALITY = {"mp3": ("-b:a", "320k"), "ogg": ("-q:a", "8"), "m4a": ("-b:a", "256k")}


@lru_cache(maxsize=1)
def _bundled() -> str | None:
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return None


def executable() -> str | None:
    """Return the ffmpeg to run: the one that imageio-ffmpeg brings, else the one on the PATH.

    Not the other way round: which version decodes a lossy file decides where it ends. 5.1 leaves the
    encoder's padding there. `IMAGEIO_FFMPEG_EXE` in the environment names another one.
    """
    return _bundled() or shutil.which("ffmpeg")


class _Process:
    """A running ffmpeg; a thread drains its stderr, so that it never blocks on a full pipe."""

    def __init__(self, program: str, *arguments: str, stdin: int, stdout: int) -> None:
        # In a session of its own Ctrl-C reaches only us, and we end it in good order.
        self.popen = subprocess.Popen(
            [program, *_COMMON, *arguments],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._lines: deque[bytes] = deque(maxlen=500)
        self._drain = threading.Thread(target=self._lines.extend, args=(self.popen.stderr,), daemon=True)
        self._drain.start()

    def end(self, *, kill: bool = False) -> int:
        """Wait for the program, killing it first if asked; return its exit status. May be called again."""
        if kill:
            self.popen.kill()
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe and not pipe.closed:
                with contextlib.suppress(OSError):  # unsent bytes for a dead program
                    pipe.close()
        status = self.popen.wait()
        self._drain.join()
        if self.popen.stderr:
            self.popen.stderr.close()
        return status

    @property
    def log(self) -> str:
        """All it has said; complete only after `end`."""
        return b"".join(self._lines).decode("utf-8", "replace")

    @property
    def complaint(self) -> str | None:
        """Its first error, which names the cause where the later ones name consequences."""
        # A cover's faults are not the sound's.
        found = re.search(r"^(?!\[(?:mjpeg|png) @).*\[(?:error|fatal)\] (.+)", self.log, re.MULTILINE)
        return found[1].strip() if found else None


class Decoder:
    """A sound track of a file, counted from 0, as float32 blocks; what ffmpeg says is known once closed."""

    frames = None
    slack_seconds = 0.25  # `seconds` is rounded, and older versions count the padding

    def __init__(self, path: Path, track: int = 0) -> None:
        program = executable()
        if program is None:
            raise DecodeError(f"Cannot decode `{path.name}`: it needs ffmpeg", INSTALL)
        arguments = ["-v", "level+info", *_LOCAL, "-i", f"file:{path}", "-map", f"0:a:{track}"]
        self._process = _Process(
            program,
            *[*arguments, "-f", "au", "-c:a", "pcm_f32be", "-"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        header = self._bytes(24)
        if len(header) < 24:
            self._process.end()
            log, complaint = self._process.log, self.complaint
            if "matches no streams" in log:
                missing = f"fewer than {track + 1} sound tracks" if track else "no sound in it"
                raise DecodeError(f"`{path.name}` has {missing}")
            if "moov atom not found" in log:
                raise DecodeError(f"`{path.name}` is incomplete: its index, at the end, is missing")
            if "not on whitelist" in log:
                raise DecodeError(
                    f"`{path.name}` has no sound of its own",
                    "it is a playlist, a picture or a text; give the sound files themselves",
                )
            said = f"; ffmpeg says: {complaint}" if complaint else ""
            raise DecodeError(
                f"`{path.name}` is no sound file that can be decoded", f"see whether it plays elsewhere{said}"
            )
        _, offset, _, _, self.sample_rate, self.channels = struct.unpack(">4s5I", header)
        self._bytes(offset - 24)

    def _bytes(self, count: int) -> bytes:
        assert self._process.popen.stdout is not None
        return self._process.popen.stdout.read(count)

    def read(self, frames: int) -> NDArray[np.float32]:
        """Return the next `(channel, time)` block, shorter at the end, then empty."""
        width = 4 * self.channels
        data = self._bytes(frames * width)
        samples = np.frombuffer(data[: len(data) // width * width], ">f4").reshape(-1, self.channels)
        if len(samples) < frames:
            self._process.popen.wait()  # it has reached its end; let it say its last word
        return np.ascontiguousarray(samples.T, np.float32)

    def seek(self, frames: int) -> bool:
        """Nothing but decoding from the start is exact in every format."""
        return False

    def close(self) -> None:
        """End the program and reap it, wherever it stands."""
        self._process.end(kill=True)

    @property
    def complaint(self) -> str | None:
        """The first fault found in the file."""
        return self._process.complaint

    @property
    def depth(self) -> str:
        """The samples' depth as `Writer` has it; lossy decoders give planar floats (fltp), which is "16"."""
        found = re.search(r" Audio: .*, (s32p?|flt|dbl)\b", self._description)
        return "16" if not found else "24" if found[1].startswith("s") else "32f"

    @property
    def _description(self) -> str:
        """What ffmpeg says of the input before it starts."""
        return self._process.log.partition("Stream mapping")[0]

    @property
    def seconds(self) -> float | None:
        """What the container says, rounded; good enough for a progress bar."""
        found = re.search(r"Duration: (\d+):(\d+):([\d.]+)", self._process.log)
        return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3]) if found else None

    @property
    def promised_seconds(self) -> float | None:
        """`seconds` where it is no guess and speaks of the sound, not of a picture that runs longer."""
        log = self._description
        tracks = [line for line in log.splitlines() if "  Stream #0:" in line and "attached pic" not in line]
        return self.seconds if len(tracks) == 1 and "Estimating duration" not in log else None


class Encoder:
    """Raw samples in, a sound file out. `tags` and `cover` come from `read_tags`."""

    def __init__(
        self,
        path: Path,
        *,
        format: str,
        sample_rate: int,
        channels: int,
        raw: str,
        bitrate: str | None,
        tags: dict[str, str],
        cover: bytes | None,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="stemsplit-")
        if cover and format == "ogg":  # it has no picture track
            tags, cover = {**tags, "METADATA_BLOCK_PICTURE": picture_block(cover)}, None
        notes = Path(self._folder.name, "tags")
        notes.write_text(ffmetadata(tags), encoding="utf-8", newline="\n")
        arguments = ["-v", "level+error", "-f", raw, "-ar", str(sample_rate), "-ac", str(channels)]
        arguments += ["-i", "pipe:0", "-f", "ffmetadata", "-i", f"file:{notes}"]
        picture = Path(self._folder.name, "cover")
        if cover:
            picture.write_bytes(cover)
            arguments += ["-i", f"file:{picture}", "-map", "2:v", "-c:v", "copy"]
            arguments += ["-disposition:v", "attached_pic"]
        quality = ("-b:a", bitrate) if bitrate else _DEFAULT_QUALITY.get(format, ())
        arguments += ["-map", "0:a", "-map_metadata", "1", *quality, *_CODECS[format]]
        arguments += ["-fflags", "+bitexact", "-y", f"file:{path}"]
        program = executable() or "ffmpeg"
        self._process = _Process(program, *arguments, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)

    def write(self, data: bytes) -> None:
        """Send interleaved samples; OSError if ffmpeg has gone away, with its reason."""
        assert self._process.popen.stdin is not None
        try:
            self._process.popen.stdin.write(data)
        except OSError as error:
            self.close()
            raise OSError(self._process.complaint or f"ffmpeg stopped ({error.strerror})") from error

    def finish(self) -> None:
        """Let ffmpeg write the rest; OSError with its reason if that fails."""
        status = self._process.end()
        self.close()
        if status:
            raise OSError(self._process.complaint or f"ffmpeg stopped with status {status}")

    def close(self) -> None:
        """End the program and reap it, wherever it stands."""
        self._process.end(kill=True)
        self._folder.cleanup()


def ffmetadata(tags: dict[str, str]) -> str:
    """Return tags in the text format that ffmpeg reads."""
    pairs = ["=".join(re.sub(r"([=;#\\\n])", r"\\\1", text) for text in pair) for pair in tags.items()]
    return "\n".join([";FFMETADATA1", *pairs, ""])


def picture_block(cover: bytes) -> str:
    """Return a front cover as Vorbis comments carry it: the picture block of FLAC in base64."""
    mime = b"image/png" if cover.startswith(b"\x89PNG") else b"image/jpeg"
    head = struct.pack(f">II{len(mime)}s6I", 3, len(mime), mime, 0, 0, 0, 0, 0, len(cover))
    return base64.b64encode(head + cover).decode("ascii")
