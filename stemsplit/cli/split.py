"""`stemsplit split`, which is also what `stemsplit song.mp3` runs."""

from __future__ import annotations

import difflib
import math
import threading
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stemsplit import DEFAULT_MODEL
from stemsplit.cli import console, models, running
from stemsplit.errors import StemsplitError

if TYPE_CHECKING:
    from stemsplit.audio import Reader

EXAMPLE = "stemsplit song.mp3 -o out --stems vocals,drums"

_what = partial(typer.Option, rich_help_panel="What to split")
_how = partial(typer.Option, rich_help_panel="How to split")
_where = partial(typer.Option, rich_help_panel="What to write")
_tell = partial(typer.Option, rich_help_panel="What to print", metavar="")


def seconds(text: str) -> float:
    """Read `90`, `1:30` or `1:02:03.5` as seconds."""
    try:
        parts = [float(part) for part in text.split(":")]
    except ValueError:
        parts = [math.nan]
    if len(parts) > 3 or not all(0 <= part < math.inf for part in parts):
        raise typer.BadParameter(f"{text!r} is no time; write seconds, or 1:30")
    return sum(part * 60.0**power for power, part in enumerate(reversed(parts)))


def _refuse_shared_folders(tracks: list[Path]) -> None:
    by_folder: dict[str, Path] = {}
    for track in tracks:
        # As Windows and macOS compare names.
        other = by_folder.setdefault(unicodedata.normalize("NFC", track.stem).casefold(), track)
        if other is not track:
            message = f"`{other}` and `{track}` would both be written to the folder `{track.stem}`"
            console.error(StemsplitError(message, "split them one by one, each with its own --out"))
            raise typer.Exit(2)


def _open(track: Path, start_seconds: float, duration_seconds: float | None) -> Reader:
    from stemsplit.audio import Reader
    from stemsplit.cli import VERBS

    try:
        return Reader(track, start_seconds=start_seconds, duration_seconds=duration_seconds)
    except StemsplitError as problem:
        near = difflib.get_close_matches(str(track), VERBS, n=1)
        if near and not track.exists():
            command = f"did you mean the command `stemsplit {near[0]}`?"
            problem.hint = f"{problem.hint}\n{command}" if problem.hint else command
        raise


def _complete_stems(ctx: typer.Context, incomplete: str) -> list[str]:
    from stemsplit import weights

    typed, comma, _ = incomplete.rpartition(",")
    try:
        stems = weights.read_card(ctx.params.get("model") or DEFAULT_MODEL).stems
    except StemsplitError:
        return []
    return [typed + comma + name for name in stems if name not in typed.split(",")]


