"""How a network learns: every number that decides it, apart from the data."""

from __future__ import annotations

import math
from dataclasses import dataclass

SCHEDULES = ("linear", "cosine", "plateau")


@dataclass(frozen=True)
class TrainConfig:
    """All that decides how networks are trained, apart from their data."""

    network: str = "binary-mask-cnn"
    steps: int = 4000
    minutes: float = 0.0
    """How long to learn, instead of for so many steps; 0: for so many steps."""
    learning_rate: float = 1.5e-3
    """Of AdamW, at its highest."""
    warmup: int = 100
    """Steps over which the learning rate rises."""
    schedule: str = "linear"
    """`linear`: stay, then fall to nothing over the last steps. `cosine`: fall along half a cosine.
    `plateau`: halve whenever several validations in a row were no better."""
    decay: float = 0.4
    """Share of the steps, the last ones, over which `linear` falls."""
    plateau: int = 4
    """Validations without improvement after which `plateau` halves."""
    loss: str = "weighted-bce"
    threshold: float = 0.5
    """T of the binary mask B = (S > T * M)."""
    weighting: float = 1.0
    """Weighted losses and accuracies weight a bin by mixture magnitude to this power."""
    average: float = 0.999
    """Decay of the running average of the weights, which is what is validated and kept."""
    dropout: float = 0.0
    """After each pooling, and before the last layer: of the binary-mask CNN only."""
    dropout_dense: float = 0.0
    validate_steps: int = 250
    """Steps from one validation to the next."""
    patience: int = 0
    """Validations without improvement after which a network stops learning; 0: never."""
    init: str = ""
    """The model to begin with in place of random weights."""
    precision: str = "float32"
    compiled: bool = False
    """Whether torch first translates a step into a program of its own: minutes that long runs win back."""
    seed: int = 0


def learning_rate(recipe: TrainConfig, step: int, done: float, halvings: int = 0) -> float:
    """Return the learning rate of a step, counted from 0, with a share `done` of the training behind it.

    `halvings` so far matter to `plateau` alone.
    """
    rise = (step + 1) / max(1, recipe.warmup)
    least = 1 / recipe.steps
    if recipe.schedule == "plateau":
        return recipe.learning_rate * min(1.0, rise) * 0.5**halvings
    if recipe.schedule == "cosine":
        # By the clock nobody knows how much of the time the rise will take.
        risen = 0.0 if recipe.minutes else recipe.warmup / recipe.steps
        since = (done - risen) / max(least, 1 - risen)
        fall = (1 + math.cos(math.pi * min(1.0, max(0.0, since)))) / 2
        return recipe.learning_rate * min(rise, fall)
    fall = max(0.0, 1 - done) / max(least, recipe.decay)
    return recipe.learning_rate * min(1.0, rise, fall)
