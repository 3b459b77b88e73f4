"""`stemsplit split`, which is also what `stemsplit song.mp3` runs."""

from __future__ import annotations

import difflib
import math
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stemsplit import DEFAULT_MODEL
from stemsplit.cli import console, models, running
from stemsplit.errors import Collision, DecodeError, StemsplitError, TemplateError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemsplit.audio import Reader
    from stemsplit.batch import Job, Order

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


def _listed(source: str | None) -> list[str]:
    """Return the names in a list of tracks, one a line or, with NULs between them, in any form."""
    if source is None:
        return []
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise DecodeError(f"Cannot read the list `{source}`: {error.strerror}") from error
    names = data.split(b"\0") if b"\0" in data else data.splitlines()
    return [os.fsdecode(name) for name in names if name.strip()]


def _did_you_mean(problem: StemsplitError, track: Path) -> None:
    from stemsplit.cli import VERBS

    near = difflib.get_close_matches(str(track), VERBS, n=1)
    if near and not track.exists():
        command = f"did you mean the command `stemsplit {near[0]}`?"
        problem.hint = f"{problem.hint}\n{command}" if problem.hint else command


def _complete_stems(ctx: typer.Context, incomplete: str) -> list[str]:
    from stemsplit import weights

    typed, comma, _ = incomplete.rpartition(",")
    try:
        stems = weights.read_card(ctx.params.get("model") or DEFAULT_MODEL).stems
    except StemsplitError:
        return []
    return [typed + comma + name for name in stems if name not in typed.split(",")]


def command(
    tracks: Annotated[
        list[str] | None,
        typer.Argument(metavar="TRACK", help="Sound files or videos; folders of them; `*.mp3`."),
    ] = None,
    *,
    recursive: Annotated[
        bool, _what("--recursive", "-r", metavar="", help="Search the folders below a folder too.")
    ] = False,
    from_file: Annotated[
        str | None,
        _what(metavar="FILE", help="A list of tracks, one a line or with NULs between; `-` is stdin."),
    ] = None,
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
    template: Annotated[
        str | None,
        _where(
            metavar="TEXT",
            help="Names below DIR, as in `{artist} - {title}/{stem}.{ext}`. [{folder}/{track}/{stem}.{ext}]",
        ),
    ] = None,
    gain: Annotated[float, _where(metavar="DB", help="Make all stems louder, or softer (below 0).")] = 0.0,
    force: Annotated[bool, _where("--force", metavar="", help="Replace stems already there.")] = False,
    skip_existing: Annotated[
        bool,
        _where("--skip-existing", metavar="", help="Leave out tracks that are done: go on with a batch."),
    ] = False,
    dry_run: Annotated[bool, _tell("--dry-run", help="Only say what would be written where.")] = False,
    quiet: Annotated[bool, _tell("--quiet", "-q", help="Only paths and errors.")] = False,
    verbose: Annotated[
        bool, _tell("--verbose", "-v", help="Also the model, the device and the peaks.")
    ] = False,
    json: Annotated[bool, _tell("--json", help="One JSON object a line instead of paths.")] = False,
) -> None:
    """Split each track into stems, written to `stems/<track>/<stem>.wav`.

    Stems line up with the track sample for sample; all of them together add up to it.

    Paths go to stdout, all else to stderr. A track that fails does not stop the
    others; the exit status is then 1. Defaults of your own: see `stemsplit config`.
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
    from stemsplit.batch import Order, find_tracks
    from stemsplit.naming import DEFAULT_TEMPLATE
    from stemsplit.runtime import Running

    report = console.Report(quiet=quiet, verbose=verbose, json=json)
    order = Order(
        out=out,
        model=model,
        stems=None if stems is None else tuple(name.strip() for name in stems.split(",") if name.strip()),
        two_stems=two_stems,
        mask=mask,
        running=Running(runtime, device, precision, batch, threads, fast),
        start_seconds=start or 0.0,
        duration_seconds=duration,
        template=template or DEFAULT_TEMPLATE,
        format=format,
        depth=depth,
        bitrate=bitrate,
        gain_db=gain,
        force=force,
        skip_existing=skip_existing,
    )
    named = [*(tracks or []), *_listed(from_file)]
    if not named:
        raise typer.BadParameter("no tracks were named")
    try:
        planned = order.plan(find_tracks(named, recursive=recursive, leave_out=out))
    except (Collision, TemplateError) as problem:
        report.failed(problem)
        raise typer.Exit(2) from problem
    except StemsplitError as problem:
        report.failed(problem)
        raise typer.Exit(1) from problem
    todo = _opened(order, planned, report)
    if dry_run:
        report.plan(todo)
    elif todo:
        _split(order, todo, report, jobs)
    report.end(len(planned))
    raise typer.Exit(1 if report.failures else 0)


def _opened(order: Order, planned: Sequence[Job], report: console.Report) -> dict[Job, Reader]:
    """Look at all tracks before any work that may take hours; tell of those that are done, or cannot be."""

    def look(job: Job) -> Reader | StemsplitError | None:
        try:
            return None if order.is_done(job) else order.open(job)
        except StemsplitError as problem:
            return problem

    found = {}
    with ThreadPoolExecutor(8) as pool:
        for job, seen in zip(planned, pool.map(look, planned), strict=True):
            if seen is None:
                report.skipped(job)
            elif isinstance(seen, StemsplitError):
                _did_you_mean(seen, job.track.path)
                report.failed(seen, job.track.path)
            else:
                found[job] = seen
    return found


def _split(order: Order, todo: dict[Job, Reader], report: console.Report, jobs: int) -> None:
    """Split the tracks, `jobs` of them at a time; one that fails stops no other."""
    try:
        separator = order.load()
    except StemsplitError as problem:
        report.failed(problem)
        return
    report.remark(f"{order.model} by {separator.spec.how}: {', '.join(order.names)}", detail=True)
    stopped, reasons = threading.Event(), list[BaseException]()

    def refuse_if_stopped() -> None:
        if stopped.is_set():
            raise KeyboardInterrupt

    def work(number: int, job: Job, reader: Reader) -> None:
        count = f"[{number}/{len(todo)}] " if len(todo) > 1 else ""
        title = f"{count}{console.count_stems(order.names)} of {console.printable(job.track.path.name)}"
        refuse_if_stopped()
        with report.failing(job.track.path), bars.of(title, reader) as update:

            def progress(done: int, total: int | None) -> None:
                refuse_if_stopped()
                update(done, total)

            report.done(order.carry_out(job, separator, progress))

    def guarded(*task: Any) -> None:
        try:
            work(*task)
        except BaseException as reason:  # an interrupt, or a bug: nobody begins another track
            reasons.append(reason)
            stopped.set()
            raise

    with console.Bars(enabled=not report.quiet) as bars, ThreadPoolExecutor(jobs) as pool:
        try:
            for future in [pool.submit(guarded, n, *each) for n, each in enumerate(todo.items(), 1)]:
                future.result()
        except BaseException as reason:  # which may be but the echo of another track's
            raise reasons[0] if reasons else reason  # noqa: B904
        finally:
            stopped.set()
            pool.shutdown(cancel_futures=True)