def command(
    tracks: Annotated[list[Path], typer.Argument(metavar="TRACK", help="Sound files, or videos.")],
    *,
    stems: Annotated[
        str | None,
        _what(
            metavar="NAMES",
            autocompletion=_complete_stems,
            help="Only these, as in `vocals,drums`, each judged on its own. The others cost no time.",
        ),
    ] = None,
    two_stems: Annotated[
        str | None,
        _what(metavar="NAME", autocompletion=_complete_stems, help="This, and the rest as `accompaniment`."),
    ] = None,
    start: Annotated[
        float | None, _what(parser=seconds, metavar="TIME", help="Begin here: seconds, or 1:30.")
    ] = None,
    duration: Annotated[
        float | None, _what(parser=seconds, metavar="TIME", help="Split no more than this.")
    ] = None,
    model: Annotated[str, models.option(rich_help_panel="How to split")] = DEFAULT_MODEL,
    mask: Annotated[
        Literal["soft", "binary", "wiener"] | None,
        _how(help="Sounds shared, or each to one stem, or shared by place; else what suits the model."),
    ] = None,
    fast: running.Fast = False,
    runtime: running.Runtime = "auto",
    device: running.Device = "auto",
    precision: running.Precision = "auto",
    batch: running.Batch = None,
    threads: running.Threads = None,
    jobs: running.Jobs = 1,
    out: Annotated[Path, _where("--out", "-o", metavar="DIR", help="Where to write.")] = Path("stems"),
    format: Annotated[
        Literal["wav", "flac", "mp3", "ogg", "m4a"], _where("--format", "-f", help="Kind of file.")
    ] = "wav",
    depth: Annotated[
        Literal["same", "16", "24", "32f"], _where(help="Bits a sample, for wav and flac; 32f is float.")
    ] = "same",
    bitrate: Annotated[str | None, _where(metavar="RATE", help="For mp3, ogg and m4a, as in `192k`.")] = None,
    gain: Annotated[float, _where(metavar="DB", help="Make all stems louder, or softer (below 0).")] = 0.0,
    force: Annotated[bool, _where("--force", metavar="", help="Replace stems already there.")] = False,
    quiet: Annotated[bool, _tell("--quiet", "-q", help="Only paths and errors.")] = False,
    verbose: Annotated[
        bool, _tell("--verbose", "-v", help="Also the model, the device and the peaks.")
    ] = False,
    json: Annotated[bool, _tell("--json", help="One JSON object a track instead of paths.")] = False,
) -> None:
    """Split each track into stems, written to `stems/<track>/<stem>.wav`.

    Stems line up with the track sample for sample; all of them together add up to it.

    Paths go to stdout, all else to stderr. A track that fails does not stop the
    others; the exit status is then 1.
    """
    if stems is not None and two_stems is not None:
        raise typer.BadParameter("--stems and --two-stems exclude each other")
    if bitrate and format in ("wav", "flac"):
        raise typer.BadParameter(f"--bitrate means nothing to {format}")
    if format == "flac" and depth == "32f":
        raise typer.BadParameter("flac holds no floating point; choose --depth 24, or --format wav")
    if duration == 0:
        raise typer.BadParameter("--duration must be more than nothing")
    if not -60 <= gain <= 60:
        raise typer.BadParameter("--gain takes -60 to 60 dB")
    _refuse_shared_folders(tracks)
    report = console.Report(quiet=quiet, verbose=verbose, json=json)
    # All of them before torch is loaded, and before work begins that may take hours.
    readers = {}
    for track in tracks:
        with report.failing(track):
            readers[track] = _open(track, start or 0.0, duration)
    if not readers:
        raise typer.Exit(1)
    from stemsplit.pipeline import load_separator, plan, split_file

    try:
        separator = load_separator(
            model,
            stems=None if stems is None else [name.strip() for name in stems.split(",") if name.strip()],
            two_stems=two_stems,
            mask=mask,
            runtime=runtime,
            device=device,
            precision=precision,
            batch=batch,
            threads=threads,
            fast=fast,
        )
    except StemsplitError as problem:
        report.failed(problem)
        raise typer.Exit(1) from problem
    names = separator.spec.stems
    report.remark(f"{model} by {separator.spec.how}: {', '.join(names)}", detail=True)
    encoding: dict[str, Any] = {"format": format, "depth": depth, "bitrate": bitrate, "force": force}
    for track, reader in list(readers.items()):
        with report.failing(track):
            plan(reader, out, names, **encoding)
            continue
        del readers[track]
    stopped = threading.Event()

    def work(number: int, track: Path, reader: Reader) -> None:
        count = f"[{number}/{len(readers)}] " if len(readers) > 1 else ""
        title = f"{count}{console.count_stems(names)} of {console.printable(track.name)}"
        with report.failing(track), bars.of(title, reader) as update:

            def progress(done: int, total: int | None) -> None:
                if stopped.is_set():
                    raise KeyboardInterrupt
                update(done, total)

            result = split_file(
                track,
                out,
                separator=separator,
                gain_db=gain,
                start_seconds=start or 0.0,
                duration_seconds=duration,
                progress=progress,
                **encoding,
            )
            report.done(result)

    with console.Bars(enabled=not quiet) as bars, ThreadPoolExecutor(jobs) as pool:
        try:
            for future in [pool.submit(work, n, *each) for n, each in enumerate(readers.items(), 1)]:
                future.result()
        finally:
            stopped.set()
            pool.shutdown(cancel_futures=True)
    raise typer.Exit(1 if report.failures else 0)
