"""The ffmpeg program: finding it, running it, and encoding through a pipe.

It serves what libsndfile cannot do. Arguments are lists, never a shell; input names carry the `file:`
prefix, so that a leading `-` or a colon means nothing, and no input may open the network or another file.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import threading
from collections import deque
from functools import lru_cache
from pathlib import Path

from stemsplit.errors import StemsplitError

_COMMON = ("-hide_banner", "-nostdin", "-nostats")
# What holds its sound itself. Playlists, session descriptions and sequences of pictures name other files.
_CONTAINERS = (
    "aac,ac3,ac4,aiff,amr,ape,apc,asf,au,avi,caf,dsf,dts,dtshd,eac3,flac,flv,gsm,iff,ircam,loas,matroska,mlp,mov,"
    "mp3,mpc,mpc8,mpeg,mpegts,mxf,nut,ogg,oma,qoa,rm,shn,swf,tak,truehd,tta,voc,vqf,w64,wav,wtv,wv,xwma"
)
LOCAL = ("-protocol_whitelist", "file,pipe,subfile", "-format_whitelist", _CONTAINERS)
_NAMED = "IMAGEIO_FFMPEG_EXE"
INSTALL = "install ffmpeg, or `pip install imageio-ffmpeg`, and try again"

RAW = {"16": "s16le", "24": "s32le", "32f": "f32le"}
"""What ffmpeg calls plain samples, by their depth; 24 bits are the upper ones of 32."""
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
    encoder's padding there. `IMAGEIO_FFMPEG_EXE` in the environment names another one. Raises StemsplitError
    if that one cannot be run.
    """
    named = os.environ.get(_NAMED)
    if named and not shutil.which(named):
        raise StemsplitError(
            f"`{named}`, which {_NAMED} names, is not a program", f"correct {_NAMED}, or unset it"
        )
    return named or _bundled() or shutil.which("ffmpeg")


class Process:
    """A running ffmpeg; a thread drains its stderr, so that it never blocks on a full pipe."""

    def __init__(self, program: str, *arguments: str, stdin: int, stdout: int) -> None:
        # In a session of its own Ctrl-C reaches only us, and we end it in good order.
        try:
            self.popen = subprocess.Popen(
                [program, *_COMMON, *arguments],
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise StemsplitError(f"Cannot run `{program}`: {error.strerror}", INSTALL) from error
        self._lines: deque[bytes] = deque(maxlen=500)
        self._drain = threading.Thread(target=self._lines.extend, args=(self.popen.stderr,), daemon=True)
        self._drain.start()

    def end(self, *, kill: bool = False) -> int:
        """Wait for the program, or `kill` it; return its exit status. May be called again."""
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
        # A cover's faults are not the sound's, and time stamps do not matter to plain samples.
        told = r"^(?!\[(?:mjpeg|png) @).*\[(?:error|fatal)\] (?!Application provided invalid)(.+)"
        found = re.search(told, self.log, re.MULTILINE)
        return found[1].strip() if found else None


class Encoder:
    """Raw samples in, a sound file out."""

    def __init__(
        self,
        path: Path,
        *,
        format: str,
        sample_rate: int,
        channels: int,
        raw: str,
        bitrate: int | None,
    ) -> None:
        arguments = ["-v", "level+error", "-f", raw, "-ar", str(sample_rate), "-ac", str(channels)]
        arguments += ["-i", "pipe:0"]
        quality = ("-b:a", str(bitrate)) if bitrate else _DEFAULT_QUALITY.get(format, ())
        if format == "flac" and sample_rate > 655_350:  # ffmpeg's choice is too large for FLAC
            quality = ("-frame_size", "32768")
        arguments += [*quality, *_CODECS[format]]
        arguments += ["-fflags", "+bitexact", "-y", f"file:{path}"]
        program = executable() or "ffmpeg"
        self._process = Process(program, *arguments, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)

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
