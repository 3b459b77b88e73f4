"""Models for the demucs package in a local folder: `demucs:NAME@FOLDER`.

`NAME.yaml` lists the networks to average, with optional `weights` and `segment`, as in the package. Each
network is in `SIGNATURE.th` or `SIGNATURE.safetensors`. NAME may be a signature itself. A `.th` is a pickle,
of which only tensors, plain values and the classes of demucs' own networks are read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemsplit.errors import BadWeights, UnknownModel
from stemsplit.files.digest import sha256
from stemsplit.options import RuntimeOptions
from stemsplit.zoo.demucs import Bag
from stemsplit.zoo.plugins import PluginCard

if TYPE_CHECKING:
    from stemsplit.runtime.segments import TorchSegments


@dataclass(frozen=True)
class Local:
    """A model in a local folder.

    Raises:
        UnknownModel: the folder has no such model.
    """

    name: str
    folder: Path

    def __post_init__(self) -> None:
        if not self.folder.is_dir() or not self.name or Path(self.name).name != self.name:
            raise UnknownModel(
                f"No folder `{self.folder}` with a model `{self.name}`", "write demucs:NAME@FOLDER"
            )

    @cached_property
    def _bag(self) -> Bag:
        path = self.folder / f"{self.name}.yaml"
        return Bag.read(path) if path.is_file() else Bag((self.name,))

    @cached_property
    def _files(self) -> list[Path]:
        return [_file(self.folder, signature) for signature in self._bag.signatures]

    @cached_property
    def _networks(self) -> Any:
        from demucs.apply import BagOfModels

        from stemsplit.zoo import demucs_networks

        networks = [demucs_networks.read(path) for path in self._files]
        weights = [list(each) for each in self._bag.weights]
        try:
            return BagOfModels(networks, weights or None, self._bag.segment)
        except AssertionError as error:
            raise BadWeights(
                f"The networks of `{self.name}` need the same stems and sample rate, and weights for each",
                "check the YAML file",
            ) from error

    def card(self) -> PluginCard:
        """Return its card, from its files.

        Raises:
            BadWeights: a file cannot be used.
        """
        networks = self._networks
        if networks.audio_channels != 2:
            raise BadWeights(f"`{self.name}` is not a stereo model", "choose another model")
        digests = [_digest(path) for path in self._files]
        fixed = all(getattr(each, "use_train_segment", False) for each in networks.models)
        return PluginCard(
            outputs=tuple(networks.sources),
            segment=min(int(each.segment * each.samplerate) for each in networks.models),
            sample_rate=networks.samplerate,
            residual="other" if "other" in networks.sources else "",
            normalize=True,
            any_length=not fixed,
            title=f"{self.name}, a model for the demucs package",
            origin=str(self.folder),
            version=repr((self._bag, digests)),
        )

    def load(self, running: RuntimeOptions, stems: tuple[str, ...]) -> TorchSegments:
        """Return the networks for the stems."""
        from stemsplit.zoo import demucs_networks

        shares = self._bag.shares(tuple(self._networks.sources), stems)
        networks = [each for each, share in zip(self._networks.models, shares, strict=True) if any(share)]
        return demucs_networks.start(networks, [each for each in shares if any(each)], stems, running)


def _file(folder: Path, signature: str) -> Path:
    """Return the weights file of a network. A digest in its name, `SIGNATURE-DIGEST.th`, is checked.

    Raises:
        UnknownModel: there is no such file.
        BadWeights: it is damaged.
    """
    pattern = re.compile(rf"{re.escape(signature)}(-[0-9a-f]+)?\.(safetensors|th)")
    found = sorted(path for path in folder.iterdir() if pattern.fullmatch(path.name))
    if len(found) != 1:
        many = f"{len(found)} files" if found else "no file"
        raise UnknownModel(
            f"`{folder}` has {many} for `{signature}`",
            f"there must be one: {signature}.safetensors, {signature}.th or {signature}-DIGEST.th",
        )
    (path,) = found
    if not _digest(path).startswith(path.stem.removeprefix(signature).removeprefix("-")):
        raise BadWeights(
            f"`{path}` is damaged: its digest differs from the one in its name", "download it again"
        )
    return path


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return sha256(file)
