"""`stemsplit split`, which is also what `stemsplit song.mp3` runs."""

from __future__ import annotations

import difflib
import math
import shlex
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stemsplit.audio.formats import LOSSLESS, STEM_FILE
from stemsplit.cli import bars as progress_bars
from stemsplit.cli import console, encoding, models, runtime_options, signals, sound, stopping, streams
from stemsplit.defaults import DEFAULT_MODEL
from stemsplit.errors import EncodeError, StemsplitError, UsageError, failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stemsplit.audio.raw import Raw, RawReader
    from stemsplit.audio.reader import Reader
    from stemsplit.batch.discovery import Found
    from stemsplit.batch.plan import Job, Order
    from stemsplit.export.sidecars import Beside

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


def _angles(text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text is not None else ()
    except ValueError:
        raise typer.BadParameter(f"--azimuth: {text!r} are no angles; write -30,0,30") from None


def _command_to_go_on() -> str:
    """Return the command that finishes an interrupted batch, or a description of it if it is long."""
    words = [word for word in sys.argv[1:] if word != "--skip-existing"]
    words.insert(words[:1] == ["split"], "--skip-existing")
    command = shlex.join(["stemsplit", *words])
    return f"`{command}`" if len(command) < 500 else "the same command and --skip-existing"


def _did_you_mean(problem: StemsplitError, name: str) -> None:
    from stemsplit.cli import VERBS

    near = difflib.get_close_matches(name, VERBS, n=1)
    if near and problem.code == "not_found":
        command = f"did you mean the command `stemsplit {near[0]}`?"
        problem.hint = f"{problem.hint}\n{command}" if problem.hint else command


def _complete_stems(ctx: typer.Context, incomplete: str) -> list[str]:
    from stemsplit.zoo import store

    typed, comma, _ = incomplete.rpartition(",")
    try:
        stems = store.read_card(ctx.params.get("model") or DEFAULT_MODEL).stems
    except StemsplitError:
        return []
    return [typed + comma + name for name in stems if name not in typed.split(",")]


def command(
    ctx: typer.Context,
    tracks: Annotated[
        list[str] | None,
        typer.Argument(metavar="TRACK", help="Sound files or videos; folders; `*.mp3`; `-` is stdin."),
    ] = None,
    *,
    recursive: Annotated[
        bool, _what("--recursive", "-r", metavar="", help="Search the folders below a folder too.")
    ] = False,
    from_file: Annotated[
        str | None,
        _what(
            metavar="FILE",
            help="A playlist or a list of tracks: one per line, or NULs between; `-` is stdin.",
        ),
    ] = None,
    raw: Annotated[
        str | None,
        _what(metavar="FORM", help="Standard input and output are plain samples, as `44100:2:f32`."),
    ] = None,
    stems: Annotated[
        str | None,
        _what(
            metavar="NAMES",
            autocompletion=_complete_stems,
            help="Only these, as in `vocals,drums`; with a network a stem, the others cost no time.",
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
    audio_track: sound.AudioTrack = None,
    downmix: sound.Downmix = False,
    model: Annotated[str, models.option(rich_help_panel="How to split")] = DEFAULT_MODEL,
    mask: Annotated[
        Literal["soft", "binary", "wiener"] | None,
        _how(help="Sounds shared, or each to one stem, or shared by place; else what suits the model."),
    ] = None,
    sources: Annotated[
        int | None,
        _how(min=2, metavar="N", help="For models that need no training: how many sources to find."),
    ] = None,
    azimuth: Annotated[
        str | None,
        _how(metavar="DEGREES", help="For these, too: what is at -30,0 and the rest. See `stemsplit scan`."),
    ] = None,
    fast: runtime_options.Fast = False,
    runtime: runtime_options.Runtime = "auto",
    device: runtime_options.Device = "auto",
    precision: runtime_options.Precision = "auto",
    batch: runtime_options.Batch = None,
    threads: runtime_options.Threads = None,
    jobs: runtime_options.Workers = None,
    ray: runtime_options.Ray = None,
    gpus_per_worker: runtime_options.Gpus = 0.0,
    out: Annotated[str, _where("--out", "-o", metavar="DIR", help="Where to write.")] = "stems",
    format: encoding.AnyFormat = "wav",
    depth: encoding.Depth = "same",
    bitrate: encoding.Bitrate = None,
    stdout: Annotated[
        str | None,
        _where(
            metavar="NAME",
            autocompletion=_complete_stems,
            help="Write this stem of one track to standard output, and nothing else.",
        ),
    ] = None,
    template: Annotated[
        str | None,
        _where(
            metavar="TEXT",
            help="Names below DIR, as in `{artist} - {title}/{stem}.{ext}`. [{folder}/{track}/{stem}.{ext}]",
        ),
    ] = None,
    gain: Annotated[float, _where(metavar="DB", help="Make all stems louder, or softer (below 0).")] = 0.0,
    daw: Annotated[
        Literal["dawproject", "reaper"] | None,
        _where(help="A session of the stems too, for Bitwig Studio, Cubase and others, or for REAPER."),
    ] = None,
    with_report: Annotated[
        bool, _where("--report", metavar="", help="A page too, to hear and see the stems with.")
    ] = False,
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
    print0: Annotated[
        bool, _tell("--print0", help="End each path with a NUL instead of a newline, for xargs -0.")
    ] = False,
) -> None:
    """Split each track into stems, written to `stems/<track>/<stem>.wav`.

    Stems line up with the track sample for sample; all of them together add up to it.

    Paths go to stdout, all else to stderr. A track that fails does not stop the
    others; the exit status is then 1. Defaults of your own: see `stemsplit config`.
    """
    if stems is not None and two_stems is not None:
        raise typer.BadParameter("--stems and --two-stems exclude each other")
    if bitrate and format in LOSSLESS:
        raise typer.BadParameter(f"--bitrate means nothing to {format}")
    if format == "flac" and depth == "32f":
        raise typer.BadParameter("flac holds no floating point; choose --depth 24, or --format wav")
    if format == STEM_FILE and (stems or two_stems or stdout):
        raise typer.BadParameter("a stem file holds all stems; leave out --stems, --two-stems and --stdout")
    if (daw or with_report) and (format == STEM_FILE or stdout or ray):
        raise typer.BadParameter("--daw and --report need stems in files of this machine, one for each")
    if stdout and (json or dry_run):
        raise typer.BadParameter("--stdout leaves no room for --json or --dry-run")
    if print0 and (json or stdout):
        raise typer.BadParameter("--print0 is about paths, which --json and --stdout do not print")
    if gpus_per_worker > 1 and gpus_per_worker % 1:
        raise typer.BadParameter("--gpus-per-worker takes whole cards, or a share of one")
    if duration == 0:
        raise typer.BadParameter("--duration must be more than nothing")
    if not -60 <= gain <= 60:
        raise typer.BadParameter("--gain takes -60 to 60 dB")
    from stemsplit.batch import tracklist
    from stemsplit.files import remote

    form, named = runtime_options.raw_form(raw), list(tracks or [])
    if from_file is not None:
        named += tracklist.read(from_file)
    if not named:
        raise typer.BadParameter("no tracks were named")
    if "-" in named and sys.stdin.isatty():
        raise typer.BadParameter("the track - needs a program or a file before it: play | stemsplit -")
    if ray and (stdout or "-" in named):
        raise typer.BadParameter("--ray works on files, not on standard input and output")
    if "-" in named and from_file == "-":
        raise typer.BadParameter("standard input cannot be a track and a list of tracks")
    if form and not (stdout or "-" in named):
        raise typer.BadParameter("--raw is for standard input, as the track `-`, and for --stdout")
    from stemsplit.batch.plan import Order
    from stemsplit.export.sidecars import Beside
    from stemsplit.files.scratch import scratch_folder
    from stemsplit.runtime import Running

    if not ray and remote.is_remote(out):
        raise typer.BadParameter(
            "--out takes addresses such as s3://bucket/music with --ray only; `--ray local` is enough"
        )

    report = console.Report(quiet=quiet, verbose=verbose, json=json, print0=print0)
    order = Order(
        out=remote.path_of(out),
        model=model,
        stems=None if stems is None else tuple(name.strip() for name in stems.split(",") if name.strip()),
        two_stems=two_stems,
        mask=mask,
        sources=sources,
        azimuths=_angles(azimuth),
        running=Running(runtime, device, precision, batch, threads, fast),
        start_seconds=start or 0.0,
        duration_seconds=duration,
        audio_track=sound.track(audio_track),
        downmix=downmix,
        template=template,
        format=format,
        depth=depth,
        bitrate=bitrate,
        gain_db=gain,
        force=force,
        skip_existing=skip_existing,
    )
    folder = Path()
    if stdout or "-" in named:
        folder = Path(ctx.with_resource(scratch_folder()))
    try:
        if stdout:
            _to_stdout(named, stdout, form, folder, order, report)
            return
        found = _found(named, form, folder, order, recursive=recursive, elsewhere=bool(ray))
        planned = order.plan(found.tracks)
    except StemsplitError as problem:
        report.failed(problem)
        raise typer.Exit(problem.exit_status) from problem
    total = len(planned) + len(found.failures)
    report.start(total)
    for name, reason in found.failures:
        _did_you_mean(reason, name)
        report.failed(reason, name)
    # Whoever splits a track far away also looks whether it can be.
    beside = Beside(daw, with_report)
    try:
        opened: dict[Job, Reader] = {} if ray else _opened(order, planned, report, beside)
        todo = planned if ray else list(opened)
        report.plan(todo, opened)
        if dry_run:
            for job in () if json else todo:
                report.paths({**job.outputs, **beside.paths(job.track.path, job.outputs)})
        elif ray:
            _share_out(order, planned, report, address=ray, workers=jobs, gpus=gpus_per_worker)
        elif todo:
            _split(order, opened, report, jobs or 1, beside)
    except KeyboardInterrupt as interrupt:
        report.interrupted(total, go_on=_command_to_go_on())
        raise typer.Exit(signals.status(interrupt)) from interrupt
    report.end(total)
    raise typer.Exit(1 if report.failures else 0)


def _found(
    named: Sequence[str],
    form: Raw | None,
    folder: Path,
    order: Order,
    *,
    recursive: bool = False,
    elsewhere: bool = False,
) -> Found:
    """Return the tracks; what comes through standard input is kept in a folder."""
    from stemsplit.audio.raw import spool
    from stemsplit.batch.discovery import Found, find_tracks

    kept = None
    if "-" in named:
        try:
            kept = spool(sys.stdin.buffer, folder, form)
        except OSError as error:
            hint = "free some space, or choose another folder with TMPDIR"
            raise EncodeError(f"Cannot keep standard input in `{folder}`: {error.strerror}", hint) from error
    names = [str(kept) if name == "-" else name for name in named]
    found = find_tracks(names, recursive=recursive, leave_out=order.out, elsewhere=elsewhere)
    tracks = [replace(track, label="-") if track.path == kept else track for track in found.tracks]
    return Found(tracks, found.failures)


def _to_stdout(
    named: Sequence[str], stem: str, form: Raw | None, folder: Path, order: Order, report: console.Report
) -> None:
    """Write one stem of one track to standard output: plain samples and WAV as they are made."""
    from stemsplit import pipeline
    from stemsplit.audio.raw import RawReader
    from stemsplit.batch.plan import Job
    from stemsplit.missing import no_stem

    if sys.stdout.isatty():
        raise typer.BadParameter("--stdout needs a program or a file behind it: stemsplit ... | play")
    stdout = streams.sound()
    if stem not in order.names:
        raise no_stem(stem, order.names, "here")
    part: dict[str, Any] = {"start_seconds": order.start_seconds, "duration_seconds": order.duration_seconds}
    reader: Reader | RawReader
    if form and list(named) == ["-"]:
        reader = RawReader(sys.stdin.buffer, form, **part)
    else:
        tracks, failures = _found(named, form, folder, order)
        if (count := len(tracks) + len(failures)) != 1:
            raise typer.BadParameter(f"--stdout takes one track, not {count}")
        for name, problem in failures:
            _did_you_mean(problem, name)
            raise problem
        job = Job(tracks[0], {stem: folder / f"{stem}.{order.format}"})
        reader = order.open(job)
    separator = order.load()
    with (
        progress_bars.Bars(enabled=not report.quiet) as bars,
        bars.of(f"{stem} of {named[0]}", reader) as update,
    ):
        if form or order.format == "wav":
            result = pipeline.split_to_stream(
                reader,
                stem,
                stdout,
                separator=separator,
                raw=form,
                depth=order.depth,
                gain_db=order.gain_db,
                progress=update,
            )
        else:
            result = pipeline.split_file(
                reader.path,
                outputs=job.outputs,
                separator=separator,
                depth=order.depth,
                bitrate=order.bitrate,
                gain_db=order.gain_db,
                progress=update,
                audio_track=order.audio_track,
                downmix=order.downmix,
                **part,
            )
            with job.outputs[stem].open("rb") as file:
                shutil.copyfileobj(file, stdout)
            stdout.flush()
    report.summarise(result)


def _opened(
    order: Order, planned: Sequence[Job], report: console.Report, beside: Beside
) -> dict[Job, Reader]:
    """Look at all tracks before any work that may take hours; tell of those that are done, or cannot be."""

    def look(job: Job) -> Reader | StemsplitError | None:
        try:
            return None if order.is_done(job) else order.open(job)
        except Exception as problem:
            return failure(problem, job.track)

    found = {}
    with ThreadPoolExecutor(8) as pool:
        for job, seen in zip(planned, pool.map(look, planned), strict=True):
            if seen is None:
                paths = beside.paths(job.track.path, job.outputs)
                there = {what: path for what, path in paths.items() if path.exists()}
                report.skipped(job, there)
                for path in (path for what, path in paths.items() if what not in there):
                    verbs = "`stemsplit daw` and `stemsplit report` work on the stems"
                    report.remark(f"{job.track}: no `{path}`; {verbs}")
            elif isinstance(seen, StemsplitError):
                report.failed(seen, job.track)
            else:
                found[job] = seen
    return found


def _share_out(order: Order, planned: Sequence[Job], report: console.Report, **cluster: Any) -> None:
    """Have the tracks split by the machines of a cluster, which also look whether they can be."""
    from stemsplit.batch import ray_backend as machines

    cpus = order.running.threads or 1
    try:
        with (
            progress_bars.Bars(enabled=not report.quiet) as bars,
            console.alone(),  # Ray prints to stdout that it lost a machine
            bars.counting(len(planned)) as count,
        ):
            for job, outcome in machines.carry_out(order, planned, cpus=cpus, **cluster):
                if outcome is None:
                    report.skipped(job)
                elif isinstance(outcome, StemsplitError):
                    report.failed(outcome, job.track)
                else:
                    report.done(job.track, outcome)
                count()
    except StemsplitError as problem:
        report.failed(problem)


def _split(order: Order, todo: dict[Job, Reader], report: console.Report, jobs: int, beside: Beside) -> None:
    """Split the tracks, `jobs` of them at a time; one that fails stops no other."""
    from stemsplit.separation.separator import FittedMethod

    try:
        separator = order.load()
    except UsageError:
        raise
    except (StemsplitError, MemoryError) as problem:
        report.failed(failure(problem, order.model))
        return
    fitted = isinstance(separator, FittedMethod)
    if not isinstance(separator, FittedMethod):
        report.remark(f"{order.model} by {separator.spec.how}: {', '.join(order.names)}", detail=True)
    stop, reasons = stopping.Stop(), list[BaseException]()

    def work(number: int, job: Job, reader: Reader) -> None:
        count = f"[{number}/{len(todo)}] " if len(todo) > 1 else ""
        title = f"{count}{console.count_stems(order.names)} of {console.printable(job.track.path.name)}"
        stop.check()
        tell = report.progress(job, reader)

        @contextmanager
        def phase(name: str) -> Iterator[Callable[[float], None]]:
            title = f"{count}{name} of {job.track.path.name}"
            with stop.at_once(), bars.shares(title) as update:

                def progress(share: float) -> None:
                    stop.check()
                    update(share)
                    tell(share * result.frames, name)

                yield progress

        with report.failing(job.track):
            beside.check(job.track.path, job.outputs, force=order.force)
            with bars.of(title, reader) as update:

                def progress(done: int, total: int | None) -> None:
                    stop.check()
                    update(done, total)
                    tell(done)

                split = order.carry_out(job, separator, progress)
            if split is None:
                report.skipped(job)
                return
            result = split
            if fitted:
                report.remark(f"{job.track}: {result.how}")
            began = time.monotonic()
            made = beside.write(result, order, phase)
            elapsed = result.elapsed_seconds + (time.monotonic() - began if made else 0.0)
            report.done(job.track, replace(result, elapsed_seconds=elapsed), made)

    def guarded(*task: Any) -> None:
        try:
            work(*task)
        except BaseException as reason:  # an interrupt, or a bug: nobody begins another track
            reasons.append(reason)
            stop.set()
            raise

    with (
        progress_bars.Bars(todo.values(), enabled=not report.quiet) as bars,
        ThreadPoolExecutor(jobs) as pool,
    ):
        try:
            for future in [pool.submit(guarded, n, *each) for n, each in enumerate(todo.items(), 1)]:
                future.result()
        except BaseException as reason:  # which may be but the echo of another track's
            raise reasons[0] if reasons else reason  # noqa: B904
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
