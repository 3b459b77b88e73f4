"""`stemsplit live`: live separation, from standard input or a sound card."""

from __future__ import annotations

import sys
from dataclasses import asdict
from functools import partial
from json import dumps
from typing import TYPE_CHECKING, Annotated

import typer

from stemsplit.cli import console, models, runtime_options, streams
from stemsplit.defaults import LIVE_MODEL

if TYPE_CHECKING:
    from stemsplit.live.engine import Live
    from stemsplit.live.pipe import Pipe
    from stemsplit.live.sound_card import SoundCard

EXAMPLE = "play | stemsplit live --raw 44100:2:f32 --stem vocals | listen"

_what = partial(typer.Option, rich_help_panel="What to play")
_card = partial(typer.Option, rich_help_panel="Sound cards")
_how = partial(typer.Option, rich_help_panel="How to run")
_tell = partial(typer.Option, rich_help_panel="What to print", metavar="")


def command(
    *,
    stem: Annotated[str | None, _what(metavar="NAME", help="This stem: only its network runs.")] = None,
    remix: Annotated[
        str | None,
        _what(metavar="TEXT", help="All of them, as `vocals=-6dB drums=mute`; or karaoke, practice:bass."),
    ] = None,
    raw: Annotated[
        str | None, _what(metavar="FORM", help="Plain samples, as `44100:2:f32`; else a WAV stream.")
    ] = None,
    devices: Annotated[bool, _card("--devices", metavar="", help="List the sound cards, and end.")] = False,
    input: Annotated[
        str | None, _card(metavar="DEVICE", help="From a sound card: its number, or a part of its name.")
    ] = None,
    output: Annotated[
        str | None, _card(metavar="DEVICE", help="To a sound card; `default` is the system's, for both.")
    ] = None,
    block: Annotated[
        float, _how(min=10, max=10_000, metavar="MS", help="Of sound at a time; shorter is more work.")
    ] = 100.0,
    model: Annotated[str, models.option(rich_help_panel="How to run")] = LIVE_MODEL,
    fast: runtime_options.Fast = False,
    runtime: runtime_options.Runtime = "auto",
    device: runtime_options.Device = "auto",
    precision: runtime_options.Precision = "auto",
    quiet: Annotated[bool, _tell("--quiet", "-q", help="Only errors.")] = False,
    json: Annotated[bool, _tell("--json", help="The summary as one JSON object, on stderr too.")] = False,
) -> None:
    """Separate sound while it plays: standard input to standard output, or between sound cards.

    The output is delayed by one block and the look-ahead of the networks; the delay is printed.
    It is the same sound as that of `stemsplit split` with this model.
    """
    from stemsplit.live import engine, sound_card
    from stemsplit.remix import mixer

    if devices:
        for number, words in sound_card.devices():
            typer.echo(f"{number:3} {words}")
        return
    if (stem is None) == (remix is None):
        raise typer.BadParameter("choose one of --stem and --remix")
    cards = input is not None or output is not None
    if cards and raw:
        raise typer.BadParameter("--raw is for standard input, not for sound cards")
    if not cards and sys.stdin.isatty():
        raise typer.BadParameter("live needs a program before it, play | stemsplit live; or --input DEVICE")
    if not cards and sys.stdout.isatty():
        raise typer.BadParameter("live needs a program behind it, stemsplit live | play; or --output DEVICE")
    ref = engine.find(model)
    settings = None if remix is None else mixer.parse(remix, ref.stems)
    options = {"runtime": runtime, "device": device, "precision": precision}
    separator = engine.load(ref, stem, block_ms=block, fast=fast, **options)
    spec = separator.spec

    mix = engine.only if settings is None else mixer.Mixer(settings, spec.stems, spec.sample_rate).mix
    live = engine.Live(separator, mix, block_ms=block)
    way = _between_cards(live, input, output) if cards else _through_pipes(live, raw)
    if not quiet:
        ahead = f"of these {live.milliseconds(spec.context):.0f} ms look-ahead, the rest blocks of"
        behind = f"{live.milliseconds(way.latency):.0f} ms behind, {ahead}"
        console.say(f"{stem or remix}: {behind} {live.milliseconds(live.block):.0f} ms; {spec.how}")
    try:
        way.run()
    finally:
        if live.blocks:
            _sum_up(way, quiet=quiet, json=json)


def _through_pipes(live: Live, form: str | None) -> Pipe:
    """Return the way from standard input to standard output, in the form of the former."""
    from stemsplit.audio.raw import StreamWriter, read_header
    from stemsplit.live.pipe import Pipe

    # Not buffered: what has come is there at once, and no lock is held by a thread that waits for more.
    stream = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
    given = runtime_options.raw_form(form)
    raw, length = (given, None) if given else read_header(stream)
    live.check(raw.sample_rate, raw.channels)
    frames = None if length is None else length // raw.bytes_per_frame
    outlet = StreamWriter(streams.sound(), raw, wav=form is None, frames=frames)
    return Pipe(live, stream, raw, outlet, length=length)


def _between_cards(live: Live, input: str | None, output: str | None) -> SoundCard:
    from stemsplit.live.sound_card import SoundCard

    names = (None if name == "default" else name for name in (input, output))
    card = SoundCard(live, *names)
    live.check(live.spec.sample_rate, card.channels)
    return card


def _sum_up(way: Pipe | SoundCard, *, quiet: bool, json: bool) -> None:
    summary = way.summary
    if json:
        typer.echo(dumps(asdict(summary)), err=True)
    elif not quiet:
        for warning in way.warnings:
            console.say(f"warning: {warning}")
        behind = f"{summary.latency_ms:.0f} ms behind"
        if summary.median_ms is not None:
            behind += f", measured {summary.median_ms:.0f} ms (median) and {summary.worst_ms:.0f} ms (worst)"
        blocks = f"{summary.late} of {summary.blocks} blocks late"
        speed = f"{summary.times_real_time:.1f} x real time"
        console.say(f"{summary.seconds:.1f} s; {behind}; {blocks}; {speed}")
