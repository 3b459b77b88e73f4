"""`stemsplit split`, which `stemsplit song.mp3` also runs."""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated, Literal

import typer

from stemsplit.cli import config, console, encoding, models, runtime_options, sound, split_checks
from stemsplit.defaults import DEFAULT_MODEL
from stemsplit.errors import StemsplitError

EXAMPLES = {
    "stemsplit song.mp3": "Split a song into the four stems of the default model, in stems/song/",
    "stemsplit album/*.flac --two-stems vocals --format flac -o karaoke": "Vocals and accompaniment, as FLAC",
    "stemsplit --recursive music --skip-existing": (
        "Split all tracks of a folder, or resume an interrupted run"
    ),
    "ffmpeg -i video.mp4 -f wav - | stemsplit - --stdout vocals > vocals.wav": "In a pipe",
}

_what = partial(typer.Option, rich_help_panel="Input")
_how = partial(typer.Option, rich_help_panel="Separation")
_where = partial(typer.Option, rich_help_panel="Output")
_tell = partial(typer.Option, rich_help_panel="Messages", metavar="")


def seconds(text: str) -> float:
    """Parse `90`, `1:30` or `1:02:03.5`, and return seconds."""
    try:
        parts = [float(part) for part in text.split(":")]
    except ValueError:
        parts = [math.nan]
    if len(parts) > 3 or not all(0 <= part < math.inf for part in parts):
        raise typer.BadParameter(f"{text!r} is not a time; write seconds, or 1:30")
    return sum(part * 60.0**power for power, part in enumerate(reversed(parts)))


