"""Models of the demucs package, by name: `demucs:htdemucs_ft`, `demucs:htdemucs_6s`, `demucs:mdx_extra`.

The package downloads the weights that its authors publish on Hugging Face, as safetensors. For a model in a
local folder, see `stemsplit.zoo.demucs_folder`. Code in files is never run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from stemsplit.errors import BadWeights, UnknownModel
from stemsplit.options import RuntimeOptions
from stemsplit.zoo import downloads
from stemsplit.zoo.plugins import PluginCard, PluginModel

if TYPE_CHECKING:
    from stemsplit.runtime.segments import TorchSegments

SAMPLE_RATE = 44_100
SEGMENT_SECONDS = 7.8
"""Segment length of Hybrid Transformer Demucs, for published models whose description has none."""
FOUR = ("drums", "bass", "other", "vocals")
SIX = (*FOUR, "guitar", "piano")
LICENCE = "MIT, as the authors tag the weights; in 2022 they called them `only for scientific purposes`"
HUB = "huggingface.co"


def names() -> Iterable[str]:
    """Return the published models, except `repro` variants, and quantized ones if diffq is missing."""
    quantized = find_spec("diffq") is not None
    found = [path.stem for path in _descriptions().values()]
    return [name for name in found if not name.startswith("repro") and (quantized or not name.endswith("_q"))]


def find(name: str) -> PluginModel:
    """Return a model, published or in a folder.

    Raises:
        UnknownModel: there is no model of this name.
        BadWeights: a file in the folder cannot be used.
    """
    name, at, folder = name.partition("@")
    if at:
        from stemsplit.zoo.demucs_folder import Local

        return Local(name, Path(folder).expanduser())
    if name not in _descriptions():
        raise UnknownModel(
            f"The demucs package has no model called `{name}`",
            f"choose one of {', '.join(names())}, or name a folder: demucs:NAME@FOLDER",
        )
    return Published(name)


def _descriptions() -> dict[str, Path]:
    """Return the files that describe the published models, without importing the package."""
    package = find_spec("demucs")
    assert package
    assert package.submodule_search_locations
    folder = Path(package.submodule_search_locations[0], "remote")
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


@dataclass(frozen=True)
class Bag:
    """Several networks whose estimates are averaged."""

    signatures: tuple[str, ...]
    """Names of the networks' files."""
    weights: tuple[tuple[float, ...], ...] = ()
    """Weight of each network for each of its outputs; empty: equal weights."""
    segment: float | None = None
    """Segment length in seconds. None: the networks' own."""

    @classmethod
    def read(cls, path: Path) -> Bag:
        """Return the content of a YAML file. Raises BadWeights if it is invalid."""
        import yaml

        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8"))
            weights, segment = found.get("weights") or (), found.get("segment")
            return cls(
                tuple(map(str, found["models"])),
                tuple(tuple(map(float, each)) for each in weights),
                None if segment is None else float(segment),
            )
        except (
            OSError,
            ValueError,
            yaml.YAMLError,
            AttributeError,
            KeyError,
            TypeError,
            RecursionError,
        ) as error:
            said = " ".join(str(error).split())[:200]
            raise BadWeights(
                f"`{path}` does not describe demucs models: {said}", "download it again"
            ) from error

    def shares(self, outputs: tuple[str, ...], stems: tuple[str, ...]) -> list[list[float]]:
        """Return the weight of each network for each stem; for each stem, the weights sum to one.

        Raises:
            BadWeights: the weights for a stem sum to 0.
        """
        weights = self.weights or tuple((1.0,) * len(outputs) for _ in self.signatures)
        indices = [outputs.index(name) for name in stems]
        totals = [sum(each[index] for each in weights) for index in indices]
        if not all(total > 0 for total in totals):
            raise BadWeights("The weights of the models for a stem sum to 0", "check the YAML file")
        return [
            [each[index] / total for index, total in zip(indices, totals, strict=True)] for each in weights
        ]


@dataclass(frozen=True)
class Published:
    """A model published by the authors of the package."""

    name: str

    @cached_property
    def _bag(self) -> Bag:
        return Bag.read(_descriptions()[self.name])

    def card(self) -> PluginCard:
        """Return its card, without downloading anything."""
        hybrid_transformer = self.name.startswith("htdemucs")
        return PluginCard(
            outputs=SIX if self.name == "htdemucs_6s" else FOUR,
            segment=round((self._bag.segment or SEGMENT_SECONDS) * SAMPLE_RATE),
            sample_rate=SAMPLE_RATE,
            residual="other",
            normalize=True,
            any_length=not hybrid_transformer,
            title=f"{self.name} of the demucs package",
            licence=LICENCE,
            origin=f"https://{HUB}/{self._repository}",
            notes="The weights are downloaded on first use",
            version=repr(self._bag),
        )

    @property
    def _repository(self) -> str:
        kind, _, variant = self.name.partition("_")
        if kind == "htdemucs":
            return "adefossez/HTDemucs" + (f"-{variant}" if variant else "")
        return f"adefossez/Demucs-{self.name}"

    def load(self, running: RuntimeOptions, stems: tuple[str, ...]) -> TorchSegments:
        """Return the networks for the stems, downloading them if necessary.

        Raises:
            DownloadFailed: the download fails, or is not allowed.
        """
        from stemsplit.zoo import demucs_networks

        outputs = self.card().outputs
        shares = self._bag.shares(outputs, stems)
        files = [
            f"{signature}.safetensors"
            for signature, each in zip(self._bag.signatures, shares, strict=True)
            if any(each)
        ]
        networks = [demucs_networks.read(path) for path in self._fetched(files, running)]
        if any((tuple(each.sources), each.samplerate) != (outputs, SAMPLE_RATE) for each in networks):
            raise BadWeights(f"demucs:{self.name} has changed since this version of stemsplit", "update it")
        return demucs_networks.start(networks, [each for each in shares if any(each)], stems, running)

    def _fetched(self, files: Sequence[str], running: RuntimeOptions) -> list[Path]:
        """Return the paths of files in the cache of Hugging Face Hub."""
        import huggingface_hub as hub

        there = {file: hub.try_to_load_from_cache(self._repository, file) for file in files}
        missing = [file for file, path in there.items() if not isinstance(path, str)]
        what, source = f"demucs:{self.name}", f"{HUB}/{self._repository}"
        if missing:
            downloads.refuse_offline(what, source, running)
            try:
                urls = [hub.hf_hub_url(self._repository, file) for file in missing]
                size = sum(hub.get_hf_file_metadata(url, token=False).size or 0 for url in urls)
                downloads.announce(what, source, size, LICENCE)
                there |= {file: hub.hf_hub_download(self._repository, file, token=False) for file in missing}
            except Exception as error:  # from its dependencies, which differ between versions
                raise downloads.failed(what, source, error) from error
        return [Path(str(there[file])) for file in files]
