"""The fields of tags, and how ID3, MP4, Vorbis comments and RIFF INFO store them.

The names of fields, frames and atoms are those of TagLib and MusicBrainz Picard, which DJ software also uses.
A field has one or more texts. A field without a standard frame becomes a user-defined frame with its name.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from mutagen._vorbis import VComment
    from mutagen.id3 import ID3
    from mutagen.mp4 import MP4Tags

Fields: TypeAlias = dict[str, list[str]]
Pictures: TypeAlias = list[tuple[int, bytes]]
"""The type and bytes of each picture; all formats use the picture types of ID3."""
FRONT_COVER = 3
SEPARATOR = ", "
"""Separates the texts of a field in formats with one text per field."""
MOST_CHARACTERS = 1 << 22
"""Limit of all texts in characters: at four bytes each, they fit into FLAC's comment block of 16 MiB."""
_OVERHEAD = 64  # additional characters to count for each text, because thousands of texts take time

_ITUNES = "----:com.apple.iTunes:"
# ID3 frame, MP4 atom and RIFF INFO chunk. Vorbis comments use the field's name.
_STORED = {
    "title": ("TIT2", "\xa9nam", "INAM"),
    "artist": ("TPE1", "\xa9ART", "IART"),
    "album": ("TALB", "\xa9alb", "IPRD"),
    "albumartist": ("TPE2", "aART", ""),
    "date": ("TDRC", "\xa9day", "ICRD"),
    "tracknumber": ("TRCK", "trkn", "ITRK"),
    "discnumber": ("TPOS", "disk", ""),
    "genre": ("TCON", "\xa9gen", "IGNR"),
    "bpm": ("TBPM", "tmpo", "IBPM"),
    "initialkey": ("TKEY", f"{_ITUNES}initialkey", ""),
    "comment": ("COMM", "\xa9cmt", "ICMT"),
    "isrc": ("TSRC", f"{_ITUNES}ISRC", ""),
    "remixer": ("TPE4", f"{_ITUNES}REMIXER", ""),
    "composer": ("TCOM", "\xa9wrt", "IMUS"),
    "label": ("TPUB", f"{_ITUNES}LABEL", ""),
    "copyright": ("TCOP", "cprt", "ICOP"),
    "grouping": ("TIT1", "\xa9grp", ""),
    "subtitle": ("TIT3", f"{_ITUNES}SUBTITLE", ""),
    "conductor": ("TPE3", f"{_ITUNES}CONDUCTOR", ""),
    "lyricist": ("TEXT", f"{_ITUNES}LYRICIST", ""),
    "mood": ("TMOO", f"{_ITUNES}MOOD", ""),
    "media": ("TMED", f"{_ITUNES}MEDIA", ""),
    "originaldate": ("TDOR", f"{_ITUNES}ORIGINALDATE", ""),
    "compilation": ("TCMP", "cpil", ""),
    "artistsort": ("TSOP", "soar", ""),
    "albumartistsort": ("TSO2", "soaa", ""),
    "albumsort": ("TSOA", "soal", ""),
    "titlesort": ("TSOT", "sonm", ""),
    "composersort": ("TSOC", "soco", ""),
    "lyrics": ("USLT", "\xa9lyr", ""),
}
_ALIASES = {
    "album_artist": "albumartist",
    "album artist": "albumartist",
    "track": "tracknumber",
    "disc": "discnumber",
    "totaltracks": "tracktotal",
    "totaldiscs": "disctotal",
    "year": "date",
    "wm/year": "date",
    "tbpm": "bpm",
    "tempo": "bpm",
    "wm/beatsperminute": "bpm",
    "key": "initialkey",
    "initial_key": "initialkey",
    "initial key": "initialkey",
    "tkey": "initialkey",
    "wm/initialkey": "initialkey",
    "tsrc": "isrc",
    "wm/isrc": "isrc",
    "tpe4": "remixer",
    "mixartist": "remixer",
    "wm/modifiedby": "remixer",
    "tpub": "label",
    "publisher": "label",
    "organization": "label",
    "description": "comment",
    "unsyncedlyrics": "lyrics",
}
# Fields about the source's encoding and levels, which do not apply to the stems.
_STALE = re.compile(
    r"encoder|encoded[_-]?by|encod(er|ing)[ _-]?settings|tsse|tlen|length|major_brand|minor_version"
    r"|compatible_brands|handler_name|vendor_id|language|creation_time|duration|itun(smpb|norm|pgap)"
    r"|replaygain_.*|r128_.*|serato_(autogain|overview|relvol)|metadata_block_picture|coverart(mime)?"
    r"|waveformatextensible.*|id3v2_priv\..*"
)


