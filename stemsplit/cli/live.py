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

EXAMPLES = {
    "stemsplit live --devices": "List the sound cards",
    "stemsplit live --input 3 --output default --remix karaoke": "Mute the vocals of a sound card's input",
    "ffmpeg -i song.mp3 -f f32le - | stemsplit live --raw 44100:2:f32 --stem vocals | ffplay "
    "-f f32le -": "In a pipe",
}

_what = partial(typer.Option, rich_help_panel="Sound")
_card = partial(typer.Option, rich_help_panel="Sound cards")
_how = partial(typer.Option, rich_help_panel="Device and speed")
_tell = partial(typer.Option, rich_help_panel="Messages", metavar="")


def command(
    *,
    stem: Annotated[
        str | None,
        _what(metavar="NAME", help="Output only this stem; if it has its own network, only that one runs."),
    ] = None,
    remix: Annotated[
        str | None,
        _what(
            metavar="TEXT",
            help="Output a remix, e.g. `karaoke`, `practice:bass` or `vocals=-6dB drums=mute`.",
        ),
    ] = None,
    raw: Annotated[
        str | None, _what(metavar="FORM", help="Headerless PCM, e.g. `44100:2:f32`. Default: a WAV stream.")
    ] = None,
    devices: Annotated[bool, _card("--devices", metavar="", help="List the sound cards, and exit.")] = False,
    input: Annotated[
        str | None,
        _card(metavar="DEVICE", help="Record from this sound card: its number, or part of its name."),
    ] = None,
    output: Annotated[
        str | None,
        _card(
            metavar="DEVICE",
            help="Play on this sound card. `default` is the system's sound card, also for --input.",
        ),
    ] = None,
    block: Annotated[
        float,
        _how(
            min=10,
            max=10_000,
            metavar="MS",
            help="Block length in ms. Shorter blocks have less delay and need more computation.",
        ),
    ] = 100.0,
    model: Annotated[str, models.option(rich_help_panel="Device and speed")] = LIVE_MODEL,
    fast: runtime_options.Fast = False,
    runtime: runtime_options.Runtime = "auto",
    device: runtime_options.Device = "auto",
    precision: runtime_options.Precision = "auto",
    quiet: Annotated[bool, _tell("--quiet", "-q", help="Print only errors.")] = False,
    json: Annotated[bool, _tell("--json", help="Print the summary as one JSON object, to stderr.")] = False,
) -> None:
    """Separate sound in real time, in a pipe or between sound cards.

    The output is delayed by one block plus the look-ahead of the network; the delay is printed. It is
    identical to that of `stemsplit split` with the same model.
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
        raise typer.BadParameter("live needs piped input (play | stemsplit live) or --input DEVICE")
    if not cards and sys.stdout.isatty():
        raise typer.BadParameter("live needs piped output (stemsplit live | play) or --output DEVICE")
    ref = engine.find(model)
    settings = None if remix is None else mixer.parse(remix, ref.stems)
    options = {"runtime": runtime, "device": device, "precision": precision}
    separator = engine.load(ref, stem, block_ms=block, fast=fast, **options)
    spec = separator.spec

    mix = engine.only if settings is None else mixer.Mixer(settings, spec.stems, spec.sample_rate).mix
    live = engine.Live(separator, mix, block_ms=block)
    way = _between_cards(live, input, output) if cards else _through_pipes(live, raw)
    if not quiet:
        ahead = f"{live.milliseconds(spec.context):.0f} ms of it look-ahead"
        delay = f"delay {live.milliseconds(way.latency):.0f} ms, {ahead}"
        blocks = f"blocks of {live.milliseconds(live.block):.0f} ms"
        console.say(f"{stem or remix}: {delay}; {blocks}; {spec.how}")
    try:
        way.run()
    finally:
        if live.blocks:
            _sum_up(way, quiet=quiet, json=json)


def _through_pipes(live: Live, form: str | None) -> Pipe:
    """Return a pipe from standard input to standard output, with one sample format for both."""
    from stemsplit.audio.raw import StreamWriter, read_header
    from stemsplit.live.pipe import Pipe

    # Unbuffered: data is available at once, and no thread holds a lock while it waits for more.
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
        delay = f"delay {summary.latency_ms:.0f} ms"
        if summary.median_ms is not None:
            delay += f", measured {summary.median_ms:.0f} ms (median) and {summary.worst_ms:.0f} ms (worst)"
        blocks = f"{summary.late} of {summary.blocks} blocks late"
        speed = f"{summary.times_real_time:.1f} x real time"
        console.say(f"{summary.seconds:.1f} s; {delay}; {blocks}; {speed}")
