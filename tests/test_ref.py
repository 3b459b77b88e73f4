from __future__ import annotations

import hashlib

import pytest
from typer.testing import CliRunner

from stemsplit.cli import app
from stemsplit.errors import UsageError
from stemsplit.live.engine import find
from stemsplit.zoo import store
from stemsplit.zoo.loading import load_separator
from stemsplit.zoo.ref import ModelRef
from stemsplit.zoo.variants import Ensemble, Spatial, Trained

BOTH = "binary-mask-cnn+mmdensenet-small"


@pytest.mark.parametrize(("name", "kind"), [("best", Trained), (BOTH, Ensemble), ("projet", Spatial)])
def test_a_name_is_of_one_of_three_kinds(name, kind):
    ref = ModelRef.parse(name)
    assert (type(ref), ref.text) == (kind, name)
    assert ref.fits_each_track == (kind is Spatial)


def test_fingerprints_are_digests_of_the_weights():
    digests = [hashlib.sha256(store.find(name).read_bytes()).hexdigest() for name in BOTH.split("+")]
    assert ModelRef.parse(BOTH).fingerprint == "+".join(digests)
    assert ModelRef.parse("binary-mask-cnn").fingerprint == digests[0]
    assert ModelRef.parse("projet").fingerprint == "projet"


def test_sources_are_those_of_spatial_methods_only():
    assert ModelRef.parse("adress", None, [-30, 0]).stems == ("left-30", "center", "rest")
    with pytest.raises(UsageError, match="has fixed stems"):
        ModelRef.parse("binary-mask-cnn", 3)


@pytest.mark.parametrize(
    ("name", "words"), [("projet", "a whole track"), (BOTH, "an ensemble of several models")]
)
def test_live_separation_takes_one_trained_model(name, words):
    with pytest.raises(UsageError, match=words):
        find(name)


def test_a_separator_is_not_fitted_to_each_track():
    with pytest.raises(UsageError, match="a whole track"):
        load_separator("projet")


def test_the_models_of_an_ensemble_are_described():
    run = CliRunner().invoke(app, ["models", BOTH])
    assert run.exit_code == 0
    assert [name in run.stdout for name in ("# binary-mask-cnn", "# mmdensenet-small")] == [True, True]
