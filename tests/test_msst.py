"""Checkpoints of Music-Source-Separation-Training, tiny and random, with YAML files as they are published."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stemsplit.options import RuntimeOptions
from stemsplit.separation.stream import separate_blocks
from stemsplit.zoo import install, installed, msst
from stemsplit.zoo.ref import ModelRef

pymss_core = pytest.importorskip("pymss_core")

BS_ROFORMER = """
audio:
  chunk_size: 11200
  dim_f: 1024
  dim_t: 801
  hop_length: 441
  n_fft: 2048
  num_channels: 2
  sample_rate: 44100
  min_mean_abs: 0.000

model:
  dim: 16
  depth: 2
  stereo: true
  num_stems: 1
  time_transformer_depth: 1
  freq_transformer_depth: 1
  linear_transformer_depth: 0
  freqs_per_bands: !!python/tuple
    - 2
    - 2
    - 4
    - 12
    - 24
    - 85
    - 128
  dim_head: 8
  heads: 2
  attn_dropout: 0.1
  ff_dropout: 0.1
  flash_attn: true
  dim_freqs_in: 257
  stft_n_fft: 512
  stft_hop_length: 128
  stft_win_length: 512
  stft_normalized: false
  mask_estimator_depth: 2
  multi_stft_resolution_loss_weight: 1.0
  multi_stft_resolutions_window_sizes: !!python/tuple
  - 4096
  - 2048
  multi_stft_hop_size: 147
  multi_stft_normalized: False

training:
  batch_size: 2
  gradient_accumulation_steps: 1
  grad_clip: 0
  instruments:
  - vocals
  - other
  lr: 5.0e-05
  target_instrument: vocals
  ema_momentum: 0.999
  optimizer: adam
  use_amp: true

inference:
  batch_size: 4
  dim_t: 801
  num_overlap: 2
"""
"""In the shape of the configuration of a vocal model by viperx."""

MEL_BAND_ROFORMER = """
audio:
  chunk_size: 8000
  dim_f: 1024
  dim_t: 256
  hop_length: 441
  n_fft: 2048
  num_channels: 2
  sample_rate: 44100
  min_mean_abs: 0.000

model:
  dim: 16
  depth: 1
  stereo: true
  num_stems: 2
  time_transformer_depth: 1
  freq_transformer_depth: 1
  linear_transformer_depth: 0
  num_bands: 12
  dim_head: 8
  heads: 2
  attn_dropout: 0
  ff_dropout: 0
  flash_attn: False
  dim_freqs_in: 1025
  sample_rate: 44100
  stft_n_fft: 512
  stft_hop_length: 160
  stft_win_length: 512
  stft_normalized: False
  mask_estimator_depth: 2
  multi_stft_resolution_loss_weight: 1.0
  multi_stft_resolutions_window_sizes: !!python/tuple
  - 4096
  multi_stft_hop_size: 147

training:
  instruments: ['No Reverb', 'Reverb']
  target_instrument: null
  use_amp: True

inference:
  batch_size: 1
  num_overlap: 4
  chunk_size: 8001
"""
"""In the shape of the configuration of a model that removes reverberation, as by anvuew."""

SCNET = """
audio:
  chunk_size: 9000
  num_channels: 2
  sample_rate: 44100
  min_mean_abs: 0.000

model:
  sources:
    - drums
    - bass
    - other
    - vocals
  audio_channels: 2
  dims: [4, 8, 12]
  nfft: 512
  hop_size: 128
  win_size: 512
  normalized: True
  band_SR: [0.175, 0.392, 0.433]
  band_stride: [1, 4, 16]
  band_kernel: [3, 4, 16]
  conv_depths: [3, 2, 1]
  compress: 4
  conv_kernel: 3
  num_dplayer: 2
  expand: 1

training:
  batch_size: 10
  instruments: ['drums', 'bass', 'other', 'vocals']
  target_instrument: null
  lr: 5.0e-04

inference:
  batch_size: 8
  num_overlap: 4
  normalize: true
"""
"""In the shape of ZFTurbo's configuration of SCNet for MUSDB18."""

MDX23C = """
audio:
  chunk_size: 8064
  dim_f: 256
  dim_t: 64
  hop_length: 128
  n_fft: 512
  num_channels: 2
  sample_rate: 44100
  min_mean_abs: 0.001
model:
  act: gelu
  bottleneck_factor: 4
  growth: 4
  norm: InstanceNorm
  num_blocks_per_scale: 1
  num_channels: 4
  num_scales: 3
  num_subbands: 4
  scale: [2, 2]
training:
  instruments: [Vocals, Instrumental]
  target_instrument: null
inference:
  batch_size: 1
  dim_t: 64
  num_overlap: 8
"""
"""In the shape of the configuration of MDX23C-InstVoc HQ."""

