"""Stem files as Native Instruments has them: a mixture and its four stems as sound tracks of one MP4.

DJ programs and decks play the stems, and know them by the box `moov/udta/stem`: a JSON text with their names
and colours. All other players play the first track, which alone is enabled. Made after the file that comes
with stempeg, which writes such files by the program MP4Box (stempeg/write.py), and after what Mixxx accepts
(src/track/steminfoimporter.cpp, src/sources/soundsourcestem.cpp).
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from stemsplit.audio import ffmpeg
from stemsplit.audio.reader import Block, Signal
from stemsplit.audio.writer import Encoding, Writer
from stemsplit.errors import DecodeError, EncodeError
from stemsplit.files.scratch import shown

SUFFIX = ".stem.mp4"
MIXTURE = "mixture"
ORDER = ("drums", "bass", "other", "vocals")
"""Of the four stems: what decks and data sets go by, which read no names."""
COLOURS = ("#009E73", "#D55E00", "#CC79A7", "#56B4E9")
LONGEST_TEXT = 1 << 20
"""Bytes of JSON. Four names take some 600."""
MOST_BOXES = 100_000
"""Of one level: far more than there are in any file, and soon counted."""
# What NI's own tools write, but switched off: the stems then add up to the mixture.
_MASTERING = {
    "compressor": {
        "enabled": False,
        "ratio": 3,
        "output_gain": 0.5,
        "release": 0.3,
        "attack": 0.003,
        "input_gain": 0.5,
        "threshold": 0,
        "hp_cutoff": 300,
        "dry_wet": 50,
    },
    "limiter": {"enabled": False, "release": 0.05, "threshold": 0, "ceiling": -0.35},
}


def kept_stems(names: Sequence[str]) -> tuple[str, ...]:
    """Return which of a model's stems a stem file holds: of those that go beyond ORDER, just these four."""
    return tuple(name for name in names if name in ORDER) if set(ORDER) < set(names) else tuple(names)


def kept_sounds(names: Sequence[str], stems: Block) -> Block:
    """Return the sounds of `kept_stems`; those of the others are added to `other`.

    Shapes: stems `(stem, channel, time)`, and as many of them as there are names.
    """
    kept = kept_stems(names)
    if len(kept) == len(names):
        return stems
    found = stems[[names.index(name) for name in kept]]
    found[kept.index("other")] += sum(
        stem for name, stem in zip(names, stems, strict=True) if name not in kept
    )
    return found


@dataclass(frozen=True)
class Label:
    """A stem's name and colour in players; the colour is `#RRGGBB`, or empty."""

    name: str
    colour: str


class StemFile(Writer):
    """A mixture and its four stems in one file, which appears whole or not at all.

    The stems may be `names` in any order; in the file they have `ORDER`, followed by others. They should sum
    to the mixture, which decks do not play. A mono song is written as two equal channels, because players
    refuse mono tracks. AAC, by default 256k per track; it clips at full scale. `peaks` has the largest
    absolute sample of each track, before clipping.

    Raises:
        EncodeError: these are not four stems, AAC cannot hold the sample rate, or there is no ffmpeg.
        OutputExists: the file is there already, and `force` is not given.
    """

    def __init__(
        self,
        path: Path,
        names: Sequence[str],
        signal: Signal,
        *,
        bitrate: str | None = None,
        tags_from: Path | None = None,
        force: bool = False,
    ) -> None:
        if len(names) != 4 or len(set(names)) != 4:
            raise EncodeError(
                f"A stem file holds four stems, not {', '.join(names) or 'none'}",
                "choose a model of four stems, or another --format",
            )
        super().__init__(
            path,
            replace(signal, channels=(1 + len(names)) * signal.channels),
            Encoding("32f", bitrate, "m4a", channels_per_track=2),
            tags_from=tags_from,
            force=force,
        )
        places = [ORDER.index(name) if name in ORDER else len(ORDER) for name in names]
        self._order = sorted(range(len(names)), key=places.__getitem__)
        self.labels = tuple(Label(names[i], c) for i, c in zip(self._order, COLOURS, strict=True))
        self.peaks = dict.fromkeys([MIXTURE, *names], 0.0)

    def _encoder(self) -> _Encoder:
        return _Encoder(
            self.part,
            self.labels,
            sample_rate=self.sample_rate,
            channels=self._channels,
            bitrate=self._bitrate,
        )

    def write_tracks(self, mixture: Block, stems: Block) -> None:
        """Append a finite block of the mixture `(channel, time)` and of its stems `(stem, channel, time)`."""
        if stems.shape != (len(self.labels), *mixture.shape):
            raise ValueError(f"stems must be 4 of the mixture's shape {mixture.shape}, got {stems.shape}")
        self.write(np.concatenate([mixture, *stems[self._order]]))

    def _append(self, block: Block) -> None:
        super()._append(block)
        tracks = np.abs(block).reshape(1 + len(self.labels), -1).max(axis=1, initial=0)
        for name, peak in zip([MIXTURE, *(label.name for label in self.labels)], tracks, strict=True):
            self.peaks[name] = max(self.peaks[name], float(peak))


