"""The HTML of a report."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from string import Template

from stemsplit.analysis.chords import NONE
from stemsplit.analysis.labels import Label
from stemsplit.analysis.music import Music
from stemsplit.analysis.sound import Analysis
from stemsplit.audio.stem_folder import MIXTURE, StemSet
from stemsplit.audio.tags import read_tags
from stemsplit.export.report import pictures

STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
"""Possible distances between marks of the time axis, in seconds."""
MOST_MARKS = 6
"""Maximum number of marks of the time axis: as many as fit on a phone."""
AUDIO = "<!-- audio -->"


def make_page(
    stemset: StemSet,
    names: list[str],
    analysed: tuple[list[Analysis], Music],
    found: pictures.Survey,
    facts: Mapping[str, str],
) -> str:
    """Return the page as HTML, with `AUDIO` in place of its audio."""
    script, style = _asset("engines.js") + _asset("player.js"), _asset("style.css")
    (analyses, music), title = analysed, _title(stemset)
    rate, image = f"{stemset.sample_rate / 1000:g} kHz", analyses[0].image
    seconds = stemset.frames / stemset.sample_rate
    axis = _axis(seconds)
    waves = [_wave(path) + axis for path in pictures.wave_paths(found.waves)]
    return Template(_asset("template.html")).substitute(
        policy=allowed(script),
        title=escape(_text(title)),
        summary=escape(f"{clock(seconds)}, {rate} {image}, {len(names) - 1} stems"),
        seconds=f"{seconds:.6f}",
        clock=clock(seconds),
        style=style,
        script=script,
        lanes=_lanes(music, seconds),
        tracks="".join(
            _track(index, name, wave, title, stemset.mixture is not None)
            for index, (name, wave) in enumerate(zip(names, waves, strict=True))
        ),
        levels=_levels(names, analyses),
        sums=escape(_sums(stemset, found)),
        pictures=_sections(names, found, axis),
        facts="".join(
            f"<div><dt>{escape(_text(name))}</dt><dd>{escape(_text(value))}</dd></div>\n"
            for name, value in {**_music(music), **facts}.items()
        ),
        audio=AUDIO,
    )


def allowed(script: str) -> str:
    """Return a script's source expression for a Content-Security-Policy."""
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return f"'sha256-{digest}'"


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _text(name: str) -> str:
    """Return text that UTF-8 can encode, because not every file name is valid text."""
    return name.encode("utf-8", "replace").decode()


def _title(stemset: StemSet) -> str:
    """Return "artist – title" from the song's tags, if available, or else the name of the set."""
    if stemset.mixture:
        tags, suffix = read_tags(stemset.mixture), ""
    else:
        name, path = next(iter(stemset.stems.items()))
        tags, suffix = read_tags(path), f" ({name})"  # the end of a stem's title
    title = tags.text("title").removesuffix(suffix)
    return " \N{EN DASH} ".join(filter(None, [tags.text("artist"), title])) if title else stemset.name


def _wave(path: str) -> str:
    return f"""<div class="seek wave"><svg viewBox="0 0 {path.count("M")} 100" preserveAspectRatio="none"
aria-hidden="true"><path d="{path}"/></svg></div>"""


def _axis(seconds: float) -> str:
    """Return a time axis with the width of the element above it."""
    step = next((step for step in STEPS if seconds <= MOST_MARKS * step), math.ceil(seconds / MOST_MARKS))
    # The last mark would be partly outside.
    times = [time for time in range(0, math.ceil(seconds), step) if time < 0.96 * seconds]
    marks = "".join(f'<span style="left:{time / seconds:.2%}">{clock(time)}</span>' for time in times)
    return f'<div class="seconds" aria-hidden="true">{marks}</div>'


