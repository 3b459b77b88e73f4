"""All uses of other packages' private names, and all patches of other packages, with reason and version.

`tests/test_compat.py` shows which of these a new version of a package breaks.
"""

from __future__ import annotations

import contextlib
import importlib.util
import secrets
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import soundfile
    from numpy.typing import NDArray

_ADD_PEAK_CHUNK = 0x1050  # SFC_SET_ADD_PEAK_CHUNK, which soundfile has no name for

_first_call = threading.Lock()
_called = threading.Event()


def read_frames(file: soundfile.SoundFile, samples: NDArray[np.float32]) -> tuple[int, str]:
    """Read into `samples` `(time, channel)`; return the number of frames read and libsndfile's error message.

    In soundfile 0.14, `SoundFile.read` seeks after each block, which fails for some codecs and for damaged
    files. If libsndfile reports an error, it does not return the number of frames read.
    """
    import soundfile

    library = soundfile._snd
    pointer = soundfile._ffi.cast("float *", samples.ctypes.data)
    count: int = library.sf_readf_float(file._file, pointer, len(samples))
    error = library.sf_error(file._file)
    if not error:
        return count, ""
    message = soundfile._ffi.string(library.sf_error_number(error)).decode("utf-8", "replace")
    return count, message.removeprefix("Error : ").rstrip(".") or "lost sync"


def leave_out_peak_chunk(file: soundfile.SoundFile) -> None:
    """Omit the PEAK chunk: its time stamp would make the files of equal stems differ.

    soundfile 0.14 has no option for it.
    """
    import soundfile

    soundfile._snd.sf_command(file._file, _ADD_PEAK_CHUNK, soundfile._ffi.NULL, 0)


def pydub_with(converter: str | None) -> ModuleType:
    """Return pydub, set up to use the program `converter`.

    pydub 0.25 looks for ffmpeg on the PATH only, warns at import if there is none, and accepts another
    program only as a class attribute.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        import pydub

    pydub.AudioSegment.converter = converter or pydub.AudioSegment.converter
    module: ModuleType = pydub
    return module


def loudness_filters(sample_rate: int) -> list[Any]:
    """Return the filters of ITU-R BS.1770-4, each with `b`, `a` and `passband_gain`.

    pyloudnorm 0.2 uses them on whole arrays only, and keeps them private.
    """
    import pyloudnorm

    return list(pyloudnorm.Meter(sample_rate)._filters.values())


def never_reuse_numba_cache_names() -> None:
    """Give each file in numba's cache a unique name.

    numba 0.68 numbers them. Two programs that compile at the same time give the same name to different code;
    a third one then loads the code of one with the index of the other, and crashes.
    """
    from numba.core import caching

    def name(self: Any, number: int) -> str:
        pattern: str = self._data_name_pattern
        return pattern.format(number=number).replace(".nbc", f".{secrets.token_hex(8)}.nbc")

    files: Any = caching.IndexDataCacheFile
    files._data_name = name


def museval_metrics(replaced: dict[str, Callable[..., Any]]) -> ModuleType | None:
    """Return museval's `metrics.py` alone, with some functions replaced; None if it is not installed.

    Importing museval 0.4 fails if ffprobe, which only its data sets need, is not on the PATH. The replaced
    functions take most of the computing time, and museval has no option to replace them.

    Raises:
        AttributeError: it has no function with one of these names.
    """
    package = importlib.util.find_spec("museval")
    if package is None or not package.submodule_search_locations:
        return None
    path = Path(package.submodule_search_locations[0], "metrics.py")
    module = ModuleType("museval_metrics")
    exec(compile(path.read_text(encoding="utf-8"), path, "exec"), module.__dict__)
    for name, function in replaced.items():
        getattr(module, name)
        setattr(module, name, function)
    return module


def openvino() -> Any:
    """Return the openvino package, imported without telemetry.

    OpenVINO 2026.4 reports each import over the network if the package `openvino_telemetry` is installed.
    """
    telemetry = "openvino_telemetry"
    before = sys.modules.get(telemetry)
    sys.modules[telemetry] = None  # type: ignore[assignment]
    try:
        import openvino
    finally:
        del sys.modules[telemetry]
        if before is not None:
            sys.modules[telemetry] = before
    return openvino


@contextlib.contextmanager
def openvino_call() -> Iterator[None]:
    """Let one thread finish its first call before any other thread starts one.

    OpenVINO 2026.4: the Python bindings fill type tables on first use. A thread that does so releases the GIL
    while it holds the lock of a table; a second thread can then wait for the table while it holds the GIL,
    which is a deadlock.
    """
    if _called.is_set():
        yield
        return
    with _first_call:
        yield
        _called.set()


def openunmix() -> Any:
    """Return the openunmix package.

    openunmix 1.3 imports torchaudio for resampling and for its data sets, which stemsplit does not use.
    torchaudio from the package index does not load with the CPU-only build of torch.
    """
    placeholders = {}
    try:
        import torchaudio  # noqa: F401
    except (ImportError, OSError):
        placeholders["torchaudio"] = ModuleType("torchaudio")
    sys.modules.update(placeholders)
    try:
        import openunmix.model
    finally:
        for name in placeholders:
            del sys.modules[name]
    return openunmix


@contextlib.contextmanager
def openunmix_weights(fetch: Callable[[str], Any]) -> Iterator[Any]:
    """Yield the openunmix package; until exit, it takes its weights from `fetch`.

    openunmix 1.3 unpickles whatever it downloads, including code, and checks no digest.
    """
    import torch

    package, original = openunmix(), torch.hub.load_state_dict_from_url
    torch.hub.load_state_dict_from_url = lambda url, *_, **__: fetch(url)
    try:
        yield package
    finally:
        torch.hub.load_state_dict_from_url = original


def leave_python_types_out_of_help() -> None:
    """Show no type for arguments and flags in help.

    typer 0.29 shows `<list[str]>` beside an argument, and `<bool>` beside `--help`.
    """
    from typer.core import TyperArgument, TyperOption

    shown: Any = getattr(TyperOption, "display_type_rich", None)
    if shown is None:
        return

    def type_of_option(option: Any, ctx: Any) -> str | None:
        flag = option.is_flag and option.metavar is None
        return None if flag else shown(option, ctx=ctx)

    setattr(TyperArgument, "display_type_rich", lambda argument, ctx: None)  # noqa: B010 (for mypy)
    setattr(TyperOption, "display_type_rich", type_of_option)  # noqa: B010
