"""Reading the tensors in a third-party checkpoint, and nothing else."""

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
"""Keys under which a checkpoint can store the weights, besides its training state."""
PREFIXES = ("module.", "_orig_mod.", "model.")
"""Prefixes of all tensor names, if the network was trained inside another module."""
_NOT_ALLOWED = re.compile(r"GLOBAL ([\w.]+)")


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a network by name. Code in the file is never run.

    Raises:
        BadWeights: the file is damaged, or contains something other than tensors.
        OSError: it cannot be read.
    """
    found = stored(path) if path.suffix.lower() == ".safetensors" else _checkpoint(path)
    if isinstance(found, Mapping):
        found = next((found[key] for key in CONTAINERS if isinstance(found.get(key), Mapping)), found)
    if not isinstance(found, Mapping) or not found or not all(map(_is_plain, found, found.values())):
        raise BadWeights(
            f"`{path}` does not contain the weights of a network", "get another checkpoint of it"
        )
    if sum(tensor.nbytes for tensor in found.values()) > 2 * path.stat().st_size + (1 << 20):
        raise BadWeights(f"`{path}` expands to far more than its size", "download it again")
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return dict(found)


def write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors to a safetensors file. Raises OSError if that fails."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path.touch()
    mode = path.stat().st_mode  # the usual mode; the library makes the file readable by its owner only
    try:  # the format does not support two names for one tensor
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
    """Return the tensors of a safetensors file. Raises BadWeights for other or damaged files."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise BadWeights(
            f"`{path}` is not a safetensors file, or is damaged: {error}", "download it again"
        ) from error


def _checkpoint(path: Path) -> Any:
    """Return the content of a torch file. A zip archive is memory-mapped, so that it cannot expand."""
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # unusual pickles are either refused or harmless
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except OSError:
        raise
    except Exception as error:  # damaged pickles raise many kinds of errors
        if named := _NOT_ALLOWED.search(str(error)):
            raise BadWeights(
                f"`{path}` is not opened: besides weights it contains `{named[1]}`, which could run code",
                "get the model as .safetensors, or as a checkpoint with weights only",
            ) from error
        raise BadWeights(f"`{path}` is not a torch checkpoint, or is damaged", "download it again") from error
