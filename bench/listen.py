"""Measure audible errors of a model: its estimates of whole songs, compared with the true stems.

    python bench/listen.py MODEL PICTURES SONG...

SONG is a folder with an audio file for each stem. For each song and stem, it prints in dB:

- SDR over the whole song, in stereo and in mono. Phase errors between the channels would lower the second.
- In silence: the energy of the estimate relative to the mixture, over the seconds in which the true stem is
  silent and the mixture is not: in total, and in the worst second. It should be far below 0 dB.
- Joints: the mean square of the estimate's second differences where one segment of the stream ends and the
  next begins, relative to the whole song. Clicks would be far above 0 dB.

PICTURES gets spectrograms of the true stems, above spectrograms of the estimates: the 30 seconds from the
first second in which all stems are active.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: TID253 (this script writes pictures)
from matplotlib.figure import Figure  # noqa: TID253

from stemsplit.datasets.songs import Song, find_songs
from stemsplit.dsp.stft import Stft
from stemsplit.evaluation.metrics import sdr
from stemsplit.separation.separator import Samples
from stemsplit.separation.stream import separate_stream
from stemsplit.zoo.loading import load_separator

SAMPLE_RATE = 44_100
SILENT, SOUNDING = 1e-7, 1e-4
"""Limits of the mean square of a second: below -70 dBFS it is silent, above -40 dBFS it is active."""
NEAR = 64
"""Samples on either side of a joint."""
PICTURE_SECONDS = 30
TOP_HZ, RANGE_DB = 8000, 70


def seconds(signal: Samples) -> Samples:
    """Return the mean square of each whole second of a signal `(channel, time)`."""
    whole = signal.shape[-1] // SAMPLE_RATE * SAMPLE_RATE
    means: Samples = np.square(signal[:, :whole]).reshape(len(signal), -1, SAMPLE_RATE).mean(axis=(0, 2))
    return means


def in_silence(truth: Samples, estimate: Samples, mixture: Samples) -> str:
    """Return the level in dB of an estimate, relative to the mixture, while its stem is silent."""
    there, found, whole = (seconds(signal) for signal in (truth, estimate, mixture))
    silent = (there < SILENT) & (whole > SOUNDING)
    if not silent.any():
        return "-"
    together = 10 * np.log10(found[silent].sum() / whole[silent].sum())
    worst = 10 * np.log10((found[silent] / whole[silent]).max())
    return f"{together:.1f}, worst {worst:.1f} ({silent.sum()} s)"


def roughness_at(joints: Sequence[int], signal: Samples) -> float:
    """Return the mean square of second differences near joints, relative to the whole signal, in dB."""
    squares = np.square(np.diff(signal, 2)).mean(axis=0)
    near = np.concatenate([squares[joint - NEAR : joint + NEAR] for joint in joints])
    return float(10 * np.log10(near.mean() / squares.mean()))


def spectrograms(path: Path, song: Song, estimates: Samples, stems: Sequence[str]) -> None:
    """Plot the spectrogram of each true stem above the spectrogram of its estimate."""
    stft, shown = Stft(), [row for row, known in enumerate(song.known) if known]
    sounding = np.all([seconds(part) > SOUNDING for part in song.parts[: len(stems)] if part.any()], axis=0)
    start = int(sounding.argmax()) * SAMPLE_RATE
    figure = Figure(figsize=(5 * len(shown), 8), layout="constrained")
    FigureCanvasAgg(figure)
    loudest_db: dict[str, float] = {}
    top = round(TOP_HZ / SAMPLE_RATE * stft.n_fft)
    for row, (kind, sources) in enumerate({"true": song.parts, "estimated": estimates}.items()):
        for column, index in enumerate(shown):
            stem = stems[index]
            mono = sources[index, :, start : start + PICTURE_SECONDS * SAMPLE_RATE].mean(axis=0)
            level_db = 20 * np.log10(np.abs(stft.transform(mono[None])[0, :, :top]) + 1e-6)
            axes = figure.add_subplot(2, len(shown), row * len(shown) + column + 1)
            if row == 0:
                loudest_db[stem] = np.percentile(level_db, 99.9)
            axes.imshow(
                level_db.T,
                origin="lower",
                aspect="auto",
                extent=(0, len(mono) / SAMPLE_RATE, 0, TOP_HZ / 1000),
                cmap="magma",
                vmin=loudest_db[stem] - RANGE_DB,
                vmax=loudest_db[stem],
            )
            axes.set(title=f"{stem}, {kind}", xlabel="s", ylabel="kHz")
    figure.savefig(path, dpi=70)


def main() -> None:
    """Print a table, and write the spectrograms."""
    model, pictures, *folders = sys.argv[1:]
    separator = load_separator(model)
    stems = separator.spec.stems
    print("| song | stem | SDR | in mono | in silence | joints |")
    print("|---|---|--:|--:|--:|--:|")
    for folder in map(Path, folders):
        sources = find_songs([str(folder.parent.parent)], folder.parent.name, stems)
        song = next(source for source in sources if source.name == folder.name).load(SAMPLE_RATE)
        blocks = list(separate_stream(separator, [song.mixture], SAMPLE_RATE))
        joints = np.cumsum([block.shape[-1] for block in blocks])[:-1].tolist()
        estimates = np.concatenate(blocks, axis=-1)
        spectrograms(Path(pictures, f"{folder.name}.png"), song, estimates, stems)
        for stem, known, truth, estimate in zip(stems, song.known, song.parts, estimates, strict=False):
            if not known:
                continue
            mono = sdr(truth.mean(axis=0, keepdims=True), estimate.mean(axis=0, keepdims=True))
            cells = [f"{sdr(truth, estimate):.1f}", f"{mono:.1f}"] if truth.any() else ["-", "-"]
            cells += [in_silence(truth, estimate, song.mixture), f"{roughness_at(joints, estimate):.1f}"]
            print(f"| {folder.name} | {stem} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
