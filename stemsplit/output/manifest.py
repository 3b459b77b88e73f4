"""Records of finished tracks, stored with the stems, so that an interrupted batch can be resumed.

There is one small file per track, in the folder `.stemsplit` of the output folder, written before the stems
appear under their names. Separate files need no locks: any number of programs on any number of machines can
share an output folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stemsplit.errors import EncodeError
from stemsplit.files.claims import claim, writing
from stemsplit.files.digest import sha256
from stemsplit.files.remote import appearing, is_remote, relative, remove

FOLDER = ".stemsplit"
VERSION = 1


@dataclass(frozen=True)
class Fingerprint:
    """The length, modification time (0: unknown) and digest of a file."""

    size: int
    changed_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Fingerprint:
        """Return the fingerprint of a file. Raises OSError if it cannot be read."""
        with path.open("rb") as file:
            before = path.stat() if is_remote(path) else os.fstat(file.fileno())
            return cls(before.st_size, changed_ns(before), sha256(file))

    def fits(self, path: Path) -> bool:
        """Whether a file is unchanged. It is read only if nothing but its modification time differs."""
        try:
            state = path.stat()
            if state.st_size != self.size:
                return False
            same_time = self.changed_ns and changed_ns(state) == self.changed_ns
            return bool(same_time) or Fingerprint.of(path).sha256 == self.sha256
        except OSError:
            return False


def changed_ns(state: Any) -> int:
    """Return the modification time of a file, or 0 if the file system has none."""
    return int(getattr(state, "st_mtime_ns", 0) or 0)


@dataclass(frozen=True)
class ManifestEntry:
    """The record of a track that is finished, or whose stems are about to appear."""

    input: Fingerprint
    settings: dict[str, Any]
    """All settings that affect the content of the stems."""
    outputs: dict[str, Fingerprint]
    """Maps the path of each file, relative to the output folder, to its fingerprint."""
    facts: dict[str, Any]
    """Fields of `SplitResult`, such as frames and peaks."""
    source: str = ""
    """The absolute path of the track; empty in records of earlier versions."""

    detected: dict[str, str] = field(default_factory=dict)
    """Fields of the template that were detected in the track: `bpm` and `key`."""

    def is_of(self, track: Path) -> bool:
        """Whether this is the record of a file with this path or this content."""
        return self.source in ("", source(track)) or self.input.fits(track)


def source(track: Path) -> str:
    """Return the path of a track as stored in its record."""
    return str(track) if is_remote(track) else os.path.realpath(track)


def _read(path: Path) -> ManifestEntry | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("version") != VERSION:
            return None
        fingerprints = {name: Fingerprint(**each) for name, each in content["outputs"].items()}
        return ManifestEntry(**content | {"input": Fingerprint(**content["input"]), "outputs": fingerprints})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


class Manifest:
    """The records of an output folder."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def read(self, outputs: Mapping[str, Path]) -> ManifestEntry | None:
        """Return the record of the track with these outputs; None if it is missing or damaged."""
        return _read(self._path(outputs))

    def detected(self) -> dict[str, ManifestEntry]:
        """Return the records with detected fields, by track path."""
        records = filter(None, map(_read, (self.out / FOLDER).glob("*.json")))
        return {record.source: record for record in records if record.detected}

    def made(self) -> set[str]:
        """Return the absolute paths of all recorded files that are unchanged."""
        records = filter(None, map(_read, (self.out / FOLDER).glob("*.json")))
        fingerprints = {self.out / name: each for record in records for name, each in record.outputs.items()}
        return {os.path.abspath(path) for path, each in fingerprints.items() if each.fits(path)}

    def write(self, outputs: Mapping[str, Path], record: ManifestEntry) -> None:
        """Write a record atomically. Raises OSError or EncodeError if that fails."""
        path = self._path(outputs)
        with appearing(path) if is_remote(path) else writing(path) as part:
            part.write_text(json.dumps({"version": VERSION, **asdict(record)}), encoding="utf-8")

    @contextlib.contextmanager
    def kept(self, outputs: Mapping[str, Path]) -> Iterator[None]:
        """Restore the record of a track if the work on it fails.

        Raises:
            EncodeError: the folder of the records is not writable.
        """
        path = self._path(outputs)
        with claim([path]):  # removes the folder again if it stays empty
            earlier = self.read(outputs)
            try:
                yield
            except BaseException:
                if self.read(outputs) != earlier:
                    with contextlib.suppress(OSError, EncodeError):  # report the first error only
                        remove(path) if earlier is None else self.write(outputs, earlier)
                raise

    def is_done(self, track: Path, settings: Mapping[str, Any], outputs: Mapping[str, Path]) -> bool:
        """Whether a track, its outputs and its settings are unchanged."""
        record = self.read(outputs)
        return (
            record is not None
            and record.settings == settings
            and self.are_ours(outputs, record)
            and all(path.exists() for path in outputs.values())
            and record.input.fits(track)
        )

    def are_ours(self, outputs: Mapping[str, Path], record: ManifestEntry | None) -> bool:
        """Whether all existing outputs are unchanged since this program wrote them."""
        return all(
            record is not None
            and self.relative(path) in record.outputs
            and record.outputs[self.relative(path)].fits(path)
            for path in outputs.values()
            if (path.exists() if is_remote(path) else os.path.lexists(path))
        )

    def fingerprints(self, written: Mapping[Path, Path]) -> dict[str, Fingerprint]:
        """Return the fingerprints of outputs; `written` maps their paths to the paths of their part files."""
        return {self.relative(path): Fingerprint.of(place) for path, place in written.items()}

    def digests(self, outputs: Mapping[str, Path], fingerprints: Mapping[str, Fingerprint]) -> dict[str, str]:
        """Return the digest of each stem's file."""
        return {stem: fingerprints[self.relative(path)].sha256 for stem, path in outputs.items()}

    def relative(self, path: Path) -> str:
        """Return the name of a file as used in records."""
        return relative(path, self.out) if is_remote(path) else os.path.relpath(path, self.out)

    def _path(self, outputs: Mapping[str, Path]) -> Path:
        names = "\n".join(f"{name}\n{self.relative(path)}" for name, path in outputs.items())
        digest = hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()
        return self.out / FOLDER / f"{digest[:32]}.json"
