"""The report: a self-contained HTML page that plays the stems of a track and shows their spectrograms."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TextIO

from stemsplit import plots
from stemsplit.analysis.music import DRUMS, MusicAnalyser
from stemsplit.analysis.sound import analyse
from stemsplit.audio.reader import Block, Reader, Signal, resample
from stemsplit.audio.stem_folder import MIXTURE, Passes, StemSet
from stemsplit.audio.writer import Encoding, Writer
from stemsplit.defaults import VERSION
from stemsplit.errors import EncodeError
from stemsplit.export.report import pictures
from stemsplit.export.report.page import AUDIO, make_page
from stemsplit.files.claims import writing
from stemsplit.files.parts import refuse_to_replace
from stemsplit.files.scratch import scratch_folder
from stemsplit.output.manifest import Fingerprint, Manifest
from stemsplit.zoo import store

BITRATE = "160k"
RATES = (32_000, 44_100, 48_000)
"""Sample rates at which MP3 supports the full bitrate; others become 44,100 Hz."""
_CHUNK = 3 << 18  # bytes: a multiple of three, so that base64 blocks can be joined


def write(
    stemset: StemSet,
    path: str | os.PathLike[str],
    *,
    facts: Mapping[str, str],
    force: bool = False,
    progress: Callable[[float], None] = lambda share: None,
) -> Path:
    """Write the report of a track and return its path. Memory does not grow with the track's length.

    The page contains the audio as MP3, and loads nothing else. `facts` are shown unchanged, e.g. the model's
    name under "Model". `progress` is called with the fraction that is done, from 0 to 1.

    Raises:
        DecodeError: a stem, or the mixture, cannot be read.
        OutputExists: the page exists already, and `force` is not given.
        EncodeError: it cannot be written, or ffmpeg, which encodes MP3, is missing.
        StemsplitError: matplotlib is not installed, or the mixture does not match the stems.
    """
    plots.check()
    path = Path(path)
    if path.is_dir():
        raise EncodeError(f"`{path}` is a folder", "choose a file with --out")
    refuse_to_replace(path, force=force)
    names = [MIXTURE, *stemset.stems]
    stemset.check_mixture()
    sounds: list[Iterable[Block]] = [stemset.mix(), *map(Reader, stemset.stems.values())]
    playable = [index for index in range(len(names)) if index or stemset.mixture]
    passes = Passes(len(playable) + len(names) + 1, stemset.frames, progress)
    with scratch_folder() as folder:
        # Encoding can fail, so it comes first.
        encoded = {
            index: _encode(passes.watch(sounds[index]), stemset, Path(folder, f"{index}.mp3"))
            for index in playable
        }
        analyses = [
            analyse(passes.watch(sound), stemset.sample_rate, stemset.channels, music=False)
            for sound in sounds
        ]
        drums = any(stem.startswith(DRUMS) for stem in stemset.stems)
        analyser = MusicAnalyser(names[1:] if drums else names[:1], stemset.sample_rate)
        blocks = _analysed(passes.watch(stemset.mix_and_stems()), analyser, 1 if drums else 0)
        found = pictures.survey(blocks, stemset.sample_rate, stemset.frames)
        page = make_page(stemset, names, (analyses, analyser.finish()), found, facts)
        _publish(path, page, encoded, force=force)
    return path


def facts(stems: StemSet, out: Path) -> dict[str, str]:
    """Return how stems were made, from the manifest of the folder `out`, if they are unchanged."""
    found = {}
    manifest = Manifest(out)
    record = manifest.read(stems.stems)
    if record and manifest.are_ours(stems.stems, record):
        names = {Fingerprint.of(path).sha256: name for name, path in store.available().items()}
        made_with = str(record.settings.get("weights"))
        found["Model"] = names.get(made_with, made_with)
        found["Mask"] = record.settings.get("mask") or "the model's default"
        found["Computed by"] = record.facts.get("how") or "not known"
    return {**found, "Report by": f"stemsplit {VERSION}"}


def _analysed(blocks: Iterable[Block], analyser: MusicAnalyser, first: int) -> Iterator[Block]:
    """Yield the blocks, and pass `analyser.sounds` of their sounds, from `first` on, to `analyser`."""
    for block in blocks:
        analyser.add(block[first : first + analyser.sounds])
        yield block


def _encode(sound: Iterable[Block], stemset: StemSet, path: Path) -> Path:
    rate = stemset.sample_rate if stemset.sample_rate in RATES else 44_100
    with Writer(path, Signal(rate, stemset.channels), Encoding(bitrate=BITRATE)) as writer:
        for block in resample(sound, stemset.sample_rate, rate, stemset.channels):
            writer.write(block)
    return path


def _publish(path: Path, page: str, encoded: Mapping[int, Path], *, force: bool) -> None:
    """Write the page with its audio, whole or not at all."""
    head, tail = page.split(AUDIO)
    with writing(path, force=force) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        file.write(head)
        for index, sound in encoded.items():
            file.write(f'<audio controls preload="none" data-sound="{index}" src="data:audio/mpeg;base64,')
            _embed(sound, file)
            file.write('"></audio>\n')
        file.write(tail)


def _embed(sound: Path, file: TextIO) -> None:
    with sound.open("rb") as source:
        while chunk := source.read(_CHUNK):
            file.write(base64.b64encode(chunk).decode("ascii"))
