"""Networks by name: one paper, one file.

A network is a `torch.nn.Module` made for a number of stems, `Name(stems, config)`. What it hears and gives:

- A mask network maps log magnitudes `(example, view, frame, bin)` to outputs `(example, stem, channel, frame,
  bin)`, and its method `masks` turns these into numbers from 0 to 1: the stem's magnitude in the mixture's,
  by the network's word. `channel` is one where it hears both channels as one, else two.
- A waveform network maps a mixture `(example, channel, time)` to stems `(example, stem, channel, time)`.

There may be fewer frames or samples in the output than in the input, by as many at either end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemsplit.dsp.input_features import InputFeatures
from stemsplit.errors import BadWeights

if TYPE_CHECKING:
    from torch import Tensor

WHOLE = "network"
"""What the tensors of a network are filed under that gives all stems."""


@dataclass(frozen=True)
class Entry:
    """What can be known of a network without importing torch."""

    module: str
    name: str
    title: str
    """One line, for cards and lists."""
    reach: int
    """Frames, of waveform networks samples, that it hears on either side of what it answers for."""
    config: str = ""
    """The module's constant that it is made with, where that is not the paper's configuration."""
    views: InputFeatures = InputFeatures.RMS
    """The input of a mask network."""
    bins: int = 0
    """The lowest bins, which it hears and masks. None: a waveform network."""
    channels: int = 2
    """That a waveform network hears at once; with one, each by itself."""
    grid: int = 1
    """Frames or samples that an input must begin at a multiple of, for equal answers."""
    joint: bool = True
    """Whether one network gives all stems, and not one each."""
    valid: bool = False
    """Whether it answers only for what it hears all around of, and not for `reach` at either end."""
    gives_logits: bool = False
    """Whether its outputs are the logits of its masks."""
    gives_ratios: bool = False
    """Whether its outputs are its masks, before these are bounded by one."""
    prepares: bool = False
    """Whether its methods `prepare`, which needs float32, and `scores` together do what it does."""
    steps: tuple[int, ...] = (1,)
    """How many frames apart the masked frames may be."""
    sample_rate: int = 44_100
    n_fft: int = 2048
    hop_length: int = 512
    batch: int = 256
    """Frames or samples to answer for at a time on a processor: so many are fastest."""
    gpu_batch: int = 0
    """The same on a graphics card; 0: four times as many."""

    @property
    def hears_waves(self) -> bool:
        """Whether it is a waveform network."""
        return self.bins == 0

    @property
    def margin(self) -> int:
        """Frames or samples at either end of an input that it does not answer for."""
        return self.reach if self.valid else 0

    @property
    def shape(self) -> tuple[int, ...]:
        """How many views or channels it hears, and how many bins where there are bins."""
        return (self.channels,) if self.hears_waves else (self.views.views, self.bins)

    def parts(self, stems: Sequence[str]) -> tuple[str, ...]:
        """Return what each of its networks is filed under, for so many stems."""
        return (WHOLE,) if self.joint else tuple(stems)


REGISTRY = {
    "binary-mask-cnn": Entry(
        "binary_mask_cnn",
        "BinaryMaskCNN",
        "Binary-mask CNN: one small network a stem, after O. Tkachuk",
        reach=12,
        bins=513,
        joint=False,
        valid=True,
        gives_logits=True,
        steps=(1, 3),
        batch=64,
        gpu_batch=4096,
    ),
    "sub-band-unet": Entry(
        "sub_band_unet",
        "SubBandUNet",
        "Sub-band U-Net: one small network for all stems, in stereo",
        reach=147,
        grid=8,
        views=InputFeatures.MID_SIDE,
        bins=2048,
        n_fft=4096,
        hop_length=1024,
        batch=512,
    ),
    "mdensenet": Entry(
        "mdensenet",
        "MDenseNet",
        "MDenseNet: dense blocks at four resolutions (Takahashi, Mitsufuji 2017)",
        reach=98,
        grid=8,
        views=InputFeatures.STEREO,
        bins=1024,
        joint=False,
        gives_ratios=True,
    ),
    "mmdensenet": Entry(
        "mmdensenet",
        "MMDenseNet",
        "MMDenseNet: dense blocks of all bands and of each half (Takahashi, Mitsufuji 2017)",
        reach=98,
        grid=8,
        views=InputFeatures.STEREO,
        bins=1024,
        joint=False,
        gives_ratios=True,
    ),
    "deep-conv-sep": Entry(
        "deep_conv_sep",
        "DeepConvSep",
        "DeepConvSep: an autoencoder of a third of a second (Chandna et al. 2017)",
        reach=29,
        grid=15,
        bins=513,
        gives_ratios=True,
        batch=255,
    ),
    "fnn": Entry(
        "fnn",
        "FNN",
        "FNN: fully connected layers over context frames (Uhlich et al. 2015)",
        reach=12,
        bins=513,
        joint=False,
        gives_ratios=True,
    ),
    "blstm": Entry(
        "blstm",
        "BLSTM",
        "BLSTM: three recurrent layers in both directions (Uhlich et al. 2017)",
        reach=96,
        views=InputFeatures.STEREO,
        bins=1025,
        joint=False,
        gives_ratios=True,
    ),
    "blend": Entry(
        "blend",
        "Blend",
        "BLEND: a weighted sum of an FNN and a BLSTM (Uhlich et al. 2017)",
        reach=96,
        views=InputFeatures.STEREO,
        bins=1025,
        joint=False,
        gives_ratios=True,
    ),
    "nug": Entry(
        "nug",
        "NUG",
        "NUG: all sources' spectra for multichannel EM (Nugraha et al. 2016)",
        reach=8,
        bins=1025,
        gives_ratios=True,
    ),
    "deep-nmf": Entry(
        "deep_nmf",
        "DeepNMF",
        "DeepNMF: unfolded iterations of matrix factorization (Le Roux et al. 2015)",
        reach=8,
        bins=1025,
        gives_ratios=True,
    ),
    "band-transformer": Entry(
        "band_transformer",
        "BandTransformer",
        "Band-split Transformer: bands that attend to each other, and in time (after Lu et al. 2024)",
        reach=83,
        views=InputFeatures.MID_SIDE,
        bins=2048,
        n_fft=4096,
        hop_length=1024,
        prepares=True,
        batch=256,
    ),
    "wave-u-net": Entry(
        "wave_unet",
        "WaveUNet",
        "Wave-U-Net: a U-Net over samples (Stoller et al. 2018)",
        reach=65_536,
        grid=4096,
        valid=True,
        sample_rate=22_050,
        batch=1 << 18,
    ),
    "wavenet": Entry(
        "wavenet",
        "Wavenet",
        "Wavenet: stacks of dilated convolutions over samples (Lluis, Pons, Serra 2019)",
        reach=4095,
        channels=1,
        valid=True,
        sample_rate=16_000,
        batch=1 << 16,
    ),
}


def _also(name: str, kind: str, **changes: Any) -> None:
    """File another configuration, of one network for all stems, under a name of its own."""
    entry = REGISTRY[name]
    title = entry.title.replace(":", f", {kind}:", 1)
    REGISTRY[f"{name}-{kind}"] = replace(entry, config=kind.upper(), title=title, joint=True, **changes)


_also("mdensenet", "small", reach=78)
_also("mmdensenet", "joint")
_also("mmdensenet", "small", reach=90)
_also("fnn", "small", bins=744)
_also("blstm", "small", views=InputFeatures.RMS, bins=744)
_also("blend", "small", views=InputFeatures.RMS, bins=744)
_also("nug", "small")
_also("deep-nmf", "small", reach=3)
_also("wave-u-net", "small", reach=16_384, grid=1024)
_also("wavenet", "small", reach=2049)


def find(network: str) -> Entry:
    """Return what is known of a network.

    Raises:
        BadWeights: no network has this name.
    """
    if network not in REGISTRY:
        raise BadWeights(
            f"There is no network called `{network}` in this version", "see `stemsplit models --networks`"
        )
    return REGISTRY[network]


def source(network: str) -> bytes:
    """Return the program text of a network, and of those that it may be made of."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return REGISTRY[network].config.encode() + b"".join(file.read_bytes() for file in files)