def _angles(text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text is not None else ()
    except ValueError:
        raise typer.BadParameter(f"--azimuth: {text!r} are not angles; write -30,0,30") from None


def _then(words: list[str] | None) -> dict[str, str]:
    """Return the model for each stem, from words such as `vocals=NAME`."""
    found: dict[str, str] = {}
    for word in words or []:
        stem, _, model = (part.strip() for part in word.partition("="))
        if not stem or not model:
            raise typer.BadParameter(f"--then takes STEM=NAME, e.g. vocals=karaoke, not {word!r}")
        if stem in found:
            raise typer.BadParameter(f"--then names {stem} twice")
        found[stem] = model
    return found


def _stems(ctx: typer.Context) -> tuple[str, ...]:
    """Return the stems of the models on the command line, for shell completion."""
    from stemsplit.zoo.ref import ModelRef

    try:
        return ModelRef.parse(ctx.params.get("model") or DEFAULT_MODEL).then(_then(ctx.params["then"])).stems
    except (StemsplitError, typer.BadParameter):
        return ()


def _complete_stems(ctx: typer.Context, incomplete: str) -> list[str]:
    typed, comma, _ = incomplete.rpartition(",")
    return [typed + comma + name for name in _stems(ctx) if name not in typed.split(",")]


def _complete_then(ctx: typer.Context, incomplete: str) -> list[str]:
    stem, equals, name = incomplete.partition("=")
    if equals:
        return [f"{stem}={model}" for model in models.complete(name)]
    return [f"{name}=" for name in _stems(ctx) if name.startswith(stem)]


def command(
    ctx: typer.Context,
    tracks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TRACK",
            help="Audio or video files, folders, or patterns such as `*.mp3`. `-` reads standard input.",
        ),
    ] = None,
    *,
    recursive: Annotated[bool, _what("--recursive", "-r", metavar="", help="Search subfolders too.")] = False,
    from_file: Annotated[
        str | None,
        _what(
            metavar="FILE",
            help="Read tracks from a playlist, or from a list, one per line or NUL-separated; `-` is stdin.",
        ),
    ] = None,
    raw: Annotated[
        str | None,
        _what(
            metavar="FORM",
            help="Headerless PCM on stdin and stdout: RATE:CHANNELS:SAMPLES, e.g. `44100:2:f32`.",
        ),
    ] = None,
    stems: Annotated[
        str | None,
        _what(
            metavar="NAMES",
            autocompletion=_complete_stems,
            help="Write only these, e.g. `vocals,drums`. Models with one network per stem run only "
            "those networks.",
        ),
    ] = None,
    two_stems: Annotated[
        str | None,
        _what(
            metavar="NAME",
            autocompletion=_complete_stems,
            help="Write this, and the rest as `accompaniment`.",
        ),
    ] = None,
    start: Annotated[
        float | None, _what(parser=seconds, metavar="TIME", help="Start position in seconds, or as `1:30`.")
    ] = None,
    duration: Annotated[
        float | None, _what(parser=seconds, metavar="TIME", help="Maximum duration in seconds, or as `1:30`.")
    ] = None,
    audio_track: sound.AudioTrack = None,
    downmix: sound.Downmix = False,
    model: Annotated[str, models.option(rich_help_panel="Separation")] = DEFAULT_MODEL,
    then: Annotated[
        list[str] | None,
        _how(
            metavar="STEM=NAME",
            autocompletion=_complete_then,
            help="Split this stem further with another model, into stems such as `vocals-lead`. Repeatable.",
        ),
    ] = None,
    mask: runtime_options.Mask = None,
    sources: Annotated[
        int | None, _how(min=2, metavar="N", help="Number of sources to find (spatial methods only).")
    ] = None,
    azimuth: Annotated[
        str | None,
        _how(
            metavar="DEGREES",
            help="Azimuths to extract, -45 (left) to 45 (right), e.g. `-30,0`; the rest is one more stem "
            "(spatial methods only). See `stemsplit scan`.",
        ),
    ] = None,
    overlap: runtime_options.Overlap = None,
    shifts: runtime_options.Shifts = 1,
    offline: runtime_options.Offline = False,
    fast: runtime_options.Fast = False,
    runtime: runtime_options.Runtime = "auto",
    device: runtime_options.Device = "auto",
    precision: runtime_options.Precision = "auto",
    batch: runtime_options.Batch = None,
    threads: runtime_options.Threads = None,
    jobs: runtime_options.Workers = None,
    ray: runtime_options.Ray = None,
    gpus_per_worker: runtime_options.Gpus = 0.0,
    out: Annotated[str, _where("--out", "-o", metavar="DIR", help="Output folder.")] = "stems",
    format: encoding.AnyFormat = "wav",
    depth: encoding.Depth = "same",
    bitrate: encoding.Bitrate = None,
    codec: encoding.Codec = None,
    stem_names: encoding.StemNames = None,
    stem_colors: encoding.StemColors = None,
    stdout: Annotated[
        str | None,
        _where(
            metavar="NAME", autocompletion=_complete_stems, help="Write only this stem, to standard output."
        ),
    ] = None,
    template: Annotated[
        str | None,
        _where(
            metavar="TEXT",
            help="File names in the output folder, e.g. `{artist} - {title}/{stem}.{ext}`. Default: "
            "`{folder}/{track}/{stem}.{ext}`.",
        ),
    ] = None,
    tag_bpm_key: Annotated[
        bool,
        _where(
            "--tag-bpm-key",
            metavar="",
            help="Tag the stems with the detected tempo and key, where the track has no such tags.",
        ),
    ] = False,
    gain: Annotated[float, _where(metavar="DB", help="Gain for all stems, in dB.")] = 0.0,
    daw: Annotated[
        Literal["dawproject", "reaper"] | None,
        _where(help="Also write a DAW session: dawproject (Bitwig Studio, Studio One, Cubase) or reaper."),
    ] = None,
    with_report: Annotated[
        bool, _where("--report", metavar="", help="Also write an HTML report with a player and spectrograms.")
    ] = False,
    force: Annotated[bool, _where("--force", metavar="", help="Overwrite existing files.")] = False,
    skip_existing: Annotated[
        bool,
        _where("--skip-existing", metavar="", help="Skip tracks that are already split: resumes a batch."),
    ] = False,
    dry_run: Annotated[bool, _tell("--dry-run", help="Print what would be written, and stop.")] = False,
    quiet: Annotated[bool, _tell("--quiet", "-q", help="Print only paths and errors.")] = False,
    verbose: Annotated[
        bool, _tell("--verbose", "-v", help="Also print the model, the device and peak levels.")
    ] = False,
    json: Annotated[
        bool, _tell("--json", help="Print events as JSON, one object per line, instead of paths.")
    ] = False,
    print0: Annotated[
        bool, _tell("--print0", help="End paths with NUL instead of newline, for `xargs -0`.")
    ] = False,
) -> None:
    """Split tracks into stems, written to `stems/<track>/<stem>.wav`.

    Stems have the track's sample rate, channels and exact length, and sum to the track.

    Paths are printed to stdout, everything else to stderr. If a track fails, the others continue, and the
    exit status is 1. To set your own defaults, see `stemsplit config --help`.
    """
    from stemsplit.batch.plan import BatchOptions
    from stemsplit.cli.split_run import Run
    from stemsplit.export.sidecars import Sidecars
    from stemsplit.files import remote
    from stemsplit.options import OutputOptions, RuntimeOptions, SplitOptions

    config.refuse_exclusions(ctx)
    split_checks.refuse_values(gpus_per_worker, duration, gain)
    run = Run(
        tracks=[*(tracks or []), *_listed(from_file)],
        recursive=recursive,
        raw=runtime_options.raw_form(raw),
        stdout=stdout,
        sidecars=Sidecars(daw, with_report),
        jobs=jobs,
        ray=ray,
        gpus_per_worker=gpus_per_worker,
        dry_run=dry_run,
    )
    split_checks.refuse_pipes(run, from_file, out)
    options = BatchOptions(
        SplitOptions(
            model=model,
            stems=None if stems is None else [name.strip() for name in stems.split(",") if name.strip()],
            two_stems=two_stems,
            then=_then(then),
            mask=mask,
            sources=sources,
            azimuths=_angles(azimuth),
            start_seconds=start or 0.0,
            duration_seconds=duration,
            audio_track=sound.track(audio_track),
            downmix=downmix,
            gain_db=gain,
        ),
        OutputOptions(
            remote.path_of(out),
            template,
            format,
            depth,
            bitrate,
            force,
            skip_existing,
            codec,
            encoding.listed(stem_names),
            encoding.listed(stem_colors),
            tag_bpm_key,
        ),
        RuntimeOptions(runtime, device, precision, batch, threads, fast, overlap, shifts, offline),
    )
    run.start(options, console.Report(quiet=quiet, verbose=verbose, json=json, print0=print0))


def _listed(source: str | None) -> list[str]:
    """Return the tracks in a list."""
    from stemsplit.batch import tracklist

    return [] if source is None else tracklist.read(source)
