"""`stemsplit remix`: a new mix of a song, with a gain, pan, width and delay for each stem."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from stemsplit.cli import console, encoding, models, runtime_options, song_source, sound
from stemsplit.cli.bars import Bars
from stemsplit.defaults import DEFAULT_MODEL
from stemsplit.errors import StemsplitError

EXAMPLES = {
    "stemsplit remix song.mp3 karaoke": "The song without vocals, song-karaoke.mp3",
    "stemsplit remix stems/song practice:bass -o practice.wav": "From stems: a quieter bass, to play along",
    "stemsplit remix song.mp3 vocals=-6dB drums=+3dB bass=pan:-30": "Set gains and a pan",
}


_where = partial(typer.Option, rich_help_panel="Output")
_tell = partial(typer.Option, rich_help_panel="Messages", metavar="")


def _complete(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the presets that start with `incomplete`, for shell completion."""
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
        Path, typer.Argument(metavar="SONG|FOLDER", help="A song, or the folder with its stems.")
    ],
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="REMIX",
            autocompletion=_complete,
            help="A preset (karaoke, instrumental, acapella, drumless, practice:STEM), or settings such "
            "as vocals=-6dB.",
        ),
    ],
    *,
    out: Annotated[
        Path | None,
        _where(
            "--out", "-o", metavar="FILE", help="File to write. Default: a name such as song-karaoke.mp3."
        ),
    ] = None,
    depth: encoding.Depth = "same",
    bitrate: encoding.Bitrate = None,
    force: Annotated[bool, _where("--force", metavar="", help="Overwrite an existing file.")] = False,
    audio_track: sound.AudioTrack = None,
    downmix: sound.Downmix = False,
    model: Annotated[str, models.option(rich_help_panel="Separation")] = DEFAULT_MODEL,
    mask: runtime_options.Mask = None,
    fast: runtime_options.Fast = False,
    runtime: runtime_options.Runtime = "auto",
    device: runtime_options.Device = "auto",
    precision: runtime_options.Precision = "auto",
    threads: runtime_options.Threads = None,
    quiet: Annotated[bool, _tell("--quiet", "-q", help="Print only the path and errors.")] = False,
    json: Annotated[bool, _tell("--json", help="Print one JSON object instead of the path.")] = False,
) -> None:
    """Remix a song: change the level, position and timing of its stems.

    Each stem takes a gain in dB, `mute`, `solo`, `pan:` from -100 (left) to 100 (right), `width:` from 0 to
    200 %, and `delay:` in ms, e.g. `drums=mute other=-3dB,pan:-30,width:50 bass=delay:20ms`.

    A folder of stems is not split again. If the peaks would clip, the whole remix is attenuated; the balance
    stays the same, and the attenuation is reported.
    """
    from dataclasses import asdict

    from stemsplit.audio import stem_folder
    from stemsplit.audio.reader import Reader
    from stemsplit.options import Options, OutputOptions, RuntimeOptions
    from stemsplit.remix import mixer
    from stemsplit.remix.remix import remix

    text = " ".join(words)
    label = text.replace(":", "-") if text in mixer.PRESETS or text.startswith("practice:") else "remix"
    out = out or song_source.output_name(source, label)
    report = console.Report(quiet=quiet, verbose=False, json=json)
    options = Options(
        song_source.split_options(source, model, mask, audio_track, downmix=downmix),
        OutputOptions(depth=depth, bitrate=bitrate, force=force),
        RuntimeOptions(runtime, device, precision, threads=threads, fast=fast),
    )
    path = next(iter(stem_folder.find(source).stems.values())) if source.is_dir() else source
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
