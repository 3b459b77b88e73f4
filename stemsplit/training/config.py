"""The settings of training, apart from the data: optimizer, schedule, loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

SCHEDULES = ("linear", "cosine", "plateau")


@dataclass(frozen=True)
class TrainConfig:
    """How networks are trained, apart from their data."""

    network: str = "binary-mask-cnn"
    steps: int = 4000
    minutes: float = 0.0
    """Duration of the training, instead of `steps`. 0: use `steps`."""
    learning_rate: float = 1.5e-3
    """Peak learning rate of AdamW."""
    warmup: int = 100
    """Steps of linear learning rate warm-up."""
    schedule: str = "linear"
    """`linear`: constant, then linear to 0 over the last steps. `cosine`: half a cosine period to 0.
    `plateau`: halved after each `plateau` validations without improvement."""
    decay: float = 0.4
    """Fraction of the steps, at the end, over which `linear` decays."""
    plateau: int = 4
    """Validations without improvement after which `plateau` halves the learning rate."""
    loss: str = "weighted-bce"
    threshold: float = 0.5
    """T of the binary mask B = (S > T * M)."""
    weighting: float = 1.0
    """Weighted losses and accuracies weight a bin by the mixture magnitude to this power."""
    average: float = 0.999
    """Decay of the exponential moving average of the weights, which is validated and saved."""
    dropout: float = 0.0
    """Dropout rate after each pooling layer (binary-mask CNN only)."""
    dropout_dense: float = 0.0
    """Dropout rate before the last layer (binary-mask CNN only)."""
    validate_steps: int = 250
    """Steps between validations."""
    patience: int = 0
    """Validations without improvement after which the training of a network stops. 0: never."""
    init: str = ""
    """The model whose weights to start from, instead of random ones."""
    teacher: str = ""
    """The model whose masks are the targets of the loss, instead of those of known stems."""
    precision: str = "float32"
    compiled: bool = False
    """Whether to use torch.compile, which takes minutes at the start and pays off in long runs."""
    seed: int = 0


def learning_rate(recipe: TrainConfig, step: int, done: float, halvings: int = 0) -> float:
    """Return the learning rate of a step, counted from 0, at the fraction `done` (0 to 1) of the training.

    `halvings` is the number of halvings so far, for the schedule `plateau`.
    """
    rise = (step + 1) / max(1, recipe.warmup)
    least = 1 / recipe.steps
    if recipe.schedule == "plateau":
        return recipe.learning_rate * min(1.0, rise) * 0.5**halvings
    if recipe.schedule == "cosine":
        # With a limit in minutes, the duration of the warm-up is unknown.
        risen = 0.0 if recipe.minutes else recipe.warmup / recipe.steps
        since = (done - risen) / max(least, 1 - risen)
        fall = (1 + math.cos(math.pi * min(1.0, max(0.0, since)))) / 2
        return recipe.learning_rate * min(rise, fall)
    fall = max(0.0, 1 - done) / max(least, recipe.decay)
    return recipe.learning_rate * min(1.0, rise, fall)
