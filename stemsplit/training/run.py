"""A training run in a folder: checkpoint, log, curves and, at the end, the weights with their card."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from stemsplit.datasets.songs import Song, SongSource, summary
from stemsplit.defaults import VERSION
from stemsplit.dsp.stft import Stft
from stemsplit.errors import BadWeights, EncodeError, UsageError
from stemsplit.missing import no_stem, other_stems
from stemsplit.networks import registry
from stemsplit.networks.info import NetworkInfo
from stemsplit.training import calibration, checkpoint, teacher
from stemsplit.training.augment import Augmentation
from stemsplit.training.config import TrainConfig
from stemsplit.training.devices import launch
from stemsplit.training.logger import Display, TrainingLogger
from stemsplit.training.loop import Samplers, Trainer
from stemsplit.training.losses import MASK_LOSSES, SIGNAL_LOSSES
from stemsplit.training.sampler import DECODED, MixtureSampler, map_songs, splits
from stemsplit.zoo import page, store
from stemsplit.zoo.card import ModelCard

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torch import Tensor

    from stemsplit.networks.base import Network

WAVEFORM = "waveform"
"""The card's `mask` for waveform networks."""
SAY_SECONDS = 5
VALIDATION_SIZE, VALIDATION_FRAMES = 4, 128
"""Number of excerpts in a validation batch, and of frames in an excerpt."""
VALIDATION_SECONDS = 4
"""Length of the excerpts for waveform networks."""


@dataclass(frozen=True)
class Settings:
    """The songs of a run, its devices, and its folder."""

    data: tuple[str, ...]
    """See `splits`."""
    run: Path
    name: str
    stems: tuple[str, ...]
    shares: tuple[float, ...] = ()
    """The share of examples from each of `data`. Empty: only the songs' lengths decide."""
    examples: int = 8
    """Number of excerpts in a batch, per device."""
    frames: int = 32
    """Length of an excerpt; in samples for waveform networks."""
    validation: int = 48
    """Number of validation excerpts (the same each time), rounded down to whole batches."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    device: str = "cpu"
    devices: int = 1
    nodes: int = 1
    workers: int = 1
    licence: str = ""
    source: str = ""


def train(
    settings: Settings,
    recipe: TrainConfig,
    *,
    say: Callable[[str], None],
    display: Display = lambda entry, logged: None,
) -> Path | None:
    """Train to the end, resuming the run in the folder if there is one; return the path of the weights.

    With several processes, only the first one writes and prints; the others return None.

    Raises:
        StemsplitError: a package that only training needs is not installed.
        DecodeError: the data folders contain no songs, or a stem cannot be decoded.
        BadWeights: the folder contains a run with another recipe, or the recipe's `init` or `teacher` does
            not fit.
        UnknownModel: there is no model `init` or `teacher`.
        UnknownStem: the songs, or the model `init`, lack a stem.
        DeviceUnavailable: a device does not exist.
        EncodeError: the folder cannot be written.
    """
    entry = registry.find(recipe.network)
    _check(settings.augmentation, recipe)
    weights = _initial_weights(recipe, settings.stems)
    taught_by = teacher.load(recipe.teacher, entry, settings.stems) if recipe.teacher else None
    fabric = launch(
        settings.device, precision=recipe.precision, devices=settings.devices, nodes=settings.nodes
    )
    sources = splits(settings.data, settings.stems)
    _prepare(settings.run)
    with fabric.rank_zero_first():
        songs = {
            split: _map(settings.run, split, found, entry.sample_rate, say)
            for split, found in sources.items()
        }
    trainer = _trainer(settings, recipe, songs, fabric, weights, taught_by)
    _resume_or_start(trainer, settings.run)
    if not fabric.is_global_zero:
        trainer.run(lambda progress: None)
        return None
    _say_progress(trainer, say)
    trainer.run(TrainingLogger(trainer, settings.run, display))
    trainer.finish()
    if not entry.joint:
        say("calibrating the masks")
    path = settings.run / f"{settings.name}{store.SUFFIX}"
    page.save(path, _card(settings, trainer), trainer.best())
    calibration.calibrate(path, songs["valid"], device=settings.device)
    return path


def _resume_or_start(trainer: Trainer, run: Path) -> None:
    saved = run / "checkpoint.safetensors"
    if saved.exists():
        checkpoint.resume(trainer, saved)
    else:
        trainer.start()


def _say_progress(trainer: Trainer, say: Callable[[str], None]) -> None:
    if trainer.done >= 1:
        say(f"already trained for {trainer.step:,} steps; use more --steps or --minutes to continue")
    elif trainer.step:
        say(f"resuming from step {trainer.step:,}")


def _check(augmentation: Augmentation, recipe: TrainConfig) -> None:
    """Raise UsageError for options that the loss or a waveform network does not support."""
    if recipe.teacher and recipe.loss != "phase-sensitive":
        raise UsageError("A teacher's masks are the targets of one loss only", "use --loss phase-sensitive")
    if not registry.find(recipe.network).predicts_waveforms:
        return
    if augmentation.stretch or augmentation.equalise_db:
        raise UsageError(f"{recipe.network} does not support --stretch and --equalise", "leave them out")
    if recipe.loss in MASK_LOSSES:
        losses = ", ".join(SIGNAL_LOSSES)
        raise UsageError(f"{recipe.network} does not support --loss {recipe.loss}", f"choose one of {losses}")


def _map(
    run: Path, split: str, sources: Sequence[SongSource], sample_rate: int, say: Callable[[str], None]
) -> list[Song]:
    said = time.monotonic()
    say(f"{split}: {summary(sources)}")

    def progress(done: int, songs: int) -> None:
        nonlocal said
        if time.monotonic() - said > SAY_SECONDS:
            said = time.monotonic()
            say(f"{split}: {done} of {songs} songs decoded")

    return map_songs(sources, sample_rate=sample_rate, cache=run / DECODED, progress=progress)


def _prepare(run: Path) -> None:
    try:
        run.mkdir(parents=True, exist_ok=True)
        (run / "log.jsonl").open("a").close()
    except OSError as error:
        raise EncodeError(f"Cannot write into `{run}`: {error.strerror}", "choose another --run") from error


def _initial_weights(recipe: TrainConfig, stems: Sequence[str]) -> Mapping[str, Mapping[str, Tensor]] | None:
    """Return the weights to start from, if any."""
    init = recipe.init
    if not init:
        return None
    card, entry = store.read_card(init), registry.find(recipe.network)
    ours = (entry.module, entry.joint, entry.sample_rate, entry.n_fft, entry.hop_length)
    theirs = registry.find(card.network)
    if (theirs.module, theirs.joint, card.sample_rate, card.n_fft, card.hop_length) != ours:
        raise BadWeights(f"`{init}` differs in network, n_fft or hop_length", "leave out --init")
    for stem in stems:
        if stem not in card.stems:
            raise no_stem(stem, card.stems, f"in `{init}`")
    if entry.joint and tuple(stems) != card.stems:
        raise other_stems(init, card.stems)
    return store.load(init, entry.parts(stems))


def stft_of(entry: NetworkInfo) -> Stft | None:
    """Return the STFT of a network's input; None for a waveform network."""
    return None if entry.predicts_waveforms else Stft(entry.n_fft, entry.hop_length)


