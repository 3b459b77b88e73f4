"""Models of other packages: the example plugin, and plugins that do not work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from stemsplit.cli import app, models
from stemsplit.errors import BadPlugin, UnknownModel, UsageError
from stemsplit.options import RuntimeOptions
from stemsplit.separation.stream import separate_blocks
from stemsplit.zoo import plugins
from stemsplit.zoo.plugins import PluginCard
from stemsplit.zoo.ref import ModelRef

pytestmark = pytest.mark.slow  # each test starts networks

EXAMPLE = Path(__file__).parent.parent / "examples" / "plugin"
RUNNING = RuntimeOptions()
CARD = PluginCard(("vocals", "other"), segment=4096, residual="other", sample_rate=44_100)


@pytest.fixture
def offer(monkeypatch):
    """Make plugins of objects; of an error, a plugin that cannot be imported."""

    monkeypatch.setattr(plugins, "FAMILIES", {})

    def offer(**offered):
        def point(name, thing):
            def load():
                if isinstance(thing, Exception):
                    raise thing
                return thing

            return SimpleNamespace(
                name=name, load=load, dist=SimpleNamespace(name="some-package", version="2")
            )

        points = {name.replace("_", "-"): thing for name, thing in offered.items()}
        monkeypatch.setattr(
            plugins, "_entry_points", lambda: {name: point(name, each) for name, each in points.items()}
        )

    return offer


def model(card=CARD, load=None):
    """A model whose network gives half of the mixture for each output."""

    def half(_running, stems):
        return lambda segment: np.stack([segment / 2] * len(stems))

    return SimpleNamespace(card=lambda: card, load=load or half)


def separated(ref, mixture, **options):
    return np.concatenate(list(separate_blocks(ref.load(RUNNING, **options), [mixture])), axis=-1)


def run(*words):
    return CliRunner().invoke(app, list(words), prog_name="stemsplit")


def noise(samples=10_000):
    return np.random.default_rng(1).normal(0, 0.1, (2, samples)).astype(np.float32)


def test_a_model_has_what_its_card_says_and_its_stems_sum_to_the_mixture(offer):
    offer(half=model())
    ref = ModelRef.parse("half")
    assert (ref.name, ref.stems, ref.sample_rate) == ("half", ("vocals", "other"), 44_100)
    assert "some-package 2" in ref.describe()
    mixture = noise()
    stems = separated(ref, mixture)
    np.testing.assert_allclose(stems[0], mixture / 2, atol=1e-6)
    np.testing.assert_allclose(stems.sum(axis=0), mixture, atol=1e-6)


@pytest.mark.parametrize(
    ("stems", "needed"),
    [
        (["vocals"], ("vocals",)),
        (["other"], ("vocals", "drums")),
        (["drums", "vocals"], ("vocals", "drums")),
    ],
)
def test_only_the_outputs_that_are_needed_are_asked_for(offer, stems, needed):
    asked = []

    def load(_running, stems):
        asked.append(stems)
        return lambda segment: np.stack([segment / 3] * len(stems))

    offer(three=model(PluginCard(("vocals", "drums", "other"), 4096, residual="other"), load))
    mixture = noise()
    found = separated(ModelRef.parse("three"), mixture, stems=stems)
    assert asked == [needed]
    np.testing.assert_allclose(found, np.stack([mixture / 3] * len(stems)), atol=1e-6)


def test_a_family_has_many_models(offer):
    def find(name):
        if name not in ("one", "two"):
            raise UnknownModel(f"No model called `{name}`")
        return model()

    offer(many=SimpleNamespace(names=lambda: ["one", "two"], find=find))
    assert ModelRef.parse("many:two").name == "many:two"
    assert [each.name for each in plugins.every()] == ["many:one", "many:two"]
    with pytest.raises(UnknownModel):
        ModelRef.parse("many:three")


def test_a_separator_may_do_all_by_itself(offer):
    class Stream:
        def __init__(self, stems):
            self.spec = SimpleNamespace(stems=stems, sample_rate=44_100)

        def stream(self, blocks):
            for block in blocks:
                yield np.stack([block / 2] * len(self.spec.stems))

    offer(
        alone=model(PluginCard(("vocals", "other")), lambda _running, stems: Stream(stems)),
        wrong=model(PluginCard(("vocals", "other")), lambda _running, _stems: Stream(("drums",))),
    )
    mixture = noise()
    np.testing.assert_array_equal(separated(ModelRef.parse("alone"), mixture)[0], mixture / 2)
    with pytest.raises(BadPlugin, match="other stems"):
        ModelRef.parse("wrong").load(RUNNING)
    with pytest.raises(UsageError, match="overlapping"):
        ModelRef.parse("alone").load(RuntimeOptions(shifts=2))


def test_plugins_are_members_of_ensembles_and_differ_from_each_other(offer):
    four = PluginCard(("vocals", "drums", "bass", "other"), 4096)
    offer(one=model(four), two=model(PluginCard(four.outputs, 4096, version="later")))
    ref = ModelRef.parse("one+two")
    mixture = noise()
    np.testing.assert_allclose(separated(ref, mixture).sum(axis=0), mixture, atol=1e-6)
    assert len({ModelRef.parse(name).fingerprint for name in ("one", "two")}) == 2


def test_shipped_models_methods_and_files_come_first(offer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.safetensors").write_bytes(b"")
    bad = model(card="none")
    offer(**{name: bad for name in ("binary-mask-cnn", "duet", "best", "mine.safetensors")})
    assert ModelRef.parse("binary-mask-cnn").stems
    assert ModelRef.parse("duet").blind
    assert ModelRef.parse("best").stems
    with pytest.raises(Exception, match="not a weights file"):
        ModelRef.parse("mine.safetensors")


def test_other_names_do_not_look_for_plugins(monkeypatch):
    def refuse():
        raise AssertionError

    monkeypatch.setattr(plugins, "_entry_points", refuse)
    assert ModelRef.parse("band-transformer").stems


FAULTY = {
    "absent": ImportError("No module named 'gone'"),
    "no_card": SimpleNamespace(),
    "bad_card": model(card={"outputs": ["vocals"]}),
    "few": SimpleNamespace(card=lambda: PluginCard(("vocals",), 4096)),
    "long": SimpleNamespace(card=lambda: PluginCard(("a", "b"), 1 << 30)),
    "strange": SimpleNamespace(card=lambda: PluginCard(("../a", "b"), 4096)),
    "unlisted": SimpleNamespace(names=lambda: 1 / 0),
}


@pytest.mark.parametrize("name", FAULTY)
def test_a_plugin_that_does_not_work_is_one_sentence(offer, name):
    offer(**FAULTY)
    with pytest.raises(BadPlugin, match=name.replace("_", "-")) as caught:
        ModelRef.parse(name.replace("_", "-"))
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "load",
    [
        lambda _running, _stems: 1 / 0,
        lambda _running, _stems: lambda segment: segment,
        lambda _running, _stems: lambda segment: segment[None] * np.nan,
        lambda _running, _stems: lambda segment: segment.nothing,
    ],
)
def test_a_network_that_does_not_work_is_one_sentence(offer, load):
    offer(wrong=model(load=load))
    with pytest.raises(BadPlugin):
        separated(ModelRef.parse("wrong"), noise())


def test_masks_and_fast_are_refused(offer):
    offer(half=model())
    with pytest.raises(UsageError, match="masks"):
        ModelRef.parse("half").load(RUNNING, mask="soft")
    with pytest.raises(UsageError, match="fast"):
        ModelRef.parse("half").load(RuntimeOptions(fast=True))


def test_models_lists_plugins_and_warns_of_those_that_do_not_work(offer):
    offer(half=model(), **FAULTY)
    listed = run("models")
    assert listed.exit_code == 0
    assert "some-package 2" in listed.stdout
    assert listed.stderr.count("warning:") == len(FAULTY)
    assert '"name": "half"' in run("models", "--json").stdout
    assert {"half", "absent"} <= set(models.complete(""))
    assert run("models", "absent").exit_code == 1
    assert "absent" in run("models", "absent").stderr


@pytest.mark.parametrize(
    "line",
    ['model = "half"', 'model = "half+band-transformer"', 'then = "bass=binary-mask-cnn, drums=half"'],
)
def test_a_project_cannot_name_a_plugin(offer, tmp_path, monkeypatch, line):
    offer(half=model(), many=model())
    monkeypatch.delenv("STEMSPLIT_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("stemsplit.toml").write_text(line)
    refused = run("split", "song.wav", "--dry-run")
    assert refused.exit_code == 2
    assert "shipped and installed models only" in refused.stderr
    Path("stemsplit.toml").write_text('then = "vocals=half"')
    assert "shipped and installed models only" in run("split", "song.wav", "--dry-run").stderr
    Path("stemsplit.toml").write_text('model = "binary-mask-cnn"')
    assert "No such file" in run("split", "song.wav", "--dry-run").stderr


@pytest.mark.subprocess
def test_the_example_is_installed_and_splits(tmp_path):
    packages = tmp_path / "packages"
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check"]
    copy = tmp_path / "plugin"
    copy.mkdir()
    for file in EXAMPLE.iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "--no-index", *options, "--target", packages, copy]
    subprocess.run(pip, check=True, capture_output=True)
    mixture = noise(44_100)
    mixture[:, :20_000] = mixture[0, :20_000]
    soundfile.write(tmp_path / "song.wav", mixture.T, 44_100, "FLOAT")
    environment = {**os.environ, "PYTHONPATH": str(packages)}
    command = [sys.executable, "-m", "stemsplit", "song.wav", "--model", "centre", "-o", "out"]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment, capture_output=True)
    stems = {
        name: soundfile.read(tmp_path / "out" / "song" / f"{name}.wav")[0].T for name in ("centre", "sides")
    }
    np.testing.assert_allclose(sum(stems.values()), mixture, atol=1e-6)
    np.testing.assert_allclose(stems["centre"][:, :20_000], mixture[:, :20_000], atol=1e-6)
    assert not stems["sides"][:, :20_000].any()
