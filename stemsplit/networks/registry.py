"""Networks by name: one paper, one file.

A network is a `torch.nn.Module` made for a number of stems, `Name(stems, config)`. What it hears and gives:

- A mask network maps log magnitudes `(example, view, frame, bin)` to outputs `(example, stem, channel, frame,
  bin)`, and its method `masks` turns these into numbers from 0 to 1: the stem's magnitude in the mixture's,
  by the network's word. `channel` is one where it hears both channels as one, else two.
- A waveform network maps a mixture `(example, channel, time)` to stems `(example, stem, channel, time)`.

There may be fewer frames or samples in the output than in the input, by as many at either end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from stemsplit.dsp.input_features import InputFeatures
from stemsplit.errors import BadWeights

WHOLE = "network"
"""What the tensors of a network are filed under that gives all stems."""


@dataclass(frozen=True)
class NetworkInfo:
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


_PAPERS = {
    "binary-mask-cnn": NetworkInfo(
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
    "sub-band-unet": NetworkInfo(
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
    "mdensenet": NetworkInfo(
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
    "mmdensenet": NetworkInfo(
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
    "deep-conv-sep": NetworkInfo(
        "deep_conv_sep",
        "DeepConvSep",
        "DeepConvSep: an autoencoder of a third of a second (Chandna et al. 2017)",
        reach=29,
        grid=15,
        bins=513,
        gives_ratios=True,
        batch=255,
    ),
    "fnn": NetworkInfo(
        "fnn",
        "FNN",
        "FNN: fully connected layers over context frames (Uhlich et al. 2015)",
        reach=12,
        bins=513,
        joint=False,
        gives_ratios=True,
    ),
    "blstm": NetworkInfo(
        "blstm",
        "BLSTM",
        "BLSTM: three recurrent layers in both directions (Uhlich et al. 2017)",
        reach=96,
        views=InputFeatures.STEREO,
        bins=1025,
        joint=False,
        gives_ratios=True,
    ),
    "blend": NetworkInfo(
        "blend",
        "Blend",
        "BLEND: a weighted sum of an FNN and a BLSTM (Uhlich et al. 2017)",
        reach=96,
        views=InputFeatures.STEREO,
        bins=1025,
        joint=False,
        gives_ratios=True,
    ),
    "nug": NetworkInfo(
        "nug",
        "NUG",
        "NUG: all sources' spectra for multichannel EM (Nugraha et al. 2016)",
        reach=8,
        bins=1025,
        gives_ratios=True,
    ),
    "deep-nmf": NetworkInfo(
        "deep_nmf",
        "DeepNMF",
        "DeepNMF: unfolded iterations of matrix factorization (Le Roux et al. 2015)",
        reach=8,
        bins=1025,
        gives_ratios=True,
    ),
    "band-transformer": NetworkInfo(
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
    "wave-u-net": NetworkInfo(
        "wave_unet",
        "WaveUNet",
        "Wave-U-Net: a U-Net over samples (Stoller et al. 2018)",
        reach=65_536,
        grid=4096,
        valid=True,
        sample_rate=22_050,
        batch=1 << 18,
    ),
    "wavenet": NetworkInfo(
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


_VARIANTS: dict[str, dict[str, Any]] = {
    "mdensenet-small": {"reach": 78},
    "mmdensenet-joint": {},
    "mmdensenet-small": {"reach": 90},
    "fnn-small": {"bins": 744},
    "blstm-small": {"views": InputFeatures.RMS, "bins": 744},
    "blend-small": {"views": InputFeatures.RMS, "bins": 744},
    "nug-small": {},
    "deep-nmf-small": {"reach": 3},
    "wave-u-net-small": {"reach": 16_384, "grid": 1024},
    "wavenet-small": {"reach": 2049},
}
"""Other configurations, of one network for all stems: what differs from the paper's."""


def _variant(name: str, changes: dict[str, Any]) -> NetworkInfo:
    base, kind = name.rsplit("-", 1)
    paper = _PAPERS[base]
    title = paper.title.replace(":", f", {kind}:", 1)
    return replace(paper, config=kind.upper(), title=title, joint=True, **changes)


REGISTRY = _PAPERS | {name: _variant(name, changes) for name, changes in _VARIANTS.items()}


def find(network: str) -> NetworkInfo:
    """Return what is known of a network.

    Raises:
        BadWeights: no network has this name.
    """
    if network not in REGISTRY:
        raise BadWeights(
            f"There is no network called `{network}` in this version", "see `stemsplit models --networks`"
        )
    return REGISTRY[network]