def collect(pairs: Iterable[tuple[str, Iterable[object]]]) -> Fields:
    """Return the fields for the stems, from names and texts in any spelling.

    Fields that are empty or describe the source's encoding are left out. A field's standard name takes
    precedence over its aliases, of which the first counts. Track and disc numbers include totals: `3/9`.
    """
    fields: Fields = {}
    known: set[str] = set()
    left = MOST_CHARACTERS
    for name, texts in sorted(pairs, key=lambda pair: pair[0].lower() in _ALIASES):
        name = _plain(name)
        lower = re.sub(r"^lyrics-.*", "lyrics", name.lower())
        lower = _ALIASES.get(lower, lower)
        if not name or lower in known or _STALE.fullmatch(lower):
            continue
        kept: list[str] = []
        for text in dict.fromkeys(_plain(text) for text in texts):
            size = len(name) + len(text) + _OVERHEAD
            if text and size <= left:
                left -= size
                kept.append(text)
        if kept:
            known.add(lower)
            fields[lower if lower in _STORED else name] = kept
    for number, total in (("tracknumber", "tracktotal"), ("discnumber", "disctotal")):
        totals = {name: fields.pop(name) for name in list(fields) if name.lower() == total}
        if number in fields and totals and "/" not in fields[number][0]:
            fields[number] = [f"{fields[number][0]}/{next(iter(totals.values()))[0]}"]
    return fields


def _plain(text: object) -> str:
    """Return text that every format can store: without NULs, which end a text, or lone surrogates."""
    return str(text).replace("\0", " ").strip().encode("utf-8", "replace").decode("utf-8")


def from_id3(tags: ID3) -> tuple[Fields, Pictures]:
    """Return the fields and pictures of an ID3 tag."""

    def pairs() -> Iterator[tuple[str, Sequence[object]]]:
        for name, (frame_id, _, _) in _STORED.items():
            # Programs store private notes in comments with a description.
            frames = [frame for frame in tags.getall(frame_id) if not getattr(frame, "desc", "")]
            for frame in frames[:1]:
                texts = frame.genres if frame_id == "TCON" else frame.text
                yield name, [texts] if isinstance(texts, str) else texts
        for frame in tags.getall("TXXX"):
            yield frame.desc, frame.text

    return collect(pairs()), [(int(frame.type), frame.data) for frame in tags.getall("APIC")]


def to_id3(fields: Mapping[str, list[str]], cover: bytes | None) -> ID3:
    """Return an ID3v2.3 tag with all fields."""
    from mutagen import id3

    tags = id3.ID3()
    for name, texts in fields.items():
        frame = _STORED[name][0] if name in _STORED else "TXXX"
        if frame == "USLT":
            tags.add(id3.USLT(encoding=3, lang="und", desc="", text="\n\n".join(texts)))
        elif frame == "COMM":
            tags.add(id3.COMM(encoding=3, lang="eng", desc="", text=texts))
        elif frame == "TXXX":
            tags.add(id3.TXXX(encoding=3, desc=name, text=texts))
        else:
            tags.add(getattr(id3, frame)(encoding=3, text=texts))
    if cover:
        tags.add(id3.APIC(encoding=0, mime=mime(cover), type=FRONT_COVER, desc="", data=cover))
    later = [frame for name in ("TSOA", "TSOP", "TSOT", "TMOO") for frame in tags.getall(name)]
    tags.update_to_v23()
    for frame in later:  # part of ID3v2.4 only, but iTunes and others use them in 2.3
        tags.add(frame)
    return tags


def from_mp4(tags: MP4Tags) -> tuple[Fields, Pictures]:
    """Return the fields and pictures of an MP4's `ilst`."""

    def pairs() -> Iterator[tuple[str, Sequence[object]]]:
        for key, values in tags.items():
            if key.startswith(_ITUNES):
                name = key[len(_ITUNES) :].encode("latin-1").decode("utf-8", "replace")
                yield name, [value.decode("utf-8", "replace") for value in values]
        for name, (_, atom, _) in _STORED.items():
            values = tags.get(atom)
            if not values or atom.startswith(_ITUNES):
                continue
            if atom in ("trkn", "disk"):
                yield name, [f"{n}/{total}" if total else n for n, total in values if n]
            elif atom == "cpil":
                yield name, ["1"]
            else:  # iTunes writes zero for an unknown tempo
                yield name, [value for value in values if value]

    return collect(pairs()), [(FRONT_COVER, bytes(picture)) for picture in tags.get("covr", [])]


