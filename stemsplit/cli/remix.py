"""`stemsplit remix`: a song mixed anew, with gains, pans and delays for its stems."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from stemsplit.cli import console, encoding, models, runtime_options, sound
from stemsplit.cli.bars import Bars
from stemsplit.defaults import DEFAULT_MODEL
from stemsplit.errors import StemsplitError

EXAMPLE = 'stemsplit remix song.mp3 "vocals=-6dB drums=+3dB"'

_how = partial(typer.Option, rich_help_panel="How to split")
_where = partial(typer.Option, rich_help_panel="What to write")
_tell = partial(typer.Option, rich_help_panel="What to print", metavar="")


def _complete(ctx: typer.Context, incomplete: str) -> list[str]:
    """Give the presets that begin like this, to the shell."""
    from stemsplit.remix import mixer
    from stemsplit.zoo.ref import ModelRef

    try:
        stems = ModelRef.parse(ctx.params.get("model") or DEFAULT_MODEL).stems
    except StemsplitError:
        stems = ()
    presets = (*mixer.PRESETS, *(f"practice:{stem}" for stem in stems))
    return [preset for preset in presets if preset.startswith(incomplete)]


def command(
    source: Annotated[
        Path, typer.Argument(metavar="SONG|FOLDER", help="A song, or the folder that its stems lie in.")
    ],
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="REMIX",
            autocompletion=_complete,
            help="karaoke, instrumental, acapella, drumless, practice:bass, or words such as vocals=-6dB.",
        ),
    ],
    *,
    out: Annotated[
        Path | None, _where("--out", "-o", metavar="FILE", help="What to write; default: song-karaoke.mp3.")
    ] = None,
    depth: encoding.Depth = "same",
    bitrate: encoding.Bitrate = None,
    force: Annotated[bool, _where("--force", metavar="", help="Replace a file already there.")] = False,
    audio_track: sound.AudioTrack = None,
    downmix: sound.Downmix = False,
    model: Annotated[str, models.option(rich_help_panel="How to split")] = DEFAULT_MODEL,
    mask: Annotated[Literal["soft", "binary", "wiener"] | None, _how(help="As of `stemsplit split`.")] = None,
    fast: runtime_options.Fast = False,
    runtime: runtime_options.Runtime = "auto",
    device: runtime_options.Device = "auto",
    precision: runtime_options.Precision = "auto",
    threads: runtime_options.Threads = None,
    quiet: Annotated[bool, _tell("--quiet", "-q", help="Only the path and errors.")] = False,
    json: Annotated[bool, _tell("--json", help="One JSON object instead of the path.")] = False,
) -> None:
    """Mix a song anew: `karaoke`, or `vocals=-6dB drums=mute other=pan:-30,width:50 bass=delay:20ms`.

    Of each stem: a gain in dB, mute, solo, pan from -100 to 100, width from 0 to 200 %, a delay. The folder
    that a song was split to saves splitting it again. The balance is never changed: where peaks would be
    too high, all of the remix is made softer, and it is said by how much.
    """
    from dataclasses import asdict

    from stemsplit.audio import stem_folder
    from stemsplit.audio.formats import FORMATS
    from stemsplit.audio.reader import Reader
    from stemsplit.options import Options, OutputOptions, RuntimeOptions, SplitOptions
    from stemsplit.output import template
    from stemsplit.remix import mixer
    from stemsplit.remix.remix import remix

    text = " ".join(words)
    label = text.replace(":", "-") if text in mixer.PRESETS or text.startswith("practice:") else "remix"
    if out is None:
        ending = source.suffix[1:].lower()
        name = source.resolve().name if source.is_dir() else template.track_name(source)
        out = Path(f"{name}-{label}.{ending if ending in FORMATS else 'wav'}")
    report = console.Report(quiet=quiet, verbose=False, json=json)
    is_song = not source.is_dir()
    options = Options(
        SplitOptions(
            model=model,
            mask=mask,
            audio_track=sound.track(audio_track) if is_song else None,
            downmix=downmix and is_song,
        ),
        OutputOptions(depth=depth, bitrate=bitrate, force=force),
        RuntimeOptions(runtime, device, precision, threads=threads, fast=fast),
    )
    path = source if is_song else next(iter(stem_folder.find(source).stems.values()))
    reader = Reader(path, **options.split.reading)
    shown = f"{label} of {console.printable(source.name)}"
    with Bars(enabled=not quiet) as bars, bars.of(shown, reader) as update:
        result = remix(source, text, out, options, title=label, progress=update)
    for warning in result.warnings:
        report.remark(f"warning: {warning}")
    if result.gain_db < 0:
        report.remark(f"{out.name}: {result.gain_db:.1f} dB to avoid clipping; the balance is unchanged")
    if json:
        console.event(**asdict(result))
    else:
        report.paths({"remix": out})