class _Encoder(ffmpeg.Encoder):
    """Raw samples of all tracks in, one behind the other; an MP4 out, its index at the end."""

    def __init__(
        self,
        path: Path,
        labels: Sequence[Label],
        *,
        sample_rate: int,
        channels: int,
        bitrate: int | None,
    ) -> None:
        self._path, self._labels = path, labels
        names = [MIXTURE, *(label.name for label in labels)]
        arguments = ["-v", "level+error", "-f", "f32le", "-ar", str(sample_rate), "-ac", str(channels)]
        arguments += ["-i", "pipe:0"]
        width = channels // len(names)
        pairs = [(width * track, width * track + width - 1) for track in range(len(names))]
        graph = [f"[0:a]pan=stereo|c0=c{left}|c1=c{right}[{left}]" for left, right in pairs]
        arguments += ["-filter_complex", ";".join(graph)]
        for track, (name, (left, _)) in enumerate(zip(names, pairs, strict=True)):
            arguments += ["-map", f"[{left}]", f"-metadata:s:a:{track}", f"handler_name={name}"]
        arguments += [
            "-c:a",
            "aac",
            "-b:a",
            str(bitrate or "256k"),
            "-f",
            "ipod",
            "-fflags",
            "+bitexact",
            "-y",
        ]
        program = ffmpeg.executable() or "ffmpeg"
        self._process = ffmpeg.Process(
            program,
            *[*arguments, f"file:{path}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )

    def finish(self) -> None:
        """Let ffmpeg write the rest, and make a stem file of it; OSError with the reason if that fails."""
        super().finish()
        _make_stem_file(self._path, self._labels)


@dataclass(frozen=True)
class _Box:
    """A box of an MP4: a size, four letters, and from `body` to `end` what it holds."""

    kind: bytes
    start: int
    body: int
    end: int


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[_Box]:
    """Yield the boxes between two positions of a file; ValueError where one does not fit."""
    for _ in range(MOST_BOXES):
        if end - start < 8:  # nothing, or the zero that ends a list in older files
            return
        file.seek(start)
        head = file.read(16)
        size, kind, body = int.from_bytes(head[:4], "big"), head[4:8], start + 8
        if size == 1:
            size, body = int.from_bytes(head[8:], "big"), start + 16
        elif size == 0:
            size = end - start
        if not body - start <= size <= end - start:
            raise ValueError(f"what begins at byte {start} does not fit")
        yield _Box(kind, start, body, start + size)
        start += size
    raise ValueError("it has too many parts")


def _find(file: BinaryIO, *kinds: bytes) -> _Box | None:
    """Return the first box on a path from the top of a file, or None; ValueError where one does not fit."""
    found: _Box | None = _Box(b"", 0, 0, file.seek(0, os.SEEK_END))
    for kind in kinds:
        if found is not None:
            boxes = _boxes(file, found.body, found.end)
            found = next((box for box in boxes if box.kind == kind), None)
    return found


def _make_stem_file(path: Path, labels: Sequence[Label]) -> None:
    """Turn five tracks of ffmpeg into a stem file in place: only its last part grows."""
    stems = [{"name": label.name, "color": label.colour} for label in labels]
    text = json.dumps({"mastering_dsp": _MASTERING, "version": 1, "stems": stems}).encode("ascii")
    atom = (8 + len(text)).to_bytes(4, "big") + b"stem" + text
    with path.open("r+b") as file:
        moov, udta = _find(file, b"moov"), _find(file, b"moov", b"udta")
        end = file.seek(0, os.SEEK_END)
        if moov is None or udta is None or not moov.end == udta.end == end:
            raise OSError("this ffmpeg puts the parts of an MP4 in another order")
        tracks = [box for box in _boxes(file, moov.body, moov.end) if box.kind == b"trak"]
        for number, track in enumerate(tracks):
            _set_header(file, track, enabled=number == 0)
        for box in (moov, udta):
            file.seek(box.start)
            file.write((end - box.start + len(atom)).to_bytes(4, "big"))
        file.seek(end)
        file.write(atom)


def _set_header(file: BinaryIO, track: _Box, *, enabled: bool) -> None:
    """Switch a track on or off, and take it out of the group of which a player plays one track only."""
    header = next(box for box in _boxes(file, track.body, track.end) if box.kind == b"tkhd")
    file.seek(header.body)
    long_times = file.read(1) == b"\1"
    file.write(bytes([0, 0, enabled]))
    file.seek(header.body + (46 if long_times else 34))  # ISO/IEC 14496-12, 8.3.2
    file.write(bytes(2))


def read_stem_names(path: str | os.PathLike[str]) -> tuple[Label, ...] | None:
    """Return what a file says of its stems, in the order of its tracks from the second on.

    None if it says nothing, being another kind of file. Reads no more than `LONGEST_TEXT` at once.

    Raises:
        DecodeError: the file cannot be read, is cut short, or what it says makes no sense.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            if file.read(8)[4:] != b"ftyp":
                return None
            box = _find(file, b"moov", b"udta", b"stem")
            if box is None:
                return None
            if box.end - box.body > LONGEST_TEXT:
                raise ValueError("its list of stems is too long")
            file.seek(box.body)
            return _labels(file.read(box.end - box.body))
    except OSError as error:
        raise DecodeError(f"Cannot read `{path}`: {error.strerror}") from error
    except ValueError as error:
        raise DecodeError(f"`{shown(path)}` is damaged: {error}", "get the file again") from error


def _labels(text: bytes) -> tuple[Label, ...]:
    """Return the labels in a JSON text, some of which may lack; ValueError if it is none."""
    try:
        facts: Any = json.loads(text.rstrip(b"\0"))  # which some programs put at the end
    except (ValueError, RecursionError) as error:
        raise ValueError("its list of stems is no JSON") from error
    stems = facts.get("stems") if isinstance(facts, dict) else None
    if not isinstance(stems, list) or not stems or not all(isinstance(stem, dict) for stem in stems):
        raise ValueError("it lists no stems")
    words = [[stem.get(key) for key in ("name", "color")] for stem in stems]
    told = [[word.strip() if isinstance(word, str) else "" for word in pair] for pair in words]
    return tuple(Label(name or f"stem {n}", colour) for n, (name, colour) in enumerate(told, 1))
