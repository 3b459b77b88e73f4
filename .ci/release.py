"""Build the distributions of this checkout, and try them as a user would.

    .venv/bin/python .ci/release.py wheels     # of the working tree, with one Python: `make wheel`
    .venv/bin/python .ci/release.py release    # of the last commit, with each Python at hand: `make release`

A wheel is tried in its own environment and folder and, where the system allows it, without a network.
Nothing is uploaded, and nothing is added to git.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).resolve().parent.parent
BUILD, DIST = ROOT / "build" / "release", ROOT / "dist"
SONG = ROOT / "examples" / "caesium-30s.mp3"
STEMS = {"vocals.wav", "drums.wav", "bass.wav", "other.wav"}
SECOND_MODEL = "deep-conv-sep"
"""A quick one of the second distribution."""
PYTHONS = [f"python3.{minor}" for minor in range(10, 15)]
LARGEST_MB = {"stemsplit_audio": 10, "stemsplit_audio_models": 100}
"""The package index takes files of up to 100 MB; the program's own wheel is meant to be small."""
FROM_INDEX = "$ pipx install 'stemsplit-audio[openvino,plot]'"


def main() -> None:
    """Build and try; end with what is wrong, or with what to do next."""
    arguments = argparse.ArgumentParser(description="Build the distributions and try them.")
    arguments.add_argument("what", choices=["wheels", "release"])
    arguments.add_argument("--pythons", nargs="*", default=PYTHONS, help="commands to try wheels with")
    options = arguments.parse_args()
    released = options.what == "release"
    if released:
        stop_if(problems(ROOT) + git_problems())
    pythons = at_hand(options.pythons) if released else [sys.executable]
    shutil.rmtree(BUILD, ignore_errors=True)
    shutil.rmtree(DIST, ignore_errors=True)
    source = copied(BUILD / "source")
    if released:
        change(source / "README.md", with_index_line)
    kinds = [] if released else ["--wheel"]  # by default a wheel is built from its sdist
    for folder in (source, source / "models" / "more"):
        print(f"building {folder.relative_to(BUILD)}", flush=True)
        run(sys.executable, "-m", "build", "--quiet", *kinds, "--outdir", DIST, folder)
    built = sorted(DIST.iterdir())
    run(sys.executable, "-m", "twine", "check", "--strict", *built)
    stop_if(too_large(built) + left_out(source, sorted(DIST.glob("*.whl"))))
    for python in pythons:
        try_wheels(python, sorted(DIST.glob("*.whl")))
    for path in built:
        print(f"{path.stat().st_size / 1e6:6.1f} MB  {path.relative_to(ROOT)}")
    if released:
        change(ROOT / "README.md", with_index_line)
        print(f"\nTried with {', '.join(pythons)}.\n\n{next_steps(constants(ROOT))}")


def problems(root: Path) -> list[str]:
    """Return what keeps a checkout from being released: facts that are not the same everywhere."""
    facts = constants(root)
    version = facts["VERSION"]
    changes, citation, models = (
        (root / name).read_text(encoding="utf-8")
        for name in ("CHANGELOG.md", "CITATION.cff", "models/more/pyproject.toml")
    )
    found = []
    if unreleased(changes):
        found.append(f"CHANGELOG.md: move what is under Unreleased below the heading of {version}")
    heading = newest(changes)
    if heading[0] != version:
        found.append(f"CHANGELOG.md: the newest version is {heading[0]}, and not {version}")
    if not heading[1]:
        found.append(f"CHANGELOG.md: {version} has no date: write `## {version} ({date.today()})`")
    if f"\nversion: {version}\n" not in citation:
        found.append(f"CITATION.cff: the version is not {version}")
    if heading[1] and f"\ndate-released: {heading[1]}\n" not in citation:
        found.append("CITATION.cff: date-released is not the date in CHANGELOG.md")
    if f'\nversion = "{version}"' not in models:
        found.append(f"models/more/pyproject.toml: the version is not {version}")
    return found


def constants(root: Path) -> dict[str, str]:
    """Return the strings that `stemsplit/defaults.py` defines, without importing the package."""
    text = (root / "stemsplit" / "defaults.py").read_text(encoding="utf-8")
    return dict(re.findall(r'^(\w+) = "(.*)"$', text, re.MULTILINE))


def unreleased(changes: str) -> str:
    """Return what the changelog says under Unreleased."""
    _, _, rest = changes.partition("\n## Unreleased\n")
    return rest.partition("\n## ")[0].strip()


def newest(changes: str) -> tuple[str, str]:
    """Return the newest version in the changelog and its date; empty where there is none."""
    heading = re.search(r"^## (\d\S*)(?: \((\d{4}-\d\d-\d\d)\))?$", changes, re.MULTILINE)
    return (heading[1], heading[2] or "") if heading else ("", "")


def git_problems() -> list[str]:
    """Return what keeps the last commit from being released."""
    tag = f"v{constants(ROOT)['VERSION']}"
    found = []
    if output("git", "status", "--porcelain"):
        found.append("the working tree has changes: commit them first")
    if output("git", "tag", "--list", tag):
        found.append(f"there is a tag {tag} already: raise VERSION in stemsplit/defaults.py")
    return found


