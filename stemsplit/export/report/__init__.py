"""One page that plays a track's stems and shows what they hold: a file of its own, for any browser."""

from __future__ import annotations

import base64
import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import TextIO

from stemsplit import __version__, charts, weights
from stemsplit.analysis import Analysis, analyse
from stemsplit.audio import Block, Reader, resample
from stemsplit.errors import EncodeError, StemsplitError
from stemsplit.export.report import pictures
from stemsplit.parts import refuse_to_replace
from stemsplit.records import Print, Records
from stemsplit.scratch import scratch_folder
from stemsplit.stemset import MIXTURE, StemSet, in_step
from stemsplit.writer import Writer

BITRATE = "160k"
RATES = (32_000, 44_100, 48_000)
"""Sample rates at which MP3 has the quality that its bitrate promises; others become 44,100 Hz."""
_CHUNK = 3 << 18  # bytes: a multiple of three, so that their base64 can be joined
_AUDIO = "<!-- audio -->"


def write(
    stemset: StemSet,
    path: str | os.PathLike[str],
    *,
    facts: Mapping[str, str],
    force: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Write a page about a track and return its path; memory does not grow with the track's length.

    The sounds are in it as MP3, and nothing in it asks for anything else. `facts` are shown as they are, such
    as the model's name under "Model". `progress` is called with what is about to be done.

    Raises:
        DecodeError: a stem, or the mixture, cannot be read.
        OutputExists: the page is there already, and `force` is not given.
        EncodeError: it cannot be written, or there is no ffmpeg to make MP3 with.
        StemsplitError: matplotlib is not installed, or the mixture is not one of these stems.
    """
    charts.check()
    path, say = Path(path), progress or (lambda _: None)
    if path.is_dir():
        raise EncodeError(f"`{path}` is a folder", "choose a file with --out")
    refuse_to_replace(path, force=force)
    names = [MIXTURE, *stemset.stems]
    sounds: list[Iterable[Block]] = [stemset.mix(), *map(Reader, stemset.stems.values())]
    _check_mixture(stemset)
    with scratch_folder() as folder:
        # What can fail for a reason comes first.
        encoded = {}
        for index, sound in enumerate(sounds):
            if index or stemset.mixture:
                say(f"encoding {names[index]}")
                encoded[index] = _encode(sound, stemset, Path(folder, f"{index}.mp3"))
        say("measuring")
        analyses = [
            analyse(sound, stemset.sample_rate, stemset.channels, music=index == 0)
            for index, sound in enumerate(sounds)
        ]
        say("drawing")
        found = pictures.survey(_mixture_and_stems(stemset), stemset.sample_rate, stemset.frames)
        _publish(path, _page(stemset, names, analyses, found, facts), encoded)
    return path


def facts(stems: StemSet, out: Path) -> dict[str, str]:
    """Return what the record in the folder `out` says of how stems were made, if they are still the same."""
    found = {}
    records = Records(out)
    record = records.read(stems.stems)
    if record and records.are_ours(stems.stems, record):
        names = {Print.of(path).sha256: name for name, path in weights.available().items()}
        made_with = str(record.settings.get("weights"))
        found["Model"] = names.get(made_with, made_with)
        found["Mask"] = record.settings.get("mask") or "the model's own"
        found["Computed by"] = record.facts.get("how") or "not known"
    return {**found, "Report by": f"stemsplit {__version__}"}


def _check_mixture(stemset: StemSet) -> None:
    if stemset.mixture is None:
        return
    mixture = Reader(stemset.mixture)
    if (mixture.sample_rate, mixture.channels) != (stemset.sample_rate, stemset.channels):
        raise StemsplitError(
            f"`{stemset.mixture.name}` is not what these stems were made from: it has {mixture.sample_rate} "
            f"Hz and {mixture.channels} channels, they have {stemset.sample_rate} and {stemset.channels}",
            "name the file that was split, or none",
        )


def _mixture_and_stems(stemset: StemSet) -> Iterator[Block]:
    """Yield `(sound, channel, time)`, the mixture first."""
    import numpy as np

    if stemset.mixture:
        yield from in_step([Reader(stemset.mixture), *map(Reader, stemset.stems.values())])
    else:
        for stems in stemset.blocks():
            yield np.concatenate([stems.sum(axis=0, keepdims=True), stems])


def _encode(sound: Iterable[Block], stemset: StemSet, path: Path) -> Path:
    rate = stemset.sample_rate if stemset.sample_rate in RATES else 44_100
    with Writer(path, sample_rate=rate, channels=stemset.channels, bitrate=BITRATE) as writer:
        for block in resample(sound, stemset.sample_rate, rate, stemset.channels):
            writer.write(block)
    return path


def _publish(path: Path, page: str, encoded: Mapping[int, Path]) -> None:
    """Write the page, with the sounds in it, whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    head, tail = page.split(_AUDIO)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8", newline="\n") as file:
            file.write(head)
            for index, sound in encoded.items():
                file.write(
                    f'<audio controls preload="none" data-sound="{index}" src="data:audio/mpeg;base64,'
                )
                _embed(sound, file)
                file.write('"></audio>\n')
            file.write(tail)
        os.replace(part, path)
    except OSError as error:
        raise EncodeError(
            f"Cannot write `{path}`: {error.strerror}", "choose another file with --out"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _embed(sound: Path, file: TextIO) -> None:
    with sound.open("rb") as source:
        while chunk := source.read(_CHUNK):
            file.write(base64.b64encode(chunk).decode("ascii"))


def _page(
    stemset: StemSet,
    names: list[str],
    analyses: list[Analysis],
    found: pictures.Survey,
    facts: Mapping[str, str],
) -> str:
    """Return the page but for its sounds."""
    script, style = _asset("player.js"), _asset("style.css")
    mixture = analyses[0]
    waves = pictures.wave_paths(found.waves)
    scale = _scale(found.sample_rate)
    spectrograms = [
        _picture(picture, scale, f"Spectrogram of {name}")
        for picture, name in zip(pictures.spectrograms(found), names, strict=True)
    ]
    masks = [
        _picture(picture, scale, f"Share of {name} in the sum of all stems")
        for picture, name in zip(pictures.mask_pictures(found), names[1:], strict=True)
    ]
    seconds = stemset.frames / stemset.sample_rate
    return Template(_asset("template.html")).substitute(
        policy=allowed(script),
        title=escape(_text(stemset.name)),
        summary=escape(
            f"{clock(seconds)}, {stemset.sample_rate / 1000:g} kHz {mixture.image}, {len(names) - 1} stems"
        ),
        seconds=f"{seconds:.6f}",
        clock=clock(seconds),
        style=style,
        script=script,
        tracks="".join(
            _track(index, name, wave, stemset.mixture is not None)
            for index, (name, wave) in enumerate(zip(names, waves, strict=True))
        ),
        levels=_levels(names, analyses),
        sums=escape(_sums(stemset, found)),
        pictures="".join(
            _section(index, name, spectrogram, mask)
            for index, (name, spectrogram, mask) in enumerate(
                zip(names, spectrograms, ["", *masks], strict=True)
            )
        ),
        facts="".join(
            f"<div><dt>{escape(_text(name))}</dt><dd>{escape(_text(value))}</dd></div>\n"
            for name, value in {**_music(mixture), **facts}.items()
        ),
        audio=_AUDIO,
    )


def allowed(script: str) -> str:
    """Return how a Content-Security-Policy names a script."""
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return f"'sha256-{digest}'"


def _asset(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")


def _text(name: str) -> str:
    """Return what UTF-8 can hold: not every file name is text."""
    return name.encode("utf-8", "replace").decode()


def _track(index: int, name: str, wave: str, has_mixture: bool) -> str:
    """Return a row of the player."""
    label = escape(_text(name))
    wide = wave.count("M")
    if index:
        controls = f"""
<button type="button" class="solo" aria-pressed="false" aria-label="Solo {label}">Solo</button>
<button type="button" class="mute" aria-pressed="false" aria-label="Mute {label}">Mute</button>
<label class="gain"><span class="unseen">Gain of {label}</span>
<input type="range" min="-40" max="12" step="0.5" value="0"><output>0 dB</output></label>"""
    else:
        what = "original" if has_mixture else "sum of all stems"
        controls = f"""
<button type="button" class="solo" aria-pressed="false" aria-label="Listen to the {MIXTURE}">Listen</button>
<span class="note">the {what}, instead of what is set below</span>"""
    return f"""<li class="track tone-{index % 8}" data-sound="{index}" data-name="{label}">
<h3>{label}</h3>{controls}
<div class="seek wave"><svg viewBox="0 0 {wide} 100" preserveAspectRatio="none" aria-hidden="true">
<path d="{wave}"/></svg></div>
</li>
"""


def _levels(names: list[str], analyses: list[Analysis]) -> str:
    """Return the rows of the table; shares are of the stems' energy."""
    total = sum(analysis.energy for analysis in analyses[1:])
    rows = ""
    for index, (name, analysis) in enumerate(zip(names, analyses, strict=True)):
        share = f"{analysis.energy / total:.1%}" if index and total else ""
        rows += (
            f'<tr class="tone-{index % 8}"><th scope="row">{escape(_text(name))}</th>'
            f"<td>{_peak(analysis)}</td><td>{_number(analysis.lufs)}</td><td>{share}</td></tr>\n"
        )
    return rows


def _peak(analysis: Analysis) -> str:
    return _number(20 * math.log10(analysis.peak)) if analysis.peak > 0 else "silent"


def _number(value: float | None) -> str:
    return "\N{EN DASH}" if value is None else f"{value:.1f}".replace("-", "\N{MINUS SIGN}")


def _sums(stemset: StemSet, found: pictures.Survey) -> str:
    """Say how well the stems add up."""
    if stemset.mixture is None:
        return "The mixture is not here; what is called so is the sum of the stems."
    if found.residual_db is None:
        return "The stems add up to the mixture exactly."
    return (
        f"The stems add up to the mixture: what is left of it without them is at "
        f"{_number(found.residual_db)} dB."
        if found.residual_db < -20
        else f"The stems do not add up to the mixture: what differs is at {_number(found.residual_db)} dB."
    )


def _music(mixture: Analysis) -> dict[str, str]:
    found = {}
    if mixture.bpm is not None:
        found["Tempo"] = f"{mixture.bpm:.1f} beats a minute (confidence {mixture.bpm_confidence:.0%})"
    if mixture.key is not None:
        found["Key"] = f"{mixture.key} (confidence {mixture.key_confidence:.0%})"
    return found


def _section(index: int, name: str, spectrogram: str, mask: str) -> str:
    label = escape(_text(name))
    both = f"{_figure(spectrogram, 'Spectrogram')}{_figure(mask, 'Share of the sum') if mask else ''}"
    return f'<section class="tone-{index % 8}"><h3>{label}</h3><div class="pair">{both}</div></section>\n'


def _figure(picture: str, caption: str) -> str:
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def _picture(picture: bytes, scale: str, alt: str) -> str:
    data = base64.b64encode(picture).decode("ascii")
    width, height = (round(100 * side) for side in pictures.SIZE)
    return (
        f'<div class="seek picture"><img alt="{escape(_text(alt))}" width="{width}" height="{height}" '
        f'src="data:image/webp;base64,{data}">{scale}</div>'
    )


def _scale(sample_rate: int) -> str:
    """Return the labels of a picture's frequencies."""
    marks = "".join(
        f'<span style="bottom:{height:.1%}">{hz // 1000} k</span>'
        if hz >= 1000
        else f'<span style="bottom:{height:.1%}">{hz}</span>'
        for hz, height in pictures.ticks(sample_rate)
    )
    return f'<div class="hertz" aria-hidden="true">{marks}</div>'


def clock(seconds: float) -> str:
    """Return `1:02:03` or `2:03`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
