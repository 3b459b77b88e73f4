"""Models of the demucs package: tiny random ones in a folder, and published ones without a network."""

from __future__ import annotations

import json
import pickle
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import soundfile
import torch
import yaml
from demucs.apply import BagOfModels, apply_model
from demucs.demucs import Demucs
from demucs.hdemucs import HDemucs
from demucs.hf import hf_repo_name
from demucs.htdemucs import HTDemucs
from safetensors.torch import save_file
from typer.testing import CliRunner

from stemsplit.cli import app
from stemsplit.errors import BadWeights, DownloadFailed, StemsplitError, UnknownModel
from stemsplit.options import RuntimeOptions
from stemsplit.separation.stream import separate_blocks
from stemsplit.zoo import demucs, downloads
from stemsplit.zoo.ref import ModelRef

pytestmark = pytest.mark.slow  # each test starts networks

RATE = 8_000
SEGMENT = 8_192
FOUR = ["drums", "bass", "other", "vocals"]
SIX = [*FOUR, "guitar", "piano"]
TINY = {"channels": 4, "samplerate": RATE}
TRANSFORMER = {"t_layers": 2, "t_heads": 2, "t_hidden_scale": 1.0, "bottom_channels": 16, "dconv_comp": 4}


def network(kind, seed, sources=FOUR):
    """A network in its initial state, and how it is made."""
    torch.manual_seed(seed)
    kwargs = {
        HTDemucs: {**TINY, **TRANSFORMER, "segment": Fraction(SEGMENT, RATE)},
        HDemucs: {**TINY, "segment": SEGMENT / RATE},
        Demucs: {**TINY, "depth": 3, "lstm_layers": 1, "segment": SEGMENT / RATE},
    }[kind]
    return kind(sources, **kwargs).eval(), {"klass": kind, "args": (sources,), "kwargs": kwargs}


def write_pickle(path, model, made):
    torch.save({**made, "state": model.state_dict(), "training_args": {"lr": 1}}, path)


def write_safetensors(path, model, made):
    def plain(value):
        if isinstance(value, Fraction):
            return {"_type": "fraction", "numerator": value.numerator, "denominator": value.denominator}
        raise TypeError

    facts = {name: json.dumps(made[name], default=plain) for name in ("args", "kwargs")}
    klass = f"{made['klass'].__module__}.{made['klass'].__qualname__}"
    save_file(
        {name: tensor.clone().contiguous() for name, tensor in model.state_dict().items()},
        path,
        {**facts, "klass": klass},
    )


@pytest.fixture
def repository(tmp_path):
    """Make a folder with a bag of models `tiny`, and return that of the package."""

    def make(kinds, weights=None, sources=FOUR, write=write_pickle, suffix=".th", segment=None):
        models = []
        for index, kind in enumerate(kinds):
            model, made = network(kind, index, sources)
            write(tmp_path / f"sig{index}{suffix}", model, made)
            models.append(model)
        bag = {"models": [f"sig{index}" for index in range(len(kinds))], "weights": weights}
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({**bag, "segment": segment}))
        return BagOfModels(models, weights, segment)

    return make


def noise(samples=20_000, channels=2):
    return np.random.default_rng(1).normal(0, 0.1, (channels, samples)).astype(np.float32)


def ours(name, mixture, block=5_000, **options):
    ref = ModelRef.parse(name)
    method = ref.load(RuntimeOptions(threads=1), **options)
    blocks = [mixture[:, start : start + block] for start in range(0, mixture.shape[1], block)]
    separator = method.fit(blocks, RATE)
    return np.concatenate(list(separate_blocks(separator, blocks)), axis=-1)


def theirs(bag, mixture):
    """What the package's own command computes, in the order of its sources."""
    sound = torch.from_numpy(mixture)
    mono = sound.mean(0)
    sound = (sound - mono.mean()) / (mono.std() + 1e-8)
    found = apply_model(bag, sound[None], shifts=0, split=True, overlap=0.25)[0]
    return dict(zip(bag.sources, (found * (mono.std() + 1e-8) + mono.mean()).numpy(), strict=True))


