"""The training state of one network: weights, averaged weights, optimizer, best validation."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from stemsplit.errors import BadWeights, UsageError
from stemsplit.networks import factory, registry
from stemsplit.networks.info import OutputKind
from stemsplit.training.config import TrainConfig, learning_rate
from stemsplit.training.losses import MASK_LOSSES, SIGNAL_LOSSES, Targets

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from stemsplit.networks.base import Network

CLIP_NORM = 5.0


@dataclass
class ValidationState:
    """The best validation so far (lowest loss), and counters for early stopping and `plateau`."""

    scores: dict[str, float] = field(default_factory=dict)
    """Scores of the best validation; empty before the first."""
    step: int = 0
    """Number of steps at the best validation."""
    waiting: int = 0
    """Number of validations since then."""
    halvings: int = 0
    """Number of halvings of the learning rate by the schedule `plateau`."""


class NetworkTrainer:
    """Trains one network, for one stem (and named after it) or for all `stems`.

    `networks` holds three copies: `network`, which is trained; `average`, the moving average of its weights;
    and `best`, the average at the best validation, which is saved in the end. `module` is `network`, set up
    by Fabric and optionally compiled.
    """

    def __init__(
        self,
        name: str,
        recipe: TrainConfig,
        fabric: Fabric,
        weights: Mapping[str, Tensor] | None = None,
        *,
        stems: int = 1,
    ) -> None:
        torch.manual_seed(seed(recipe.seed, name))
        self.name, self.fabric, self.recipe = name, fabric, recipe
        self.entry = registry.find(recipe.network)
        network = factory.make(recipe.network, stems, **_configured(recipe))
        if weights is not None:
            self._start_from(network, weights)
        average = deepcopy(network).eval().requires_grad_(False).to(fabric.device)
        self.networks = {
            "network": network,
            "average": average,
            "best": deepcopy(average),
        }
        optimizer = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=1e-2)
        module: Any = torch.compile(network, dynamic=False) if recipe.compiled else network
        self.module, self.optimizer = fabric.setup(module, optimizer)
        self.validation = ValidationState()

    def _start_from(self, network: Network, weights: Mapping[str, Tensor]) -> None:
        try:
            network.start_from(weights)
        except RuntimeError as error:
            init, name = self.recipe.init, self.recipe.network
            raise BadWeights(f"The weights of `{init}` do not fit {name}", "leave out --init") from error

    @property
    def stopped(self) -> bool:
        """Whether `patience` validations passed without improvement; always False if it is 0."""
        return 0 < self.recipe.patience <= self.validation.waiting

    @property
    def kept(self) -> str:
        """The key in `networks` of the one that is saved in the end."""
        return "best" if self.validation.scores else "average"

    def learning_rate(self, step: int, done: float) -> float:
        """Return the learning rate of a step, counted from 0, at the fraction `done` of the training."""
        return learning_rate(self.recipe, step, done, self.validation.halvings)

    def predict(self, inputs: Tensor, *, averaged: bool = False) -> Tensor:
        """Return float32 outputs `(example, stem, channel, ...)` of the network, or of its average."""
        network: nn.Module = self.networks["average"] if averaged else self.module
        with self.fabric.autocast():  # Fabric does so itself only for `module`
            outputs: Tensor = network(inputs)
        return outputs.float()

    def loss(self, outputs: Tensor, targets: Targets) -> Tensor:
        """Return the recipe's loss."""
        if self.recipe.loss in SIGNAL_LOSSES:
            return SIGNAL_LOSSES[self.recipe.loss](self.estimates(outputs, targets), targets)
        return MASK_LOSSES[self.recipe.loss](self.logits(outputs), targets)

    def estimates(self, outputs: Tensor, targets: Targets) -> Tensor:
        """Return the stems' spectra or waveforms for these outputs."""
        if self.entry.predicts_waveforms:
            return outputs
        # Ratios above 1 count as errors here; only separation clips them.
        masks = outputs if self.entry.output is OutputKind.RATIO else self.networks["network"].masks(outputs)
        return masks * targets.mixture_signal

    def logits(self, outputs: Tensor) -> Tensor:
        """Return the mask logits for these outputs."""
        if self.entry.output is OutputKind.LOGITS:
            return outputs
        return torch.logit(self.networks["network"].masks(outputs), eps=1e-6)

    def update(self, loss: Tensor, step: int, learning_rate: float) -> None:
        """Take one optimizer step."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        # Half precision can overflow; the gradient scaler then skips the step.
        self.fabric.clip_gradients(self.module, self.optimizer, max_norm=CLIP_NORM, error_if_nonfinite=False)
        self.optimizer.step()
        self._average(step)

    @torch.no_grad()
    def _average(self, step: int) -> None:
        # A smaller decay factor at first, so that the average forgets the random initialization.
        decay = min(self.recipe.average, (1 + step) / (10 + step))
        average, network = (
            list(self.networks[kind].state_dict().values()) for kind in ("average", "network")
        )
        averaged = [index for index, tensor in enumerate(average) if tensor.is_floating_point()]
        # One call for all tensors: on a GPU, one call per tensor takes longer than a training step.
        torch._foreach_lerp_(
            [average[index] for index in averaged], [network[index] for index in averaged], 1 - decay
        )
        for index in set(range(len(average))) - {*averaged}:
            average[index].copy_(network[index])

    def record_validation(self, scores: dict[str, float], step: int) -> None:
        """Record the average's scores after `step` steps, and keep the average if it is the best."""
        validation = self.validation
        if scores["loss"] < validation.scores.get("loss", math.inf):
            validation.scores, validation.step, validation.waiting = scores, step, 0
            self.networks["best"].load_state_dict(self.networks["average"].state_dict())
            return
        validation.waiting += 1
        if validation.waiting % self.recipe.plateau == 0:
            validation.halvings += 1


def _configured(recipe: TrainConfig) -> dict[str, float]:
    """Return the recipe's changes to the network's configuration."""
    changes = {"dropout": recipe.dropout, "dropout_dense": recipe.dropout_dense}
    changes = {name: rate for name, rate in changes.items() if rate}
    if changes and recipe.network != "binary-mask-cnn":
        raise UsageError(f"There is no --dropout for {recipe.network}", "leave it out")
    return changes


def seed(*facts: int | str) -> int:
    """Return a seed derived from all arguments."""
    return int.from_bytes(hashlib.sha256(repr(facts).encode()).digest()[:8], "big", signed=True)