def at_hand(names: Iterable[str]) -> list[str]:
    """Return those commands that are there and run."""
    found = [name for name in names if shutil.which(name) and succeeds(name, "-c", "")]
    stop_if([] if found else ["no Python to try the wheels with"])
    return found


def copied(folder: Path) -> Path:
    """Copy the files of the working tree that git does not ignore: builds leave nothing in the checkout."""
    names = output("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in names:
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def too_large(paths: Iterable[Path]) -> list[str]:
    """Return a sentence for each wheel above its limit."""
    limits = {path: LARGEST_MB[path.name.partition("-")[0]] for path in paths if path.suffix == ".whl"}
    return [
        f"{path.name} has {path.stat().st_size / 1e6:.1f} MB, the limit is {limit}"
        for path, limit in limits.items()
        if path.stat().st_size > limit * 1e6
    ]


def left_out(source: Path, wheels: Iterable[Path]) -> list[str]:
    """Return a sentence for each file of the packages that no wheel holds."""
    held = {name for wheel in wheels for name in ZipFile(wheel).namelist()}
    files = [path for path in (source / "stemsplit").rglob("*") if path.is_file()]
    wanted = {path.relative_to(source).as_posix() for path in files}
    for folder, package in (("models", "stemsplit/models"), ("models/more", "stemsplit_models")):
        wanted |= {f"{package}/{path.name}" for path in (source / folder).glob("*.safetensors")}
        wanted |= {f"{package}/{path.name}" for path in (source / folder).glob("*.md")}
    return [f"no wheel holds {name}" for name in sorted(wanted - held)]


def try_wheels(python: str, wheels: Sequence[Path]) -> None:
    """Split the example with the program alone, and then with a model of the second distribution."""
    program, models = wheels
    print(f"trying the wheels with {python}", flush=True)
    folder = BUILD / Path(python).name
    run(python, "-m", "venv", "--without-pip", folder / "env")
    binaries = folder / "env" / ("Scripts" if sys.platform == "win32" else "bin")
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    # Most of torch is never imported, so that compiling it all would take longer.
    install = (*pip, "--python", binaries / "python", "install", "--no-compile")
    run(*install, "--constraint", ROOT / "constraints.txt", program)
    offline = ("unshare", "-rn") if succeeds("unshare", "-rn", "true") else ()
    split = (*offline, binaries / "stemsplit", SONG.name, "--duration", "10", "--quiet")
    shutil.copy(SONG, folder)
    run(*split, cwd=folder)
    second = (*split, "--model", SECOND_MODEL, "--out", "second")
    refused = subprocess.run([*map(str, second)], cwd=folder, capture_output=True, text=True)
    stop_if([] if refused.returncode == 2 and "is not installed" in refused.stderr else [refused.stderr])
    run(*install, "--no-index", models)
    run(*second, cwd=folder)
    for out in ("stems", "second"):
        written = {path.name for path in (folder / out / SONG.stem).iterdir()}
        stop_if([] if written >= STEMS else [f"{python} wrote {sorted(written)} only"])
    shutil.rmtree(folder)  # with CUDA's libraries it has some 5 GB


def with_index_line(readme: str) -> str:
    """Return the README with the line that installs from the package index first in its section on that."""
    heading, block = "\n## Install\n\n", f"```console\n{FROM_INDEX}\n```\n\n"
    stop_if([] if heading in readme else ["README.md has no section `Install`"])
    return readme if block in readme else readme.replace(heading, f"{heading}{block}", 1)


def change(path: Path, how: Callable[[str], str]) -> None:
    """Rewrite a text file."""
    path.write_text(how(path.read_text(encoding="utf-8")), encoding="utf-8")


def next_steps(facts: dict[str, str]) -> str:
    """Return what is left to do, for a person."""
    version, address = facts["VERSION"], facts["PUBLIC_ADDRESS"]
    steps = [
        "git diff README.md: it names the package index now; commit it",
        f"git tag --annotate v{version} --message 'stemsplit {version}'",
        f"git push {address or 'REMOTE'} main v{version}",
        ".venv/bin/twine upload dist/*",
        f"raise VERSION in stemsplit/defaults.py, and what `make release` compares with it, after {version}",
    ]
    if not address:
        steps.insert(
            0, "PUBLIC_ADDRESS in stemsplit/defaults.py is empty: without it the README has dead links"
        )
    return "What to do next:\n" + "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))


def run(*words: object, cwd: Path = ROOT) -> None:
    """Run a command, or stop with its status."""
    if status := subprocess.run([*map(str, words)], cwd=cwd).returncode:
        sys.exit(status)


def succeeds(*words: object) -> bool:
    """Whether a command is there and ends with status 0."""
    try:
        return subprocess.run([*map(str, words)], capture_output=True).returncode == 0
    except OSError:
        return False


def output(*words: str) -> str:
    """Return what a command prints."""
    return subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def stop_if(sentences: Sequence[str]) -> None:
    """Stop with the sentences, if there are any."""
    if sentences:
        sys.exit("\n".join(f"error: {sentence}" for sentence in sentences))


if __name__ == "__main__":
    main()
