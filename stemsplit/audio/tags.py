"""Tags and cover of a song, read from any format and written to each format that stems have.

mutagen reads and writes ID3, MP4 and Vorbis comments; ffmpeg reads the tags of other containers. A tag or
picture never makes a file fail: whatever a format cannot store is left out.
"""

from __future__ import annotations

import base64
import io
import re
import subprocess
import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

from stemsplit.audio import ffmpeg, tag_fields
from stemsplit.audio.tag_fields import FRONT_COVER, SEPARATOR, Fields, Pictures

_LARGEST_COVER = (1 << 24) - 64  # limit of a FLAC picture block
_PICTURES = ("-format_whitelist", "jpeg_pipe,png_pipe,gif,gif_pipe,webp_pipe,bmp_pipe,tiff_pipe")
_TO_JPEG = ("-frames:v", "1", "-c:v", "mjpeg", "-q:v", "2", "-pix_fmt", "yuvj444p", "-fflags", "+bitexact")


@dataclass(frozen=True)
class Tags:
    """The texts of each field, such as `title` or `initialkey`, and a cover as JPEG or PNG."""

    fields: Fields = field(default_factory=dict)
    cover: bytes | None = None

    def text(self, name: str) -> str:
        """Return a field as one text; empty if it is missing."""
        return SEPARATOR.join(self.fields.get(name, []))

    def without(self, names: Collection[str]) -> Tags:
        """Return the same tags without some fields."""
        return replace(self, fields={name: texts for name, texts in self.fields.items() if name not in names})

    def with_title(self, title: str) -> Tags:
        """Return the same tags with another title."""
        return replace(self, fields=self.fields | tag_fields.collect([("title", [title])]))


def read_tags(path: Path) -> Tags:
    """Return the tags of a file; never fails."""
    try:
        state = path.stat()
    except OSError:
        return Tags()
    return _read_tags(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=2)  # it is called for every stem of a track
def _read_tags(path: Path, changed: int, size: int) -> Tags:
    fields, pictures = _through_mutagen(path)
    if not fields and not pictures:
        fields, pictures = _through_ffmpeg(path)
    fronts = [data for kind, data in pictures if kind == FRONT_COVER]
    covers = [*fronts, *(data for _, data in pictures)]
    return Tags(fields, _usable(covers[0]) if covers else None)


def _through_mutagen(path: Path) -> tuple[Fields, Pictures]:
    """Return the tags in ID3, MP4 or Vorbis comments, if any."""
    import mutagen
    from mutagen import _vorbis, aiff, dsf, flac, id3, mp3, mp4, oggflac, oggopus, oggspeex, oggvorbis, wave

    # Skips compressed frames, which mutagen unpacks without a limit. ffmpeg reads a tag that has no others.
    id3._frames.zlib = SimpleNamespace(decompress=_refuse, error=zlib.error)
    kinds = [mp3.MP3, aiff.AIFF, wave.WAVE, dsf.DSF, mp4.MP4, flac.FLAC]
    kinds += [oggvorbis.OggVorbis, oggopus.OggOpus, oggflac.OggFLAC, oggspeex.OggSpeex]
    try:
        file = mutagen.File(path, options=kinds)
    except (mutagen.MutagenError, LookupError, ValueError):  # the errors that it raises for damaged files
        return {}, []
    tags = getattr(file, "tags", None)
    if isinstance(tags, id3.ID3):
        return tag_fields.from_id3(tags)
    if isinstance(tags, mp4.MP4Tags):
        return tag_fields.from_mp4(tags)
    if isinstance(tags, _vorbis.VComment):
        fields, pictures = tag_fields.from_vorbis(tags)
        own = [(picture.type, picture.data) for picture in getattr(file, "pictures", [])]
        return fields, own + pictures
    return {}, []


def _refuse(_: bytes) -> bytes:
    raise zlib.error("compressed frames are not read")


def _through_ffmpeg(path: Path) -> tuple[Fields, Pictures]:
    """Return the tags of any other container that ffmpeg reads, if any."""
    source = (*ffmpeg.LOCAL, "-i", f"file:{path}")
    # Some store tags in the stream; these follow the file's own in the output. `-t 0` reads no audio.
    nothing = ("-map", "0:a:0", "-c", "copy", "-t", "0", "-map_chapters", "-1", "-f", "ffmetadata", "-")
    notes, log = _run(*source, *nothing)
    pictures = re.findall(r"Stream #0:(\d+).*\(attached pic\)((?:\n {4,}.*)*)", log)
    fronts = [number for number, facts in pictures if re.search(r"Cover \(front\)|: cover\.", facts)]
    for number in [*fronts, *(number for number, _ in pictures)][:1]:
        copy = ("-map", f"0:{number}", "-frames:v", "1", "-c", "copy", "-f", "image2pipe", "-")
        return _parse(notes), [(FRONT_COVER, _run(*source, *copy)[0])]
    return _parse(notes), []


