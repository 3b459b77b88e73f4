"""`stemsplit doctor`: checks of this machine, with a remedy for each that fails."""

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

EXAMPLE = "stemsplit doctor"
PACKAGES = ("torch", "numpy", "soundfile", "soxr", "safetensors")


@dataclass(frozen=True)
class Check:
    """Something that works here or does not; without an essential one nothing can be split."""

    name: str
    ok: bool
    detail: str
    hint: str | None = None
    essential: bool = False


def command(
    *, json: Annotated[bool, typer.Option("--json", metavar="", help="One JSON object a check.")] = False
) -> None:
    """Say what works on this machine, and what to do about what does not.

    The exit status is 1 if something is broken without which nothing can be split.
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
        typer.echo("\nSomething essential is broken" if broken else "\nAll that is needed works")
    raise typer.Exit(1 if broken else 0)


def _mark(check: Check) -> str:
    """A tick, a cross, or a dash for what one can do without; in ASCII where there is nothing better."""
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
    """The module, or the error: a library that cannot be loaded is an OSError."""
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
        yield Check("cuda", False, "no NVIDIA card found", "if there is one, `nvidia-smi` must list it")
    else:
        hint = "if there is an NVIDIA card, install torch as https://pytorch.org/get-started/locally says"
        yield Check("cuda", False, "this torch is built without it", hint)
    mps = torch.backends.mps.is_available()
    yield Check("mps", mps, "Apple GPU" if mps else "only on Apple silicon")


def _openvino() -> Check:
    from importlib import metadata

    try:
        return Check("openvino", True, metadata.version("openvino"))
    except metadata.PackageNotFoundError:
        return Check(
            "openvino", False, "not installed", "`pip install openvino`: CPUs are twice as fast with it"
        )


def _run() -> Check:
    from stemsplit.runtime import cores
    from stemsplit.zoo.loading import load_separator

    try:
        separator = load_separator()
    except StemsplitError as problem:
        return Check("runs", False, problem.message, problem.hint, True)
    return Check("runs", True, f"by {separator.spec.how}, with {cores()} cores", essential=True)


def _ffmpeg() -> Check:
    from stemsplit.audio import ffmpeg

    try:
        program = ffmpeg.executable()
    except StemsplitError as problem:
        return Check("ffmpeg", False, problem.message, problem.hint)
    hint = "install ffmpeg, or `pip install imageio-ffmpeg`: without it m4a, wma and videos cannot be read"
    if program is None:
        return Check("ffmpeg", False, "there is none", hint)
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
        yield Check("models", False, "there are none", "install stemsplit again", True)
    for name, path in found.items():
        try:
            card = store.read_card(path)
        except StemsplitError as problem:
            yield Check(name, False, problem.message, problem.hint, True)
        else:
            yield Check(name, True, f"{', '.join(card.stems)} ({path})", essential=True)
    if missing := store.not_available():
        yield Check("more models", False, f"{len(missing)} are not installed", install_models())
