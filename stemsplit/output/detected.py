"""Tempo and key of a track as fields of templates, where its tags do not have them."""

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
    """Return `bpm` and `key`, as far as a template uses them and the track's tags lack them.

    They are taken from the record of the track among those `known`, by source, if it has not changed since;
    else they are detected in the track, which is decoded for that. A track that cannot be decoded has none.
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
    except StemsplitError:  # which is reported when the track is opened to be split
        return {}
    found = {"bpm": template.whole_bpm(tags.get("bpm", "")), "key": tags.get("initialkey", "")}
    return {name: found[name] for name in wanted}
