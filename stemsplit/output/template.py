"""Names of output files: a template, filled with the fields of a track.

`{artist} - {title}/{stem}.{ext}` is a path in the output folder. A slash in the template makes a folder; a
slash in a tag does not, and a tag cannot lead out of the output folder.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath

from stemsplit.audio.formats import STEM_FILE, song_of
from stemsplit.audio.tags import read_tags
from stemsplit.errors import TemplateError
from stemsplit.files.remote import is_remote

DEFAULT_TEMPLATE = "{folder}/{track}/{stem}.{ext}"
STEM_FILE_TEMPLATE = "{folder}/{track}.{ext}"
TAGS = ("artist", "albumartist", "title", "album", "date", "genre", "tracknumber", "bpm", "key")
FIELDS = ("track", "folder", "stem", "ext", "model", "number", *TAGS)
LONGEST_BYTES = 255 - len(".part")
"""Limit of a name in UTF-8 bytes, with space for the longer name of the part file."""
_UNKNOWN = {"artist": "unknown artist", "albumartist": "unknown artist", "album": "unknown album"}
_UNKNOWN |= {"bpm": "unknown tempo", "key": "unknown key"}
DETECTABLE = ("bpm", "key")
"""Fields of the tags that can be detected in the sound, too."""
_NO_NAMES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


def check(template: str, ext: str) -> set[str]:
    """Return the fields of a template.

    Raises:
        TemplateError: it has unknown fields or unmatched braces, leads out of the output folder, or gives all
            stems of a track the same name, unless the format stores them in one file.
    """
    fields = re.findall(r"\{([^{}]*)\}", template)
    for field in fields:
        if field not in FIELDS:
            raise TemplateError(f"No field called `{field}` in a template", f"there are {', '.join(FIELDS)}")
    if re.search("[{}]", re.sub(r"\{[^{}]*\}", "", template)):
        raise TemplateError(f"`{template}` has an unmatched brace", "write fields like {artist}")
    if PurePath(template).is_absolute() or ".." in re.split(r"[/\\]", template):
        raise TemplateError(f"`{template}` leads out of the output folder", "choose the folder with --out")
    if ext == STEM_FILE and "stem" in fields:
        raise TemplateError(
            f"A stem file contains all stems, so `{template}` cannot have {{stem}}",
            "leave out {stem}",
        )
    if ext != STEM_FILE and "stem" not in fields:
        raise TemplateError(f"`{template}` gives all stems the same name", "add {stem}")
    if not template.endswith(".{ext}"):
        raise TemplateError(f"`{template}` has no suffix", "append .{ext}")
    return set(fields)


def fill(template: str, fields: Mapping[str, str]) -> Path:
    """Return the path for a template, relative to the output folder.

    Tags are converted to NFC, without characters that file names cannot have. The track's own name and folder
    stay as they are on the disk. A missing title is replaced by the track's name, other missing tags by
    `unknown artist` and so on.
    """
    values = {name: _plain(fields.get(name) or _UNKNOWN.get(name, "")) for name in TAGS}
    values["title"] = values["title"] or fields["track"]
    values |= {name: fields[name] for name in FIELDS if name in fields and name not in TAGS}
    parts: list[str] = []
    for part in template.split("/"):
        filled = re.sub(r"\{(\w+)\}", lambda field: values[field[1]], part)
        # A track can have several levels of folders, or none.
        parts += filled.split("/") if "{folder}" in part else [filled]
    return Path(*(_name(part) for part in parts if part))


def track_name(path: Path) -> str:
    """Return the name of a track: its file name without suffix."""
    return song_of(path.name) or path.stem or path.name


def outputs(
    track: Path, stems: Iterable[str], template: str | None, ext: str, **known: str
) -> dict[str, Path]:
    """Return the path of each stem of a track, relative to the output folder.

    The default template depends on the format; for a stem file, all stems have the same path. `known` are
    fields that are not from the track itself. Tags are only read if the template uses them.
    """
    if template is None:
        template = STEM_FILE_TEMPLATE if ext == STEM_FILE else DEFAULT_TEMPLATE
    fields = {"track": track_name(track), "folder": "", "number": "1", "ext": ext} | known
    if check(template, ext) & set(TAGS):
        if is_remote(track):
            raise TemplateError(
                f"The tags of `{track}` are not available before it is split", "use other fields"
            )
        fields |= _tagged(track)
    return {stem: fill(template, fields | {"stem": stem}) for stem in stems}


def _tagged(track: Path) -> dict[str, str]:
    """Return the fields that the tags of a track have."""
    tags = read_tags(track)
    found = {name: tags.text("initialkey" if name == "key" else name) for name in TAGS}
    found["tracknumber"] = found["tracknumber"].partition("/")[0]
    found["albumartist"] = found["albumartist"] or found["artist"]
    found["bpm"] = whole_bpm(found["bpm"])
    return {name: text for name, text in found.items() if text}


def detectable(track: Path, template: str | None) -> set[str]:
    """Return those of `DETECTABLE` that a template uses and the track's tags do not have."""
    used = {field for field in DETECTABLE if f"{{{field}}}" in (template or "")}
    return used - _tagged(track).keys() if used else used


def whole_bpm(text: str) -> str:
    """Return a tempo as a whole number, and what is not a number as it is."""
    return str(round(float(text))) if re.fullmatch(r"\d{1,4}(\.\d*)?", text) else text


def file_names(titles: Iterable[str]) -> list[str]:
    """Return a name for each stem, all different and valid on every file system."""
    names: list[str] = []
    for title in titles:
        plain = _plain(title).encode("utf-8")[:100].decode("utf-8", "ignore").strip(" .") or "stem"
        if plain.partition(".")[0].lower() in _NO_NAMES:
            plain = f"_{plain}"
        name, number = plain, 1
        while name.casefold() in (other.casefold() for other in names):
            number += 1
            name = f"{plain} {number}"
        names.append(name)
    return names


def _plain(text: str) -> str:
    """Replace characters that file names cannot have on some operating system."""
    text = unicodedata.normalize("NFC", text)
    return "".join("_" if c in '/\\:*?"<>|' or not c.isprintable() else c for c in text).strip()


def _name(part: str) -> str:
    """Return a valid name for some text: not reserved, and not too long."""
    if part in (".", "..") or part.partition(".")[0].lower() in _NO_NAMES:
        part = f"_{part}"
    if len(_bytes(part)) <= LONGEST_BYTES:
        return part
    suffix = f".{STEM_FILE}" if part.endswith(f".{STEM_FILE}") else PurePath(part).suffix
    if len(_bytes(suffix)) > 16:
        suffix = ""
    stem = part[: len(part) - len(suffix)]
    while len(_bytes(stem + suffix)) > LONGEST_BYTES:
        stem = stem[:-1]
    return stem.rstrip() + suffix


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def key(path: Path) -> str:
    """Return a path as Windows and macOS compare it: ignoring case and Unicode composition."""
    return unicodedata.normalize("NFC", place(path)).casefold()


def place(path: Path) -> str:
    """Return the absolute path on its file system."""
    return str(path) if is_remote(path) else os.path.abspath(path)
