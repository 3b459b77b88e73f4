"""A weights file of stemsplit's own among the installed models."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

from stemsplit import split
from stemsplit.cli import app
from stemsplit.errors import BadWeights, UnknownModel
from stemsplit.zoo import install, installed
from stemsplit.zoo.ref import ModelRef
from stemsplit.zoo.variants import Trained
from tests.conftest import STEMS, random_model

pytestmark = pytest.mark.slow  # each test starts networks

NETWORK = "wavenet-small"


@pytest.fixture(autouse=True)
def models_folder(tmp_path, monkeypatch):
    monkeypatch.setenv(installed.FOLDER_VARIABLE, str(tmp_path / "models"))


def test_an_installed_weights_file_is_found_by_name(tmp_path):
    file = random_model(NETWORK)
    card = install.add(file, "mine")
    assert card.kind == "stemsplit"
    assert card.stems == STEMS
    ref = ModelRef.parse("mine")
    assert isinstance(ref, Trained)
    mixture = np.random.default_rng(0).standard_normal((2, 8_000)).astype(np.float32)
    found, expected = (split(mixture, 16_000, model=name) for name in ("mine", file))
    for name in STEMS:
        np.testing.assert_array_equal(found[name], expected[name])


def test_it_takes_no_description(tmp_path):
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(BadWeights, match="describes itself"):
        install.add(random_model(NETWORK), "mine", tmp_path / "mine.json")
    assert installed.names() == []


def test_scores_cannot_be_kept_in_it(tmp_path):
    install.add(random_model(NETWORK), "mine")
    words = ["evaluate", "--data", str(tmp_path), "--model", "mine", "--keep"]
    run = CliRunner().invoke(app, words)
    assert run.exit_code == 2
    assert "mine is installed" in run.output


def test_a_mistyped_name_is_answered_with_the_installed_ones():
    install.add(random_model(NETWORK), "mine")
    with pytest.raises(UnknownModel) as failed:
        ModelRef.parse("mime")
    assert "mine" in failed.value.hint
