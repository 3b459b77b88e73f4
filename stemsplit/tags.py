"""Tags and cover art of sound files, read with the ffmpeg program."""

from __future__ import annotations

import re
import subprocess
from functools import lru_cache
from pathlib import Path

from stemsplit import ffmpeg

_LARGEST_COVER = 1 << 24  # what a FLAC picture block can hold
_PICTURE = ("-max_pixels", str(1 << 26), "-f", "image2pipe")  # a small file may unpack to gigabytes
_ONE_PIXEL = ("-frames:v", "1", "-vf", "scale=1:1", "-f", "rawvideo")

# Facts about the source's own encoding, and loudness that the stems do not have.
_STALE = re.compile(
    r"encoder|encoded[_-]?by|tsse|tlen|major_brand|minor_version|compatible_brands|handler_name|vendor_id|language"
    r"|creation_time|duration|itun(smpb|norm)|replaygain_.*|r128_.*|metadata_block_picture|waveformatextensible.*"
)


def read_tags(path: Path) -> tuple[dict[str, str], bytes | None]:
    """Return the tags of a file, names in lower case, and its cover as JPEG or PNG; never fails."""
    try:
        state = path.stat()
    except OSError:
        return {}, None
    tags, cover = _read_tags(path, state.st_mtime_ns, state.st_size)
    return dict(tags), cover


@lru_cache(maxsize=2)  # every stem of a track asks
def _read_tags(path: Path, changed: int, size: int) -> tuple[dict[str, str], bytes | None]:
    source = (*ffmpeg.LOCAL, "-i", f"file:{path}")
    # Ogg keeps its tags on the stream, which follows the file's own in the answer; `-t 0` reads no sound.
    nothing = ("-map", "0:a:0", "-c", "copy", "-t", "0", "-map_chapters", "-1")
    notes = _output(*source, *nothing, "-f", "ffmetadata", "-")
    tags = _parse(notes.decode("utf-8", "replace"))
    attached = ("-map", "0:v", "-map", "-0:V?")  # pictures, not the film of a video
    cover = _output(*source, *attached, "-frames:v", "1", "-c", "copy", "-f", "image2pipe", "-")
    sound = cover.startswith((b"\xff\xd8", b"\x89PNG")) and len(cover) < _LARGEST_COVER
    # A damaged picture would make the encoder fail after the separation: look at it before.
    if not sound or not _output(*_PICTURE, "-i", "pipe:0", *_ONE_PIXEL, "-", stdin=cover):
        return tags, None
    return tags, cover


def _output(*arguments: str, stdin: bytes = b"") -> bytes:
    """Return what a short run of ffmpeg prints, or nothing if it fails."""
    program = ffmpeg.executable()
    if program is None:
        return b""
    command = [program, *ffmpeg._COMMON, "-v", "quiet", "-xerror", *arguments]
    try:
        return subprocess.run(command, input=stdin, capture_output=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return b""


def _parse(notes: str) -> dict[str, str]:
    pairs = re.findall(r"^((?:\\.|[^=\\\n])+)=((?:\\.|[^\\\n])*)", notes, re.DOTALL | re.MULTILINE)
    tags: dict[str, str] = {}
    for pair in pairs:
        name, value = (re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL) for text in pair)
        if not _STALE.fullmatch(name.lower()):
            tags.setdefault(name.lower(), value)  # the first wins: the file's before the stream's
    return tags
