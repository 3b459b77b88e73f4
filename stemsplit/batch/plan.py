"""The batch plan: the paths of all stems, computed before any work is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from stemsplit import pipeline
from stemsplit.audio.formats import STEM_FILE
from stemsplit.audio.stem_mp4 import kept_stems
from stemsplit.batch.discovery import Track
from stemsplit.errors import Collision
from stemsplit.options import Options
from stemsplit.output import template
from stemsplit.output.detected import tempo_and_key
from stemsplit.output.manifest import Manifest
from stemsplit.separation.separator import Method
from stemsplit.zoo.ref import ModelRef


@dataclass(frozen=True, eq=False)
class Job:
    """A track, and the paths of its stems."""

    track: Track
    outputs: dict[str, Path]
    detected: dict[str, str] = field(default_factory=dict)
    """Fields of the template that were detected in the track."""


@dataclass(frozen=True)
class BatchOptions(Options):
    """The options of a batch."""

    @cached_property
    def ref(self) -> ModelRef:
        """The model. For errors, see `ModelRef.parse`."""
        return ModelRef.of(self.split)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The stems of each track. For errors, see `load_separator`."""
        names = self.ref.output_stems(self.split.stems, self.split.two_stems)
        return kept_stems(names) if self.output.format == STEM_FILE else names

    def load(self) -> Method:
        """Return the loaded model: a separator, or a method to fit to a track."""
        return pipeline.load(self, self.ref)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All settings that affect the content of the stems, for the manifest."""
        split, output = self.split, self.output
        running = replace(self.runtime, batch=None, threads=None)
        # Left out if unused, for compatibility with records of earlier versions.
        unused = {
            "offline",
            "jobs",
            *(name for name in ("overlap", "shifts") if getattr(running, name) in (None, 1)),
        }
        return {
            "weights": self.ref.fingerprint,
            "sources": split.sources,
            "azimuths": list(split.azimuths),
            "stems": list(self.names),
            "mask": split.mask,
            "running": {name: value for name, value in asdict(running).items() if name not in unused},
            "start_seconds": split.start_seconds,
            "duration_seconds": split.duration_seconds,
            "format": output.format,
            "depth": output.depth,
            "bitrate": output.bitrate,
            "gain_db": split.gain_db,
            # Left out if unused, for compatibility with records of earlier versions.
            **({} if split.audio_track is None else {"audio_track": split.audio_track}),
            **({"downmix": True} if split.downmix else {}),
            **({"tag_bpm_key": True} if output.tag_bpm_key else {}),
            **output.of_stem_files,
        }

    @property
    def detects(self) -> bool:
        """Whether the template has fields that may have to be detected in the audio."""
        return any(f"{{{field}}}" in (self.output.template or "") for field in template.DETECTABLE)

    def plan(self, tracks: Sequence[Track], planned: Callable[[], None] = lambda: None) -> list[Job]:
        """Return a job with output paths for each track, and call `planned` after each.

        Raises:
            TemplateError: the template cannot be filled in.
            Collision: two files would have the same name, on any operating system.
        """
        width = len(str(len(tracks)))
        output, jobs = self.output, []
        earlier = Manifest(output.out).detected() if self.detects else {}
        for number, track in enumerate(tracks, 1):
            detected = tempo_and_key(track.path, output.template, earlier)
            known = {"folder": track.folder, "number": f"{number:0{width}}", "model": self.split.model}
            known |= detected
            names = template.outputs(track.path, self.names, output.template, output.format, **known)
            jobs.append(Job(track, {stem: output.out / path for stem, path in names.items()}, detected))
            planned()
        _refuse_collisions(jobs)
        return jobs


def _refuse_collisions(jobs: Sequence[Job]) -> None:
    owners: dict[str, Job] = {}
    for job in jobs:
        for path in job.outputs.values():
            other = owners.setdefault(template.key(path), job)
            if other is not job:
                raise Collision(
                    f"`{other.track.path}` and `{job.track.path}` would both be written to `{path}`",
                    "add {number} to --template, or split each with a different --out",
                )
    for job in jobs:
        owner = owners.get(template.key(job.track.path))
        if owner:
            raise Collision(
                f"The stems of `{owner.track.path}` would overwrite the track `{job.track.path}`",
                "choose another folder with --out",
            )