def to_mp4(fields: Mapping[str, list[str]], cover: bytes | None) -> MP4Tags:
    """Return an MP4's `ilst` with all fields."""
    from mutagen.mp4 import MP4Cover, MP4Tags

    tags = MP4Tags()
    for name, texts in fields.items():
        # mutagen writes the key as Latin-1, but names are UTF-8.
        atom = _STORED[name][1] if name in _STORED else _ITUNES + name.encode().decode("latin-1")
        numbers = [int(number) for number in re.findall(r"\d{1,9}", texts[0])]
        if atom in ("trkn", "disk"):
            first, total = (*numbers, 0, 0)[:2]
            if 0 < first < 1 << 16:
                tags[atom] = [(first, total if total < 1 << 16 else 0)]
        elif atom == "tmpo":
            if numbers and re.fullmatch(r"\d{1,4}(\.\d*)?", texts[0]):
                tags[atom] = [round(float(texts[0]))]
            if not texts[0].isdecimal():  # the atom stores whole numbers; Mixxx reads the fraction here
                tags[f"{_ITUNES}BPM"] = [texts[0].encode()]
        elif atom == "cpil":
            tags[atom] = texts[0] != "0"
        else:
            tags[atom] = [text.encode() for text in texts] if atom.startswith(_ITUNES) else texts
    if cover:
        kind = MP4Cover.FORMAT_PNG if mime(cover) == "image/png" else MP4Cover.FORMAT_JPEG
        tags["covr"] = [MP4Cover(cover, kind)]
    return tags


def from_vorbis(tags: VComment) -> tuple[Fields, Pictures]:
    """Return the fields of Vorbis comments, and the pictures in them. FLAC stores pictures elsewhere."""
    from mutagen.flac import Picture, error

    found: dict[str, list[object]] = {}
    pictures: Pictures = []
    for name, text in tags:
        if name.lower() != "metadata_block_picture":
            found.setdefault(name, []).append(text)
            continue
        try:
            picture = Picture(base64.b64decode(text))
        except (binascii.Error, ValueError, struct.error, error):
            continue
        pictures.append((picture.type, picture.data))
    return collect(found.items()), pictures


def to_vorbis(fields: Mapping[str, list[str]]) -> list[tuple[str, str]]:
    """Return fields as Vorbis comments; fields with names that are invalid there are left out."""
    pairs: list[tuple[str, str]] = []
    for name, texts in fields.items():
        if name in ("tracknumber", "discnumber") and re.fullmatch(r"[^/]+/[^/]+", texts[0]):
            number, total = texts[0].split("/")
            pairs += [(name.upper(), number), (f"{name[:-6].upper()}TOTAL", total)]
        elif re.fullmatch(r"[ -<>-}]+", name):
            pairs += [(name.upper() if name in _STORED else name, text) for text in texts]
    return pairs


def to_info(fields: Mapping[str, list[str]]) -> bytes:
    """Return the content of a WAV's `LIST` chunk: the few fields that RIFF INFO defines, as UTF-8."""
    chunks = b"INFO"
    for name, texts in fields.items():
        if name in _STORED and _STORED[name][2]:
            chunks += chunk(_STORED[name][2].encode(), SEPARATOR.join(texts).encode() + b"\0")
    return chunks


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a RIFF chunk: name, size, content, and a padding byte if the size is odd."""
    return struct.pack("<4sI", kind, len(content)) + content + bytes(len(content) % 2)


def mime(cover: bytes) -> str:
    """Return the MIME type of a JPEG or a PNG."""
    return "image/png" if cover.startswith(b"\x89PNG") else "image/jpeg"


def picture_block(cover: bytes) -> Any:
    """Return a front cover as FLAC stores it and, in base64, Vorbis comments."""
    from mutagen.flac import Picture

    block = Picture()
    block.type, block.mime, block.data = FRONT_COVER, mime(cover), cover
    return block
