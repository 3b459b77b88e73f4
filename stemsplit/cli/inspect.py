"""`stemsplit inspect`: the properties of a recording or of a set of stems."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemsplit.cli import console, sound

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stemsplit.analysis.labels import Label
    from stemsplit.analysis.music import Music
    from stemsplit.analysis.sound import Analysis
    from stemsplit.audio.reader import Reader

EXAMPLES = {
    "stemsplit inspect song.mp3": "Show format, levels, tempo and key",
    "stemsplit inspect stems/song --chart": "Sections and chords, found in the stems",
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
    chart: Annotated[
        bool, typer.Option("--chart", metavar="", help="Also print the sections and chords.")
    ] = False,
    beats: Annotated[
        Path | None, typer.Option(metavar="FILE.txt", help="Write the beats as Audacity labels.")
    ] = None,
    chords: Annotated[
        Path | None, typer.Option(metavar="FILE.txt", help="Write the chords as Audacity labels.")
    ] = None,
    sections: Annotated[
        Path | None, typer.Option(metavar="FILE.txt", help="Write the sections as Audacity labels.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", metavar="", help="Overwrite existing label files.")
    ] = False,
    audio_track: sound.AudioTrack = None,
    downmix: sound.Downmix = False,
    json: Annotated[
        bool, typer.Option("--json", metavar="", help="Print one JSON object per argument.")
    ] = False,
) -> None:
    """Show format, duration, levels, tempo, key and chords of recordings.

    Also reports whether a stereo file is in fact mono, and whether a lossless file was made from a lossy one.

    For a folder of stems, shows the level of each stem and its share of the energy. The tempo is found in the
    drums, key and chords in the stems other than drums and vocals.

    If a file cannot be read, the others continue, and the exit status is 1.
    """
    for option, path in {"plot": plot, "beats": beats, "chords": chords, "sections": sections}.items():
        if path and len(sources) > 1:
            raise typer.BadParameter(f"--{option} takes one file, or one folder of stems")
    from stemsplit.audio.reader import Reader
    from stemsplit.files.parts import refuse_to_replace

    track = sound.track(audio_track)
    report = console.Report(quiet=False, verbose=True, json=json)
    for source in sources:
        with report.failing(source):
            for path in filter(None, (beats, chords, sections)):
                refuse_to_replace(path, force=force)
            if source.is_dir():
                music = _tell_stems(source, json=json)
                reader = None
            else:
                reader = Reader(source, track=track, downmix=downmix)
                music = _tell_sound(reader, json=json)
            if chart and not json:
                typer.echo(_chart(music))
            _write_labels(music, {"beats": beats, "chords": chords, "sections": sections}, force=force)
            if plot:
                _draw(source, reader, plot)
    raise typer.Exit(1 if report.failures else 0)


def _tell_sound(reader: Reader, *, json: bool) -> Music:
    from stemsplit.analysis.music import NO_MUSIC
    from stemsplit.analysis.sound import analyse

    path = reader.path
    found = analyse(reader, reader.sample_rate, reader.channels)
    music = found.music or NO_MUSIC
    for warning in reader.warnings:
        console.say(f"warning: {warning}")
    if json:
        facts = {name: value for name, value in vars(found).items() if name not in ("energy", "music")}
        console.event(input=path, **facts, **_for_programs(music))
    else:
        typer.echo(console.printable(str(path)))
        for name, value in {**_facts(path, reader, found), **_tempo_and_key(music)}.items():
            typer.echo(f"  {name:9} {value}")
    return music


def _for_programs(music: Music) -> dict[str, Any]:
    """Return the musical analysis as fields of an event, with times in seconds."""

    def each(labels: Sequence[Label]) -> list[dict[str, Any]]:
        return [{"start": round(one.start, 3), "end": round(one.end, 3), "label": one.text} for one in labels]

    beats = music.beats
    return {
        "bpm": music.bpm,
        "bpm_confidence": beats.confidence if beats else 0.0,
        "beats": [round(beat, 3) for beat in beats.times_seconds.tolist()] if beats else [],
        "beats_per_bar": beats.beats_per_bar if beats else None,
        "first_downbeat": beats.first_downbeat if beats and beats.beats_per_bar else None,
        "key": music.key,
        "key_confidence": music.key_confidence,
        "chords": each(music.chords),
        "sections": each(music.sections),
    }


def _tempo_and_key(music: Music) -> dict[str, str]:
    beats = music.beats
    bar = f", {beats.beats_per_bar} beats per bar" if beats and beats.beats_per_bar else ""
    return {
        "tempo": f"{beats.bpm:.1f} BPM{bar}, confidence {beats.confidence:.0%}" if beats else "none found",
        "key": f"{music.key}, confidence {music.key_confidence:.0%}" if music.key else "none found",
    }


def _chart(music: Music) -> str:
    """Return the chords of each section, one section per line."""
    lines = []
    for section in music.sections:
        inside = [
            chord.text for chord in music.chords if section.start < chord.end and chord.start < section.end
        ]
        lines.append(f"  {section.text:3}{_minutes(section.start):>11}  {' '.join(inside)}")
    return "\n".join(lines) or "  no chords found"


def _write_labels(music: Music, paths: Mapping[str, Path | None], *, force: bool) -> None:
    from stemsplit.analysis import labels
    from stemsplit.errors import StemsplitError

    if (path := paths["beats"]) is not None:
        if music.beats is None:
            raise StemsplitError("No beats were found", "leave out --beats")
        music.beats.write(path, force=force)
    for name, found in (("chords", music.chords), ("sections", music.sections)):
        if (path := paths[name]) is not None:
            labels.write(path, found, force=force)


def _facts(path: Path, reader: Reader, found: Analysis) -> dict[str, str]:
    depth = f", {reader.depth} bit" if path.suffix.lower() in LOSSLESS else ""
    facts = {
        "format": f"{path.suffix[1:].upper() or 'sound'}, {reader.sample_rate:,} Hz{depth}",
        "length": _minutes(found.seconds),
        "image": found.image,
        "peak": f"{_db(found.peak)} dBFS, true peak {_db(found.true_peak)} dBTP",
        "loudness": "silent" if found.lufs is None else f"{found.lufs:.1f} LUFS",
    }
    if found.cutoff_hz is not None:
        facts["band"] = f"nothing above {found.cutoff_hz / 1000:.1f} kHz: probably lossy encoding"
    return facts


def _tell_stems(folder: Path, *, json: bool) -> Music:
    from stemsplit.analysis.music import analyse_stems
    from stemsplit.analysis.sound import analyse
    from stemsplit.audio import stem_folder
    from stemsplit.audio.reader import Reader

    found_stems = stem_folder.find(folder)
    stems, found = found_stems.stems, {}
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
    music = analyse_stems(found_stems)
    if json:
        console.event(input=folder, **_for_programs(music))
    else:
        for name, value in _tempo_and_key(music).items():
            typer.echo(f"  {name:9} {value}")
    return music


def _draw(source: Path, reader: Reader | None, path: Path) -> None:
    import numpy as np

    from stemsplit import plots
    from stemsplit.audio import stem_folder
    from stemsplit.export.report import pictures

    plots.check()
    if reader is None:
        stems = stem_folder.find(source)
        stems.check_mixture()
        names, rate, frames = [stem_folder.MIXTURE, *stems.stems], stems.sample_rate, stems.frames
        blocks = stems.mix_and_stems()
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
