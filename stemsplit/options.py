"""The options of a split: input and stems, output files, and runtime.

Three frozen objects pass unchanged from the command line, or from the API's keywords, to the writers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, get_args

from stemsplit.audio.formats import StemCodec
from stemsplit.audio.stem_labels import check_colours, check_names
from stemsplit.defaults import DEFAULT_MODEL
from stemsplit.errors import UsageError
from stemsplit.exclusions import refuse_exclusions

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

RUNTIMES = ("auto", "torch", "openvino")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
MOST_OVERLAP = 0.95
FAST_FRAME_STRIDE = 3
"""With `fast`, networks run on every third frame, unless there is a faster network for the same weights."""


@dataclass(frozen=True)
class SplitOptions:
    """What to split, and into which stems.

    Raises:
        UsageError: two options exclude each other.
        ValueError: `stems` is a string instead of a list of names.
    """

    model: str = DEFAULT_MODEL
    """A shipped model, a weights file, several of these joined by `+`, or a spatial method."""
    stems: Sequence[str] | None = None
    """The stems to write. Default: all of the model's."""
    two_stems: str | None = None
    """One stem; everything else is written as `accompaniment`."""
    then: Mapping[str, str] = field(default_factory=dict)
    """Stem -> model that splits it further, into stems such as `vocals-lead`."""
    mask: str | None = None
    """Masking method: `soft`, `binary`, `wiener`, `clean` or `full`. Default: the model's."""
    sources: int | None = None
    """Number of sources to find (spatial methods only)."""
    azimuths: Sequence[float] = ()
    """Azimuths of the sources in degrees, from -45 (left) to 45 (right) (spatial methods only)."""
    start_seconds: float = 0.0
    duration_seconds: float | None = None
    audio_track: int | str | None = None
    """The audio track of each file: an index from 0, or a language. Default: the file's default track."""
    downmix: bool = False
    """Whether to mix more than two channels down to stereo."""
    gain_db: float = 0.0
    """Gain for all stems."""

    def __post_init__(self) -> None:
        if isinstance(self.stems, str):
            raise ValueError(f"stems must be a list of names, got {self.stems!r}")
        refuse_exclusions(vars(self))
        object.__setattr__(self, "model", os.fspath(self.model))
        object.__setattr__(self, "stems", None if self.stems is None else tuple(self.stems))
        object.__setattr__(self, "azimuths", tuple(self.azimuths))
        object.__setattr__(self, "then", {stem: os.fspath(model) for stem, model in self.then.items()})

    @property
    def reading(self) -> dict[str, Any]:
        """The options of a `Reader`."""
        return {
            "start_seconds": self.start_seconds,
            "duration_seconds": self.duration_seconds,
            "track": self.audio_track,
            "downmix": self.downmix,
        }


@dataclass(frozen=True)
class OutputOptions:
    """Which files to write. The writer refuses options that its format does not support.

    Raises:
        UsageError: options for stem files are invalid, or are given for another format.
    """

    out: Path = Path("stems")
    """The output folder."""
    template: str | None = None
    """File names in this folder. Default: `{folder}/{track}/{stem}.{ext}`; for `stem.mp4`, one file."""
    format: str = "wav"
    depth: str = "same"
    """Bits per sample: `16`, `24`, `32f` (float), or `same` as the track."""
    bitrate: str | None = None
    """Bitrate of lossy formats, e.g. `192k`."""
    force: bool = False
    """Whether to overwrite existing files."""
    skip_existing: bool = False
    """Whether a batch skips tracks that are already done."""
    codec: str | None = None
    """Codec of the tracks in a stem file: `aac`, `alac` or `flac`. Default: `aac`."""
    stem_names: Sequence[str] | None = None
    """Names that players show for the stems of a stem file, in the order drums, bass, other, vocals."""
    stem_colors: Sequence[str] | None = None
    """Colors of these stems, as `#RRGGBB`."""
    tag_bpm_key: bool = False
    """Whether to detect tempo and key for the stems' tags, if the track's tags lack them."""

    def __post_init__(self) -> None:
        of_stem_files = ("format", "codec", "stem_names", "stem_colors")
        refuse_exclusions({name: getattr(self, name) for name in of_stem_files})
        if self.codec and self.codec not in get_args(StemCodec):
            raise UsageError(f"No codec `{self.codec}`", f"choose one of {', '.join(get_args(StemCodec))}")
        if self.stem_names is not None:
            object.__setattr__(self, "stem_names", check_names(self.stem_names))
        if self.stem_colors is not None:
            object.__setattr__(self, "stem_colors", check_colours(self.stem_colors))

    @property
    def of_stem_files(self) -> dict[str, Any]:
        """The options of stem files that were given, for the manifest."""
        given = {"codec": self.codec, "stem_names": self.stem_names, "stem_colors": self.stem_colors}
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in given.items() if value
        }


