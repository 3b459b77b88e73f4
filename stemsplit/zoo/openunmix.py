"""Models of the Open-Unmix package, by name: `openunmix:umxhq`, `openunmix:umxl`.

For a model in a local folder, see `Local`. The networks are BLSTMs, whose receptive field is the whole input,
so they run on overlapping segments of 600 frames. As in the package, one iteration of its Wiener filter
follows, on 300 frames at a time. The stems then sum to the mixture, except for rounding errors, which are
divided among them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemsplit import _compat
from stemsplit.errors import BadWeights, UnknownModel
from stemsplit.files.digest import sha256
from stemsplit.options import RuntimeOptions
from stemsplit.zoo import downloads
from stemsplit.zoo.plugins import PluginCard, PluginModel

if TYPE_CHECKING:
    from stemsplit.runtime.segments import TorchSegments

FRAMES = 600
"""Segment length in frames: twice the length that the package's Wiener filter processes at a time."""
FOUR = ("vocals", "drums", "bass", "other")
HOST = "zenodo.org"
UNSTATED = "unknown, the package does not say: see {origin}"
RECORDS = {
    "umxhq": (3370489, 142_000_000, UNSTATED, "trained on MUSDB18-HQ"),
    "umxl": (5069601, 453_000_000, "CC BY-NC-SA 4.0, not for commercial use", "trained on 400 h of music"),
    "umx": (3370486, 142_000_000, UNSTATED, "trained on MUSDB18, up to 16 kHz"),
}
"""Record at zenodo.org, size in bytes, licence and description of each published model."""

SEPARATOR = {"sample_rate": 400_000, "nfft": 1 << 15, "nhop": 1 << 14, "nb_channels": 2}
NETWORK = {"hidden_size": 1 << 13}
"""Numbers in the files of a model, and their maximum values."""


def names() -> Iterable[str]:
    """Return the published models for music."""
    return RECORDS


def find(name: str) -> PluginModel:
    """Return a model, published or in a folder.

    Raises:
        UnknownModel: there is no model of this name.
        BadWeights: a file in the folder cannot be used.
    """
    name, at, folder = name.partition("@")
    if at:
        return Local.read(Path(folder).expanduser() / name)
    if name not in RECORDS:
        raise UnknownModel(
            f"The openunmix package has no model for music called `{name}`",
            f"choose one of {', '.join(RECORDS)}, or name a folder: openunmix:NAME@FOLDER",
        )
    return Published(name)


@dataclass(frozen=True)
class Published:
    """A model published by the authors of the package."""

    name: str

    def card(self) -> PluginCard:
        """Return its card, without downloading anything."""
        record, _, licence, what = RECORDS[self.name]
        origin = f"https://{HOST}/records/{record}"
        return PluginCard(
            outputs=FOUR,
            segment=(FRAMES - 1) * 1024,
            title=f"Open-Unmix {self.name}, {what}",
            licence=licence.format(origin=origin),
            origin=origin,
            notes="The weights are downloaded on first use",
            version=str(record),
        )

    def load(self, running: RuntimeOptions, stems: tuple[str, ...]) -> TorchSegments:
        """Return the networks of the stems, downloading them if necessary.

        Raises:
            DownloadFailed: the download fails, or is not allowed.
        """
        from stemsplit.zoo import openunmix_networks

        with _compat.openunmix_weights(_Store(self, running)) as package:
            networks = getattr(package, f"{self.name}_spec")(list(stems))
        return openunmix_networks.start(networks, stems, running)


class _Store:
    """Provides the package with weights from torch's cache, downloading them if necessary."""

    def __init__(self, model: Published, running: RuntimeOptions) -> None:
        self._model, self._running, self._announced = model, running, False

    def __call__(self, url: str) -> Any:
        import torch

        path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
        if not path.is_file():
            self._download(url, path)
        digest = path.stem.rpartition("-")[2]
        with path.open("rb") as file:
            if not sha256(file).startswith(digest):
                raise BadWeights(
                    f"`{path}` is damaged: its digest differs from the one in its name", "remove it"
                )
        return torch.load(path, "cpu", weights_only=True)

    def _download(self, url: str, path: Path) -> None:
        import torch

        what = f"openunmix:{self._model.name}"
        downloads.refuse_offline(what, HOST, self._running)
        if not self._announced:
            downloads.announce(what, HOST, RECORDS[self._model.name][1], self._model.card().licence)
            self._announced = True
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), path.stem.rpartition("-")[2], progress=False)
        except (OSError, RuntimeError) as error:  # RuntimeError: wrong digest
            raise downloads.failed(what, HOST, error) from error


@dataclass(frozen=True)
class Local:
    """A folder made by the package's training: `openunmix:NAME@FOLDER` is FOLDER/NAME.

    It holds `separator.json`, and for each stem `STEM.json` and `STEM.pth` or `STEM-DIGEST.pth`. If no stem
    is called `other`, the residual is.
    """

    folder: Path
    transform: Mapping[str, int]
    files: Mapping[str, Path]
    """The weights file of each stem."""
    hidden: Mapping[str, int]
    """The size of the hidden layers of each stem's network."""

    @classmethod
    def read(cls, folder: Path) -> Local:
        """Return the model in a folder.

        Raises:
            UnknownModel: there is no such folder.
            BadWeights: a file cannot be used.
        """
        if not (folder / "separator.json").is_file():
            raise UnknownModel(
                f"No `{folder}` with a separator.json", "write openunmix:NAME@FOLDER for FOLDER/NAME"
            )
        found = sorted(path for path in folder.iterdir() if path.suffix == ".pth")
        files = {re.sub(r"-[0-9a-f]+$", "", path.stem): path for path in found}
        transform = _numbers(folder / "separator.json", SEPARATOR)
        hidden = {stem: _numbers(folder / f"{stem}.json", NETWORK, "args")["hidden_size"] for stem in files}
        return cls(folder, transform, files, hidden)

    def card(self) -> PluginCard:
        """Return its card."""
        digests = []
        for path in self.files.values():
            with path.open("rb") as file:
                digests.append(sha256(file))
        return PluginCard(
            outputs=tuple(self.files),
            segment=(FRAMES - 1) * self.transform["nhop"],
            sample_rate=self.transform["sample_rate"],
            residual="" if "other" in self.files else "other",
            title=f"{self.folder.name}, a model for the openunmix package",
            origin=str(self.folder),
            version=repr((self.transform, self.hidden, digests)),
        )

    def load(self, running: RuntimeOptions, stems: tuple[str, ...]) -> TorchSegments:
        """Return the networks of the stems.

        Raises:
            BadWeights: a file cannot be used.
        """
        from stemsplit.zoo import openunmix_networks

        bins = self.transform["nfft"] // 2 + 1
        networks = {
            stem: openunmix_networks.read(path, bins, self.hidden[stem]) for stem, path in self.files.items()
        }
        return openunmix_networks.start(networks, stems, running, self.transform)


def _numbers(path: Path, limits: Mapping[str, int], section: str | None = None) -> dict[str, int]:
    """Return numbers in a JSON file. Raises BadWeights if one is missing or out of range."""
    try:
        facts = json.loads(path.read_bytes())
        found = {key: int((facts[section] if section else facts)[key]) for key in limits}
        if wrong := [key for key, value in found.items() if not 0 < value <= limits[key]]:
            raise ValueError(f"{', '.join(wrong)}: out of range")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadWeights(
            f"`{path}` does not describe a model: {str(error)[:200]}", "download it again"
        ) from error
    return found
