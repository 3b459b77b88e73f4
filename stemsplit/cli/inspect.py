"""`stemsplit inspect`: properties of a recording, or of a set of stems."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stemsplit.cli import console, sound

if TYPE_CHECKING:
    from stemsplit.analysis.sound import Analysis
    from stemsplit.audio.reader import Reader

EXAMPLE = "stemsplit inspect song.mp3"
LOSSLESS = (".wav", ".flac", ".aif", ".aiff", ".w64", ".caf", ".rf64")


def command(
    sources: Annotated[
        list[Path], typer.Argument(metavar="FILE|FOLDER", help="Sound files, or the folders of their stems.")
    ],
    *,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw the spectrogram; of stems, their masks too."),
    ] = None,
    audio_track: sound.AudioTrack = None,
    downmix: sound.Downmix = False,
    json: Annotated[bool, typer.Option("--json", metavar="", help="One JSON object a sound.")] = False,
) -> None:
    """Tell format, length, levels, tempo and key, and whether a stereo file is mono or has been lossy.

    Of a folder of stems: the levels of each, and its share of the energy of all. A file that cannot be read
    does not stop the others; the exit status is then 1.
    """
    if plot and len(sources) > 1:
        raise typer.BadParameter("--plot draws one sound, or the stems of one folder")
    from stemsplit.audio.reader import Reader

    track = sound.track(audio_track)
    report = console.Report(quiet=False, verbose=True, json=json)
    for source in sources:
        with report.failing(source):
            if source.is_dir():
                _tell_stems(source, json=json)
                reader = None
            else:
                reader = Reader(source, track=track, downmix=downmix)
                _tell_sound(reader, json=json)
            if plot:
                _draw(source, reader, plot)
    raise typer.Exit(1 if report.failures else 0)


def _tell_sound(reader: Reader, *, json: bool) -> None:
    from stemsplit.analysis.sound import analyse

    path = reader.path
    found = analyse(reader, reader.sample_rate, reader.channels)
    for warning in reader.warnings:
        console.say(f"warning: {warning}")
    if json:
        facts = {name: value for name, value in asdict(found).items() if name not in ("energy", "beats")}
        console.event(input=path, **facts, beats=[round(beat, 3) for beat in found.beats])
        return
    typer.echo(console.printable(str(path)))
    for name, value in _facts(path, reader, found).items():
        typer.echo(f"  {name:9} {value}")


def _facts(path: Path, reader: Reader, found: Analysis) -> dict[str, str]:
    depth = f", {reader.depth} bit" if path.suffix.lower() in LOSSLESS else ""
    facts = {
        "format": f"{path.suffix[1:].upper() or 'sound'}, {reader.sample_rate:,} Hz{depth}",
        "length": _minutes(found.seconds),
        "image": found.image,
        "peak": f"{_db(found.peak)} dBFS, {_db(found.true_peak)} dBTP between samples",
        "loudness": "silent" if found.lufs is None else f"{found.lufs:.1f} LUFS",
        "tempo": "none found",
        "key": "none found",
    }
    if found.bpm is not None:
        facts["tempo"] = f"{found.bpm:.1f} BPM, {found.bpm_confidence:.0%} sure"
    if found.key is not None:
        facts["key"] = f"{found.key}, {found.key_confidence:.0%} sure"
    if found.cutoff_hz is not None:
        facts["band"] = f"nothing above {found.cutoff_hz / 1000:.1f} kHz, as lossy encoders leave it"
    return facts


def _tell_stems(folder: Path, *, json: bool) -> None:
    from stemsplit.analysis.sound import analyse
    from stemsplit.audio import stem_folder
    from stemsplit.audio.reader import Reader

    stems = stem_folder.find(folder).stems
    found = {}
    for name, path in stems.items():
        reader = Reader(path)
        found[name] = analyse(reader, reader.sample_rate, reader.channels, music=False)
    total = sum(each.energy for each in found.values()) or 1.0
    if not json:
        typer.echo(f"{console.printable(str(folder))}\n  {'stem':12}  peak dBFS      LUFS    energy")
    for name, each in found.items():
        share = each.energy / total
        if json:
            facts = {"peak": each.peak, "true_peak": each.true_peak, "lufs": each.lufs, "energy_share": share}
            console.event(input=stems[name], stem=name, seconds=each.seconds, **facts)
        else:
            lufs = "-" if each.lufs is None else f"{each.lufs:.1f}"
            typer.echo(f"  {console.printable(name):12}{_db(each.peak):>11}{lufs:>10}{share:>10.1%}")


def _draw(source: Path, reader: Reader | None, path: Path) -> None:
    import numpy as np

    from stemsplit import plots
    from stemsplit.audio import stem_folder
    from stemsplit.export.report import pictures

    plots.check()
    if reader is None:
        stems = stem_folder.find(source)
        names, rate, frames = [stem_folder.MIXTURE, *stems.stems], stems.sample_rate, stems.frames
        # Without a mixture, the sum of the stems is drawn above them.
        blocks = (np.concatenate([block.sum(axis=0, keepdims=True), block]) for block in stems.blocks())
    else:
        names, rate, frames = [source.name], reader.sample_rate, sum(block.shape[-1] for block in reader)
        blocks = (block[np.newaxis] for block in reader)
    found = pictures.survey(blocks, rate, frames)
    pictures.sheet(found, names, frames / rate, path)


def _db(amplitude: float) -> str:
    return f"{20 * math.log10(amplitude):.1f}" if amplitude else "-inf"


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}:{rest:06.3f}"