@dataclass(frozen=True)
class RuntimeOptions:
    """Where and how a model's networks run. The defaults depend on the machine.

    Raises:
        ValueError: a value is invalid.
    """

    runtime: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    batch: int | None = None
    """Network inputs (frames or samples) per batch; without it, some networks run as a stream."""
    threads: int | None = None
    """CPU cores to use."""
    fast: bool = False
    """Run the networks on every second or third frame only."""
    overlap: float | None = None
    """Overlap of segments as a fraction (segmented models only)."""
    shifts: int = 1
    """Number of runs on time-shifted input to average (segmented models only)."""
    offline: bool = False
    """Whether to fail rather than download weights."""
    jobs: int = 1
    """Number of tracks that share the threads."""

    def __post_init__(self) -> None:
        for name, among in (("runtime", RUNTIMES), ("precision", PRECISIONS)):
            if getattr(self, name) not in among:
                raise ValueError(f"{name}={getattr(self, name)!r} must be one of {', '.join(among)}")
        if self.overlap is not None and not 0 <= self.overlap <= MOST_OVERLAP:
            raise ValueError(f"overlap={self.overlap} must be from 0 to {MOST_OVERLAP}")
        for name in ("batch", "threads", "shifts", "jobs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be 1 or more")

    @property
    def frame_stride(self) -> int:
        """The networks run on every `frame_stride`-th frame."""
        return FAST_FRAME_STRIDE if self.fast else 1


DEFAULT_RUNTIME = RuntimeOptions()


class RuntimeKeywords(TypedDict, total=False):
    """Keywords of functions that run a model."""

    runtime: str
    device: str
    precision: str
    batch: int | None
    threads: int | None
    fast: bool
    overlap: float | None
    shifts: int
    offline: bool
    jobs: int


class MethodKeywords(RuntimeKeywords, total=False):
    """Keywords of functions that load a model."""

    model: str | os.PathLike[str]
    stems: Sequence[str] | None
    two_stems: str | None
    then: Mapping[str, str]
    mask: str | None
    sources: int | None
    azimuths: Sequence[float]


class FileKeywords(MethodKeywords, total=False):
    """Keywords of functions that split a file."""

    start_seconds: float
    duration_seconds: float | None
    audio_track: int | str | None
    downmix: bool
    gain_db: float
    template: str | None
    format: str
    depth: str
    bitrate: str | None
    tag_bpm_key: bool
    codec: str | None
    stem_names: Sequence[str] | None
    stem_colors: Sequence[str] | None
    force: bool


class BatchKeywords(FileKeywords, total=False):
    """Keywords for all options of a batch."""

    out: Path
    skip_existing: bool


_Kind = TypeVar("_Kind", SplitOptions, OutputOptions, RuntimeOptions)


@dataclass(frozen=True)
class Options:
    """All options of a split."""

    split: SplitOptions = field(default_factory=SplitOptions)
    output: OutputOptions = field(default_factory=OutputOptions)
    runtime: RuntimeOptions = field(default_factory=RuntimeOptions)

    @classmethod
    def of(cls, known: type = BatchKeywords, /, **keywords: Unpack[BatchKeywords]) -> Self:
        """Return the options for some keywords. Raises TypeError for a keyword that is not `known`."""
        if unknown := [name for name in keywords if name not in known.__annotations__]:
            raise TypeError(f"unknown options: {', '.join(unknown)}")
        given: dict[str, Any] = dict(keywords)

        def take(kind: type[_Kind]) -> _Kind:
            names = {each.name for each in fields(kind)}
            return kind(**{name: value for name, value in given.items() if name in names})

        return cls(take(SplitOptions), take(OutputOptions), take(RuntimeOptions))

    def with_output(self, **changes: Any) -> Self:
        """Return a copy with other fields of `output`."""
        return replace(self, output=replace(self.output, **changes))
