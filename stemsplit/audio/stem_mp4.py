"""Native Instruments stem files: a mixture and its four stems as audio tracks of one MP4.

DJ software and decks play the stems, which they identify by the boxes of `stem_boxes`. All other players play
the first track, because only that one is enabled. The layout follows the sample file of stempeg, and what
Mixxx accepts (src/sources/soundsourcestem.cpp).
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from stemsplit.audio import ffmpeg
from stemsplit.audio.reader import Block, Signal
from stemsplit.audio.stem_boxes import make_stem_file
from stemsplit.audio.stem_labels import ORDER, Label, in_file_order
from stemsplit.audio.writer import Encoding, Writer
from stemsplit.errors import EncodeError

SUFFIX = ".stem.mp4"
MIXTURE = "mixture"
AAC = Encoding("32f")


def kept_stems(names: Sequence[str]) -> tuple[str, ...]:
    """Return the model's stems for a stem file: those of `ORDER`, if it has these and more, or else all."""
    return tuple(name for name in names if name in ORDER) if set(ORDER) < set(names) else tuple(names)


def kept_sounds(names: Sequence[str], stems: Block) -> Block:
    """Return the audio of `kept_stems`; the other stems are added to `other`.

    Shapes: stems `(stem, channel, time)`, in the order of the names.
    """
    kept = kept_stems(names)
    if len(kept) == len(names):
        return stems
    found = stems[[names.index(name) for name in kept]]
    found[kept.index("other")] += sum(
        stem for name, stem in zip(names, stems, strict=True) if name not in kept
    )
    return found


class StemFile(Writer):
    """Writes a mixture and its four stems to one file, which appears whole or not at all.

    The stems may be in any order; in the file they are in `ORDER`, followed by others. They should sum to the
    mixture, because decks play only the stems. A mono song is written as two equal channels, because players
    refuse mono tracks. The codec is AAC, by default at 256k per track, or lossless; all codecs clip at full
    scale. `peaks` has the largest absolute sample of each track, before clipping.

    Raises:
        EncodeError: the codec does not support the depth or the bitrate, or ffmpeg is missing.
        OutputExists: the file already exists, and `force` is not given.
    """

    def __init__(
        self,
        path: Path,
        stems: Mapping[str, Label],
        signal: Signal,
        encoding: Encoding = AAC,
        *,
        tags_from: Path | None = None,
        force: bool = False,
    ) -> None:
        if not ffmpeg.executable():
            raise EncodeError("Cannot write stem files without ffmpeg", ffmpeg.INSTALL)
        super().__init__(
            path,
            replace(signal, channels=(1 + len(stems)) * signal.channels),
            replace(encoding, format="m4a", channels_per_track=2),
            tags_from=tags_from,
            force=force,
        )
        self._encoding = encoding
        self._stems, self._in_order = tuple(stems), in_file_order(tuple(stems))
        self.labels = tuple(stems[name] for name in self._in_order)
        self.peaks = dict.fromkeys([MIXTURE, *stems], 0.0)

    def _encoder(self) -> _Encoder:
        return _Encoder(
            self.part,
            self.labels,
            replace(self._encoding, depth=self._depth, bitrate=str(self._bitrate or "256k")),
            sample_rate=self.sample_rate,
            channels=self._channels,
        )

    def write_tracks(self, mixture: Block, stems: Block) -> None:
        """Append a finite block of the mixture `(channel, time)` and of its stems `(stem, channel, time)`."""
        if stems.shape != (len(self.labels), *mixture.shape):
            raise ValueError(f"stems must be 4 of the mixture's shape {mixture.shape}, got {stems.shape}")
        self.write(np.concatenate([mixture, *(stems[self._stems.index(name)] for name in self._in_order)]))

    def _append(self, block: Block) -> None:
        super()._append(block)
        tracks = np.abs(block).reshape(1 + len(self.labels), -1).max(axis=1, initial=0)
        for name, peak in zip([MIXTURE, *self._in_order], tracks, strict=True):
            self.peaks[name] = max(self.peaks[name], float(peak))


class _Encoder(ffmpeg.Encoder):
    """Encodes raw samples of all tracks, frame by frame, to an MP4 with its index at the end."""

    def __init__(
        self,
        path: Path,
        labels: Sequence[Label],
        encoding: Encoding,
        *,
        sample_rate: int,
        channels: int,
    ) -> None:
        self._path, self._labels = path, labels
        names = [MIXTURE, *(label.name for label in labels)]
        raw = ffmpeg.RAW[encoding.depth]
        arguments = ["-v", "level+error", "-f", raw, "-ar", str(sample_rate), "-ac", str(channels)]
        arguments += ["-i", "pipe:0"]
        width = channels // len(names)
        pairs = [(width * track, width * track + width - 1) for track in range(len(names))]
        graph = [f"[0:a]pan=stereo|c0=c{left}|c1=c{right}[{left}]" for left, right in pairs]
        arguments += ["-filter_complex", ";".join(graph)]
        for track, (name, (left, _)) in enumerate(zip(names, pairs, strict=True)):
            arguments += ["-map", f"[{left}]", f"-metadata:s:a:{track}", f"handler_name={name}"]
        arguments += [*_codec(encoding), "-movie_timescale", str(sample_rate)]  # exact lengths in edit lists
        arguments += ["-fflags", "+bitexact", "-y", f"file:{path}"]
        program = ffmpeg.executable() or "ffmpeg"
        self._process = ffmpeg.Process(program, *arguments, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)

    def finish(self) -> None:
        """Let ffmpeg finish, and turn its output into a stem file. Raises OSError if that fails."""
        super().finish()
        make_stem_file(self._path, self._labels)


def _codec(encoding: Encoding) -> list[str]:
    """Return the arguments for a codec and its container; ffmpeg's `ipod` format does not support FLAC."""
    codec = encoding.codec or "aac"
    if codec == "aac":
        return ["-c:a", codec, "-b:a", encoding.bitrate or "256k", "-f", "ipod"]
    bits = "s16" if encoding.depth == "16" else "s32"
    if codec == "alac":
        return ["-c:a", codec, "-sample_fmt", f"{bits}p", "-f", "ipod"]
    return ["-c:a", codec, "-sample_fmt", bits, "-f", "mp4"]
