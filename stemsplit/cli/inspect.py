"""`stemsplit inspect`: the properties of a recording or of a set of stems."""

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

EXAMPLES = {
    "stemsplit inspect song.mp3": "Show format, levels, tempo and key",
    "stemsplit inspect stems/song --plot stems.png": "Levels and spectrograms of a folder of stems",
    "stemsplit inspect --json *.flac": "One JSON object per file",
}
LOSSLESS = (".wav", ".flac", ".aif", ".aiff", ".w64", ".caf", ".rf64")


def command(
    sources: Annotated[
        list[Path], typer.Argument(metavar="FILE|FOLDER", help="Audio files, or folders of stems.")
    ],
    *,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Plot the spectrogram; for stems, also their masks."),
    ] = None,
    audio_track: sound.AudioTrack = None,
    downmix: sound.Downmix = False,
    json: Annotated[
        bool, typer.Option("--json", metavar="", help="Print one JSON object per sound.")
    ] = False,
) -> None:
    """Show format, duration, levels, tempo and key of recordings.

    Also reports whether a stereo file is in fact mono, and whether a file was encoded with loss before. For a
    folder of stems, shows the level of each stem and its share of the energy. If a file cannot be read, the
    others continue, and the exit status is 1.
    """
    if plot and len(sources) > 1:
        raise typer.BadParameter("--plot takes one file, or one folder of stems")
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
        "peak": f"{_db(found.peak)} dBFS, true peak {_db(found.true_peak)} dBTP",
        "loudness": "silent" if found.lufs is None else f"{found.lufs:.1f} LUFS",
        "tempo": "none found",
        "key": "none found",
    }
    if found.bpm is not None:
        facts["tempo"] = f"{found.bpm:.1f} BPM, confidence {found.bpm_confidence:.0%}"
    if found.key is not None:
        facts["key"] = f"{found.key}, confidence {found.key_confidence:.0%}"
    if found.cutoff_hz is not None:
        facts["band"] = f"nothing above {found.cutoff_hz / 1000:.1f} kHz: probably lossy encoding"
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
