"""Waveforms, spectrograms and masks of a track, computed in one pass and in bounded memory."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stemsplit.audio.reader import Block
from stemsplit.dsp.features import magnitude
from stemsplit.dsp.stft import Stft
from stemsplit.errors import EncodeError
from stemsplit.files.scratch import librosa_caches

COLUMNS = 800
"""Width of a picture in columns, for any length of the track."""
BANDS = 160
HIGHEST_HZ = 20_000.0
RANGE_DB = 80.0
"""Range of a spectrogram below its maximum."""
SIZE = (9.6, 2.0)
"""Size of a picture in hundreds of pixels."""
_QUALITY = {"quality": 60}
_WINDOW_SECONDS = 0.09
_TICKS_HZ = (200, 500, 1000, 2000, 5000, 10_000)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Survey:
    """The data of a track's pictures. The first sound is the mixture, the others are the stems."""

    sample_rate: int
    waves: Array
    """Lowest and highest sample, `(sound, 2, column)`."""
    bands: Array
    """Mean magnitude, `(sound, band, column)`; bands are equally spaced in mels."""
    residual_db: float | None
    """Level of the mixture minus its stems, relative to the mixture; None for silence or no difference."""

    @property
    def masks(self) -> Array:
        """Share of each stem in the sum of all, `(stem, band, column)`; 0 where the spectrogram is black."""
        stems = self.bands[1:]
        total = stems.sum(axis=0)
        floor = max(1e-7, self.bands.max() * 10 ** (-RANGE_DB / 20))
        shares: Array = np.divide(stems, total, out=np.zeros_like(stems), where=total > floor)
        return shares


