"""The ffmpeg program: finding it, running it, and encoding through a pipe.

ffmpeg handles the formats that libsndfile does not. Arguments are lists, without a shell. Input names have
the `file:` prefix, so that a leading `-` or a colon has no special meaning. Inputs cannot access the network
or refer to other files.
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
from itertools import islice
from pathlib import Path

from stemsplit.errors import StemsplitError

_COMMON = ("-hide_banner", "-nostdin", "-nostats")
# Formats that contain the audio. Playlists, session descriptions and image sequences refer to other files.
_CONTAINERS = (
    "aac,ac3,ac4,aiff,amr,ape,apc,asf,au,avi,caf,dsf,dts,dtshd,eac3,flac,flv,gsm,iff,ircam,loas,matroska,mlp,mov,"
    "mp3,mpc,mpc8,mpeg,mpegts,mxf,nut,ogg,oma,qoa,rm,shn,swf,tak,truehd,tta,voc,vqf,w64,wav,wtv,wv,xwma"
)
LOCAL = ("-protocol_whitelist", "file,pipe,subfile", "-format_whitelist", _CONTAINERS)
_NAMED = "IMAGEIO_FFMPEG_EXE"
_LOG_LINES = 250
"""Number of lines to keep from the start of the log, which has the cause of an error, and from its end."""
INSTALL = "install ffmpeg, or `pip install imageio-ffmpeg`, and try again"

RAW = {"16": "s16le", "24": "s32le", "32f": "f32le"}
"""ffmpeg's names for raw samples of each depth; 24-bit samples are the upper bits of 32."""
_CODECS = {
    "flac": ("-c:a", "flac", "-f", "flac"),
    "mp3": ("-c:a", "libmp3lame", "-id3v2_version", "3", "-f", "mp3"),
    "ogg": ("-c:a", "libvorbis", "-f", "ogg"),
    "m4a": ("-c:a", "aac", "-f", "ipod"),
}
# Nearly transparent: stems are often mixed again, which can expose codec artifacts.
_DEFAULT_QUALITY = {"mp3": ("-b:a", "320k"), "ogg": ("-q:a", "8"), "m4a": ("-b:a", "256k")}


@lru_cache(maxsize=1)
def _bundled() -> str | None:
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return None


def executable() -> str | None:
    """Return the ffmpeg to run: imageio-ffmpeg's or, without it, the one on the PATH.

    This order makes results reproducible: decoded lengths depend on the version, and 5.1 keeps the encoder's
    padding. The environment variable `IMAGEIO_FFMPEG_EXE` selects another program. Raises StemsplitError if
    that cannot be run.
    """
    named = os.environ.get(_NAMED)
    if named and not shutil.which(named):
        raise StemsplitError(
            f"`{named}`, the value of {_NAMED}, is not a program", f"correct {_NAMED}, or unset it"
        )
    return named or _bundled() or shutil.which("ffmpeg")


class Process:
    """A running ffmpeg. A thread reads its stderr, so that it never blocks on a full pipe."""

    def __init__(self, program: str, *arguments: str, stdin: int, stdout: int) -> None:
        # In a separate session, Ctrl-C does not reach ffmpeg, so that `end` can stop it in order.
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
        self._first: list[bytes] = []
        self._last: deque[bytes] = deque(maxlen=_LOG_LINES)
        self._drain = threading.Thread(target=self._read_log, daemon=True)
        self._drain.start()

    def _read_log(self) -> None:
        assert self.popen.stderr is not None
        self._first.extend(islice(self.popen.stderr, _LOG_LINES))
        self._last.extend(self.popen.stderr)

    def end(self, *, kill: bool = False) -> int:
        """Wait for the program, or `kill` it; return its exit status. Can be called repeatedly."""
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
        """Its first and last messages; complete after `end`."""
        return b"".join([*self._first, *self._last]).decode("utf-8", "replace")

    @property
    def complaint(self) -> str | None:
        """The first error in the log, which states the cause; later ones are mostly consequences."""
        # Ignores errors in covers, and those about time stamps, which headerless samples do not have.
        told = r"^(?!\[(?:mjpeg|png) @).*\[(?:error|fatal)\] (?!Application provided invalid)(.+)"
        found = re.search(told, self.log, re.MULTILINE)
        return found[1].strip() if found else None


class Encoder:
    """Encodes raw samples to a sound file."""

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
        if format == "flac" and sample_rate > 655_350:  # ffmpeg's default is too large for FLAC
            quality = ("-frame_size", "32768")
        arguments += [*quality, *_CODECS[format]]
        arguments += ["-fflags", "+bitexact", "-y", f"file:{path}"]
        program = executable() or "ffmpeg"
        self._process = Process(program, *arguments, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)

    def write(self, data: bytes) -> None:
        """Send interleaved samples. Raises OSError with the reason if ffmpeg has stopped."""
        assert self._process.popen.stdin is not None
        try:
            self._process.popen.stdin.write(data)
        except OSError as error:
            self.close()
            raise OSError(self._process.complaint or f"ffmpeg stopped ({error.strerror})") from error

    def finish(self) -> None:
        """Let ffmpeg finish the file. Raises OSError with the reason if that fails."""
        status = self._process.end()
        self.close()
        if status:
            raise OSError(self._process.complaint or f"ffmpeg stopped with status {status}")

    def close(self) -> None:
        """End the program, whatever its state, and reap it."""
        self._process.end(kill=True)
