"""HT Demucs from an ONNX file: what the demucs package computes from the same weights."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from demucs.apply import apply_model
from demucs.htdemucs import HTDemucs

from stemsplit import split
from stemsplit.options import RuntimeOptions
from stemsplit.separation.segments import NormalizedSegments, Segmentation
from stemsplit.zoo import install, installed
from stemsplit.zoo.onnx import HTDEMUCS
from stemsplit.zoo.ref import ModelRef

pytestmark = pytest.mark.slow  # each test starts networks

SAMPLE_RATE = 44_100
LENGTH = 22_050
SIX = ("drums", "bass", "other", "vocals", "guitar", "piano")


class Core(torch.nn.Module):
    """The network between the transforms: what the published ONNX file holds."""

    def __init__(self, network: HTDemucs) -> None:
        super().__init__()
        self.network = network

    def forward(self, mixture: torch.Tensor, spectrum: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the stems' spectra and waveforms."""
        found = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.network, "_spec", lambda mixture: mixture)
            patch.setattr(self.network, "_magnitude", lambda _: spectrum)
            patch.setattr(self.network, "_mask", lambda _, stems: found.append(stems))
            patch.setattr(self.network, "_ispec", lambda *_: torch.zeros(()))
            waveforms = self.network(mixture)
        return found[0], waveforms


@pytest.fixture(scope="module")
def network() -> HTDemucs:
    torch.manual_seed(0)
    sizes = {"channels": 4, "t_layers": 2, "t_heads": 2, "t_hidden_scale": 1.0, "dconv_comp": 4}
    return HTDemucs(list(SIX), segment=LENGTH / SAMPLE_RATE, bottom_channels=16, **sizes).eval()


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    """Return the network as an ONNX file, and its description."""
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    frames = -(-LENGTH // 1024)
    inputs = torch.zeros(1, 2, LENGTH), torch.zeros(1, 4, 2048, frames)
    torch.backends.mha.set_fastpath_enabled(False)  # its operator has no counterpart in ONNX
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(Core(network), inputs, path, dynamo=False, opset_version=17)
    torch.backends.mha.set_fastpath_enabled(True)
    facts = {**HTDEMUCS, "outputs": SIX, "segment": LENGTH}
    path.with_suffix(".json").write_text(json.dumps(facts))
    return path


@pytest.fixture(scope="module")
def method(file, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(installed.FOLDER_VARIABLE, str(tmp_path_factory.mktemp("models")))
        install.add(file, config=file.with_suffix(".json"))
        return ModelRef.parse("tiny").load(RuntimeOptions(precision="float32"))


@pytest.mark.parametrize("seconds", [0.2, 0.5, 1.3])
@pytest.mark.parametrize("overlap", [0.25, 0.5])
def test_stems_are_those_of_the_demucs_package(network, method, seconds, overlap):
    rng = np.random.default_rng(0)
    mixture = (0.1 * rng.standard_normal((2, round(seconds * SAMPLE_RATE))) + 0.02).astype(np.float32)
    mono = mixture.mean(axis=0)
    mean, deviation = mono.mean(), mono.std(ddof=1) + 1e-8
    with torch.no_grad():
        normalized = torch.from_numpy((mixture - mean) / deviation)
        stems = apply_model(network, normalized[None], shifts=0, split=True, overlap=overlap)
    expected = dict(zip(SIX, stems[0].numpy() * deviation + mean, strict=True))
    separator = replace(method.separator, segmentation=Segmentation.of(LENGTH, overlap))
    found = split(mixture, SAMPLE_RATE, separator=NormalizedSegments(separator))
    assert list(found) == ["vocals", "drums", "bass", "other", "guitar", "piano"]
    share = (mixture - sum(expected.values())) / len(SIX)  # of what the estimates leave of the mixture
    for name in SIX:
        np.testing.assert_allclose(found[name], expected[name] + share, atol=1e-3)
    np.testing.assert_allclose(sum(found.values()), mixture, atol=1e-5)


def test_the_published_file_is_recognized_by_its_shape(file, monkeypatch, tmp_path):
    from stemsplit.runtime.graph import Port
    from stemsplit.zoo import onnx

    ends = (
        (Port("input", (1, 2, 343_980)), Port("x", (1, 4, 2048, 336))),
        (Port("output", (1, 4, 4, 2048, 336)), Port("y", (1, 4, 2, 343_980))),
    )
    monkeypatch.setattr(onnx.graph, "ports", lambda path: ends)
    facts = onnx.adopt(file, tmp_path / "copy.onnx", None)
    card = installed.InstalledCard.from_facts(
        {**facts, "name": "any", "file": "any.onnx", "sha256": "0", "kind": "onnx"}
    )
    assert card.stems == ("vocals", "drums", "bass", "other")
    assert card.overlap == 0.25
