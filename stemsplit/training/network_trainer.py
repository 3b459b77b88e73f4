"""A network as it learns."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from stemsplit.errors import UsageError
from stemsplit.networks import factory, registry
from stemsplit.networks.info import OutputKind
from stemsplit.training.config import TrainConfig, learning_rate
from stemsplit.training.losses import MASK_LOSSES, SIGNAL_LOSSES, Targets

if TYPE_CHECKING:
    from lightning_fabric import Fabric

CLIP_NORM = 5.0


@dataclass
class ValidationState:
    """How a network has done so far in its validations, of which the one with the lowest loss is the best."""

    scores: dict[str, float] = field(default_factory=dict)
    """Of the best validation; empty before the first."""
    step: int = 0
    """Number of steps done at the best validation."""
    waiting: int = 0
    """Validations since then."""
    halvings: int = 0
    """Of the learning rate, by the schedule `plateau`."""


class NetworkTrainer:
    """Trains one network, `module`, which is filed under the name of its stem, or gives all `stems`.

    `networks` holds it, as `network`, beside the running `average` of its weights and the `best` of the
    averages that were validated: what is kept in the end.
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
            network.load_state_dict(weights)
        average = deepcopy(network).eval().requires_grad_(False).to(fabric.device)
        self.networks = {
            "network": network,
            "average": average,
            "best": deepcopy(average),
        }
        optimizer = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=1e-2)
        learner: Any = torch.compile(network, dynamic=False) if recipe.compiled else network
        self.module, self.optimizer = fabric.setup(learner, optimizer)
        self.standing = ValidationState()

    @property
    def stopped(self) -> bool:
        """Whether it has gone without improvement for as long as the recipe allows."""
        return 0 < self.recipe.patience <= self.standing.waiting

    @property
    def kept(self) -> str:
        """Which of the networks is kept in the end."""
        return "best" if self.standing.scores else "average"

    def learning_rate(self, step: int, done: float) -> float:
        """Return the learning rate of a step, counted from 0, with a share `done` of the training behind."""
        return learning_rate(self.recipe, step, done, self.standing.halvings)

    def predict(self, inputs: Tensor, *, averaged: bool = False) -> Tensor:
        """Return outputs `(example, stem, channel, ...)`, in float32, of the network or of its average."""
        network: nn.Module = self.networks["average"] if averaged else self.module
        with self.fabric.autocast():  # which Fabric itself sees to only for several devices
            outputs: Tensor = network(inputs)
        return outputs.float()

    def loss(self, outputs: Tensor, truth: Targets) -> Tensor:
        """Return the recipe's loss."""
        if self.recipe.loss in SIGNAL_LOSSES:
            return SIGNAL_LOSSES[self.recipe.loss](self.estimates(outputs, truth), truth)
        return MASK_LOSSES[self.recipe.loss](self.logits(outputs), truth)

    def estimates(self, outputs: Tensor, truth: Targets) -> Tensor:
        """Return the stems' spectra or waveforms that outputs stand for."""
        if self.entry.predicts_waveforms:
            return outputs
        # A ratio beyond one is as wrong as any other, and only later bounded.
        masks = outputs if self.entry.output is OutputKind.RATIO else self.networks["network"].masks(outputs)
        return masks * truth.mixture_signal

    def logits(self, outputs: Tensor) -> Tensor:
        """Return the logits of the masks that outputs stand for."""
        if self.entry.output is OutputKind.LOGITS:
            return outputs
        return torch.logit(self.networks["network"].masks(outputs), eps=1e-6)

    def learn(self, loss: Tensor, step: int, learning_rate: float) -> None:
        """Change the weights so that the loss falls."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        # Half precision overflows at times; such a step is then left out, by the gradients' scaler.
        self.fabric.clip_gradients(self.module, self.optimizer, max_norm=CLIP_NORM, error_if_nonfinite=False)
        self.optimizer.step()
        self._average(step)

    @torch.no_grad()
    def _average(self, step: int) -> None:
        # A short memory at first: the average must not remember the random start.
        decay = min(self.recipe.average, (1 + step) / (10 + step))
        average, network = (
            list(self.networks[kind].state_dict().values()) for kind in ("average", "network")
        )
        learnt = [index for index, tensor in enumerate(average) if tensor.is_floating_point()]
        # All at once: on a card, as many calls as there are tensors take longer than a step.
        torch._foreach_lerp_(
            [average[index] for index in learnt], [network[index] for index in learnt], 1 - decay
        )
        for index in set(range(len(average))) - {*learnt}:
            average[index].copy_(network[index])

    def judge(self, scores: dict[str, float], step: int) -> None:
        """Take note of what the average has reached after so many steps, and keep it if it is the best."""
        standing = self.standing
        if scores["loss"] < standing.scores.get("loss", math.inf):
            standing.scores, standing.step, standing.waiting = scores, step, 0
            self.networks["best"].load_state_dict(self.networks["average"].state_dict())
            return
        standing.waiting += 1
        if standing.waiting % self.recipe.plateau == 0:
            standing.halvings += 1


def _configured(recipe: TrainConfig) -> dict[str, float]:
    """Return what a recipe changes of the network's configuration."""
    changes = {"dropout": recipe.dropout, "dropout_dense": recipe.dropout_dense}
    changes = {name: rate for name, rate in changes.items() if rate}
    if changes and recipe.network != "binary-mask-cnn":
        raise UsageError(f"There is no --dropout for {recipe.network}", "leave it out")
    return changes


def seed(*facts: int | str) -> int:
    """Return a seed that depends on all the facts."""
    return int.from_bytes(hashlib.sha256(repr(facts).encode()).digest()[:8], "big", signed=True)