def survey(blocks: Iterable[Block], sample_rate: int, frames: int) -> Survey:
    """Return the data for pictures of blocks `(sound, channel, time)` with `frames` samples in total.

    The first sound is the mixture; samples after `frames` are ignored.
    """
    spectra = _Bands(sample_rate, frames)
    columns = min(COLUMNS, frames)
    edges = -(-np.arange(columns) * frames // columns)  # index of the first sample of each column
    waves: Array | None = None
    done, mixture_energy, residual_energy = 0, 0.0, 0.0
    for block in blocks:
        block = block[..., : frames - done]
        if not block.shape[-1]:
            break
        if waves is None:
            waves = np.zeros((len(block), 2, columns))
        first = int(np.searchsorted(edges, done, "right")) - 1
        last = int(np.searchsorted(edges, done + block.shape[-1], "left"))
        starts = np.maximum(edges[first:last] - done, 0)
        part = waves[..., first:last]
        part[:, 0] = np.minimum(part[:, 0], np.minimum.reduceat(block.min(axis=1), starts, axis=-1))
        part[:, 1] = np.maximum(part[:, 1], np.maximum.reduceat(block.max(axis=1), starts, axis=-1))
        mixture_energy += _energy(block[0])
        residual_energy += _energy(block[0] - block[1:].sum(axis=0))
        spectra.add(block)
        done += block.shape[-1]
    if waves is None:
        raise ValueError("no blocks")
    known = mixture_energy > 0 and residual_energy > 0
    residual_db = 10 * math.log10(residual_energy / mixture_energy) if known else None
    return Survey(sample_rate, waves, spectra.finish(), residual_db)


def _energy(block: Block) -> float:
    return float(np.square(block, dtype=np.float64).sum())


class _Bands:
    """Sums spectra into bands and columns, block by block."""

    def __init__(self, sample_rate: int, frames: int) -> None:
        librosa_caches()
        import librosa

        n_fft = 1 << max(5, round(math.log2(sample_rate * _WINDOW_SECONDS)))
        self._stft = Stft(n_fft, n_fft // 4)
        mels = librosa.filters.mel(
            sr=sample_rate, n_fft=n_fft, n_mels=BANDS, fmax=min(sample_rate / 2, HIGHEST_HZ), norm=None
        )
        weights = np.maximum(mels.sum(axis=1, keepdims=True), 1e-9)
        self._filters = np.ascontiguousarray((mels / weights).T, np.float32)  # (bin, band)
        self._total = frames // self._stft.hop_length + 1
        self._columns = min(COLUMNS, self._total)
        self._done = 0
        self._held: Block | None = None
        self._sums: Array | None = None

    def add(self, block: Block) -> None:
        if self._held is None or self._sums is None:
            self._sums = np.zeros((self._columns, len(block), BANDS))
            self._held = np.zeros((*block.shape[:-1], self._stft.n_fft // 2), np.float32)
        signal = np.concatenate([self._held, block], axis=-1)
        bands = magnitude(self._stft.transform(signal)) @ self._filters  # (sound, frame, band)
        count = bands.shape[1]
        if count:
            columns = (self._done + np.arange(count)) * self._columns // self._total
            there, starts = np.unique(columns, return_index=True)
            self._sums[there] += np.add.reduceat(bands, starts, axis=1).transpose(1, 0, 2)
        self._done += count
        self._held = signal[..., count * self._stft.hop_length :]

    def finish(self) -> Array:
        """Return `(sound, band, column)`."""
        assert self._held is not None
        assert self._sums is not None
        self.add(np.zeros((*self._held.shape[:-1], self._stft.n_fft // 2), np.float32))
        counts = np.bincount(np.arange(self._total) * self._columns // self._total)
        means: Array = (self._sums / counts[:, None, None]).transpose(1, 2, 0)
        return means


def wave_paths(waves: Array) -> list[str]:
    """Return an SVG path for each sound's `(2, column)`: one unit per column, height 100 for the loudest."""
    scale = 50 / max(1e-9, float(np.abs(waves).max()))
    return ["".join(_strokes(low * scale, high * scale)) for low, high in waves]


def _strokes(low: Array, high: Array) -> Iterator[str]:
    for column, (bottom, top) in enumerate(zip(low, high, strict=True)):
        # Silence is drawn as a thin line.
        yield f"M{column}.5 {50 - max(top, 0.3):.1f}V{50 - min(bottom, -0.3):.1f}"


def spectrograms(found: Survey) -> list[bytes]:
    """Return a WebP picture of each sound, all with the same scale."""
    librosa_caches()
    import librosa

    loudest = float(found.bands.max()) or 1.0
    return [
        _draw(
            librosa.amplitude_to_db(bands, ref=loudest, amin=1e-7, top_db=None),
            found.sample_rate,
            cmap="magma",
            vmin=-RANGE_DB,
            vmax=0,
        )
        for bands in found.bands
    ]


def mask_pictures(found: Survey) -> list[bytes]:
    """Return a WebP picture of each stem's share in the sum of all."""
    return [_draw(mask, found.sample_rate, cmap="cividis", vmin=0, vmax=1) for mask in found.masks]


def sheet(found: Survey, names: Sequence[str], seconds: float, path: Path) -> None:
    """Write one picture: one row per sound, spectrograms on the left, the stems' masks on the right.

    Raises:
        EncodeError: the file cannot be written.
    """
    librosa_caches()
    import librosa.display
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, columns = len(names), 2 if len(names) > 1 else 1
    figure = Figure(figsize=(9 * columns, 1 + 2.4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True)
    loudest = float(found.bands.max()) or 1.0
    level = librosa.amplitude_to_db(found.bands, ref=loudest, amin=1e-7, top_db=None)
    scale: dict[str, Any] = {
        "sr": found.sample_rate,
        "fmax": min(found.sample_rate / 2, HIGHEST_HZ),
        "y_axis": "mel",
    }
    times = np.linspace(0, seconds, level.shape[-1])
    images: list[Any] = [None, None]
    for row, name in enumerate(names):
        options = {**scale, "x_coords": times, "x_axis": "time" if row == rows - 1 else None}
        spectrogram, *rest = axes[row]
        images[0] = librosa.display.specshow(
            level[row], ax=spectrogram, cmap="magma", vmin=-RANGE_DB, vmax=0, **options
        )
        spectrogram.set_title(name, loc="left")
        for mask in rest:
            if row:
                images[1] = librosa.display.specshow(
                    found.masks[row - 1], ax=mask, cmap="cividis", vmin=0, vmax=1, **options
                )
                mask.set_title(f"share of {name}", loc="left")
            else:
                mask.set_axis_off()
    for column, label in enumerate(("dB", "of all stems")[:columns]):
        figure.colorbar(images[column], ax=axes[:, column], label=label, location="bottom", shrink=0.5)
    try:
        figure.savefig(path, dpi=100)
    except (OSError, ValueError) as error:
        raise EncodeError(f"Cannot write `{path}`: {error}", "use --plot FILE.png") from error


def ticks(sample_rate: int) -> Sequence[tuple[int, float]]:
    """Return frequencies in Hz, and the height of each in a picture, from 0 to 1."""
    figure, axes = _axes()
    _show(axes, np.zeros((BANDS, 2)), sample_rate)
    heights = [(hz, _height(axes, hz)) for hz in _TICKS_HZ]
    return [(hz, height) for hz, height in heights if height < 0.97]


def _height(axes: Any, hz: float) -> float:
    place = axes.transAxes.inverted().transform(axes.transData.transform((0, hz)))
    return float(place[1])


def _axes() -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, dpi=100)
    FigureCanvasAgg(figure)
    # The page draws the axes, because they depend on its theme and font size.
    axes = figure.add_axes((0, 0, 1, 1))
    return figure, axes


def _show(axes: Any, values: Array, sample_rate: int, **options: Any) -> None:
    from librosa.display import specshow

    specshow(
        values,
        sr=sample_rate,
        fmax=min(sample_rate / 2, HIGHEST_HZ),
        y_axis="mel",
        ax=axes,
        **options,
    )
    axes.set_axis_off()


def _draw(values: Array, sample_rate: int, **options: Any) -> bytes:
    figure, axes = _axes()
    _show(axes, values, sample_rate, **options)
    picture = io.BytesIO()
    figure.savefig(picture, format="webp", pil_kwargs=_QUALITY)
    return picture.getvalue()