BANDIT = """
audio: {chunk_size: 12800, num_channels: 2, sample_rate: 44100}
model:
  band_specs: 'musical'
  bidirectional: true
  cond_dim: 0
  emb_dim: 8
  fs: 44100
  hidden_activation: 'Tanh'
  hidden_activation_kwargs: null
  hop_length: 128
  in_channel: 1
  n_bands: 16
  n_sqm_modules: 1
  n_fft: 512
  normalize_channel_independently: false
  rnn_dim: 8
  rnn_type: 'GRU'
  mlp_dim: 8
  stems: ['speech', 'music', 'effects']
  use_freq_weights: true
  treat_channel_as_feature: true
  win_length: 512
  window_fn: hann_window
training: {instruments: ['speech', 'music', 'effects'], target_instrument: null}
inference: {num_overlap: 1}
"""

BANDIT_2 = """
audio: {chunk_size: 12800, num_channels: 2, sample_rate: 48000}
kwargs:
  in_channels: 1
  stems: [speech, music, sfx]
  band_type: musical
  n_bands: 16
  n_sqm_modules: 1
  emb_dim: 8
  rnn_dim: 8
  rnn_type: GRU
  mlp_dim: 8
  hidden_activation_kwargs: null
  n_fft: 512
  win_length: 512
  hop_length: 128
  window_fn: hann_window
  wkwargs: null
  pad_mode: reflect
  fs: 48000
training: {instruments: [speech, music, sfx], target_instrument: null}
"""

MONO = """
audio: {chunk_size: 8192, num_channels: 1, sample_rate: 22050}
model:
  dim: 8
  depth: 1
  stereo: false
  num_stems: 1
  freqs_per_bands: [1, 64, 64]
  dim_head: 8
  heads: 1
  stft_n_fft: 256
  stft_hop_length: 64
  stft_win_length: 256
training: {instruments: [crowd], target_instrument: null}
inference: {num_overlap: 100}
"""

KINDS = {
    "bs_roformer": (BS_ROFORMER, ("vocals",), "instrumental", 0.5, 87 * 128),
    "mel_band_roformer": (MEL_BAND_ROFORMER, ("no-reverb", "reverb"), "", 0.75, 50 * 160),
    "scnet": (SCNET, ("drums", "bass", "other", "vocals"), "other", 0.75, 70 * 128),
    "mdx23c": (MDX23C, ("vocals", "instrumental"), "instrumental", 0.875, 63 * 128),
    "bandit": (BANDIT, ("speech", "music", "effects"), "", 0, 12800),
    "bandit_v2": (BANDIT_2, ("speech", "music", "sfx"), "", 0.5, 12800),
    "mono": (MONO, ("crowd",), "rest", 0.95, 8192),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The user's folder of models, empty."""
    monkeypatch.setenv(installed.FOLDER_VARIABLE, str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def made(tmp_path, folder):
    """Make the checkpoint of a random network, and its YAML file."""

    def make(text=BS_ROFORMER, wrap=lambda weights: weights, name="model"):
        config, path = tmp_path / f"{name}.yaml", tmp_path / f"{name}.ckpt"
        config.write_text(text)
        torch.manual_seed(0)
        network, _ = pymss_core.get_model_from_config("auto", config)
        torch.save(wrap(network.state_dict()), path)
        return path, config, network.eval()

    return make


CPU = RuntimeOptions(device="cpu", threads=1)


def noise(samples, channels=2):
    return np.random.default_rng(0).normal(0, 0.1, (channels, samples)).astype(np.float32)


def fitted(model, mixture):
    method = model.load(CPU)
    return method.fit([mixture], model.sample_rate) if model.fits_each_track else method


@pytest.mark.parametrize("kind", KINDS)
def test_streamed_equals_whole_file_and_stems_sum_to_the_mixture(made, kind):
    text, outputs, residual, overlap, segment = KINDS[kind]
    path, config, network = made(text)
    card = install.add(path, None, config)
    assert (card.outputs, card.residual, card.overlap, card.segment) == (outputs, residual, overlap, segment)
    model = ModelRef.parse("model")
    mixture = noise(20_000)
    separator = fitted(model, mixture)
    whole = np.concatenate(list(separate_blocks(separator, [mixture])), axis=-1)
    blocks = np.array_split(mixture, [100, 1700, 9000], axis=-1)
    streamed = np.concatenate(list(separate_blocks(separator, blocks)), axis=-1)
    assert whole.shape == (len(card.stems), 2, 20_000)
    np.testing.assert_allclose(streamed, whole, atol=1e-5)
    np.testing.assert_allclose(whole.sum(axis=0), mixture, atol=1e-5)
    assert np.abs(whole).max(axis=(1, 2)).min() > 1e-4


@pytest.mark.parametrize("kind", ["bs_roformer", "mel_band_roformer", "scnet", "mdx23c", "bandit"])
def test_a_segment_is_what_the_package_gives(made, kind):
    text, outputs, _, _, segment = KINDS[kind]
    path, config, network = made(text)
    card = install.add(path, None, config)
    ours, execution = msst.load(card, installed.weights(card), CPU)
    assert execution.how == "torch on cpu in float32"
    mixture = noise(segment)
    batch = torch.from_numpy(mixture)[:, None] if kind == "bandit" else torch.from_numpy(mixture)[None]
    with torch.no_grad():
        theirs = network(batch).numpy()
    theirs = theirs[:, :, 0].swapaxes(0, 1) if kind == "bandit" else theirs.reshape(len(outputs), 2, -1)
    np.testing.assert_allclose(ours(mixture), theirs, atol=1e-5)
