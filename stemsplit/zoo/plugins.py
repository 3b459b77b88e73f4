"""Models of other packages (plugins).

A package offers a model as an entry point of the group `stemsplit.models`, which refers to a `PluginModel`:
an object, or a module with the two functions.

    [project.entry-points."stemsplit.models"]
    left-right = "my_package"

Then `--model left-right` separates with it. A package with many models offers a `Family` instead:
`--model NAME:MODEL` is the model that the family NAME finds for MODEL. Shipped and installed models, spatial
methods and files come first, so a plugin cannot replace them. `examples/plugin` is a complete package.
"""

# ruff: noqa: D102 (ModelRef documents what its variants implement)
from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from stemsplit.defaults import install_extra
from stemsplit.errors import BadPlugin, StemsplitError, UnknownModel
from stemsplit.options import RuntimeOptions
from stemsplit.zoo.installed import LONGEST_SECONDS, in_usual_order
from stemsplit.zoo.ref import ForeignRef

if TYPE_CHECKING:
    from stemsplit.separation.separator import Method, Samples

Network: TypeAlias = "Callable[[Samples], Samples]"
"""Maps a segment `(channel, time)` of two channels to estimates `(output, channel, time)`.

An optional attribute `execution`, an `Execution`, describes how it runs.
"""

GROUP = "stemsplit.models"
FAMILIES = {"demucs": "stemsplit.zoo.demucs", "openunmix": "stemsplit.zoo.openunmix"}
"""Packages whose models have names like `demucs:htdemucs_ft`, and the module that is their `Family`."""


@dataclass(frozen=True)
class PluginCard:
    """The card of a plugin's model, available before it is loaded.

    Raises:
        ValueError: a fact is out of range.
    """

    outputs: tuple[str, ...]
    """The stems that the model estimates."""
    segment: int = 0
    """Length of a segment in samples. 0: the model is a separator, see `PluginModel.load`."""
    sample_rate: int = 44_100
    residual: str = ""
    """The stem that gets the mixture minus the estimates; empty: all stems get equal parts of it."""
    overlap: float = 0.25
    """Overlap of segments, as a fraction."""
    any_length: bool = False
    """Whether the network accepts shorter segments, so that the last ones of a track need no padding."""
    normalize: bool = False
    """Whether the network expects a track with mean 0 and standard deviation 1."""
    title: str = ""
    licence: str = "unknown"
    origin: str = ""
    notes: str = ""
    """Anything else that users should know, in one sentence."""
    version: str = ""
    """Version of the weights, e.g. a digest. If it or the package changes, stems are made again."""

    def __post_init__(self) -> None:
        if not isinstance(self.outputs, tuple) or not all(map(_is_word, self.outputs)):
            raise ValueError(f"outputs={self.outputs!r} must be a tuple of names")
        if len(set(self.outputs)) < len(self.outputs) or len(self.stems) < 2:
            raise ValueError("there must be two stems or more, of different names")
        if not 4_000 <= self.sample_rate <= 400_000:
            raise ValueError(f"sample_rate={self.sample_rate} is out of range")
        if self.segment and not 256 <= self.segment <= LONGEST_SECONDS * self.sample_rate:
            raise ValueError(f"segment={self.segment} must be 256 samples to {LONGEST_SECONDS} s, or 0")
        if not 0 <= self.overlap <= 0.95:
            raise ValueError(f"overlap={self.overlap} must be from 0 to 0.95")

    @property
    def stems(self) -> tuple[str, ...]:
        """All stems, in the usual order."""
        return in_usual_order(self.outputs, self.residual)


def _is_word(name: Any) -> bool:
    return isinstance(name, str) and name.replace("-", "_").isidentifier()


class PluginModel(Protocol):
    """A model of another package."""

    def card(self) -> PluginCard:
        """Return the card. This should be fast, because it is called whenever models are listed."""

    def load(self, running: RuntimeOptions, stems: tuple[str, ...]) -> Any:
        """Load the model with the options `running`: device, threads, and whether to download.

        With a `segment` in the card, return a `Network` that estimates the outputs in `stems`, in this order.
        stemsplit cuts the stream, duplicates mono, normalizes, weights overlaps and resamples, and adds the
        residual to the stems as the card says.

        Without one, return a `Separator` or `StreamSeparator` of these stems.
        """


