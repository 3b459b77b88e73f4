"""Separators in ONNX files: what is recognized, what is described, and what the stems are."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from stemsplit import split
from stemsplit.dsp.framing import Framing
from stemsplit.errors import BadWeights, DeviceUnavailable
from stemsplit.options import RuntimeOptions
from stemsplit.runtime import graph
from stemsplit.zoo import install, installed

SAMPLE_RATE = 44_100


@pytest.fixture(autouse=True)
def models_folder(tmp_path, monkeypatch):
    folder = tmp_path / "models"
    monkeypatch.setenv(installed.FOLDER_VARIABLE, str(folder))
    return folder


def save(path, inputs, outputs, nodes, constants=None):
    """Write an ONNX file; inputs and outputs are name to shape, constants name to array."""
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in each.items()]
        for each in (inputs, outputs)
    ]
    tensors = [
        helper.make_tensor(name, TensorProto.FLOAT, np.shape(value), np.ravel(value))
        for name, value in (constants or {}).items()
    ]
    body = helper.make_graph([helper.make_node(*node) for node in nodes], "g", *ends, tensors)
    onnx.save(helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def described(path, **facts):
    path.write_text(json.dumps(facts))
    return path


def noise(samples):
    return 0.1 * np.random.default_rng(1).standard_normal((2, samples)).astype(np.float32)


def mdx_net(path, bins, frames, batch=1):
    shape = [batch, 4, bins, frames]
    node = ("Mul", ["input", "half"], ["output"])
    return save(path, {"input": shape}, {"output": shape}, [node], {"half": 0.5})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "bins", "n_fft", "stem", "rest", "gain"),
    [
        ("UVR-MDX-NET-Voc_FT", 3072, 7680, "vocals", "instrumental", 1.021),
        ("UVR-MDX-NET-Inst_HQ_4", 2560, 5120, "instrumental", "vocals", 1.019),
    ],
)
def test_published_mdx_nets_are_known_by_name_and_shape(tmp_path, name, bins, n_fft, stem, rest, gain):
    card = install.add(mdx_net(tmp_path / f"{name}.onnx", bins, 16, batch="batch"), "mine")
    assert set(card.stems) == {stem, rest}
    assert (card.residual, card.segment) == (rest, 15 * 1024)
    mixture = noise(15 * 1024)
    stems = split(mixture, SAMPLE_RATE, model="mine", overlap=0.0)
    spectrum = torch.stft(
        torch.from_numpy(mixture), n_fft, 1024, window=torch.hann_window(n_fft), return_complex=True
    )
    spectrum[:, bins:] = 0  # what the network has no bins for
    expected = torch.istft(
        0.5 * gain * spectrum, n_fft, 1024, window=torch.hann_window(n_fft), length=mixture.shape[1]
    )
    np.testing.assert_allclose(stems[stem], expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(stems[stem] + stems[rest], mixture, atol=1e-6)


def test_an_mdx_net_of_another_name_needs_its_stem(tmp_path):
    path = mdx_net(tmp_path / "mine.onnx", 2048, 16)
    with pytest.raises(BadWeights, match="outputs") as failed:
        install.add(path)
    assert "--config" in failed.value.hint
    facts = {"outputs": ["drums"], "network": {"framing": {"n_fft": 8192}}}
    card = install.add(path, config=described(tmp_path / "mine.json", **facts))
    assert card.stems == ("drums", "rest")
    assert card.network["framing"] == {"hop_length": 1024, "bins": 2048, "n_fft": 8192}


def test_waveforms_and_spectra_are_summed_as_in_hybrid_demucs(tmp_path):
    """Two stems: each a fraction of the spectrum and another of the samples."""
    length, bins, frames = 8192, 512, 32
    shares = np.array([0.3, 0.2])
    path = save(
        tmp_path / "hybrid.onnx",
        {"x": [1, 2, length], "z": [1, 4, bins, frames]},
        {"zs": [1, 2, 4, bins, frames], "xs": [1, 2, 2, length]},
        [
            ("Unsqueeze", ["z", "axis"], ["z1"]),
            ("Mul", ["z1", "a"], ["zs"]),
            ("Unsqueeze", ["x", "axis"], ["x1"]),
            ("Mul", ["x1", "b"], ["xs"]),
        ],
        {"a": shares.reshape(1, 2, 1, 1, 1), "b": shares.reshape(1, 2, 1, 1)},
    )
    model = onnx.load(path)
    model.graph.initializer.append(helper.make_tensor("axis", TensorProto.INT64, [1], [1]))
    onnx.save(model, path)
    framing = {"n_fft": 1024, "hop_length": 256, "bins": bins, "padding": "demucs", "normalized": True}
    facts = {
        "outputs": ["vocals", "other"],
        "residual": "other",
        "segment": length,
        "network": {
            "inputs": ["waveform", "spectrum"],
            "outputs": ["spectrum", "waveform"],
            "framing": framing,
        },
    }
    install.add(path, config=described(tmp_path / "facts.json", **facts))
    mixture = noise(3 * length)
    lowpassed = Framing(**framing)
    window = mixture[:, :length]
    expected = 0.3 * (window + lowpassed.inverse(lowpassed.transform(window), length))
    stems = split(mixture, SAMPLE_RATE, model="hybrid", overlap=0.0)
    np.testing.assert_allclose(stems["vocals"][:, :length], expected, atol=1e-5)
    np.testing.assert_allclose(sum(stems.values()), mixture, atol=1e-6)


@pytest.mark.parametrize("kind", ["mask", "magnitude"])
def test_masks_and_magnitudes_keep_the_phase_of_the_mixture(tmp_path, kind):
    shape = [1, 2, 513, 33]
    nodes = [("Mul", ["m", "zero"], ["gone"]), ("Add", ["gone", "half"], ["out"])]
    if kind == "magnitude":
        nodes = [("Mul", ["m", "half"], ["out"])]
    path = save(tmp_path / "m.onnx", {"m": shape}, {"out": shape}, nodes, {"zero": 0.0, "half": 0.5})
    facts = {
        "outputs": ["vocals"],
        "segment": 32 * 256,
        "network": {
            "inputs": ["magnitude"],
            "outputs": [kind],
            "framing": {"n_fft": 1024, "hop_length": 256, "bins": 513},
        },
    }
    install.add(path, config=described(tmp_path / "facts.json", **facts))
    mixture = noise(9000)
    stems = split(mixture, SAMPLE_RATE, model="m")
    np.testing.assert_allclose(stems["vocals"], 0.5 * mixture, atol=1e-5)


@pytest.mark.slow
def test_both_runtimes_give_the_same(tmp_path):
    path = mdx_net(tmp_path / "mine.onnx", 2048, 16)
    spectrum = np.random.default_rng(0).standard_normal((1, 4, 2048, 16)).astype(np.float32)
    one = graph.OpenVinoGraph(path, RuntimeOptions(precision="float32"), half=False)
    two = graph.OnnxRuntimeGraph(path, RuntimeOptions())
    assert one.inputs == two.inputs
    assert one.outputs == two.outputs
    np.testing.assert_allclose(one([spectrum])[0], two([spectrum])[0], atol=1e-6)


@pytest.mark.parametrize("options", [{"runtime": "torch"}, {"device": "mps"}, {"precision": "float16"}])
def test_what_cannot_run_an_onnx_file_is_refused(tmp_path, options):
    path = mdx_net(tmp_path / "mine.onnx", 2048, 16)
    with pytest.raises(DeviceUnavailable):
        graph.load(path, RuntimeOptions(**options))


def test_without_a_runtime_the_hint_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(graph, "find_spec", lambda name: None)
    with pytest.raises(DeviceUnavailable) as failed:
        graph.load(tmp_path / "mine.onnx", RuntimeOptions())
    assert "[openvino]" in failed.value.hint


@pytest.mark.parametrize("padding", ["centered", "demucs"])
@pytest.mark.parametrize("length", [4096, 5000])
def test_framing_inverts_itself(padding, length):
    framing = Framing(1024, 256, 513, padding, normalized=True)
    segment = noise(length)
    spectra = framing.transform(segment)
    assert spectra.shape == (2, 513, framing.frames(length))
    np.testing.assert_allclose(framing.inverse(spectra, length)[:, 512:-512], segment[:, 512:-512], atol=1e-5)


@pytest.mark.parametrize(
    "framing",
    [
        {"n_fft": 1 << 20, "hop_length": 256, "bins": 5},
        {"n_fft": 1024, "hop_length": 0, "bins": 5},
        {"n_fft": 1024, "hop_length": 256, "bins": 1000},
        {"n_fft": 1024, "hop_length": 256, "bins": 5, "padding": "none"},
        {"n_fft": 1024, "hop_length": 128, "bins": 5, "padding": "demucs"},
    ],
)
def test_framings_that_cannot_be_are_refused(framing):
    with pytest.raises(ValueError, match="n_fft|hop_length|bins|padding"):
        Framing(**framing)
