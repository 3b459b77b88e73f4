"""Functions on arrays: split a mixture, or compute its masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from stemsplit.audio.reader import LOUDEST
from stemsplit.errors import UsageError
from stemsplit.options import MethodKeywords, Options
from stemsplit.pipeline import load, refuse_both
from stemsplit.separation.masking import MaskSeparator
from stemsplit.separation.separator import FittedMethod, Method, Samples
from stemsplit.separation.stream import separate_stream, shared_out, side_by_side, windows
from stemsplit.zoo.ref import choose_stems

if TYPE_CHECKING:
    from typing_extensions import Unpack

Progress = Callable[[int, int], None]
"""A function called with the number of frames (samples per channel) done, and their total."""


def split(
    samples: ArrayLike,
    sample_rate: int,
    *,
    separator: Method | None = None,
    progress: Progress | None = None,
    **options: Unpack[MethodKeywords],
) -> dict[str, Samples]:
    """Return the stems of a mixture `(channel, time)` or `(time,)`, each of the same shape.

    `progress` is called with the frames done (samples per channel) and their total. Without a `separator`,
    `options` are `model`, `stems`, `two_stems`, `then`, `mask`, `sources`, `azimuths`, and the fields of
    `RuntimeOptions`.

    Raises:
        ValueError: the mixture is not one or two channels of finite floating point samples.
        StemsplitError: an error from loading the model, or from fitting it to the mixture.
    """
    refuse_both(separator, options)
    mixture = _checked(samples)
    whole = [np.atleast_2d(mixture)]
    every = Options.of(MethodKeywords, **options)
    method = separator or load(every)
    fitted = method.fit(whole, sample_rate) if isinstance(method, FittedMethod) else method
    names, total, done = fitted.spec.stems, mixture.shape[-1], 0
    blocks = [np.zeros((len(names), len(whole[0]), 0), np.float32)]
    for block in separate_stream(fitted, whole, sample_rate, frames=total):
        blocks.append(block)
        done += block.shape[-1]
        if progress:
            progress(done, total)
    stems = np.concatenate(blocks, axis=-1)
    found = {name: stem.reshape(mixture.shape) for name, stem in zip(names, stems, strict=True)}
    return {name: found[name] for name in choose_stems(names, every.split.stems, "this model")}


def estimate_masks(
    samples: ArrayLike,
    sample_rate: int,
    *,
    separator: Method | None = None,
    progress: Progress | None = None,
    **options: Unpack[MethodKeywords],
) -> Samples:
    """Return the masks `(stem, channel, bin, frame)` of a mixture `(channel, time)` or `(time,)`.

    Stems are in the order of `separator.spec.stems`. Masks are for the spectrum at `separator.sample_rate`
    with a Hann window of `separator.stft.n_fft` samples, every `separator.stft.hop_length` samples. Frame k
    is centered on sample k * hop_length, with zeros before and after the mixture, as in `librosa.stft` and in
    `torch.stft` with `pad_mode="constant"`; there are 1 + time // hop_length frames. Masks need a lot of
    memory: 170 MB per minute of stereo, for four stems at the default model's rate.

    With `mask="wiener"`, these are the soft masks that the Wiener filter starts from. For `progress` and
    `options`, see `split`.

    Raises:
        ValueError: the mixture is not one or two channels of finite floating point samples, or not at the
            model's sample rate.
        StemsplitError: the model does not use masks, or an error from loading the model.
    """
    refuse_both(separator, options)
    mixture = np.atleast_2d(_checked(samples))
    method = separator or load(Options.of(MethodKeywords, **options))
    if not isinstance(method, MaskSeparator):
        raise UsageError(
            "Masks are available from a single mask-based model only",
            "choose another model, without two_stems",
        )
    if sample_rate != method.sample_rate:
        raise ValueError(
            f"the model works at {method.sample_rate} Hz, got {sample_rate}: resample the mixture"
        )
    return _masks(method, mixture, progress)


def _masks(method: MaskSeparator, mixture: Samples, progress: Progress | None) -> Samples:
    """Return the masks `(stem, channel, bin, frame)` of a mixture `(channel, time)`."""
    spec, hop_length, total = method.spec, method.stft.hop_length, mixture.shape[-1]
    count = 1 + total // hop_length
    masks = np.empty((len(spec.stems), len(mixture), method.stft.bins, count), np.float32)
    padded = np.pad(mixture, [(0, 0), (0, count * hop_length - total)])

    def compute(window: Samples, keep: int) -> Iterator[Samples]:
        yield method.masks(window)[:, :, : keep // hop_length]

    done = 0
    # Masks take more memory than sound.
    segment = shared_out(replace(spec, longest=spec.segment), total, spec.workers)
    for part in side_by_side(compute, windows([padded], segment, spec.context, spec.stride), spec.workers):
        start, done = done, done + part.shape[2]
        masks[..., start:done] = part.swapaxes(2, 3)
        if progress:
            progress(min(done * hop_length, total), total)
    return masks


def _checked(samples: ArrayLike) -> Samples:
    """Return a mixture as float32, of the same shape.

    Raises:
        ValueError: it is not one or two channels of finite floating point samples below `LOUDEST`.
    """
    mixture = np.asarray(samples)
    if mixture.ndim not in (1, 2) or (mixture.ndim == 2 and len(mixture) not in (1, 2)):
        raise ValueError(
            f"mixture must be (time,) or (channel, time) with 1 or 2 channels, got shape {mixture.shape}"
        )
    if mixture.dtype.kind != "f":
        raise ValueError(
            f"mixture must be floating point, full scale at 1.0, got {mixture.dtype} (divide int16 by 32768)"
        )
    mixture = mixture.astype(np.float32)
    if not (np.abs(mixture) < LOUDEST).all():
        raise ValueError(f"mixture holds samples that are not finite, or beyond {LOUDEST:g}")
    return mixture
