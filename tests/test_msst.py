"""Checkpoints of Music-Source-Separation-Training, tiny and random, with YAML files as they are published."""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch
from typer.testing import CliRunner

from stemsplit.cli import app
from stemsplit.errors import BadWeights, DeviceUnavailable, EncodeError, UsageError
from stemsplit.options import RuntimeOptions
from stemsplit.runtime.segments import TorchSegments
from stemsplit.separation.stream import separate_blocks
from stemsplit.zoo import install, installed, msst, pymss, tensors
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
inference: {num_overlap: 1}
"""

KINDS = {
    "bs_roformer": (BS_ROFORMER, ("vocals",), "instrumental", 0.5, 87 * 128),
    "mel_band_roformer": (MEL_BAND_ROFORMER, ("no-reverb", "reverb"), "", 0.75, 50 * 160),
    "scnet": (SCNET, ("drums", "bass", "other", "vocals"), "", 0.75, 70 * 128),
    "mdx23c": (MDX23C, ("vocals", "instrumental"), "", 0.875, 63 * 128),
    "bandit": (BANDIT, ("speech", "music", "effects"), "", 0, 12800),
    "bandit_v2": (BANDIT_2, ("speech", "music", "sfx"), "", 0.5, 12800),
    "mono": (MONO, ("crowd",), "rest", 0, 8192),
}


_networks: dict[str, torch.nn.Module] = {}


def random_network(config, text):
    if text not in _networks:
        torch.manual_seed(0)
        _networks[text] = pymss_core.get_model_from_config("auto", config)[0].eval()
    return _networks[text]


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
        network = random_network(config, text)
        torch.save(wrap(network.state_dict()), path)
        return path, config, network

    return make


CPU = RuntimeOptions(device="cpu", threads=1)


def noise(samples, channels=2):
    return np.random.default_rng(0).normal(0, 0.1, (channels, samples)).astype(np.float32)


def fitted(model, mixture):
    method = model.load(CPU)
    return method.fit([mixture], model.sample_rate) if model.fits_each_track else method


SLOW = [pytest.param(kind, marks=pytest.mark.slow) if "bandit" in kind else kind for kind in KINDS]
"""All kinds; those that import the compiler of torch take seconds to do so."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", SLOW)
def test_streamed_equals_whole_file_and_stems_sum_to_the_mixture(made, kind):
    text, outputs, residual, overlap, segment = KINDS[kind]
    path, config, network = made(text)
    card = install.add(path, None, config)
    assert (card.outputs, card.residual, card.overlap, card.segment) == (outputs, residual, overlap, segment)
    model = ModelRef.parse("model")
    mixture = noise(segment + segment // 2)
    separator = fitted(model, mixture)
    whole = np.concatenate(list(separate_blocks(separator, [mixture])), axis=-1)
    blocks = np.array_split(mixture, [100, 1700, 5000], axis=-1)
    streamed = np.concatenate(list(separate_blocks(separator, blocks)), axis=-1)
    assert whole.shape == (len(card.stems), *mixture.shape)
    np.testing.assert_allclose(streamed, whole, atol=1e-5)
    np.testing.assert_allclose(whole.sum(axis=0), mixture, atol=1e-5)
    assert np.abs(whole).max(axis=(1, 2)).min() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("kind", SLOW[:5])
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


def test_more_overlap_than_there_can_be_is_reduced(made):
    _, config, _ = made(BS_ROFORMER.replace("num_overlap: 2", "num_overlap: 100"))
    assert msst.describe(msst.read_yaml(config))["overlap"] == 0.95


def refused(path, config, kind=BadWeights):
    """Return what is said of a model that cannot be added, of which nothing is left."""
    with pytest.raises(kind) as caught:
        install.add(path, "model", config)
    assert "\n" not in caught.value.message
    assert not installed.folder().exists()
    return caught.value.message


class Evil:
    """Runs a program when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_not_run(made, tmp_path, zipped):
    path, config, network = made()
    trap = tmp_path / "trap"
    content = {"state_dict": network.state_dict(), "hyper_parameters": Evil(trap)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    said = refused(path, config)
    assert "io.open" in said or "_io.open" in said
    assert not trap.exists()
    path.write_bytes(pickle.dumps(Evil(trap)))
    refused(path, config)
    assert not trap.exists()


def test_a_truncated_or_foreign_checkpoint_is_refused(made, tmp_path):
    path, config, _ = made()
    whole = path.read_bytes()
    for content in (
        whole[: len(whole) // 2],
        whole[:100],
        b"",
        b"RIFF",
        bytes(1000),
        b"\x80\x02" + bytes(50),
    ):
        path.write_bytes(content)
        assert "damaged" in refused(path, config)
    safe = path.rename(tmp_path / "model.safetensors")
    safe.write_bytes(whole)
    assert "safetensors" in refused(safe, config)


def test_a_checkpoint_without_weights_is_refused(made):
    path, config, _ = made()
    for content in ({}, [torch.ones(3)], {"epoch": 3}, {"w": torch.ones(3).to_sparse()}, torch.ones(3)):
        torch.save(content, path)
        assert "does not contain the weights" in refused(path, config)


def test_a_checkpoint_that_grows_is_refused(made):
    path, config, _ = made()
    torch.save({"w": torch.ones(1).expand(1 << 40)}, path)
    assert "more than its size" in refused(path, config)


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: {"state_dict": weights, "epoch": 3},
        lambda weights: {"model_state_dict": weights},
        lambda weights: OrderedDict((f"module.{name}", each) for name, each in weights.items()),
        lambda weights: {"state": {name: each.half() for name, each in weights.items()}},
    ],
)
def test_the_usual_containers_are_opened(made, wrap):
    path, config, network = made(wrap=wrap)
    card = install.add(path, None, config)
    stored = tensors.stored(installed.weights(card))
    assert stored.keys() == network.state_dict().keys()
    msst.load(card, installed.weights(card), CPU)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("num_stems: 1", "num_stems: !!python/object/apply:os.system ['true']", "python/object/apply"),
        ("num_stems: 1", "num_stems: !!python/name:os.system", "python/name"),
        ("num_stems: 1", "num_stems: {a: &a [*a]}", "too many|too deep"),
        ("num_stems: 1", "num_stems: " + "[" * 600, "deep|valid"),
        ("audio:", f"a: &a [{'x,' * 99}]\nb: &b [{'*a,' * 99}]\nc: [{'*b,' * 99}]\naudio:", "too many"),
        ("audio:", f"# {'x' * 70_000}\naudio:", "too long"),
        ("audio:", "audio: [", "valid"),
        ("audio:", "- audio", "sections|valid"),
        ("chunk_size: 11200", "chunk_size: 999999999", "segment"),
        ("chunk_size: 11200", "chunk_size: null", "chunk_size"),
        ("chunk_size: 11200", "chunk_size: -5", "chunk_size"),
        ("num_overlap: 2", "num_overlap: none", "num_overlap"),
        ("sample_rate: 44100", "sample_rate: 44.1", "sample_rate"),
        ("- vocals\n  - other", "  vocals", "instruments"),
        ("dim: 16", "dim: 1000000000", "out of range"),
        ("dim: 16", "dim: 30000", "more weights than the checkpoint"),
        ("depth: 2", "depth: 30000", "more weights than the checkpoint"),
        ("depth: 2", "depth: .nan", "out of range"),
        ("depth: 2", "depth: two", "no network"),
        ("heads: 2", "heads: 30000", "out of range"),
        ("depth: 2", "depth: 1", "of its tensors differ"),
        ("dim_head: 8", "dim_head: 4", "of its tensors differ"),
        ("depth: 2", "colour: red", "no network"),
        ("stft_hop_length: 128", "stft_hop_length: 0", "hop_length"),
        ("    - 128\n", "    - 127\n", "no network"),
        ("freqs_per_bands", "bands", "what type"),
        ("  depth: 2", "  depth: 2\n  type: vr", "type vr"),
        ("  depth: 2", "  depth: 2\n  type: mdx23c", "no network"),
    ],
)
def test_a_yaml_file_that_cannot_be_right_is_refused(made, old, new, said):
    path, config, _ = made()
    assert old in BS_ROFORMER
    config.write_text(BS_ROFORMER.replace(old, new, 1))

    assert re.search(said, refused(path, config))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("window_fn: hann_window", "window_fn: load"),
        ("window_fn: hann_window", "window_fn: hann_window\n  wkwargs: {periodic: false}"),
        ("rnn_type: 'GRU'", "rnn_type: '__builtins__'"),
        ("hidden_activation: 'Tanh'", "hidden_activation: 'warnings'"),
    ],
)
def test_a_yaml_file_names_no_other_function_of_torch(made, old, new):
    path, config, _ = made(BANDIT)
    assert old in BANDIT
    config.write_text(BANDIT.replace(old, new, 1))
    assert "not supported" in refused(path, config)


def test_a_yaml_file_that_is_not_text_is_refused(made):
    path, config, _ = made()
    config.write_bytes(b"\xff\xfe\x00")
    refused(path, config)


def test_what_the_network_cannot_run_is_refused(made):
    path, config, _ = made(MDX23C.replace("chunk_size: 8064", "chunk_size: 8000"))
    assert "does not run on a segment of 7936 samples" in refused(path, config)


def test_a_checkpoint_needs_its_yaml_file_and_the_package(made, monkeypatch):
    path, config, _ = made()
    assert "does not describe itself" in refused(path, None)
    monkeypatch.setattr(msst, "find_spec", lambda name: None)
    assert "missing" in refused(path, config, DeviceUnavailable)


@pytest.mark.parametrize(
    ("named", "target", "outputs", "residual"),
    [
        (["vocals", "other"], "vocals", ("vocals",), "instrumental"),
        (["Vocals", "Instrumental"], "Instrumental", ("instrumental",), "vocals"),
        (["No Reverb", "Reverb"], "No Reverb", ("no-reverb",), "reverb"),
        (["drums", "bass", "other"], "bass", ("bass",), "rest"),
        (["guitar"], None, ("guitar",), "rest"),
        (["vocals", "bass", "other"], None, ("vocals", "bass", "other"), ""),
        (["vocals", "instrumental"], None, ("vocals", "instrumental"), ""),
        (["male", "female"], None, ("male", "female"), ""),
    ],
)
def test_the_residual_gets_a_name(named, target, outputs, residual):
    assert msst._stems({"instruments": named, "target_instrument": target}, {}) == (outputs, residual)


@pytest.mark.slow
def test_the_command_line_adds_splits_and_removes(made, tmp_path):
    path, config, _ = made()
    run = CliRunner()
    added = run.invoke(app, ["models", "add", str(path), "--config", str(config), "--name", "kim"])
    assert added.exit_code == 0, added.output
    assert "BS-RoFormer" in run.invoke(app, ["models", "kim"]).output
    song = tmp_path / "song.wav"
    soundfile.write(song, noise(30_000).T, 44_100, subtype="FLOAT")
    split = run.invoke(app, [str(song), "-m", "kim", "-o", str(tmp_path / "out"), "--threads", "1"])
    assert split.exit_code == 0, split.output
    assert {each.stem for each in (tmp_path / "out").rglob("*.wav")} == {"vocals", "instrumental"}
    assert run.invoke(app, ["models", "remove", "kim"]).exit_code == 0
    assert not list(installed.folder().glob("*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "options", "error"),
    [
        (BS_ROFORMER, {"runtime": "openvino"}, DeviceUnavailable),
        (BS_ROFORMER, {"precision": "float16"}, DeviceUnavailable),
        (SCNET, {"precision": "bfloat16"}, DeviceUnavailable),
        (BS_ROFORMER, {"fast": True}, UsageError),
    ],
)
def test_what_cannot_run_as_asked_is_refused(made, text, options, error):
    path, config, _ = made(text)
    install.add(path, None, config)
    with pytest.raises(error):
        ModelRef.parse("model").load(RuntimeOptions(device="cpu", **options))


@pytest.mark.slow
def test_half_precision_as_on_a_gpu_is_close(made):
    for text in (BS_ROFORMER, MEL_BAND_ROFORMER, MDX23C):
        path, config, _ = made(text)
        card = msst.describe(msst.read_yaml(config))
        network = pymss.build(card["network"], tensors.read(path))
        mixture = noise(card["segment"])
        exact, half = (
            TorchSegments(network, replace(CPU, precision=precision), half=True)(mixture)
            for precision in ("float32", "bfloat16")
        )
        assert 0 < np.linalg.norm(half - exact) < 0.05 * np.linalg.norm(exact)


@pytest.mark.slow
def test_two_segments_at_a_time_give_the_same_stems(made):
    path, config, _ = made(MEL_BAND_ROFORMER)
    install.add(path, None, config)
    mixture = noise(20_000)
    one, two = (
        np.concatenate(list(separate_blocks(model.load(replace(CPU, threads=threads)), [mixture])), axis=-1)
        for model, threads in ((ModelRef.parse("model"), 1), (ModelRef.parse("model"), 2))
    )
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_a_full_disk_leaves_nothing(made, monkeypatch):
    def full(_tensors, path):
        path.write_bytes(b"half")
        raise safetensors.SafetensorError("No space left on device")

    path, config, _ = made()
    monkeypatch.setattr(safetensors.torch, "save_file", full)
    assert "disk is full" in refused(path, config, EncodeError)