class Family(Protocol):
    """A package of models, which are named `FAMILY:MODEL`."""

    def names(self) -> Iterable[str]:
        """Return the models to list, without the family's name."""

    def find(self, name: str) -> PluginModel:
        """Return a model.

        Raises:
            UnknownModel: there is no model of this name.
        """


@dataclass(frozen=True)
class Plugin(ForeignRef):
    """A model of another package."""

    text: str
    model: PluginModel
    card: PluginCard
    package: str
    """The package, and its version."""

    @property
    def segmented(self) -> bool:
        return bool(self.card.segment)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(repr((self.text, self.package, self.card)).encode()).hexdigest()

    def describe(self) -> str:
        card = self.card
        seconds = f", in segments of {card.segment / card.sample_rate:.1f} s" if card.segment else ""
        facts = {
            "Stems": ", ".join(self.stems),
            "Input": f"{card.sample_rate / 1000:g} kHz{seconds}",
            "Package": self.package,
            "Origin": card.origin or "unknown",
            "Licence": card.licence,
        }
        if card.segment:
            facts["Residual"] = f"the mixture minus the estimates is added to {card.residual or 'all'}"
        lines = "\n".join(f"- **{name}**: {value}" for name, value in facts.items())
        texts = [f"{text}." for text in (card.title, card.notes) if text]
        return "\n\n".join([f"# {self.text}", *texts, lines]) + "\n"

    def facts(self) -> dict[str, Any]:
        facts = {**asdict(self.card), "stems": self.stems}
        return {"name": self.text, "package": self.package, **facts}

    def _load(self, running: RuntimeOptions, stems: tuple[str, ...], mask: str | None) -> Method:
        from stemsplit.zoo import plugin_loading

        return plugin_loading.load(self, running, stems, mask)


@contextmanager
def guarded(name: str) -> Iterator[None]:
    """Turn any error of another package's code into BadPlugin."""
    try:
        yield
    except (StemsplitError, MemoryError):
        raise
    except Exception as error:
        if "allocate memory" in str(error):  # torch's, see `errors.failure`
            raise
        said, _, _ = f"{type(error).__name__}: {error}".strip().partition("\n")
        raise BadPlugin(
            f"`{name}`, a model of another package, failed: {said[:300]}", "update the package"
        ) from error


def is_offered(name: str) -> bool:
    """Whether another package can have a model of this name, without running its code."""
    prefix, colon, _ = name.partition(":")
    there = _entry_points()
    return name in there or bool(colon) and (prefix in FAMILIES or prefix in there)


def find(name: str) -> Plugin:
    """Return the model that a plugin offers under this name.

    Raises:
        UnknownModel: there is none, or the package is not installed.
        BadPlugin: the plugin does not work.
    """
    prefix, colon, rest = name.partition(":")
    there = _entry_points()
    with guarded(name):
        if colon and prefix in FAMILIES:
            if not find_spec(prefix):
                raise UnknownModel(f"The package {prefix} is not installed", install_extra(prefix))
            family: Any = import_module(FAMILIES[prefix])
            return _plugin(name, family.find(rest), f"{prefix} {version(prefix)}")
        if name in there:
            return _plugin(name, there[name].load(), _package(there[name]))
        if colon and prefix in there:
            return _plugin(name, there[prefix].load().find(rest), _package(there[prefix]))
    raise UnknownModel(f"No model called `{name}`", "see `stemsplit models`")


def _plugin(name: str, model: PluginModel, package: str) -> Plugin:
    card = model.card()
    if not isinstance(card, PluginCard):
        raise TypeError(f"card() returned {type(card).__name__} instead of PluginCard")
    return Plugin(name, model, card, package)


def names() -> list[str]:
    """Return the names that are known without running another package's code."""
    families = {name: import_module(module) for name, module in FAMILIES.items() if find_spec(name)}
    known = [f"{name}:{each}" for name, family in families.items() for each in family.names()]
    return [*_entry_points(), *known]


def every() -> Iterator[Plugin | StemsplitError]:
    """Yield the models that plugins list, and an error for each plugin that does not work."""
    for name in sorted(_entry_points().keys() | {each for each in FAMILIES if find_spec(each)}):
        try:
            yield from map(find, _listed(name))
        except StemsplitError as error:
            yield error


def _listed(name: str) -> list[str]:
    """Return the models of a family, or the only model."""
    with guarded(name):
        offered: Any = import_module(FAMILIES[name]) if name in FAMILIES else _entry_points()[name].load()
        return [f"{name}:{each}" for each in offered.names()] if hasattr(offered, "names") else [name]


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "unknown"
