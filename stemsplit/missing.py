"""Errors for names of files and stems that do not exist: the reason, and a hint."""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from stemsplit.errors import BadWeights, NotFound, UnknownStem

# A Path replaces the two slashes of a URL by one.
_ADDRESS = re.compile(r"(https?|ftp):/|www\.|([a-z]+\.)?(youtube\.com|youtu\.be)/", re.IGNORECASE)
DOWNLOAD = "download it first, for example with yt-dlp"

_IN_OTHER = {
    *("brass", "flute", "guitar", "guitars", "horns", "keys", "organ", "piano", "sax", "saxophone"),
    *("strings", "synth", "synths", "trumpet", "violin"),
}
"""Instruments that belong to the stem `other`, if a model has no separate stem for them."""


def is_address(name: str) -> bool:
    """Whether a name is a web address."""
    return bool(_ADDRESS.match(name))


def not_found(path: str | os.PathLike[str]) -> NotFound:
    """Return the error for a path that does not exist."""
    name = os.fspath(path)
    if not name.strip():
        return NotFound("A file name is empty", "check the variables of your script")
    if is_address(name):
        return NotFound(f"`{name}` is a web address, not a file", DOWNLOAD)
    if os.path.islink(name):
        return NotFound(f"`{name}` is a link to `{os.readlink(name)}`, which does not exist")
    return NotFound(f"No such file: `{name}`", _hint(Path(name)))


def _hint(path: Path) -> str | None:
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except NotADirectoryError:
        return f"`{path.parent}` is a file, not a folder"
    except OSError:
        return f"the folder `{path.parent}` does not exist either"
    near = difflib.get_close_matches(path.name, names, n=3)
    return f"did you mean {' or '.join(f'`{name}`' for name in near)}?" if near else None


def recomposed(name: str) -> str:
    """Return the spelling of a name under which a file exists: as given, or with accents in NFC or NFD."""
    forms = (name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))
    return next((form for form in forms if os.path.lexists(form)), name)


def other_stems(model: str, there: Sequence[str]) -> BadWeights:
    """Return the error for a model whose stems differ from those to train."""
    return BadWeights(f"`{model}` has the stems {', '.join(there)}", "choose these --stems, in this order")


def no_stem(name: str, there: Sequence[str], where: str) -> UnknownStem:
    """Return the error for a missing stem; `where` is the end of the message, e.g. `in this model`."""
    hint = f"choose from {', '.join(there)}"
    if near := difflib.get_close_matches(name.lower(), there, n=1):
        hint = f"did you mean `{near[0]}`? {hint}"
    elif name.lower() in _IN_OTHER and "other" in there:
        hint = f"{name} is in the stem `other`; {hint}"
    return UnknownStem(f"No stem called `{name}` {where}", hint)
