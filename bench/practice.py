"""Compare time stretchers for `stemsplit practice`: tempo, position, pitch, and the attacks of drums.

Usage: python bench/practice.py FOLDER, with songs whose stems are `FOLDER/song/drums.*`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stemsplit.audio import ffmpeg
from stemsplit.audio.reader import Block, Reader
from stemsplit.practice.stretch import Passage, stretched_drums, transposed

RATE, SECONDS = 44_100, 20
BPM, FIRST = 97.0, 0.5
SONGS = 10
Stretcher = Callable[[Block, float, float], Block]
"""Called with audio, the tempo relative to the original, and the pitch shift in semitones."""


def ours(sound: Block, rate: float, semitones: float) -> Block:
    """Use stemsplit's drum stretcher, or its transposing one if `semitones` is not 0."""

    def read(start: int, stop: int) -> Block:
        margins = (max(0, -start), max(0, stop - sound.shape[1]))
        return np.pad(sound, ((0, 0), margins))[:, start + margins[0] : stop + margins[0]]

    passage = Passage(0.0, rate, round(sound.shape[1] / rate))
    if semitones:
        return np.concatenate(list(transposed(read, passage, RATE, semitones)), axis=1)
    return np.concatenate(list(stretched_drums(read, passage, RATE)), axis=1)


def signalsmith(sound: Block, rate: float, semitones: float) -> Block:
    """Use Signalsmith Stretch with its default preset, in one call."""
    from python_stretch.Signalsmith import Stretch

    engine = Stretch()
    engine.preset(len(sound), RATE)
    engine.setTimeFactor(rate)
    engine.setTransposeSemitones(semitones)
    return np.asarray(engine.process(np.ascontiguousarray(sound)))


def rubberband(sound: Block, rate: float, semitones: float) -> Block:
    """Use ffmpeg's filter `rubberband`, with its settings for drums."""
    return _filtered(sound, f"rubberband=tempo={rate}:pitch={2 ** (semitones / 12)}:detector=percussive")


def atempo(sound: Block, rate: float, semitones: float) -> Block:
    """Use ffmpeg's filter `atempo`, which does not transpose."""
    return _filtered(sound, f"atempo={rate}")


def _filtered(sound: Block, filters: str) -> Block:
    form = ["-f", "f32le", "-ar", str(RATE), "-ac", str(len(sound))]
    program = ffmpeg.executable() or "ffmpeg"
    command = [program, "-v", "error", *form, "-i", "pipe:0", "-af", filters, "-f", "f32le", "pipe:1"]
    done = subprocess.run(command, input=sound.T.tobytes(), capture_output=True, check=True)
    found: Block = np.frombuffer(done.stdout, np.float32).reshape(-1, len(sound)).T
    return found


STRETCHERS: dict[str, Stretcher] = {
    "Signalsmith Stretch": signalsmith,
    "as used here": ours,
    "ffmpeg `rubberband`": rubberband,
    "ffmpeg `atempo`": atempo,
}


def strikes() -> tuple[Block, NDArray[np.float64]]:
    """Return short decaying tones at 97 BPM, and their times in seconds."""
    sound, times = np.zeros(SECONDS * RATE), np.arange(FIRST, SECONDS - 0.1, 60 / BPM)
    decay = np.exp(-np.arange(2000) / 200) * np.sin(2 * np.pi * 1500 * np.arange(2000) / RATE)
    for time in times:
        sound[round(time * RATE) :][:2000] += decay
    return np.stack([sound, sound]).astype(np.float32), times


def positions(sound: Block, times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the times when the envelope first reaches half its peak, within 120 ms of each given time."""
    envelope, reach, found = np.convolve(np.abs(sound[0]), np.ones(64) / 64, "same"), round(0.12 * RATE), []
    for time in times:
        start = round(time * RATE) - reach
        part = envelope[start : start + 2 * reach]
        found.append((start + np.argmax(part > part.max() / 2)) / RATE)
    return np.array(found)


def pitch(sound: Block) -> float:
    """Return the frequency of a sine."""
    middle = sound[0, RATE : 15 * RATE]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 1 << 23))
    return float(spectrum.argmax() * RATE / (1 << 23))


def rises(sound: Block, times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rise time of the envelope from 10 to 90 % at each given time, in seconds."""
    found, reach = [], round(0.03 * RATE)
    for time in times:
        start = round(time * RATE) - reach
        envelope = np.convolve(
            np.abs(sound[:, start : start + 2 * reach]).mean(axis=0), np.ones(44) / 44, "same"
        )
        peak = reach // 2 + int(envelope[reach // 2 :].argmax())
        floor = envelope[: peak + 1].min()
        low, high = (
            np.flatnonzero(envelope[: peak + 1] <= floor + share * (envelope[peak] - floor))[-1]
            for share in (0.1, 0.9)
        )
        found.append(float(high - low) / RATE)
    return np.array(found)


def drums(folder: Path) -> list[tuple[Block, NDArray[np.float64]]]:
    """Return the drums of some songs, and the onsets that librosa finds in them."""
    import librosa

    found = []
    for path in sorted(folder.glob("*/drums.*")):
        reader = Reader(path, duration_seconds=30)
        sound = np.concatenate(list(reader), axis=1)
        if reader.sample_rate != RATE or np.abs(sound).max() < 0.01:
            continue
        onsets = librosa.onset.onset_detect(y=sound.mean(axis=0), sr=RATE, hop_length=256, units="time")
        inner = (onsets > 0.1) & (onsets < sound.shape[1] / RATE - 0.1)
        found.append((np.ascontiguousarray(sound), onsets[inner]))
    return found[:SONGS]


def main() -> None:
    """Print the table."""
    clicks, times = strikes()
    tone = np.sin(2 * np.pi * 440 * np.arange(SECONDS * RATE) / RATE)
    sine = 0.5 * np.stack([tone, tone]).astype(np.float32)
    songs = drums(Path(sys.argv[1]))
    print("| | tempo at 80 %, BPM | position, ms | frames off | cents off | attacks at 70 %, ratio |")
    print("| --- | --: | --: | --: | --: | --: |")
    for name, stretcher in STRETCHERS.items():
        slow = stretcher(clicks, 0.8, 0)
        found = positions(slow, times / 0.8)
        tempo = 60 / np.polyfit(np.arange(len(found)), found, 1)[0]
        late = 1000 * (found - times / 0.8).mean()
        off = slow.shape[1] - round(clicks.shape[1] / 0.8)
        cents = [1200 * np.log2(pitch(stretcher(sine, rate, -2)) / 440) + 200 for rate in (1.0, 0.8, 0.7)]
        worst = "-" if stretcher is atempo else f"{max(map(abs, cents)):.1f}"
        ratios = []
        for sound, onsets in songs:
            shift = late / 1000 * (1 - 0.7) / (1 - 0.8)
            before, after = rises(sound, onsets), rises(stretcher(sound, 0.7, 0), onsets / 0.7 + shift)
            sudden = (before > 0) & (before < 0.012)
            ratios += (after[sudden] / before[sudden]).tolist()
        print(
            f"| {name} | {tempo:.3f} | {late:.1f} | {off} | {worst} | {np.median(ratios):.2f} |", flush=True
        )


if __name__ == "__main__":
    main()
