"""What pip builds and installs: its name, its version, its extras."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stemsplit.defaults import DISTRIBUTION, VERSION, install_extra

ROOT = Path(__file__).parent.parent
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def texts() -> list[Path]:
    """All text files of the repository."""
    suffixes = {".py", ".md", ".toml", ".txt", ".html", ".js", ".in", ".json", ""}
    folders = [ROOT / name for name in ("stemsplit", "models", "bench", "examples", "tests", "docs", ".ci")]
    paths = [*ROOT.iterdir(), *(path for folder in folders for path in folder.rglob("*"))]
    kept = [path for path in paths if path.suffix in suffixes and path.is_file()]
    return [path for path in kept if not path.name.startswith(".")]  # such as .coverage


def test_pip_knows_the_package_by_its_own_name():
    assert re.search(rf'^name = "{DISTRIBUTION}"', PROJECT, re.MULTILINE)
    assert DISTRIBUTION != "stemsplit", "which is another project on the package index"


def test_no_text_installs_the_package_of_another_project():
    foreign = re.compile(r"\bstemsplit\[|pip3? install [^`\n]*\bstemsplit(?![-\w./])")
    found = {}
    for path in texts():
        if path != Path(__file__):
            found |= {
                f"{path.relative_to(ROOT)}: {hit[0]}": hit
                for hit in foreign.finditer(path.read_text("utf-8"))
            }
    assert sorted(found) == []


@pytest.mark.parametrize("extra", ["openvino", "plot", "live", "train", "ray", "msst", "demucs", "openunmix"])
def test_each_hint_names_an_extra_that_exists(extra):
    assert install_extra(extra) == f"run `pip install '{DISTRIBUTION}[{extra}]'`"
    assert re.search(rf"^{extra} = \[", PROJECT, re.MULTILINE)


def test_hints_name_no_other_extra():
    named = {
        name
        for path in (ROOT / "stemsplit").rglob("*.py")
        for name in re.findall(r'install_extra\("(\w+)"\)', path.read_text("utf-8"))
    }
    assert named == {"openvino", "plot", "live", "train", "ray", "msst"}


def test_the_version_is_written_once():
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)
    assert 'version = { attr = "stemsplit.defaults.VERSION" }' in PROJECT