def _parse(notes: bytes) -> Fields:
    """Return the fields in ffmpeg's text format; the file's own come first and take precedence."""
    pairs = re.findall(rb"^((?:\\.|[^=\\\n])+)=((?:\\.|[^\\\n])*)", notes, re.DOTALL | re.MULTILINE)
    plain = [[re.sub(rb"\\(.)", rb"\1", word, flags=re.DOTALL) for word in pair] for pair in pairs]
    return tag_fields.collect((_text(name), [_text(value)]) for name, value in plain)


def _text(data: bytes) -> str:
    """Decode UTF-8, or Latin-1 as older programs wrote it."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _usable(picture: bytes) -> bytes | None:
    """Return a picture that all players support: JPEG or PNG unchanged, others as JPEG; None if damaged."""
    limits = ("-max_pixels", str(1 << 26))  # a small file can unpack to gigabytes
    whole = ("-frame_size", str(len(picture)))  # TIFF is decoded in one piece
    jpeg, _ = _run(
        *limits, *_PICTURES, *whole, "-i", "pipe:0", *_TO_JPEG, "-f", "image2pipe", "-", stdin=picture
    )
    known = picture.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n"))
    if not jpeg or (known and len(picture) < _LARGEST_COVER):
        return picture if jpeg else None
    return jpeg if len(jpeg) < _LARGEST_COVER else None


def _run(*arguments: str, stdin: bytes = b"") -> tuple[bytes, str]:
    """Return the output and the messages of a short run of ffmpeg; empty if it fails."""
    program = ffmpeg.executable()
    if program is None:
        return b"", ""
    command = [program, *ffmpeg._COMMON, "-xerror", *arguments]
    try:
        run = subprocess.run(command, input=stdin, capture_output=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return b"", ""
    return run.stdout, run.stderr.decode("utf-8", "replace")


def write_tags(path: Path, format: str, tags: Tags) -> None:
    """Write tags and cover into a finished file of one of `FORMATS`; the same tags give the same bytes.

    Raises:
        OSError: the file cannot be written.
    """
    from mutagen import MutagenError

    if not tags.fields and not tags.cover:
        return
    try:
        _WRITE[format](path, tags)
    except MutagenError as error:
        cause = error.args[0] if error.args else None
        raise cause if isinstance(cause, OSError) else OSError(f"its tags: {error}") from error


def _no_padding(_: object) -> int:
    return 0


def _save_id3(tags: Tags, to: Path | io.BytesIO) -> None:
    tag = tag_fields.to_id3(tags.fields, tags.cover)
    # ID3v2.3, which all programs read, has one text per frame.
    tag.save(to, v1=0, v2_version=3, v23_sep=SEPARATOR, padding=_no_padding)


def _write_mp3(path: Path, tags: Tags) -> None:
    _save_id3(tags, path)


def _write_mp4(path: Path, tags: Tags) -> None:
    tag_fields.to_mp4(tags.fields, tags.cover).save(path, padding=_no_padding)


def _write_flac(path: Path, tags: Tags) -> None:
    from mutagen.flac import FLAC

    file = FLAC(path)
    file.tags[:] = tag_fields.to_vorbis(tags.fields)
    file.clear_pictures()
    if tags.cover:
        file.add_picture(tag_fields.picture_block(tags.cover))
    file.save(padding=_no_padding)


def _write_ogg(path: Path, tags: Tags) -> None:
    from mutagen.oggvorbis import OggVorbis

    file = OggVorbis(path)
    pairs = tag_fields.to_vorbis(tags.fields)
    if tags.cover:
        block = base64.b64encode(tag_fields.picture_block(tags.cover).write()).decode("ascii")
        pairs.append(("METADATA_BLOCK_PICTURE", block))
    file.tags[:] = pairs
    file.save(padding=_no_padding)


def _write_wav(path: Path, tags: Tags) -> None:
    """Append a LIST chunk with the fields that INFO defines, and an ID3 chunk with all, for DJ software."""
    content = io.BytesIO()
    _save_id3(tags, content)
    info = tag_fields.chunk(b"LIST", tag_fields.to_info(tags.fields))
    _append_chunks(path, [info, tag_fields.chunk(b"id3 ", content.getvalue())])


def _append_chunks(path: Path, chunks: Iterable[bytes]) -> None:
    """Append chunks to a RIFF or RF64 file, if its size field allows it."""
    with path.open("r+b") as file:
        large = file.read(4) == b"RF64"
        for data in chunks:
            end = file.seek(0, io.SEEK_END)
            size = end + end % 2 + len(data) - 8
            if not large and size >= 1 << 32:
                return
            file.write(bytes(end % 2) + data)
            file.seek(20 if large else 4)  # the size in `ds64`, or the file's own
            file.write(size.to_bytes(8 if large else 4, "little"))


_WRITE = {"wav": _write_wav, "mp3": _write_mp3, "flac": _write_flac, "ogg": _write_ogg, "m4a": _write_mp4}
