"""The kinds of files that stemsplit reads and writes, by the ends of their names."""

from __future__ import annotations

from typing import Literal, get_args

Format = Literal["wav", "flac", "mp3", "ogg", "m4a"]
"""The formats of files with one sound that are written, by the ends of their names."""
Depth = Literal["same", "16", "24", "32f"]
"""Bits per sample; `same` is that of the input."""
FORMATS: tuple[str, ...] = get_args(Format)
LOSSLESS = ("wav", "flac", "alac")
"""Formats and codecs that have a depth; the others have a bitrate."""
DEPTHS: tuple[str, ...] = get_args(Depth)
STEM_FILE = "stem.mp4"
"""The one format of which a file holds all stems of a track."""
StemCodec = Literal["aac", "alac", "flac"]
"""How its tracks are stored."""
AnyFormat = Literal[Format, "stem.mp4"]

SUFFIXES = frozenset(
    {
        *(".aac", ".adts", ".aif", ".aifc", ".aiff", ".alac", ".ape", ".au", ".avr", ".bwf", ".caf"),
        *(".dff", ".dsf", ".flac", ".m4a", ".m4b", ".m4r", ".mka", ".mp1", ".mp2", ".mp3", ".mpa"),
        *(".mpc", ".mpga", ".nist", ".oga", ".ogg", ".oma", ".omg", ".opus", ".paf", ".pvf", ".qoa"),
        *(".ra", ".rf64", ".sds", ".shn", ".snd", ".sph", ".spx", ".tak", ".tta", ".voc", ".vqf"),
        *(".w64", ".wav", ".wave", ".weba", ".wma", ".wv", ".wve", ".xwma"),
        # Coded for films, discs and telephones.
        *(".3ga", ".aa3", ".ac3", ".ac4", ".amr", ".awb", ".dts", ".dtshd", ".ec3", ".eac3", ".gsm"),
        *(".ircam", ".loas", ".m2a", ".mlp", ".thd", ".truehd"),
        # Videos.
        *(".3g2", ".3gp", ".3gpp", ".asf", ".avi", ".divx", ".f4a", ".f4v", ".flv", ".m2ts", ".m4v"),
        *(".mk3d", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogv", ".ogx"),
        *(".qt", ".rm", ".rmvb", ".trp", ".ts", ".vob", ".webm", ".wmv", ".wtv"),
    }
)
"""What a folder is searched for, in lower case; a file that is named may have any name.

Names that mostly mean something else are not among them, although such a file may hold sound: `.dat`,
`.iff`, `.mac`, `.mat`, `.mod`, `.sf`, `.swf`.
"""
MAYBE_TEXT = frozenset({".mts", ".ts"})
"""Of these a file of text is TypeScript, and not an MPEG transport stream."""

STEM_FILES = (f".{STEM_FILE}", ".stem.m4a")
"""How the names of stem files end, which hold a song and its stems in one; the first is what is written."""


def song_of(name: str) -> str | None:
    """Return the song that a stem file is named after, `song` of `song.stem.mp4`; None for another file."""
    suffix = next((suffix for suffix in STEM_FILES if name.lower().endswith(suffix)), None)
    return name[: -len(suffix)] if suffix else None


_NOTES = "notes and not a recording"
_OTHERS = {
    (".m3u", ".m3u8"): ("a playlist", "write `--from-file` before its name"),
    (".it", ".mod", ".mptm", ".s3m", ".xm"): (
        f"a tracker module: {_NOTES}",
        "export it as WAV first, for example with OpenMPT",
    ),
    (".kar", ".mid", ".midi", ".rmi"): (
        f"a MIDI file: {_NOTES}",
        "export it as WAV first, for example with FluidSynth",
    ),
}


def other_kind(name: str) -> tuple[str, str] | None:
    """Return what a file is that by its name is not sound, and what to do; None for another file."""
    return next((kind for suffixes, kind in _OTHERS.items() if name.lower().endswith(suffixes)), None)
