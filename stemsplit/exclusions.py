"""Options that exclude each other: one table for the command line, the settings and the API."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stemsplit.audio.formats import LOSSLESS, STEM_FILE
from stemsplit.errors import UsageError


@dataclass(frozen=True)
class Exclusion:
    """Two options that exclude each other.

    Giving both on the command line is an error; a conflicting setting is ignored. `excludes` is called with
    both values. The message has option names in braces, and `{0}` and `{1}` for the values. Without one, both
    may be given on the command line, and only a conflicting setting is ignored.
    """

    first: str
    second: str
    message: str | None = None
    excludes: Callable[[Any, Any], Any] = lambda first, second: first and second

    def applies(self, values: Mapping[str, Any]) -> bool:
        """Whether both options are among the values, by name, and exclude each other."""
        if self.first not in values or self.second not in values:
            return False
        return bool(self.excludes(values[self.first], values[self.second]))

    def explain(self, values: Mapping[str, Any], spell: Callable[[str], str]) -> str:
        """Return the message, with option names as `spell` formats them."""
        names = {name: spell(name) for rule in EXCLUSIONS for name in (rule.first, rule.second)}
        return (self.message or "").format(values[self.first], values[self.second], **names)


def _both_named(first: Any, second: Any) -> bool:
    return first is not None and second is not None


def _is_lossless(format: Any, bitrate: Any) -> bool:
    return bool(format in LOSSLESS and bitrate)


def _is_float_flac(format: Any, depth: Any) -> bool:
    return bool(format in ("flac", "alac") and depth == "32f")


def _in_stem_file(format: Any, other: Any) -> bool:
    return bool(format == STEM_FILE and other)


def _names_stems_in_stem_file(format: Any, template: Any) -> bool:
    return bool(format == STEM_FILE and "{stem}" in (template or ""))


def _outside_stem_file(format: Any, other: Any) -> bool:
    return bool(format != STEM_FILE and other)


_STEM_FILES_ONLY = "{codec}, {stem_names} and {stem_colors} are for {format} stem.mp4"
_ALL_STEMS = "a stem file contains all stems; leave out {stems}, {two_stems}, {then} and {stdout}"
_STDOUT = "{stdout} cannot be combined with {json} or {dry_run}"
_PATHS = "{print0} formats paths, but {json} and {stdout} print none"
_LOCAL_FILES = "{daw} and {report} need one local file per stem"

EXCLUSIONS = (
    Exclusion("stems", "two_stems", "{stems} and {two_stems} exclude each other", _both_named),
    Exclusion("codec", "bitrate", "{bitrate} does not apply to {0}", _is_lossless),
    Exclusion("codec", "depth", "{0} cannot store float samples; choose {depth} 24", _is_float_flac),
    *(
        Exclusion("format", other, _STEM_FILES_ONLY, _outside_stem_file)
        for other in ("codec", "stem_names", "stem_colors")
    ),
    Exclusion("format", "bitrate", "{bitrate} does not apply to {0}", _is_lossless),
    Exclusion(
        "format",
        "depth",
        "flac cannot store float samples; choose {depth} 24 or {format} wav",
        _is_float_flac,
    ),
    Exclusion("two_stems", "then", "{two_stems} and {then} exclude each other"),
    *(
        Exclusion("format", other, _ALL_STEMS, _in_stem_file)
        for other in ("stems", "two_stems", "then", "stdout")
    ),
    *(Exclusion("format", beside, _LOCAL_FILES, _in_stem_file) for beside in ("daw", "report")),
    *(Exclusion(beside, to, _LOCAL_FILES) for beside in ("daw", "report") for to in ("stdout", "ray")),
    *(Exclusion("stdout", other, _STDOUT) for other in ("json", "dry_run")),
    Exclusion("stdout", "tag_bpm_key", "{tag_bpm_key} is for files, not for {stdout}"),
    *(Exclusion("print0", other, _PATHS) for other in ("json", "stdout")),
    Exclusion("ray", "stdout", "{ray} works on files only, not on standard input and output"),
    Exclusion("format", "template", None, _names_stems_in_stem_file),  # the template raises its own error
    Exclusion("quiet", "verbose"),
    Exclusion("force", "skip_existing"),
)
"""All options that exclude each other, for the command line, the settings and the API."""


def exclusions(values: Mapping[str, Any]) -> Iterator[Exclusion]:
    """Yield the exclusions that apply to options, given by name."""
    return (rule for rule in EXCLUSIONS if rule.applies(values))


def refuse_exclusions(values: Mapping[str, Any]) -> None:
    """Raise UsageError for keywords of the API that exclude each other."""
    for rule in exclusions(values):
        if rule.message:
            raise UsageError(rule.explain(values, str), "choose one of them")
