"""What has been done, kept beside the stems: so that a batch goes on where it was stopped.

One small file a track, in `.stemsplit` below the output folder, written before the stems appear under their
names. A file beside other tracks' needs no lock: any number of programs, on any number of machines, may work
on one output folder.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FOLDER = ".stemsplit"
VERSION = 1


@dataclass(frozen=True)
class Print:
    """A file as it was: its length and time of change, and a digest of all of it."""

    size: int
    changed_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Print:
        """Read a file. Raises OSError if that fails."""
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            digest = hashlib.file_digest(file, "sha256") if hasattr(hashlib, "file_digest") else _digest(file)
        return cls(before.st_size, before.st_mtime_ns, digest.hexdigest())

    def fits(self, path: Path) -> bool:
        """Whether a file still holds the same: it is read only if its time of change is another."""
        try:
            state = path.stat()
            if state.st_size != self.size:
                return False
            return state.st_mtime_ns == self.changed_ns or Print.of(path).sha256 == self.sha256
        except OSError:
            return False


def _digest(file: Any) -> Any:
    digest = hashlib.sha256()
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest


@dataclass(frozen=True)
class Record:
    """One track that is done, or was about to be."""

    input: Print
    settings: dict[str, Any]
    """All that decides what the stems hold."""
    outputs: dict[str, Print]
    """By the path of each file, relative to the output folder."""
    facts: dict[str, Any]
    """What is told of the track: frames, peaks."""


class Records:
    """The records of an output folder."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def read(self, outputs: Mapping[str, Path]) -> Record | None:
        """Return the record of the track with these outputs, or None where there is none that can be read."""
        try:
            content = json.loads(self._path(outputs).read_text(encoding="utf-8"))
            if content.pop("version") != VERSION:
                return None
            prints = {name: Print(**each) for name, each in content["outputs"].items()}
            return Record(**content | {"input": Print(**content["input"]), "outputs": prints})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def write(self, outputs: Mapping[str, Path], record: Record) -> None:
        """Keep a record, whole or not at all. Raises OSError if that fails."""
        path = self._path(outputs)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            part.write_text(json.dumps({"version": VERSION, **asdict(record)}), encoding="utf-8")
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    def is_done(self, track: Path, settings: Mapping[str, Any], outputs: Mapping[str, Path]) -> bool:
        """Whether a track, what was made of it, and how, are still the same."""
        record = self.read(outputs)
        return (
            record is not None
            and record.settings == settings
            and self.are_ours(outputs, record)
            and all(os.path.exists(path) for path in outputs.values())
            and record.input.fits(track)
        )

    def are_ours(self, outputs: Mapping[str, Path], record: Record | None) -> bool:
        """Whether those outputs that are there are as we wrote them: whatever else they are is not ours."""
        return all(
            record is not None
            and self._relative(path) in record.outputs
            and record.outputs[self._relative(path)].fits(path)
            for path in outputs.values()
            if os.path.lexists(path)
        )

    def prints(self, written: Mapping[Path, Path]) -> dict[str, Print]:
        """Return the prints of outputs, of which some lie elsewhere as yet: path to where it lies."""
        return {self._relative(path): Print.of(place) for path, place in written.items()}

    def _relative(self, path: Path) -> str:
        return os.path.relpath(path, self.out)

    def _path(self, outputs: Mapping[str, Path]) -> Path:
        names = "\n".join(f"{name}\n{self._relative(path)}" for name, path in outputs.items())
        digest = hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()
        return self.out / FOLDER / f"{digest[:32]}.json"
