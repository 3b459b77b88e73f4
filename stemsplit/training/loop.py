"""The training loop: one network a stem, all on the same examples, on one device or several."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..metrics import Scores
from ..nets.binary_mask_cnn import BinaryMaskCNN
from ..stft import FLOOR, log_magnitude
from .dataset import Batch, Examples
from .losses import LOSSES, MEASURES, Truth, measure, weighted_accuracy
from .pupil import Pupil, seed
from .recipe import Recipe

if TYPE_CHECKING:
    from lightning_fabric import Fabric

STATISTICS_BATCHES = 32


@dataclass(frozen=True)
class Progress:
    """What is known after a step. Stems that have stopped learning are missing."""

    step: int
    """Number of steps done."""
    seconds: float
    """What the step took, without any validation."""
    loss: dict[str, Tensor]
    accuracy: dict[str, Tensor]
    """Share of bins on the right side of one half, weighted by magnitude."""
    learning_rate: dict[str, float]
    valid: Scores
    """What the averaged networks reach on the validation examples; empty after most steps."""


class Trainer:
    """Trains one network a stem, `pupils`, each on its own loss but all on the same examples.

    With several devices each draws other examples, and they learn together from all of them.

    Args:
        stems: names, in the order of the examples' stems.
        examples: what is learnt from.
        validation: what the networks are judged by, in its first `validation_batches`.
        recipe: how they learn.
        fabric: where they learn.
        weights: stem to tensors to begin with, in place of random ones.
        workers: threads that make examples.
    """

    def __init__(
        self,
        stems: Sequence[str],
        examples: Examples,
        validation: Examples,
        recipe: Recipe,
        fabric: Fabric,
        *,
        validation_batches: int = 12,
        weights: Mapping[str, Mapping[str, Tensor]] | None = None,
        workers: int = 1,
    ) -> None:
        self.stems, self.examples, self.validation = tuple(stems), examples, validation
        self.recipe, self.fabric, self.workers = recipe, fabric, workers
        self.validation_batches = validation_batches
        self.given = weights is not None
        self.pupils = {
            stem: Pupil(stem, recipe, fabric, weights[stem] if weights else None) for stem in stems
        }
        self.step = 0
        self.seconds = 0.0
        """Spent on all steps so far, validations included."""

    def start(self) -> None:
        """Measure the input's mean and deviation a bin, on the first batches, unless weights are given."""
        if self.given:
            return
        logs = np.concatenate([log_magnitude(self.examples(i).mixture) for i in range(STATISTICS_BATCHES)])
        mean, deviation = logs.mean(axis=(0, 1)), logs.std(axis=(0, 1)) + np.float32(1e-3)
        for pupil in self.pupils.values():
            for network in pupil.networks.values():
                network.mean.copy_(torch.from_numpy(mean))
                network.deviation.copy_(torch.from_numpy(deviation))

    def run(self, after_step: Callable[[Progress], None]) -> None:
        """Train from `self.step` to the recipe's end, or until every network has stopped."""
        before = time.monotonic()
        for batch in self._batches():
            learning = self._learning()
            if not learning:
                return
            rates = {pupil.stem: pupil.learning_rate(self.step) for pupil in learning}
            losses, accuracies = self._train_step(batch, learning)
            self.step += 1
            seconds = time.monotonic() - before
            ends = self.step % self.recipe.validate_steps == 0 or self.step == self.recipe.steps
            valid = self.validate() if ends else {}
            for stem, scores in valid.items():
                self.pupils[stem].judge(scores, self.step)
            self.seconds += time.monotonic() - before
            after_step(Progress(self.step, seconds, losses, accuracies, rates, valid))
            before = time.monotonic()

    @property
    def frames(self) -> int:
        """Number of frames that the networks mask in an example."""
        return self.examples.frames - 2 * BinaryMaskCNN.reach

    def best(self) -> dict[str, dict[str, Tensor]]:
        """Return each stem's tensors at its best validation, or as they are now if it had none."""
        return {stem: pupil.networks[pupil.kept].state_dict() for stem, pupil in self.pupils.items()}

    def _learning(self) -> list[Pupil]:
        return [pupil for pupil in self.pupils.values() if not pupil.stopped]

    def _batches(self) -> Iterator[Batch]:
        """Make the next batches while one is learnt."""
        rank, ranks = self.fabric.global_rank, self.fabric.world_size
        numbers = (step * ranks + rank for step in range(self.step, self.recipe.steps))
        with ThreadPoolExecutor(self.workers) as pool:
            ahead = deque(pool.submit(self.examples, number) for number in islice(numbers, self.workers))
            while ahead:
                batch = ahead.popleft().result()
                ahead.extend(pool.submit(self.examples, number) for number in islice(numbers, 1))
                yield batch

    def _train_step(
        self, batch: Batch, learning: Sequence[Pupil]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        losses, accuracies = {}, {}
        inputs, truths = self._tensors(batch)
        for pupil in learning:
            truth = truths[pupil.stem]
            # A step's dropout depends on the step alone, so that a resumed run is the same run.
            torch.manual_seed(seed(self.recipe.seed, pupil.stem, self.step, self.fabric.global_rank))
            logits = pupil.predict(inputs)
            loss = LOSSES[self.recipe.loss](logits, truth)
            pupil.learn(loss, self.step)
            losses[pupil.stem] = loss.detach()
            accuracies[pupil.stem] = weighted_accuracy(logits.detach(), truth)
        return losses, accuracies

    @torch.no_grad()
    def validate(self) -> Scores:
        """Return what the averages reach, for the stems that still learn and are known in the examples."""
        learning = self._learning()
        sums = torch.zeros(len(learning), len(MEASURES) + 1, device=self.fabric.device)
        for number in range(self.fabric.global_rank, self.validation_batches, self.fabric.world_size):
            inputs, truths = self._tensors(self.validation(number))
            for row, pupil in zip(sums, learning, strict=True):
                truth = truths[pupil.stem]
                logits = pupil.predict(inputs, averaged=True)
                found = measure(logits, truth, LOSSES[self.recipe.loss])
                row += truth.known.sum() * torch.stack([*found.values(), torch.ones_like(found["loss"])])
        total = self.fabric.all_reduce(sums, reduce_op="sum")
        assert isinstance(total, Tensor)
        return {
            pupil.stem: dict(zip(MEASURES, (row[:-1] / row[-1]).tolist(), strict=True))
            for pupil, row in zip(learning, total, strict=True)
            if row[-1] > 0
        }

    def _tensors(self, batch: Batch) -> tuple[Tensor, dict[str, Truth]]:
        """Return the networks' input `(example, frame, bin)` and each stem's truth, on the device."""
        frames = slice(BinaryMaskCNN.reach, -BinaryMaskCNN.reach)
        mixture = self.fabric.to_device(torch.from_numpy(batch.mixture))
        stems = self.fabric.to_device(torch.from_numpy(batch.stems[:, :, frames]))
        known = self.fabric.to_device(torch.from_numpy(batch.known).float())
        mixture_spectra, stem_spectra = map(torch.from_numpy, (batch.mixture_spectra, batch.stem_spectra))
        truths = {
            stem: Truth(
                mixture[:, frames],
                stems[:, row],
                known[:, row],
                mixture_spectra[:, :, frames],
                stem_spectra[:, row, :, frames],
                self.examples.stft.n_fft // self.examples.stft.hop_length,
                self.recipe.threshold,
                self.recipe.weighting,
            )
            for row, stem in enumerate(self.stems)
        }
        return mixture.clamp_min(FLOOR).log(), truths
