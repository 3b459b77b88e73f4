"""Tempo and key of a track as template fields, if its tags lack them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from stemsplit.analysis.music import analyse_mixture
from stemsplit.audio.reader import Reader
from stemsplit.errors import StemsplitError
from stemsplit.files.remote import is_remote
from stemsplit.output import template
from stemsplit.output.manifest import ManifestEntry, source


def tempo_and_key(track: Path, text: str | None, known: Mapping[str, ManifestEntry]) -> dict[str, str]:
    """Return `bpm` and `key`, each only if a template uses it and the track's tags lack it.

    `known` maps track paths to records. If the track has not changed since its record was written, the values
    come from the record. Otherwise, the track is decoded to detect them. The result is empty for remote
    tracks, and for tracks that cannot be decoded.
    """
    wanted = template.detectable(track, text)
    if not wanted or is_remote(track):
        return {}
    record = known.get(source(track))
    if record and wanted <= record.detected.keys() and record.input.fits(track):
        return {name: record.detected[name] for name in wanted}
    try:
        reader = Reader(track)
        tags = analyse_mixture(reader, reader.sample_rate, sections=False).tags
    except StemsplitError:  # reported when the track is opened for splitting
        return {}
    found = {"bpm": template.whole_bpm(tags.get("bpm", "")), "key": tags.get("initialkey", "")}
    return {name: found[name] for name in wanted}
