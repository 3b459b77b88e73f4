"""The registry of networks, by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from stemsplit.dsp.input_features import InputFeatures
from stemsplit.errors import BadWeights
from stemsplit.networks.info import Context, NetworkInfo, OutputKind

_PAPERS = {
    "binary-mask-cnn": NetworkInfo(
        "binary_mask_cnn",
        "BinaryMaskCNN",
        "Binary-mask CNN: one small network per stem (after O. Tkachuk)",
        context=Context(12, padding="valid"),
        output=OutputKind.LOGITS,
        bins=513,
        joint=False,
        frame_strides=(1, 3),
        batch=64,
        gpu_batch=4096,
    ),
    "sub-band-unet": NetworkInfo(
        "sub_band_unet",
        "SubBandUNet",
        "Sub-band U-Net: one small stereo network for all stems",
        context=Context(147, stride=8),
        output=OutputKind.SCORES,
        input=InputFeatures.MID_SIDE,
        bins=2048,
        n_fft=4096,
        hop_length=1024,
        batch=512,
    ),
    "mdensenet": NetworkInfo(
        "mdensenet",
        "MDenseNet",
        "MDenseNet: dense blocks at four resolutions (Takahashi, Mitsufuji 2017)",
        context=Context(98, stride=8),
        output=OutputKind.RATIO,
        input=InputFeatures.STEREO,
        bins=1024,
        joint=False,
    ),
    "mmdensenet": NetworkInfo(
        "mmdensenet",
        "MMDenseNet",
        "MMDenseNet: dense blocks for the full band and each half band (Takahashi, Mitsufuji 2017)",
        context=Context(98, stride=8),
        output=OutputKind.RATIO,
        input=InputFeatures.STEREO,
        bins=1024,
        joint=False,
    ),
    "deep-conv-sep": NetworkInfo(
        "deep_conv_sep",
        "DeepConvSep",
        "DeepConvSep: a convolutional autoencoder over a third of a second (Chandna et al. 2017)",
        context=Context(29, stride=15),
        output=OutputKind.RATIO,
        bins=513,
        batch=255,
    ),
    "fnn": NetworkInfo(
        "fnn",
        "FNN",
        "FNN: fully connected layers over context frames (Uhlich et al. 2015)",
        context=Context(12),
        output=OutputKind.RATIO,
        bins=513,
        joint=False,
    ),
    "blstm": NetworkInfo(
        "blstm",
        "BLSTM",
        "BLSTM: three bidirectional recurrent layers (Uhlich et al. 2017)",
        context=Context(96),
        output=OutputKind.RATIO,
        input=InputFeatures.STEREO,
        bins=1025,
        joint=False,
    ),
    "blend": NetworkInfo(
        "blend",
        "Blend",
        "BLEND: a weighted sum of an FNN and a BLSTM (Uhlich et al. 2017)",
        context=Context(96),
        output=OutputKind.RATIO,
        input=InputFeatures.STEREO,
        bins=1025,
        joint=False,
    ),
    "nug": NetworkInfo(
        "nug",
        "NUG",
        "NUG: spectra of all sources for multichannel EM (Nugraha et al. 2016)",
        context=Context(8),
        output=OutputKind.RATIO,
        bins=1025,
    ),
    "deep-nmf": NetworkInfo(
        "deep_nmf",
        "DeepNMF",
        "DeepNMF: unfolded iterations of matrix factorization (Le Roux et al. 2015)",
        context=Context(8),
        output=OutputKind.RATIO,
        bins=1025,
    ),
    "band-transformer": NetworkInfo(
        "band_transformer",
        "BandTransformer",
        "Band-split Transformer: attention across bands and over time (after Lu et al. 2024)",
        context=Context(86, stride=2),
        output=OutputKind.SCORES,
        input=InputFeatures.MID_SIDE,
        bins=2048,
        n_fft=4096,
        hop_length=1024,
        prepares=True,
        batch=256,
        part=128,
    ),
    "wave-u-net": NetworkInfo(
        "wave_unet",
        "WaveUNet",
        "Wave-U-Net: a U-Net on waveforms (Stoller et al. 2018)",
        context=Context(65_536, stride=4096, padding="valid"),
        output=OutputKind.WAVEFORM,
        sample_rate=22_050,
        batch=1 << 18,
    ),
    "wavenet": NetworkInfo(
        "wavenet",
        "Wavenet",
        "Wavenet: stacks of dilated convolutions on waveforms (Lluis, Pons, Serra 2019)",
        context=Context(4095, padding="valid"),
        output=OutputKind.WAVEFORM,
        channels=1,
        sample_rate=16_000,
        batch=1 << 16,
    ),
}


_VARIANTS: dict[str, dict[str, Any]] = {
    "mdensenet-small": {"context": Context(78, stride=8)},
    "mmdensenet-joint": {},
    "mmdensenet-small": {"context": Context(90, stride=8)},
    "fnn-small": {"bins": 744},
    "blstm-small": {"input": InputFeatures.RMS, "bins": 744},
    "blend-small": {"input": InputFeatures.RMS, "bins": 744},
    "nug-small": {},
    "deep-nmf-small": {"context": Context(3)},
    "band-transformer-full": {"context": Context(83)},
    "wave-u-net-small": {"context": Context(16_384, stride=1024, padding="valid")},
    "wavenet-small": {"context": Context(2049, padding="valid")},
}
"""Further configurations, each one network for all stems, as differences from the paper's."""


def _variant(name: str, changes: dict[str, Any]) -> NetworkInfo:
    base, kind = name.rsplit("-", 1)
    paper = _PAPERS[base]
    title = paper.title.replace(":", f", {kind}:", 1)
    return replace(paper, config=kind.upper(), title=title, joint=True, **changes)


REGISTRY = _PAPERS | {name: _variant(name, changes) for name, changes in _VARIANTS.items()}


def find(network: str) -> NetworkInfo:
    """Return the registry entry of a network.

    Raises:
        BadWeights: no network has this name.
    """
    if network not in REGISTRY:
        raise BadWeights(
            f"No network called `{network}` in this version",
            "`stemsplit models --networks` lists the networks",
        )
    return REGISTRY[network]
