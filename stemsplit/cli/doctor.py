"""`stemsplit doctor`: checks of this machine, with a remedy for each failed check."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemsplit.cli import console
from stemsplit.errors import StemsplitError

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = {
    "stemsplit doctor": "Check the installation",
    "stemsplit doctor --json": "The same for scripts: one JSON object per check",
}
PACKAGES = ("torch", "numpy", "soundfile", "soxr", "safetensors")


@dataclass(frozen=True)
class Check:
    """The result of one check. If an essential one fails, nothing can be split."""

    name: str
    ok: bool
    detail: str
    hint: str | None = None
    essential: bool = False


def command(
    *,
    json: Annotated[
        bool, typer.Option("--json", metavar="", help="Print one JSON object per check.")
    ] = False,
) -> None:
    """Check the installation, and suggest fixes.

    The exit status is 1 if an essential check fails, so that nothing can be split.
    """
    broken = False
    for check in all_checks():
        broken |= check.essential and not check.ok
        if json:
            console.event(**asdict(check))
        else:
            typer.echo(f"{_mark(check)} {check.name:15} {check.detail}")
            if check.hint and not check.ok:
                typer.echo(f"{'':18}hint: {check.hint}")
    if not json:
        typer.echo("\nAn essential check failed" if broken else "\nAll essential checks passed")
    raise typer.Exit(1 if broken else 0)


def _mark(check: Check) -> str:
    """Return a tick, a cross, or a dash for an optional check that failed; in ASCII where necessary."""
    which = 0 if check.ok else 1 if check.essential else 2
    try:
        "✓✗–".encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return "+x-"[which]
    return "✓✗–"[which]


def all_checks() -> Iterator[Check]:
    """Run all checks."""
    yield Check("python", True, f"{platform.python_version()} on {platform.platform()}")
    for name in PACKAGES:
        yield _package(name)
    yield _openvino()
    yield from _devices()
    if not any(isinstance(_imported(name), Exception) for name in PACKAGES):
        yield _ffmpeg()
        yield from _formats()
        yield _run()
    yield from _models()


def _imported(name: str) -> Any:
    """Return the module or the import error, which is OSError if a shared library cannot be loaded."""
    try:
        return import_module(name)
    except (ImportError, OSError) as problem:
        return problem


def _package(name: str) -> Check:
    module = _imported(name)
    if isinstance(module, Exception):
        hint = f"run `{sys.executable} -m pip install --force-reinstall {name}`"
        return Check(name, False, str(module), hint, True)
    library = getattr(module, "__libsndfile_version__", "")
    return Check(name, True, f"{module.__version__}{library and f', libsndfile {library}'}", essential=True)


def _devices() -> Iterator[Check]:
    torch = _imported("torch")
    if isinstance(torch, Exception):
        return
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count()))
        yield Check("cuda", True, names)
    elif torch.version.cuda:
        yield Check("cuda", False, "no NVIDIA GPU found", "if there is one, check that `nvidia-smi` lists it")
    else:
        hint = "for an NVIDIA GPU, install torch as described at https://pytorch.org/get-started/locally"
        yield Check("cuda", False, "torch is built without CUDA", hint)
    mps = torch.backends.mps.is_available()
    yield Check("mps", mps, "Apple GPU" if mps else "only on Apple silicon")


def _openvino() -> Check:
    from importlib import metadata

    try:
        return Check("openvino", True, metadata.version("openvino"))
    except metadata.PackageNotFoundError:
        return Check(
            "openvino", False, "not installed", "`pip install openvino` makes CPUs about twice as fast"
        )


def _run() -> Check:
    from stemsplit.runtime import cores
    from stemsplit.zoo.loading import load_separator

    try:
        separator = load_separator()
    except StemsplitError as problem:
        return Check("runs", False, problem.message, problem.hint, True)
    return Check("runs", True, f"{separator.spec.how}, {cores()} cores", essential=True)


def _ffmpeg() -> Check:
    from stemsplit.audio import ffmpeg

    try:
        program = ffmpeg.executable()
    except StemsplitError as problem:
        return Check("ffmpeg", False, problem.message, problem.hint)
    hint = "install ffmpeg, or `pip install imageio-ffmpeg`: without it m4a, wma and videos cannot be read"
    if program is None:
        return Check("ffmpeg", False, "not found", hint)
    try:
        said = subprocess.check_output([program, "-version"], text=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as problem:
        return Check("ffmpeg", False, str(problem), hint)
    return Check("ffmpeg", True, f"{said.split()[2]} ({program})")


def _formats() -> Iterator[Check]:
    import numpy as np

    from stemsplit.audio.formats import FORMATS
    from stemsplit.audio.reader import Reader, Signal
    from stemsplit.audio.writer import Writer
    from stemsplit.files.scratch import scratch_folder

    block = np.zeros((2, 4410), np.float32)
    try:
        scratch = scratch_folder()
    except StemsplitError as problem:
        yield Check("temporary files", False, problem.message, problem.hint)
        return
    with scratch as folder:
        for kind in FORMATS:
            path = Path(folder, f"try.{kind}")
            try:
                with Writer(path, Signal(44_100, 2)) as writer:
                    writer.write(block)
                frames = sum(each.shape[1] for each in Reader(path))
            except StemsplitError as problem:
                yield Check(kind, False, problem.message, problem.hint, kind == "wav")
            else:
                exact = frames == block.shape[1]
                detail = "written and read" if exact else f"{block.shape[1]} frames written, {frames} read"
                yield Check(kind, exact, detail, "update soundfile and ffmpeg", kind == "wav")


def _models() -> Iterator[Check]:
    from stemsplit.defaults import install_models
    from stemsplit.zoo import store

    found = store.available()
    if not found:
        yield Check("models", False, "none found", "install stemsplit again", True)
    for name, path in found.items():
        try:
            card = store.read_card(path)
        except StemsplitError as problem:
            yield Check(name, False, problem.message, problem.hint, True)
        else:
            yield Check(name, True, f"{', '.join(card.stems)} ({path})", essential=True)
    if missing := store.not_available():
        yield Check("more models", False, f"{len(missing)} are not installed", install_models())
