"""The file formats that stemsplit reads and writes, by file name suffix."""

from __future__ import annotations

from typing import Literal, get_args

Format = Literal["wav", "flac", "mp3", "ogg", "m4a"]
"""The output formats with one audio track per file, by suffix."""
Depth = Literal["same", "16", "24", "32f"]
"""Bits per sample; `same` is the input's depth."""
FORMATS: tuple[str, ...] = get_args(Format)
LOSSLESS = ("wav", "flac", "alac")
"""Formats and codecs that have a depth; the others have a bitrate."""
DEPTHS: tuple[str, ...] = get_args(Depth)
STEM_FILE = "stem.mp4"
"""The output format with all stems of a track in one file."""
StemCodec = Literal["aac", "alac", "flac"]
"""Codec of the tracks in a stem file."""
AnyFormat = Literal[Format, "stem.mp4"]

SUFFIXES = frozenset(
    {
        *(".aac", ".adts", ".aif", ".aifc", ".aiff", ".alac", ".ape", ".au", ".avr", ".bwf", ".caf"),
        *(".dff", ".dsf", ".flac", ".m4a", ".m4b", ".m4r", ".mka", ".mp1", ".mp2", ".mp3", ".mpa"),
        *(".mpc", ".mpga", ".nist", ".oga", ".ogg", ".oma", ".omg", ".opus", ".paf", ".pvf", ".qoa"),
        *(".ra", ".rf64", ".sds", ".shn", ".snd", ".sph", ".spx", ".tak", ".tta", ".voc", ".vqf"),
        *(".w64", ".wav", ".wave", ".weba", ".wma", ".wv", ".wve", ".xwma"),
        # Formats of movies, discs and phones.
        *(".3ga", ".aa3", ".ac3", ".ac4", ".amr", ".awb", ".dts", ".dtshd", ".ec3", ".eac3", ".gsm"),
        *(".ircam", ".loas", ".m2a", ".mlp", ".thd", ".truehd"),
        # Videos.
        *(".3g2", ".3gp", ".3gpp", ".asf", ".avi", ".divx", ".f4a", ".f4v", ".flv", ".m2ts", ".m4v"),
        *(".mk3d", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogv", ".ogx"),
        *(".qt", ".rm", ".rmvb", ".trp", ".ts", ".vob", ".webm", ".wmv", ".wtv"),
    }
)
"""Suffixes, in lower case, of the files to find in a folder. A file named explicitly can have any suffix.

Suffixes that usually mean something else are not included, although such files can contain audio: `.dat`,
`.iff`, `.mac`, `.mat`, `.mod`, `.sf`, `.swf`.
"""
MAYBE_TEXT = frozenset({".mts", ".ts"})
"""Suffixes of MPEG transport streams, which TypeScript files also have."""

STEM_FILES = (f".{STEM_FILE}", ".stem.m4a")
"""The suffixes of stem files, which contain a song and its stems. The first one is used for writing."""


def song_of(name: str) -> str | None:
    """Return the name of the song of a stem file: `song` for `song.stem.mp4`; None for another file."""
    suffix = next((suffix for suffix in STEM_FILES if name.lower().endswith(suffix)), None)
    return name[: -len(suffix)] if suffix else None


_NOTES = "notes, not a recording"
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
    """Return what a file without audio is, judging by its suffix, and a hint; None for other files."""
    return next((kind for suffixes, kind in _OTHERS.items() if name.lower().endswith(suffixes)), None)
