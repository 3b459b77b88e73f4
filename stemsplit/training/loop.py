"""The training loop: one network a stem, all on the same examples, resumable from any step."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import BadWeights
from ..nets.binary_mask_cnn import BinaryMaskCNN
from ..stft import log_magnitude
from .dataset import Batch, Examples


@dataclass(frozen=True)
class Recipe:
    """All that decides how a network is trained, apart from its data."""

    steps: int = 4000
    learning_rate: float = 1e-3
    warmup: int = 100
    decay: float = 0.4
    """Share of the steps, the last ones, over which the learning rate falls to nothing."""
    threshold: float = 0.5
    """T of the binary mask B = (S > T * M)."""
    weighting: float = 0.7
    """A bin's loss is weighted by mixture magnitude to this power: quiet bins are many and matter little."""
    average: float = 0.999
    """Decay of the running average of the weights, which is what is kept in the end."""
    precision: str = "float32"
    seed: int = 0


@dataclass(frozen=True)
class Progress:
    """What is known after a step."""

    step: int
    """Number of steps done."""
    loss: dict[str, float]
    accuracy: dict[str, float]
    """Share of bins on the right side of one half, weighted like the loss."""


class Trainer:
    """Trains a network a stem, `networks`, and keeps their running averages, `averages`."""

    def __init__(
        self,
        stems: Sequence[str],
        examples: Examples,
        recipe: Recipe,
        *,
        device: str = "cpu",
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.stems, self.examples, self.recipe = tuple(stems), examples, recipe
        self.device = torch.device(device)
        self.networks = {name: BinaryMaskCNN().to(self.device) for name in stems}
        self.averages = {name: BinaryMaskCNN().to(self.device).eval() for name in stems}
        self.parameters = [p for network in self.networks.values() for p in network.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, recipe.learning_rate, weight_decay=1e-2)
        self.step = 0

    def start(self) -> None:
        """Measure the input's mean and deviation a bin, on the first batches."""
        logs = np.concatenate([log_magnitude(self.examples(i).mixture) for i in range(32)])
        for network in self.networks.values():
            network.mean.copy_(torch.from_numpy(logs.mean(axis=(0, 1))))
            network.deviation.copy_(torch.from_numpy(logs.std(axis=(0, 1)) + 1e-3))
        for name, network in self.networks.items():
            self.averages[name].load_state_dict(network.state_dict())

    def run(self, after_step: Callable[[Progress], None]) -> None:
        """Train from `self.step` to the recipe's end."""
        for batch in self._batches():
            for group in self.optimizer.param_groups:
                group["lr"] = self._learning_rate()
            progress = self._train_step(batch)
            self._average()
            self.step = progress.step
            after_step(progress)

    def _batches(self) -> Iterator[Batch]:
        """Make each batch while the one before is learnt."""
        with ThreadPoolExecutor(1) as pool:
            upcoming = pool.submit(self.examples, self.step)
            for step in range(self.step, self.recipe.steps):
                batch = upcoming.result()
                upcoming = pool.submit(self.examples, step + 1)
                yield batch

    def _learning_rate(self) -> float:
        """Rise over the warm-up, stay, and fall to nothing over the last part of the run."""
        recipe = self.recipe
        rise = (self.step + 1) / recipe.warmup
        fall = (recipe.steps - self.step) / (recipe.decay * recipe.steps)
        return recipe.learning_rate * min(1.0, rise, fall)

    def _train_step(self, batch: Batch) -> Progress:
        for network in self.networks.values():
            network.train()
        # The dropout of a step depends on the step alone, so that a resumed run is the same run.
        torch.manual_seed((self.recipe.seed << 32) + self.step)
        losses, accuracies = {}, {}
        self.optimizer.zero_grad()
        for name, logits, target, weight in self._predict(self.networks, batch):
            loss = (F.binary_cross_entropy_with_logits(logits, target, reduction="none") * weight).mean()
            torch.autograd.backward(loss)
            losses[name] = loss.item()
            accuracies[name] = _accuracy(logits, target, weight)
        nn.utils.clip_grad_norm_(self.parameters, 5.0)
        self.optimizer.step()
        return Progress(self.step + 1, losses, accuracies)

    @torch.no_grad()
    def validate(self, batches: Sequence[Batch]) -> dict[str, float]:
        """Return the averaged networks' weighted accuracy on fixed batches."""
        found: dict[str, list[float]] = {name: [] for name in self.stems}
        for batch in batches:
            for name, logits, target, weight in self._predict(self.averages, batch):
                found[name].append(_accuracy(logits, target, weight))
        return {name: float(np.mean(values)) for name, values in found.items()}

    def _predict(
        self, networks: dict[str, BinaryMaskCNN], batch: Batch
    ) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
        """Yield name, logits, binary mask and weight `(example, frame, bin)` for each stem."""
        reach = next(iter(networks.values())).reach
        inputs = torch.from_numpy(log_magnitude(batch.mixture)).to(self.device)
        mixture = torch.from_numpy(batch.mixture[:, reach:-reach]).to(self.device)
        weight = mixture**self.recipe.weighting
        bfloat16 = self.recipe.precision == "bfloat16"
        for row, name in enumerate(self.stems):
            stem = torch.from_numpy(batch.stems[:, row, reach:-reach]).to(self.device)
            target = (stem > self.recipe.threshold * mixture).float()
            known = torch.from_numpy(batch.known[:, row].astype(np.float32)).to(self.device)
            weighted = weight * known[:, None, None]
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
                logits = networks[name].forward_frames(inputs)
            yield name, logits.float(), target, weighted / weighted.mean().clamp_min(1e-12)

    @torch.no_grad()
    def _average(self) -> None:
        # A short memory at first: the average must not remember the random start.
        decay = min(self.recipe.average, (1 + self.step) / (10 + self.step))
        for name, network in self.networks.items():
            for average, value in zip(self.averages[name].parameters(), network.parameters(), strict=True):
                average.lerp_(value, 1 - decay)

    def save(self, path: Path) -> None:
        """Write everything that the rest of the run depends on, whole or not at all."""
        tensors: dict[str, Tensor] = {}
        for kind, networks in (("network", self.networks), ("average", self.averages)):
            for name, network in networks.items():
                tensors |= {f"{kind}.{name}.{key}": value for key, value in network.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
        part = path.with_name(path.name + ".part")
        save_file(tensors, part, {"step": str(self.step), "run": self._identity()})
        os.replace(part, path)

    def resume(self, path: Path) -> None:
        """Go on where `save` left off.

        Raises:
            BadWeights: the checkpoint belongs to another recipe.
        """
        with safe_open(path, "pt") as file:
            if file.metadata()["run"] != self._identity():
                raise BadWeights(
                    f"`{path}` was made with other settings",
                    "use the same settings, or another folder for the run",
                )
            self.step = int(file.metadata()["step"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        for kind, networks in (("network", self.networks), ("average", self.averages)):
            for name, network in networks.items():
                prefix = f"{kind}.{name}."
                network.load_state_dict(
                    {
                        key.removeprefix(prefix): value
                        for key, value in tensors.items()
                        if key.startswith(prefix)
                    }
                )
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".")
                state.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})

    def _identity(self) -> str:
        recipe = asdict(self.recipe)
        del recipe["steps"]  # a run may be made longer
        facts = {
            "recipe": recipe,
            "stems": self.stems,
            "batch": (self.examples.size, self.examples.frames),
            "songs": len(self.examples.songs),
        }
        return json.dumps(facts, sort_keys=True)


def _accuracy(logits: Tensor, target: Tensor, weight: Tensor) -> float:
    return float((((logits > 0) == (target > 0.5)) * weight).sum() / weight.sum().clamp_min(1e-12))
