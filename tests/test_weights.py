from __future__ import annotations

import json
import shutil
import struct
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from stemsplit.cli import app
from stemsplit.defaults import DEFAULT_MODEL, LIVE_MODEL, MODELS_DISTRIBUTION, VERSION, install_models
from stemsplit.errors import BadWeights, UnknownModel, UsageError
from stemsplit.networks import factory, registry
from stemsplit.networks.binary_mask_cnn import PARAMETERS
from stemsplit.zoo import install, page, store
from stemsplit.zoo.card import ModelCard
from stemsplit.zoo.loading import load_separator
from stemsplit.zoo.ref import ModelRef
from tests.conftest import STEMS, random_network

MODELS = Path(__file__).parent.parent / "models"
CARD = ModelCard(
    name="made-up",
    title="Random weights",
    network="binary-mask-cnn",
    stems=STEMS,
    sample_rate=44_100,
    n_fft=2048,
    hop_length=512,
    parameters=4 * PARAMETERS,
    mask="soft",
    mask_power=1.0,
    threshold=0.5,
    data="none",
    licence="MIT",
    commit="none",
    seed=0,
)


@pytest.fixture(scope="session")
def networks():
    return {name: random_network(i).state_dict() for i, name in enumerate(STEMS)}


@pytest.fixture
def file(tmp_path, networks):
    path = tmp_path / "made-up.safetensors"
    store.save(path, CARD, networks)
    return path


def test_what_is_saved_is_read(file, networks):
    assert store.read_card(file) == CARD
    read = store.load(file, ["bass"])
    assert list(read) == ["bass"]
    for name, tensor in networks["bass"].items():
        torch.testing.assert_close(read["bass"][name], tensor, atol=1e-3, rtol=1e-3)  # float16
        assert read["bass"][name].dtype == torch.float32


def test_a_card_may_be_rewritten_without_touching_the_weights(file):
    before = store.load(file, STEMS)
    card = page.rewrite(file, title="Another title")
    assert store.read_card(file) == card == replace(CARD, title="Another title")
    after = store.load(file, STEMS)
    assert all(torch.equal(before[s][k], after[s][k]) for s in STEMS for k in before[s])
    assert file.with_suffix(".md").read_text(encoding="utf-8") == page.page(card)


def test_a_page_has_bleed_where_it_was_measured():
    measured = {stem: {"sdr_db": 5.0, "bleedless": 31.26, "fullness": 20.0} for stem in CARD.stems}
    found = page.page(replace(CARD, scores={"test": {CARD.mask: measured}}))
    assert f"| bleedless, default | {' | '.join(['31.3'] * len(CARD.stems))} |" in found
    assert "clean" not in found
    assert "| fullness, clean | 20.0 " in page.page(replace(CARD, scores={"test": {"clean": measured}}))
    assert f"| fullness, default | {' | '.join(['20.0'] * len(CARD.stems))} |" in found
    assert "bleedless" not in page.page(replace(CARD, scores={"test": {"soft": {}}}))