PICKED = [[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]
"""Each network for two of the four stems."""
BAGS = {
    "one": ([HTDemucs], None),
    "picked": ([HTDemucs, HTDemucs], PICKED),
    "weighted": ([HDemucs, HDemucs], [[1.0, 1.0, 0.0, 1.0], [3.0, 0.0, 1.0, 1.0]]),
    "mixed": ([HDemucs, Demucs], None),
}


@pytest.mark.parametrize(("kinds", "weights"), BAGS.values(), ids=BAGS)
def test_stems_are_those_of_the_package(repository, tmp_path, kinds, weights):
    bag = repository(kinds, weights)
    mixture = noise()
    stems = dict(
        zip(("vocals", "drums", "bass", "other"), ours(f"demucs:tiny@{tmp_path}", mixture), strict=True)
    )
    expected = theirs(bag, mixture)
    assert np.abs(expected["vocals"]).max() > 0.01
    for name in ("vocals", "drums", "bass"):
        np.testing.assert_allclose(stems[name], expected[name], atol=1e-3)
    np.testing.assert_allclose(sum(stems.values()), mixture, atol=1e-5)


def test_any_block_size_gives_the_same_stems_from_either_kind_of_file(repository, tmp_path):
    repository([HTDemucs])
    mixture = noise()
    stems = ours(f"demucs:tiny@{tmp_path}", mixture)
    np.testing.assert_array_equal(ours(f"demucs:tiny@{tmp_path}", mixture, 20_000), stems)
    before = ModelRef.parse(f"demucs:tiny@{tmp_path}").fingerprint
    (tmp_path / "sig0.th").unlink()
    repository([HTDemucs], write=write_safetensors, suffix=".safetensors")
    np.testing.assert_array_equal(ours(f"demucs:sig0@{tmp_path}", mixture), stems)
    assert ModelRef.parse(f"demucs:tiny@{tmp_path}").fingerprint != before


def test_only_the_networks_of_the_stems_run(repository, tmp_path, monkeypatch):
    repository([HTDemucs, HTDemucs], PICKED)
    run = []
    forward = HTDemucs.forward

    def record(self, mixture):
        run.append(id(self))
        return forward(self, mixture)

    monkeypatch.setattr(HTDemucs, "forward", record)
    mixture = noise(SEGMENT)
    alone = ours(f"demucs:tiny@{tmp_path}", mixture, stems=["vocals"])
    assert len(set(run)) == 1
    run.clear()
    every = ours(f"demucs:tiny@{tmp_path}", mixture)
    assert len(set(run)) == 2
    np.testing.assert_allclose(alone[0], every[0], atol=1e-6)


def test_a_segment_in_the_yaml_file_replaces_a_longer_one(repository, tmp_path):
    bag = repository([HTDemucs, HTDemucs], segment=0.75)
    mixture = noise()
    assert ModelRef.parse(f"demucs:tiny@{tmp_path}").card.segment == 6_000
    stems = ours(f"demucs:tiny@{tmp_path}", mixture)
    np.testing.assert_allclose(stems[0], theirs(bag, mixture)["vocals"], atol=1e-3)


def test_six_stems_from_the_command_line(repository, tmp_path, monkeypatch):
    repository([HTDemucs], sources=SIX)
    mixture = noise(22_050, channels=1)
    monkeypatch.chdir(tmp_path)
    soundfile.write("song.wav", mixture.T, 11_025, "FLOAT")
    words = ["split", "song.wav", "--model", f"demucs:tiny@{tmp_path}", "--depth", "32f"]
    done = CliRunner().invoke(app, words, prog_name="stemsplit")
    assert done.exit_code == 0, done.stderr
    stems = {path.stem: soundfile.read(path)[0] for path in (tmp_path / "stems" / "song").glob("*.wav")}
    assert stems.keys() == set(SIX)
    np.testing.assert_allclose(sum(stems.values()), mixture[0], atol=1e-4)


class Code:
    def __reduce__(self):
        return Path.touch, (Path("ran"),)


def write_code(path):
    torch.save({"klass": Code(), "args": (), "kwargs": {}, "state": {}}, path)


BAD = {
    "code": write_code,
    "plain pickle": lambda path: path.write_bytes(pickle.dumps(Code())),
    "another class": lambda path: torch.save({"klass": "HTDemucs", "args": (), "kwargs": {}}, path),
    "no package": lambda path: torch.save([1, 2], path),
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:5_000]),
    "other weights": lambda path: write_pickle(path, torch.nn.Linear(2, 2), network(HTDemucs, 0)[1]),
}


@pytest.mark.parametrize("spoil", BAD.values(), ids=BAD)
def test_a_file_that_cannot_be_used_runs_no_code(repository, tmp_path, monkeypatch, spoil):
    repository([HTDemucs])
    monkeypatch.chdir(tmp_path)
    spoil(tmp_path / "sig0.th")
    with pytest.raises(BadWeights, match="sig0.th") as caught:
        ModelRef.parse(f"demucs:tiny@{tmp_path}")
    assert "\n" not in caught.value.message
    assert not Path("ran").exists()


@pytest.mark.parametrize("klass", ["os.system", "demucs.states.load_model", "HTDemucs", ""])
def test_a_safetensors_file_names_a_network_of_the_package(tmp_path, klass):
    facts = {"klass": klass, "args": '["touch ran"]', "kwargs": "{}"}
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", facts)
    with pytest.raises(BadWeights, match="names no network"):
        ModelRef.parse(f"demucs:a@{tmp_path}")


YAML = {
    "models: [sig0, absent]": "no file for `absent`",
    "models: []": "tiny",
    "models: 3": "tiny.yaml",
    "[]": "tiny.yaml",
    "models: [sig0]\nweights: [[1, 0]]": "weight",
    "models: [sig0]\nsegment: {}": "tiny.yaml",
    "models: [sig0]\nsegment: 1.0e+9": "segment",
    "models: !!python/object/apply:os.system ['touch ran']": "tiny.yaml",
    "models: [../sig0]": "no file for",
    "models: [sig0, sig0]\nweights: [[0, 1, 1, 1], [0, 1, 1, 1]]": "sum to 0",
}


