"""What pip builds and installs: its name, its version, its extras."""

from __future__ import annotations

import re
import runpy
import zipfile
from pathlib import Path

import pytest

from stemsplit.defaults import DISTRIBUTION, MODELS_DISTRIBUTION, VERSION, install_extra
from stemsplit.zoo import store

ROOT = Path(__file__).parent.parent
RELEASE = runpy.run_path(str(ROOT / ".ci" / "release.py"))
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


@pytest.mark.parametrize(
    "extra", ["openvino", "plot", "live", "train", "ray", "msst", "demucs", "openunmix", "practice"]
)
def test_each_hint_names_an_extra_that_exists(extra):
    assert install_extra(extra) == f"run `pip install '{DISTRIBUTION}[{extra}]'`"
    assert re.search(rf"^{extra} = \[", PROJECT, re.MULTILINE)


def test_hints_name_no_other_extra():
    named = {
        name
        for path in (ROOT / "stemsplit").rglob("*.py")
        for name in re.findall(r'install_extra\("(\w+)"\)', path.read_text("utf-8"))
    }
    assert named == {"openvino", "plot", "live", "train", "ray", "msst", "practice"}


def test_the_version_comes_from_one_place():
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)
    assert 'version = { attr = "stemsplit.defaults.VERSION" }' in PROJECT


def test_what_names_the_version_besides_agrees():
    """Changes after a release stand under Unreleased; `make release` wants them under the version."""
    found = RELEASE["problems"](ROOT)
    assert [problem for problem in found if "under Unreleased" not in problem] == []


CHANGES = "# Changelog\n\n## Unreleased\n\n## 1.2.0 (2027-01-31)\n\n- New.\n\n## 1.1.0 (2026-12-01)\n"


@pytest.fixture
def checkout(tmp_path):
    """The files that name the version, as they are to be."""
    files = {
        "stemsplit/defaults.py": 'VERSION = "1.2.0"\n',
        "CHANGELOG.md": CHANGES,
        "CITATION.cff": "title: stemsplit\nversion: 1.2.0\ndate-released: 2027-01-31\n",
        "models/more/pyproject.toml": '[project]\nversion = "1.2.0" # a remark\n',
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert RELEASE["problems"](tmp_path) == []
    return tmp_path


@pytest.mark.parametrize(
    ("name", "old", "new", "problem"),
    [
        ("stemsplit/defaults.py", "1.2.0", "1.3.0", "CHANGELOG.md: the newest version is 1.2.0"),
        (
            "CHANGELOG.md",
            "Unreleased\n",
            "Unreleased\n\n- More.\n",
            "CHANGELOG.md: move what is under Unreleased",
        ),
        ("CHANGELOG.md", " (2027-01-31)", "", "CHANGELOG.md: 1.2.0 has no date"),
        ("CHANGELOG.md", "01-31", "02-01", "CITATION.cff: date-released is not the date"),
        ("CITATION.cff", "1.2.0", "1.1.0", "CITATION.cff: the version is not 1.2.0"),
        ("models/more/pyproject.toml", "1.2.0", "1.2.1", "models/more/pyproject.toml: the version is not"),
    ],
)
def test_facts_that_disagree_keep_a_checkout_from_being_released(checkout, name, old, new, problem):
    text = (checkout / name).read_text(encoding="utf-8")
    (checkout / name).write_text(text.replace(old, new, 1), encoding="utf-8")
    assert RELEASE["problems"](checkout)[0].startswith(problem)


def test_a_wheel_above_its_limit_is_named(tmp_path):
    wheel, archive = tmp_path / "stemsplit_audio-1-py3-none-any.whl", tmp_path / "stemsplit_audio-1.tar.gz"
    for path, size in ((wheel, 10_000_001), (archive, 10_000_001)):
        with path.open("wb") as file:
            file.truncate(size)
    assert RELEASE["too_large"]([wheel, archive]) == [f"{wheel.name} has 10.0 MB, the limit is 10"]
    with wheel.open("wb") as file:
        file.truncate(10_000_000)
    assert RELEASE["too_large"]([wheel, archive]) == []


def test_a_file_that_no_wheel_holds_is_named(tmp_path):
    files = {
        "stemsplit/a/b.json": "stemsplit/a/b.json",
        "models/c.md": "stemsplit/models/c.md",
        "models/more/d.safetensors": "stemsplit_models/d.safetensors",
    }
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    whole, empty = tmp_path / "whole.whl", tmp_path / "empty.whl"
    with zipfile.ZipFile(whole, "w") as wheel:
        for held in files.values():
            wheel.writestr(held, "")
    zipfile.ZipFile(empty, "w").close()
    assert RELEASE["left_out"](tmp_path, [empty, whole]) == []
    assert RELEASE["left_out"](tmp_path, [empty]) == [f"no wheel holds {held}" for held in files.values()]


def test_a_release_adds_the_line_that_installs_from_the_index():
    with_index_line = RELEASE["with_index_line"]
    before = (ROOT / "README.md").read_text(encoding="utf-8").replace(RELEASE["FROM_INDEX"], "")
    after = with_index_line(before)
    assert after.partition("## Install\n\n```console\n")[2].startswith(RELEASE["FROM_INDEX"])
    assert with_index_line(after) == after
    extras = re.fullmatch(rf"\$ pipx install '{DISTRIBUTION}\[([\w,]+)\]'", RELEASE["FROM_INDEX"])
    assert extras is not None
    assert all(re.search(rf"^{extra} = \[", PROJECT, re.MULTILINE) for extra in extras[1].split(","))
    with pytest.raises(SystemExit, match="no section"):
        with_index_line("# Another README\n")


def test_the_second_distribution_is_the_one_that_the_program_names():
    project = (ROOT / "models" / "more" / "pyproject.toml").read_text(encoding="utf-8")
    assert f'name = "{MODELS_DISTRIBUTION}"' in project
    assert f'packages = ["{store.MORE_PACKAGE}"]' in project
    assert RELEASE["SECOND_MODEL"] in store.MORE
    licences = {(ROOT / name).read_text("utf-8") for name in ("models/LICENSE", "models/more/LICENSE")}
    assert len(licences) == 1
