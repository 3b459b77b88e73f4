"""`stemsplit scan`: the stereo positions of the sounds in a recording."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stemsplit.cli import console, sound

EXAMPLES = {
    "stemsplit scan song.wav": "List the positions",
    "stemsplit scan song.wav --plot positions.png": "Also plot the energy over azimuth",
    "stemsplit song.wav --model adress --azimuth -30,0,25": "Then extract sources at such positions",
}


def command(
    track: Annotated[Path, typer.Argument(metavar="TRACK", help="Audio or video file.")],
    *,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Plot the energy over azimuth, and over level and delay."),
    ] = None,
    audio_track: sound.AudioTrack = None,
    downmix: sound.Downmix = False,
    json: Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON object.")] = False,
) -> None:
    """Find the positions of sounds in the stereo image.

    Azimuths are found from the level difference of the channels, as in ADRess; they are the values that
    `stemsplit --model adress --azimuth` takes. Pairs of azimuth and delay of the right channel are found as
    in DUET.
    """
    from stemsplit import plots
    from stemsplit.audio.reader import Reader
    from stemsplit.spatial import scan

    if plot:
        plots.check()
    reader = Reader(track, track=sound.track(audio_track), downmix=downmix)
    survey = scan.scan(reader)
    for warning in reader.warnings:
        console.say(f"warning: {warning}")
    found = list(zip(survey.azimuths, survey.shares, strict=True))
    if plot:
        plots.positions(plot, survey, title=track.name)
    if json:
        console.event(
            input=track,
            azimuths=[{"degrees": round(angle, 1), "share": round(share, 4)} for angle, share in found],
            pairs=[{"degrees": angle, "delay_samples": round(delay, 1)} for angle, delay in survey.pairs],
            plot=plot,
        )
        return
    typer.echo("azimuth (-45 left, 0 centre, 45 right)   share of energy")
    for angle, share in found:
        typer.echo(f"{angle:+6.1f} degrees{share:35.1%}")
    typer.echo("\nazimuth and delay of the right channel")
    for angle, delay in survey.pairs:
        typer.echo(f"{angle:+6.1f} degrees {delay:+6.1f} samples")
