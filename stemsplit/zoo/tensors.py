"""The tensors in a checkpoint from elsewhere, and nothing else of it."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemsplit.errors import BadWeights

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = (".ckpt", ".pth", ".pt", ".th", ".chpt", ".bin", ".safetensors")
CONTAINERS = ("state_dict", "model_state_dict", "state", "model")
"""Keys under which a checkpoint may hold the weights, beside what its training needs."""
PREFIXES = ("module.", "_orig_mod.", "model.")
"""Of the names of all tensors, where what was trained was a network inside another module."""
_NOT_ALLOWED = re.compile(r"GLOBAL ([\w.]+)")


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a network by name. Code in the file is never run.

    Raises:
        BadWeights: the file is damaged, or holds something else than tensors.
        OSError: it cannot be read.
    """
    found = stored(path) if path.suffix.lower() == ".safetensors" else _checkpoint(path)
    if isinstance(found, Mapping):
        found = next((found[key] for key in CONTAINERS if isinstance(found.get(key), Mapping)), found)
    if not isinstance(found, Mapping) or not found or not all(map(_is_plain, found, found.values())):
        raise BadWeights(f"`{path}` does not hold the weights of a network", "get another checkpoint of it")
    if sum(tensor.nbytes for tensor in found.values()) > 2 * path.stat().st_size + (1 << 20):
        raise BadWeights(f"`{path}` claims to hold more than its size", "get it again")
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return dict(found)


def write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors to a safetensors file. Raises OSError if that fails."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path.touch()
    mode = path.stat().st_mode  # the usual one: the library's is for this user alone
    try:  # the format has no two names for one tensor
        save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    path.chmod(mode)


def _is_plain(name: object, tensor: object) -> bool:
    import torch

    return (
        isinstance(name, str)
        and isinstance(tensor, torch.Tensor)
        and tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and not (tensor.is_quantized or tensor.is_complex())
    )


def stored(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file. Raises BadWeights if it is not one, or is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise BadWeights(
            f"`{path}` is not a safetensors file, or is damaged: {error}", "get it again"
        ) from error


def _checkpoint(path: Path) -> Any:
    """Return what a file of torch's holds. A zip archive is not unpacked, so that it cannot grow."""
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # unusual pickles are refused, or harmless
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except OSError:
        raise
    except Exception as error:  # damaged pickles raise errors of many kinds
        if named := _NOT_ALLOWED.search(str(error)):
            raise BadWeights(
                f"`{path}` is not opened: it holds `{named[1]}` beside weights, which could run a program",
                "get the model as .safetensors, or as a checkpoint of its weights alone",
            ) from error
        raise BadWeights(f"`{path}` is not a checkpoint of torch, or is damaged", "get it again") from error
