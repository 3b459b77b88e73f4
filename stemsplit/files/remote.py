"""Remote storage with fsspec: `s3://bucket/music`, `gs://`, `sftp://`, `file://` and many more.

A remote path is a `UPath` of universal-pathlib, which has the methods of a `Path`. Unlike a local path, its
`str` contains `://`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from stemsplit.defaults import install_extra
from stemsplit.errors import StemsplitError


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a name or path is a URL for fsspec."""
    return "://" in str(path)


def path_of(name: str) -> Path:
    """Return the path for a name. Raises StemsplitError for an unsupported kind of URL."""
    if not is_remote(name):
        return Path(name)
    try:
        from upath import UPath

        found: Any = UPath(name)
        found.exists()  # loads the module of the file system
    except (ImportError, ValueError) as error:
        kind = name.partition("://")[0]
        hint = f"{install_extra('ray')}, and the package that fsspec needs for {kind}"
        raise StemsplitError(f"Cannot open `{name}`: {error}", hint) from error
    except OSError as error:
        raise StemsplitError(f"Cannot open `{name}`: {error}") from error
    path: Path = found
    return path


def files(top: Path, *, recursive: bool) -> Iterator[tuple[Path, str]]:
    """Yield the files below a folder, sorted and without hidden ones, each with its folder under `top`."""
    place: Any = top
    # Not `rglob`, which treats a bracket in a name as a pattern.
    found = place.fs.find(place.path, maxdepth=None if recursive else 1)
    for name in sorted(found):
        below = name.removeprefix(place.path.rstrip("/") + "/")
        if not any(part.startswith(".") for part in below.split("/")):
            yield top / below, below.rpartition("/")[0]


def relative(path: Path, top: Path) -> str:
    """Return a path relative to a parent folder, with `/`."""
    return str(path).removeprefix(str(top).rstrip("/") + "/")


def part_of(target: Path) -> Path:
    """Return a path for a part file, which differs for each call on each machine."""
    return target.with_name(f"{target.name[:200]}.{uuid4().hex}.part")


@contextlib.contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """Yield a path to write a file to; it is renamed to its path on success, and removed on failure.

    Raises OSError if the file cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(target)
    try:
        yield part
        publish(part, target)
    except BaseException:
        remove(part)
        raise


def copy(source: Path, target: Path) -> None:
    """Copy a file, which appears whole or not at all. Raises OSError if that fails."""
    with appearing(target) as part, source.open("rb") as reading, part.open("wb") as writing:
        shutil.copyfileobj(reading, writing, 1 << 20)


def publish(part: Path, target: Path) -> None:
    """Rename a finished part file, replacing an earlier file. Raises OSError if that fails."""
    if not is_remote(target):
        os.replace(part, target)
        return
    from fsspec import AbstractFileSystem

    place: Any = part
    source, goal = place.path, place.with_name(target.name).path
    if type(place.fs).mv is not AbstractFileSystem.mv:
        place.fs.mv(source, goal)
    else:  # the generic `mv` treats names as patterns
        place.fs.cp_file(source, goal)
        place.fs.rm_file(source)


def remove(path: Path) -> None:
    """Remove a file if it exists. Raises OSError if that fails."""
    place: Any = path
    if not is_remote(path):
        path.unlink(missing_ok=True)
    elif place.exists():
        place.fs.rm_file(place.path)  # `unlink` treats a bracket in a name as a pattern