def _track(index: int, name: str, wave: str, title: str, has_mixture: bool) -> str:
    """Return a row of the player."""
    label = escape(_text(name))
    file = escape(_text(f"{title} ({name}).mp3"))
    save = (
        f'<a class="save" href="data:," download="{file}" aria-label="Download {label} as MP3">'
        "\N{DOWNWARDS ARROW} MP3</a>"
    )
    if index:
        controls = f"""
<button type="button" class="solo" aria-pressed="false" aria-label="Solo {label}">Solo</button>
<button type="button" class="mute" aria-pressed="false" aria-label="Mute {label}">Mute</button>
<label class="gain"><span class="unseen">Gain of {label}</span>
<input type="range" min="-40" max="12" step="0.5" value="0"><output>0 dB</output></label>{save}"""
    else:
        what = "original" if has_mixture else "sum of all stems"
        controls = f"""
<button type="button" class="solo" aria-pressed="false" aria-label="Listen to the {MIXTURE}">Listen</button>
<span class="note">the {what}, instead of what is set below</span>{save if has_mixture else ""}"""
    return f"""<li class="track tone-{index % 8}" data-sound="{index}" data-name="{label}">
<h3>{label}</h3>{controls}
{wave}
</li>
"""


def _levels(names: list[str], analyses: list[Analysis]) -> str:
    """Return the rows of the table, with each stem's share of the energy of all stems."""
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
    """Return a sentence about how well the stems sum to the mixture."""
    if stemset.mixture is None:
        return "The mixture is not available; its row shows the sum of the stems."
    if found.residual_db is None:
        return "The stems sum exactly to the mixture."
    return (
        f"The stems sum to the mixture: the difference is at {_number(found.residual_db)} dB."
        if found.residual_db < -20
        else f"The stems do not sum to the mixture: the difference is at {_number(found.residual_db)} dB."
    )


def _music(music: Music) -> dict[str, str]:
    found = {}
    if music.beats is not None:
        beats = music.beats
        found["Tempo"] = f"{beats.bpm:.1f} beats a minute (confidence {beats.confidence:.0%})"
    if music.key is not None:
        found["Key"] = f"{music.key} (confidence {music.key_confidence:.0%})"
    return found


def _lanes(music: Music, seconds: float) -> str:
    """Return the sections, as wide as the waveforms, and the chords, which scroll past the playhead."""
    if music.beats is None or not any(chord.text != NONE for chord in music.chords):
        return ""
    sections = _lane(music.sections, seconds)
    chords = _lane([chord for chord in music.chords if chord.text != NONE], seconds)
    return f"""<div class="seek sections"><ol aria-label="Sections">{sections}</ol></div>
<div class="chords"><ol aria-label="Chords" style="--seconds:{seconds:.3f}">{chords}</ol></div>
"""


def _lane(labels: Sequence[Label], seconds: float) -> str:
    """Return list items at their times; equal labels have the same color."""
    texts = list(dict.fromkeys(label.text for label in labels))
    return "".join(
        f'<li class="tone-{1 + texts.index(label.text) % 7}" style="left:{label.start / seconds:.3%};'
        f'width:{(label.end - label.start) / seconds:.3%}">{escape(label.text)}</li>'
        for label in labels
    )


def _sections(names: list[str], found: pictures.Survey, axis: str) -> str:
    """Return the spectrogram of each sound and, next to it, the mask of each stem."""
    scale = _scale(found.sample_rate)
    spectrograms = [
        _picture(picture, scale, f"Spectrogram of {name}")
        for picture, name in zip(pictures.spectrograms(found), names, strict=True)
    ]
    masks = [
        _picture(picture, scale, f"Share of {name} in the sum of all stems")
        for picture, name in zip(pictures.mask_pictures(found), names[1:], strict=True)
    ]
    return "".join(
        _section(index, name, spectrogram, mask, axis)
        for index, (name, spectrogram, mask) in enumerate(zip(names, spectrograms, ["", *masks], strict=True))
    )


def _section(index: int, name: str, spectrogram: str, mask: str, axis: str) -> str:
    label = escape(_text(name))
    both = _figure(spectrogram + axis, "Spectrogram")
    if mask:
        both += _figure(mask + axis, "Share of the sum")
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
    """Return the labels of the frequency axis."""
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