@pytest.mark.slow
@pytest.mark.parametrize("name", store.available())
def test_every_shipped_model_has_its_card_and_its_size(name):
    card = store.read_card(name)
    path = store.find(name)
    assert path.with_suffix(".md").read_text(encoding="utf-8") == page.page(card)
    assert card.name == name
    parts = registry.find(card.network).parts(card.stems)
    built = factory.build(card.network, store.load(name, parts), len(card.stems) // len(parts))
    assert sum(p.numel() for network in built for p in network.parameters()) == card.parameters
    assert set(card.scores) >= {"valid", "test"}


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("name", store.available())
def test_every_shipped_model_beats_the_mixture(name, split):
    card = store.read_card(name)
    scores = card.scores[split]
    for stem in card.stems:
        assert scores[card.mask][stem]["sdr_db"] > scores["mixture"][stem]["sdr_db"] + 1


@pytest.mark.parametrize("split", ["valid", "test"])
def test_the_binary_masks_beat_an_empty_mask(split):
    card = store.read_card("binary-mask-cnn")
    scores = card.scores[split]
    for stem in card.stems:
        assert scores["bins"][stem]["accuracy"] > scores["bins"][stem]["base_rate"]
        assert scores["bins"][stem]["balanced_accuracy"] > 0.55


def test_an_unknown_model_is_told_apart_from_the_known_ones():
    with pytest.raises(UnknownModel, match="no-such") as caught:
        store.read_card("no-such")
    assert "binary-mask-cnn" in caught.value.hint


def garbage(path):
    path.write_bytes(b"no weights at all")


def truncated(path):
    path.write_bytes(path.read_bytes()[:500])


def endless_header(path):
    path.write_bytes(struct.pack("<Q", 1 << 60) + b"{}")


def foreign(path):
    save_file({"weight": torch.zeros(3)}, path, {"format": "pt"})


def empty(path):
    path.write_bytes(b"")


def card_of_a_later_version(path):
    save_file(
        {"weight": torch.zeros(3)}, path, {"stemsplit": json.dumps({"name": "x", "stems": [], "new": 1})}
    )


@pytest.mark.parametrize(
    "facts",
    [
        {"stems": ["../../escaped"]},
        {"stems": ["/escaped"]},
        {"stems": ["a.b"]},
        {"stems": ["bass", "bass"]},
        {"stems": []},
        {"stems": [1]},
        {"hop_length": 2000},
        {"n_fft": 0},
        {"sample_rate": "44100"},
        {"mask_power": float("nan")},
        {"threshold": "half"},
    ],
)
def test_a_card_with_impossible_facts_is_refused(file, facts):
    spoiled = {**json.loads(json.dumps(asdict(CARD))), **facts}
    save_file({"weight": torch.zeros(3)}, file, {"stemsplit": json.dumps(spoiled)})
    with pytest.raises(BadWeights, match="not a weights file"):
        store.read_card(file)


def test_a_transform_too_small_for_the_network_is_refused(tmp_path, networks):
    path = tmp_path / "small.safetensors"
    store.save(path, replace(CARD, n_fft=512, hop_length=128), networks)
    with pytest.raises(BadWeights, match="too few bins"):
        load_separator(path)


@pytest.mark.parametrize(
    "damage", [garbage, truncated, endless_header, foreign, empty, card_of_a_later_version]
)
def test_a_file_that_is_no_weights_file_of_ours_is_refused(file, damage):
    damage(file)
    with pytest.raises(BadWeights, match="not a weights file"):
        store.read_card(file)


def test_tensors_cut_short_are_refused(file):
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(BadWeights, match="damaged"):
        store.load(file, ["vocals"])


def test_numbers_that_are_not_finite_are_refused(file, networks):
    spoiled = {**networks["drums"], "dense.bias": torch.full((128,), float("nan"))}
    store.save(file, CARD, {**networks, "drums": spoiled})
    store.load(file, ["bass"])
    with pytest.raises(BadWeights, match="not finite"):
        store.load(file, ["drums"])


def test_layers_of_another_shape_are_refused(networks):
    other = {**networks["drums"], "dense.bias": torch.zeros(7)}
    with pytest.raises(BadWeights, match="drums"):
        factory.build("binary-mask-cnn", {"drums": other})
    with pytest.raises(BadWeights, match="no-such-network"):
        factory.build("no-such-network", {})


def test_the_best_model_is_the_one_with_the_highest_validation_scores(tmp_path, monkeypatch):
    shipped = store.read_card("binary-mask-cnn")
    paths = {}
    for name, more in (("worse", -1.0), ("better", 1.0), ("unmeasured", None)):
        valid = {stem: {"sdr_db": 3.0 + (more or 0)} for stem in shipped.stems}
        scores = {} if more is None else {"valid": {"soft": valid}, "test": {"soft": {}}}
        paths[name] = tmp_path / f"{name}.safetensors"
        content = store.load("binary-mask-cnn", shipped.stems)
        store.save(paths[name], replace(shipped, name=name, scores=scores), content)
    monkeypatch.setattr(store, "available", lambda: paths)
    assert store.find("best") == paths["better"]
    assert store.read_card("best").name == "better"


def test_a_card_says_what_its_network_predicts(tmp_path, networks):
    assert "the binary mask B = (S > 0.5 * M)" in page.page(CARD)
    ratio = replace(CARD, network="mmdensenet-small")
    assert "each stem's share of the mixture" in page.page(ratio)
    measured = {"test": {"songs": 1, "waveform": {stem: {"sdr_db": 3.0} for stem in STEMS}}}
    text = page.page(replace(CARD, network="wavenet-small", mask="waveform", scores=measured))
    assert "waveforms of the stems" in text
    assert "3.00" in text
    assert "base rate" not in text


@pytest.fixture
def without_more(monkeypatch):
    """The models that are inside the program's own package."""
    monkeypatch.setattr(store, "_folders", lambda: [MODELS])


def test_the_list_of_models_in_the_other_package_is_complete():
    assert {path.stem for path in MODELS.glob("*.safetensors")} >= {DEFAULT_MODEL, LIVE_MODEL}
    assert {path.stem for path in (MODELS / "more").glob("*.safetensors")} == store.MORE
    assert store.not_available() == []


@pytest.mark.slow
def test_a_model_whose_package_is_not_installed_is_named(without_more, monkeypatch):
    assert store.not_available() == sorted(store.MORE)
    assert store.find("best") == MODELS / f"{DEFAULT_MODEL}.safetensors"
    with pytest.raises(
        UnknownModel, match=f"`sub-band-unet` is in the package {MODELS_DISTRIBUTION}, "
    ) as caught:
        ModelRef.parse("sub-band-unet")
    assert f"pip install stemsplit_audio_models-{VERSION}-py3-none-any.whl`" in caught.value.hint
    listed = CliRunner().invoke(app, ["models"]).stdout
    assert "Not installed: band-transformer-full, blend-small, " in listed
    assert caught.value.hint in listed
    monkeypatch.setattr("stemsplit.defaults.PUBLIC_ADDRESS", "https://x.org/s")
    assert install_models() == f"run `pip install {MODELS_DISTRIBUTION}`"
    with pytest.raises(UsageError, match="reserved name"):
        install.check_name("sub-band-unet")


def test_models_of_the_other_package_are_found_where_it_is_installed(tmp_path, monkeypatch):
    package = tmp_path / "stemsplit_models"
    package.mkdir()
    (package / "__init__.py").touch()
    shutil.copy(MODELS / f"{LIVE_MODEL}.safetensors", package / "another.safetensors")
    assert "another" not in store.available()
    monkeypatch.syspath_prepend(tmp_path)
    assert store.find("another") == package / "another.safetensors"
    assert store.available()[DEFAULT_MODEL] == MODELS / f"{DEFAULT_MODEL}.safetensors"
