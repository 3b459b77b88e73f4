"""Shared by the verbs that make one file from a song: its default name, and the split options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stemsplit.cli import sound

if TYPE_CHECKING:
    from stemsplit.options import SplitOptions


def output_name(source: Path, label: str) -> Path:
    """Return the default output path for a song or a folder of stems, in the song's format or WAV."""
    from stemsplit.audio.formats import FORMATS
    from stemsplit.output import template

    ending = source.suffix[1:].lower()
    name = source.resolve().name if source.is_dir() else template.track_name(source)
    return Path(f"{name}-{label}.{ending if ending in FORMATS else 'wav'}")


def split_options(
    source: Path, model: str, mask: str | None, audio_track: str | None, *, downmix: bool
) -> SplitOptions:
    """Return the options to split a song; audio track and downmix are ignored for a folder of stems."""
    from stemsplit.options import SplitOptions

    is_song = not source.is_dir()
    return SplitOptions(
        model=model,
        mask=mask,
        audio_track=sound.track(audio_track) if is_song else None,
        downmix=downmix and is_song,
    )