def _trainer(
    settings: Settings,
    recipe: TrainConfig,
    songs: Mapping[str, Sequence[Song]],
    fabric: Fabric,
    weights: Mapping[str, Mapping[str, Tensor]] | None,
    taught_by: Network | None,
) -> Trainer:
    entry = registry.find(recipe.network)
    frames = VALIDATION_SECONDS * entry.sample_rate if entry.predicts_waveforms else VALIDATION_FRAMES
    frames = max(1, frames // entry.context.stride) * entry.context.stride
    sampler = MixtureSampler(
        songs["train"],
        stft_of(entry),
        entry.bins,
        settings.frames + 2 * entry.context.margin,
        settings.examples,
        recipe.seed,
        settings.augmentation,
        fabric.device,
        settings.shares,
    )
    validation = replace(
        sampler,
        songs=songs["valid"],
        frames=frames + 2 * entry.context.margin,
        size=min(VALIDATION_SIZE, settings.validation),
        augmentation=Augmentation.none(),
        shares=(),
    )
    samplers = Samplers(sampler, validation, settings.validation // validation.size, settings.workers)
    return Trainer(settings.stems, samplers, recipe, fabric, weights=weights, teacher=taught_by)


def _card(settings: Settings, trainer: Trainer) -> ModelCard:
    recipe, entry = trainer.recipe, trainer.entry
    frames = settings.examples * settings.frames * trainer.fabric.world_size
    facts = {
        **asdict(recipe),
        "examples": settings.examples,
        "frames": settings.frames,
        "processes": trainer.fabric.world_size,
        "augmentation": asdict(settings.augmentation),
        **({"shares": settings.shares} if settings.shares else {}),
        "trained_steps": trainer.step,
        "trained_frames": trainer.step * frames,
        "trained_hours": round(trainer.seconds / 3600, 2),
        "validation": {
            name: {"step": each.validation.step}
            | {measure: round(x, 4) for measure, x in each.validation.scores.items()}
            for name, each in trainer.network_trainers.items()
        },
    }
    return ModelCard(
        name=settings.name,
        title=entry.title,
        network=recipe.network,
        stems=settings.stems,
        sample_rate=entry.sample_rate,
        n_fft=entry.n_fft,
        hop_length=entry.hop_length,
        parameters=trainer.parameters,
        mask=WAVEFORM if entry.predicts_waveforms else "soft",
        mask_power=1.0,
        threshold=recipe.threshold,
        data=settings.source or ", ".join(settings.data),
        complete=False,
        licence=settings.licence or "not stated; the licences of the data apply",
        commit=_commit(),
        seed=recipe.seed,
        recipe=facts,
    )


def _commit() -> str:
    """Return the program's commit, or its version if it does not run from a checkout."""
    checkout = Path(__file__).parents[2]
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=12"]
    if (checkout / ".git").exists():  # not a repository that contains the installed package
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return f"stemsplit {VERSION}"
