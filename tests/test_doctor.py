from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from stemsplit.cli import app, doctor
from stemsplit.errors import BadWeights, DeviceUnavailable


@pytest.fixture
def model(monkeypatch):
    """One model that is there and in order."""
    loaded = SimpleNamespace(spec=SimpleNamespace(how="torch on cpu in float32"))
    monkeypatch.setattr("stemsplit.zoo.loading.load_separator", lambda: loaded)
    monkeypatch.setattr("stemsplit.zoo.store.available", lambda: {"small": Path("small.safetensors")})
    monkeypatch.setattr("stemsplit.zoo.store.read_card", lambda path: SimpleNamespace(stems=("vocals",)))


def examine(**options) -> tuple[int, dict[str, dict]]:
    result = CliRunner(**options).invoke(app, ["doctor", "--json"])
    return result.exit_code, {check["name"]: check for check in map(json.loads, result.stdout.splitlines())}


@pytest.mark.slow
def test_all_that_is_needed_works(model):
    status, checks = examine()
    assert status == 0
    assert {"python", "torch", "numpy", "soundfile", "soxr", "cuda", "mps", "ffmpeg", "small"} < set(checks)
    assert [name for name in ("wav", "flac", "mp3", "ogg", "m4a") if not checks[name]["ok"]] == []


@pytest.mark.slow
def test_it_says_how_a_model_runs(model, monkeypatch):
    status, checks = examine()
    assert checks["runs"]["detail"].startswith("torch on cpu in float32, ")

    def load_separator():
        raise DeviceUnavailable("No cpu here", "buy one")

    monkeypatch.setattr("stemsplit.zoo.loading.load_separator", load_separator)
    status, checks = examine()
    assert status == 1
    assert checks["runs"]["hint"] == "buy one"


@pytest.mark.slow
def test_without_openvino_it_says_what_is_lost(model, monkeypatch):
    def version(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", version)
    status, checks = examine()
    assert status == 0
    assert "pip install openvino" in checks["openvino"]["hint"]


def test_without_ffmpeg_wav_still_works(model, monkeypatch):
    monkeypatch.setattr("stemsplit.audio.ffmpeg.executable", lambda: None)
    status, checks = examine()
    assert status == 0
    assert checks["wav"]["ok"]
    assert not checks["m4a"]["ok"]
    assert "install ffmpeg" in checks["m4a"]["hint"]
    assert "install ffmpeg" in checks["ffmpeg"]["hint"]


def test_a_package_that_does_not_load_is_essential(model, monkeypatch):
    def import_module(name):
        raise OSError(f"lib{name}.so: cannot open shared object file")

    monkeypatch.setattr(doctor, "import_module", import_module)
    status, checks = examine()
    assert status == 1
    assert checks["torch"]["detail"] == "libtorch.so: cannot open shared object file"
    assert checks["small"]["ok"], "the rest is still looked at"


@pytest.mark.slow
def test_a_damaged_model_is_essential(model, monkeypatch):
    def read_card(path):
        raise BadWeights("It is damaged", "get it again")

    monkeypatch.setattr("stemsplit.zoo.store.read_card", read_card)
    status, checks = examine()
    assert status == 1
    assert checks["small"]["hint"] == "get it again"


@pytest.mark.parametrize(
    ("charset", "lines"),
    [
        (
            "utf-8",
            [
                "✓ here            1.0",
                "– spare           no",
                f"{'':18}hint: install it",
                "✗ needed          no",
            ],
        ),
        (
            "ascii",
            [
                "+ here            1.0",
                "- spare           no",
                f"{'':18}hint: install it",
                "x needed          no",
            ],
        ),
    ],
)
def test_each_line_has_a_mark_and_each_fault_a_remedy(monkeypatch, charset, lines):
    checks = [
        doctor.Check("here", True, "1.0", "not shown"),
        doctor.Check("spare", False, "no", "install it"),
        doctor.Check("needed", False, "no", essential=True),
    ]
    monkeypatch.setattr(doctor, "all_checks", lambda: iter(checks))
    result = CliRunner(charset=charset).invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert result.stdout.splitlines()[:-2] == lines
    assert result.stdout.endswith("\nAn essential check failed\n")
