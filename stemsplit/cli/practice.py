"""`stemsplit practice`: a song without your part, slower, in another key, in a loop, with a click."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stemsplit.cli import console, encoding, models, runtime_options, song_source, sound
from stemsplit.cli.bars import Bars
from stemsplit.defaults import DEFAULT_MODEL

if TYPE_CHECKING:
    from stemsplit.practice.practice import PracticeResult

EXAMPLES = {
    "stemsplit practice song.mp3 --mute bass --tempo 80%": "Without the bass, slower, at the same pitch",
    "stemsplit practice song.mp3 --key -2 --click --count-in 1": "Two semitones lower, with a metronome",
    "stemsplit practice song.mp3 --loop 1:02-1:30 --snap --ramp 70%-100% --times 8": "A loop that speeds up",
    "stemsplit practice stems/song --quieter vocals=-12dB -o quiet.wav": "From stems: quieter vocals",
}

_stems = partial(typer.Option, rich_help_panel="Stems")
_change = partial(typer.Option, rich_help_panel="Tempo and key")
_repeat = partial(typer.Option, rich_help_panel="Loop")
_beat = partial(typer.Option, rich_help_panel="Beats")
_where = partial(typer.Option, rich_help_panel="Output")
_tell = partial(typer.Option, rich_help_panel="Messages", metavar="")


def command(
    source: Annotated[
        Path, typer.Argument(metavar="SONG|FOLDER", help="A song, or the folder with its stems.")
    ],
    *,
    mute: Annotated[
        list[str] | None,
        _stems("--mute", metavar="STEMS", help="Stems to leave out, e.g. `bass` or `bass,drums`."),
    ] = None,
    only: Annotated[
        list[str] | None, _stems("--only", metavar="STEMS", help="Stems to keep; all others are left out.")
    ] = None,
    quieter: Annotated[
        list[str] | None,
        _stems("--quieter", metavar="STEM[=DB]", help="Lower a stem, e.g. `bass=-12dB`. Default: by 18 dB."),
    ] = None,
    tempo: Annotated[
        str | None,
        _change(
            "--tempo",
            metavar="PERCENT|BPM",
            help="Tempo, e.g. `80%` of the song's, or `96bpm`. The pitch stays.",
        ),
    ] = None,
    ramp: Annotated[
        str | None,
        _change(
            "--ramp",
            metavar="FROM-TO",
            help="Play each repeat faster, e.g. from 70 to 100 % of --tempo: `70%-100%`.",
        ),
    ] = None,
    key: Annotated[
        str | None,
        _change(
            "--key",
            metavar="SEMITONES|KEY",
            help="Transpose by semitones, e.g. `-2`, or to a key, e.g. `Am`. Drums are not transposed.",
        ),
    ] = None,
    from_key: Annotated[
        str | None, _change("--from-key", metavar="KEY", help="Key of the song. Default: detected.")
    ] = None,
    loop: Annotated[
        str | None,
        _repeat(
            "--loop",
            metavar="START-END",
            help="Play a part of the song repeatedly, e.g. `1:02-1:30` (minutes and seconds).",
        ),
    ] = None,
    times: Annotated[
        int | None,
        _repeat(
            "--times",
            min=1,
            max=1000,
            metavar="N",
            help="Number of repeats. Default: 4 for a loop or a ramp, 1 otherwise.",
        ),
    ] = None,
    snap: Annotated[
        bool, _repeat("--snap", metavar="", help="Move both ends of the loop to the nearest beats.")
    ] = False,
    click: Annotated[bool, _beat("--click", metavar="", help="Add a metronome on the song's beats.")] = False,
    click_sound: Annotated[
        Literal["beep", "wood", "tick"],
        _beat("--click-sound", help="Sound of the metronome and the count-in."),
    ] = "beep",
    click_level: Annotated[
        float,
        _beat("--click-level", min=-60.0, max=0.0, metavar="DB", help="Peak level of the clicks, in dBFS."),
    ] = -9.0,
    count_in: Annotated[
        int, _beat("--count-in", min=0, max=16, metavar="BARS", help="Bars to count before the music starts.")
    ] = 0,
    bpm: Annotated[
        float | None,
        _beat("--bpm", min=20.0, max=400.0, metavar="BPM", help="Tempo of the song. Default: detected."),
    ] = None,
    first_beat: Annotated[
        float | None,
        _beat(
            "--first-beat", min=0.0, metavar="SECONDS", help="Time of a downbeat in the song; needs --bpm."
        ),
    ] = None,
    meter: Annotated[
        int | None,
        _beat(
            "--meter",
            min=1,
            max=16,
            metavar="N",
            help="Beats per bar, to accent downbeats. Bars start at --first-beat, or else with the loop.",
        ),
    ] = None,
    beats: Annotated[
        Path | None,
        _where("--beats", metavar="FILE.txt", help="Write the beats of the output as Audacity labels."),
    ] = None,
    out: Annotated[
        Path | None,
        _where(
            "--out", "-o", metavar="FILE", help="File to write. Default: a name such as song-practice.mp3."
        ),
    ] = None,
    depth: encoding.Depth = "same",
    bitrate: encoding.Bitrate = None,
    force: Annotated[bool, _where("--force", metavar="", help="Overwrite existing files.")] = False,
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
    """Make a practice track: without your part, slower, in another key, in a loop, with a click.

    The metronome follows the beats of the song, which are detected. Drums keep their attacks at any tempo.

    A folder of stems is not split again. With --loop, only the loop and 10 seconds on either side are split.
    If the peaks would clip, the whole output is attenuated.
    """
    from dataclasses import asdict

    from stemsplit.options import Options, OutputOptions, RuntimeOptions
    from stemsplit.practice import options as practice_options
    from stemsplit.practice.practice import practise

    share, tempo_bpm = practice_options.parse_tempo(tempo) if tempo else (None, None)
    semitones, target = practice_options.parse_shift(key) if key else (0.0, None)
    wanted = practice_options.PracticeOptions(
        mix=_mix(mute or [], only or [], quieter or []),
        tempo=share,
        tempo_bpm=tempo_bpm,
        semitones=semitones,
        key=target,
        from_key=practice_options.parse_key(from_key) if from_key else None,
        loop=practice_options.parse_loop(loop) if loop else None,
        times=times,
        snap=snap,
        ramp=practice_options.parse_ramp(ramp) if ramp else None,
        click=click,
        click_sound=click_sound,
        click_db=click_level,
        count_in=count_in,
        bpm=bpm,
        first_beat=first_beat,
        meter=meter,
        beats=beats,
    )
    out = out or song_source.output_name(source, "practice")
    report = console.Report(quiet=quiet, verbose=False, json=json)
    options = Options(
        song_source.split_options(source, model, mask, audio_track, downmix=downmix),
        OutputOptions(depth=depth, bitrate=bitrate, force=force),
        RuntimeOptions(runtime, device, precision, threads=threads, fast=fast),
    )
    with Bars(enabled=not quiet) as bars, bars.shares(f"practice track of {source.name}") as update:
        result = practise(source, wanted, out, options, progress=update)
    for remark in [*(f"warning: {warning}" for warning in result.warnings), *_remarks(result)]:
        report.remark(remark)
    if json:
        console.event(**asdict(result))
    else:
        report.paths({"practice": out})


def _mix(mute: list[str], only: list[str], quieter: list[str]) -> str:
    """Return the gains of the stems in the syntax of `stemsplit remix`."""
    lowered = [name for names in quieter for name in names.split(",")]
    words = [f"{name}=mute" for names in mute for name in names.split(",")]
    words += [f"{name}=solo" for names in only for name in names.split(",")]
    words += [name if "=" in name else f"practice:{name}" for name in lowered]
    return " ".join(words)


def _remarks(result: PracticeResult) -> list[str]:
    """Return remarks on the detected tempo and key, and on attenuation."""
    remarks = []
    if result.bpm is not None:
        remarks.append(f"the song's tempo: {result.bpm:.1f} BPM, {result.bpm_confidence:.0%} sure")
    if result.key is not None:
        remarks.append(
            f"the song's key: {result.key}, {result.key_confidence:.0%} sure; "
            f"transposed by {result.semitones:+g} semitones"
        )
    if result.gain_db < 0:
        remarks.append(f"{result.output.name}: {result.gain_db:.1f} dB to avoid clipping")
    return remarks
