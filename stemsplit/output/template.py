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
"""Maximum length of a name in UTF-8 bytes, with room for the suffix of a part file."""
_UNKNOWN = {"artist": "unknown artist", "albumartist": "unknown artist", "album": "unknown album"}
_UNKNOWN |= {"bpm": "unknown tempo", "key": "unknown key"}
DETECTABLE = ("bpm", "key")
"""Tag fields that can also be detected in the audio."""
_NO_NAMES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


def check(template: str, ext: str) -> set[str]:
    """Return the fields of a template.

    Raises:
        TemplateError: it has unknown fields or unmatched braces, leads out of the output folder, lacks
            `.{ext}`, or lacks `{stem}` (or has it, for a format that stores all stems in one file).
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

    Tags are normalized to NFC, with `_` for characters that are invalid in file names. The track's own name
    and folder stay as they are on the disk. A missing title is replaced by the track's name, other missing
    tags by `unknown artist` and so on, or by nothing.
    """
    values = {name: _plain(fields.get(name) or _UNKNOWN.get(name, "")) for name in TAGS}
    values["title"] = values["title"] or fields["track"]
    values |= {name: fields[name] for name in FIELDS if name in fields and name not in TAGS}
    parts: list[str] = []
    for part in template.split("/"):
        filled = re.sub(r"\{(\w+)\}", lambda field: values[field[1]], part)
        # A track's folder can have several levels, or none.
        parts += filled.split("/") if "{folder}" in part else [filled]
    return Path(*(_name(part) for part in parts if part))


def track_name(path: Path) -> str:
    """Return the name of a track: its file name without suffix."""
    return song_of(path.name) or path.stem or path.name


def outputs(
    track: Path, stems: Iterable[str], template: str | None, ext: str, **known: str
) -> dict[str, Path]:
    """Return the path of each stem of a track, relative to the output folder.

    The default template depends on the format; for a stem file, all stems have the same path. `known` has
    fields from other sources than the track's name and tags. Tags are read only if the template uses them.
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
    """Return the template fields in a track's tags."""
    tags = read_tags(track)
    found = {name: tags.text("initialkey" if name == "key" else name) for name in TAGS}
    found["tracknumber"] = found["tracknumber"].partition("/")[0]
    found["albumartist"] = found["albumartist"] or found["artist"]
    found["bpm"] = whole_bpm(found["bpm"])
    return {name: text for name, text in found.items() if text}


def detectable(track: Path, template: str | None) -> set[str]:
    """Return the fields in `DETECTABLE` that a template uses and the track's tags lack."""
    used = {field for field in DETECTABLE if f"{{{field}}}" in (template or "")}
    return used - _tagged(track).keys() if used else used


def whole_bpm(text: str) -> str:
    """Return a tempo rounded to a whole number; other text is returned unchanged."""
    return str(round(float(text))) if re.fullmatch(r"\d{1,4}(\.\d*)?", text) else text


def file_names(titles: Iterable[str]) -> list[str]:
    """Return a file name for each stem title; names are unique, and valid on every file system."""
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
    """Convert text to NFC, and replace characters that some operating system forbids in file names."""
    text = unicodedata.normalize("NFC", text)
    return "".join("_" if c in '/\\:*?"<>|' or not c.isprintable() else c for c in text).strip()


def _name(part: str) -> str:
    """Return a valid file name for a text: not reserved, and not too long."""
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
    """Return an absolute path, or a remote path unchanged."""
    return str(path) if is_remote(path) else os.path.abspath(path)