@pytest.mark.parametrize(("text", "said"), YAML.items())
def test_a_yaml_file_that_cannot_be_used_is_one_sentence(repository, tmp_path, text, said):
    repository([HDemucs])
    (tmp_path / "tiny.yaml").write_text(text)
    with pytest.raises(StemsplitError, match=said):
        ModelRef.parse(f"demucs:tiny@{tmp_path}").load(RuntimeOptions())


@pytest.mark.parametrize(
    "name", ["demucs:nothing", "demucs:", "demucs:tiny@/nowhere", "demucs:@.", "demucs:../tiny@."]
)
def test_a_name_that_does_not_exist_is_one_sentence(name):
    with pytest.raises(UnknownModel):
        ModelRef.parse(name)


def test_a_digest_in_a_name_is_checked(repository, tmp_path):
    repository([HTDemucs])
    (tmp_path / "sig0.th").rename(tmp_path / "sig0-01234567.th")
    with pytest.raises(BadWeights, match="digest"):
        ModelRef.parse(f"demucs:tiny@{tmp_path}")


@pytest.fixture
def hub(monkeypatch):
    """The files that are asked of the hub; none is in its cache."""
    asked = []

    def describe(url, *, token):
        assert url.startswith("https://huggingface.co/adefossez/")
        return SimpleNamespace(size=84_000_000)

    def fetch(repository, file, *, token):
        asked.append(f"{repository}/{file}")
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", describe)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    monkeypatch.delenv(downloads.VARIABLE, raising=False)
    return asked


def test_published_models_are_known_without_a_download(hub):
    names = list(demucs.names())
    assert {"htdemucs", "htdemucs_ft", "htdemucs_6s", "mdx", "mdx_extra"} <= set(names)
    assert not any(name.startswith("repro") for name in names)
    for name in names:
        ref = ModelRef.parse(f"demucs:{name}")
        assert ref.card.origin == f"https://huggingface.co/adefossez/{hf_repo_name(name)}"
        assert set(ref.stems) == set(SIX if name == "htdemucs_6s" else FOUR)
        assert "MIT" in ref.describe()
    assert ModelRef.parse("demucs:htdemucs").card.segment == 343_980
    assert ModelRef.parse("demucs:mdx_extra").card.segment == 44 * 44_100
    assert not hub


def test_a_download_is_announced_and_fails_in_one_sentence(hub, capsys):
    with pytest.raises(DownloadFailed, match="Name or service not known"):
        ModelRef.parse("demucs:htdemucs_ft").load(RuntimeOptions(), stems=["vocals"])
    assert hub == ["adefossez/HTDemucs-ft/04573f0d.safetensors"]  # the network of vocals alone
    said = capsys.readouterr().err
    assert said.startswith("downloading demucs:htdemucs_ft from huggingface.co/adefossez/HTDemucs-ft: 84 MB;")
    assert "MIT" in said


@pytest.mark.parametrize("by_variable", [False, True])
def test_offline_there_is_no_download(hub, monkeypatch, by_variable):
    if by_variable:
        monkeypatch.setenv(downloads.VARIABLE, "1")
    with pytest.raises(DownloadFailed, match="offline"):
        ModelRef.parse("demucs:mdx").load(RuntimeOptions(offline=not by_variable))
    assert not hub


def test_published_files_are_read_from_the_cache(hub, monkeypatch, tmp_path):
    model, made = network(HTDemucs, 0)
    made["kwargs"] |= {"samplerate": 44_100, "segment": Fraction(39, 5)}
    write_safetensors(tmp_path / "955717e8.safetensors", model, made)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda _, file: str(tmp_path / file))
    method = ModelRef.parse("demucs:htdemucs").load(RuntimeOptions(offline=True))
    assert method.stems == ("vocals", "drums", "bass", "other")
    write_safetensors(tmp_path / "955717e8.safetensors", *network(HTDemucs, 0))
    with pytest.raises(BadWeights, match="changed"):
        ModelRef.parse("demucs:htdemucs").load(RuntimeOptions(offline=True))


def test_without_the_package_it_is_said_how_to_install_it(monkeypatch):
    monkeypatch.setattr("stemsplit.zoo.plugins.find_spec", lambda _: None)
    with pytest.raises(UnknownModel, match="demucs is not installed") as caught:
        ModelRef.parse("demucs:htdemucs")
    assert "[demucs]" in caught.value.hint


def test_a_project_cannot_name_such_a_model(monkeypatch, tmp_path):
    monkeypatch.delenv("STEMSPLIT_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("stemsplit.toml").write_text('model = "demucs:htdemucs"')
    refused = CliRunner().invoke(app, ["split", "song.wav"], prog_name="stemsplit")
    assert refused.exit_code == 2
    assert "shipped and installed models only" in refused.stderr
