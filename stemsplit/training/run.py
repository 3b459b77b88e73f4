"""A training run in a folder: checkpoint, log, and in the end weights with their card."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from .. import cards, weights
from ..errors import EncodeError
from ..nets.binary_mask_cnn import BINS, FRAMES, PARAMETERS
from ..stft import Stft
from .dataset import Batch, Examples, map_songs
from .loop import Progress, Recipe, Trainer

SAMPLE_RATE = 44_100
LOG_STEPS = 50
SAVE_STEPS = 250
SAVE_SECONDS = 60
VALIDATION = (12, 4, 128)
"""Batches, excerpts in each, and frames of each, that a checkpoint is validated on."""


@dataclass(frozen=True)
class Settings:
    """Where a run's songs come from and where its results go."""

    data: Path
    run: Path
    name: str
    stems: tuple[str, ...]
    examples: int
    frames: int
    device: str
    licence: str
    source: str


def train(settings: Settings, recipe: Recipe, *, say: Callable[[str], None]) -> Path:
    """Train to the recipe's end, resuming the run in the folder if there is one; return the weights file.

    Raises:
        DecodeError: the data folder holds no songs, or a stem cannot be decoded.
        BadWeights: the folder holds a run with another recipe.
        EncodeError: the folder cannot be written.
    """
    run, stft = settings.run, Stft()
    try:
        run.mkdir(parents=True, exist_ok=True)
        (run / "log.jsonl").open("a").close()
    except OSError as error:
        raise EncodeError(f"Cannot write into `{run}`: {error.strerror}", "choose another --run") from error
    songs = {
        split: map_songs(settings.data, split, settings.stems, sample_rate=SAMPLE_RATE, cache=run / "decoded")
        for split in ("train", "valid")
    }
    say(f"{len(songs['train'])} songs to learn from, {len(songs['valid'])} to validate on")
    reach = FRAMES // 2
    examples = Examples(
        songs["train"], stft, BINS, settings.frames + 2 * reach, settings.examples, recipe.seed
    )
    batches, size, frames = VALIDATION
    unmixed = Examples(songs["valid"], stft, BINS, frames + 2 * reach, size, recipe.seed, across=0.0)
    validation = [unmixed(number) for number in range(batches)]

    trainer = Trainer(settings.stems, examples, recipe, device=settings.device)
    checkpoint = run / "checkpoint.safetensors"
    if checkpoint.exists():
        trainer.resume(checkpoint)
        say(f"going on from step {trainer.step}")
    else:
        trainer.start()
    trainer.run(_Journal(trainer, validation, run, say))
    path = run / f"{settings.name}{weights.SUFFIX}"
    averages = {name: network.state_dict() for name, network in trainer.averages.items()}
    cards.save(path, _card(settings, recipe), averages)
    return path


class _Journal:
    """Writes a line of the log every 50 steps, and a checkpoint every minute and every 250 steps."""

    def __init__(
        self, trainer: Trainer, validation: list[Batch], run: Path, say: Callable[[str], None]
    ) -> None:
        self.trainer, self.validation, self.run, self.say = trainer, validation, run, say
        self.recent: list[Progress] = []
        self.began = self.saved = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        """Take note of a step."""
        self.recent.append(progress)
        validate = progress.step == self.trainer.recipe.steps or progress.step % SAVE_STEPS == 0
        if validate or time.monotonic() - self.saved > SAVE_SECONDS:
            self.trainer.save(self.run / "checkpoint.safetensors")
            self.saved = time.monotonic()
        if not validate and progress.step % LOG_STEPS:
            return
        entry = {
            "step": progress.step,
            "seconds": round(time.monotonic() - self.began, 1),
            "loss": self._mean("loss"),
            "accuracy": self._mean("accuracy"),
        }
        if validate:
            entry["valid"] = _rounded(self.trainer.validate(self.validation))
        self.recent.clear()
        with (self.run / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")
        self.say(json.dumps(entry))

    def _mean(self, measure: str) -> dict[str, float]:
        values = [getattr(progress, measure) for progress in self.recent]
        return _rounded({stem: float(np.mean([value[stem] for value in values])) for stem in values[0]})


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def _card(settings: Settings, recipe: Recipe) -> weights.ModelCard:
    stft = Stft()
    return weights.ModelCard(
        name=settings.name,
        title="Binary-mask CNN: one small network a stem, after O. Tkachuk",
        network="binary-mask-cnn",
        stems=settings.stems,
        sample_rate=SAMPLE_RATE,
        n_fft=stft.n_fft,
        hop_length=stft.hop_length,
        parameters=PARAMETERS * len(settings.stems),
        mask="soft",
        mask_power=1.0,
        threshold=recipe.threshold,
        data=settings.source,
        licence=settings.licence,
        commit=_commit(),
        seed=recipe.seed,
        recipe={**asdict(recipe), "examples": settings.examples, "frames": settings.frames},
    )


def _commit() -> str:
    """Return the commit that this program is at, or its version where it does not run from a checkout."""
    checkout = Path(__file__).parents[2]
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=12"]
    if (checkout / ".git").exists():  # not the repository of whoever has installed us inside of it
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return f"stemsplit {version('stemsplit')}"