def make(network: str, stems: int, **changes: Any) -> Any:
    """Return a network with random weights; `changes` are to its configuration.

    Raises:
        TypeError: it can not be configured so.
    """
    entry = find(network)
    module = import_module(f".{entry.module}", __package__)
    config = getattr(module, entry.config) if entry.config else module.Config()
    return getattr(module, entry.name)(stems, replace(config, **changes))


def build(network: str, tensors: Mapping[str, Mapping[str, Tensor]], stems: int = 1) -> list[Any]:
    """Return one network for each part of a model, with its weights; `stems` are those of each.

    Raises:
        BadWeights: no network has this name, or its layers are of another shape.
    """
    entry = find(network)
    networks = []
    for part, state in tensors.items():
        built = make(network, stems)
        try:
            built.load_state_dict(state)
        except RuntimeError as error:
            raise BadWeights(f"The weights of `{part}` do not fit {network}", "get the file again") from error
        _check_numbers(built.eval(), entry, part)
        networks.append(built)
    return networks


def _check_numbers(network: Any, entry: Entry, part: str) -> None:
    """Refuse weights that divide by zero, or grow beyond what a float holds, at silence or at great noise."""
    import torch

    length = math.ceil((2 * entry.reach + 1) / entry.grid) * entry.grid
    heard, *bins = entry.shape
    extremes = torch.tensor([0.0, 1e4] if entry.hears_waves else [-12.0, 35.0])
    extremes = extremes.reshape(2, *[1] * (2 + len(bins))).expand(2, heard, length, *bins)
    with torch.inference_mode():
        if not torch.isfinite(network(extremes)).all():
            raise BadWeights(f"The weights of `{part}` do not end in numbers", "get the file again")
