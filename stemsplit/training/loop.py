"""The training loop: a network for all stems, or one each on the same examples; on one device or several."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.optim.swa_utils import update_bn

from stemsplit.dsp.features import FLOOR, log_magnitudes
from stemsplit.dsp.input_features import InputFeatures
from stemsplit.evaluation.metrics import Scores
from stemsplit.networks import registry
from stemsplit.training.config import TrainConfig
from stemsplit.training.losses import MASK_LOSSES, MEASURES, Targets, measure, sdr_db, weighted_accuracy
from stemsplit.training.network_trainer import NetworkTrainer, seed
from stemsplit.training.sampler import Batch, Examples

if TYPE_CHECKING:
    from lightning_fabric import Fabric

STATISTICS_BATCHES = 32
LEAST_DEVIATION = 0.5
"""Of log magnitudes in a bin: songs that lossy codecs cut off at 16 kHz have none above, others do."""


@dataclass(frozen=True)
class Progress:
    """What is known after a step. Stems that have stopped learning are missing."""

    step: int
    """Number of steps done."""
    seconds: float
    """What the step took, without any validation."""
    loss: dict[str, Tensor]
    accuracy: dict[str, Tensor]
    """Share of bins on the right side of one half, weighted by magnitude; of losses of masks only."""
    learning_rate: dict[str, float]
    valid: Scores
    """What the averaged networks reach on the validation examples; empty after most steps."""


class Trainer:
    """Trains a model's networks, `pupils`: one for all stems, or one a stem, each on its own loss.

    With several devices each draws other examples, and they learn together from all of them.

    Args:
        stems: names, in the order of the examples' stems.
        examples: what is learnt from.
        validation: what the networks are judged by, in its first `validation_batches`.
        recipe: how they learn.
        fabric: where they learn.
        weights: a network's name to tensors to begin with, in place of random ones.
        workers: threads that make examples.
    """

    def __init__(
        self,
        stems: Sequence[str],
        examples: Examples,
        validation: Examples,
        recipe: TrainConfig,
        fabric: Fabric,
        *,
        validation_batches: int = 12,
        weights: Mapping[str, Mapping[str, Tensor]] | None = None,
        workers: int = 1,
    ) -> None:
        self.stems, self.examples, self.validation = tuple(stems), examples, validation
        self.songs_as_they_are = examples.as_they_are()
        self.recipe, self.fabric, self.workers = recipe, fabric, workers
        self.validation_batches = validation_batches
        self.given = weights is not None
        self.entry = registry.find(recipe.network)
        parts = self.entry.parts(self.stems)
        each = len(self.stems) // len(parts)
        self.pupils = {
            part: NetworkTrainer(part, recipe, fabric, weights[part] if weights else None, stems=each)
            for part in parts
        }
        self.step = 0
        self.seconds = 0.0
        """Spent on all steps so far, validations included."""

    def start(self) -> None:
        """Measure the input's mean and deviation a bin, on the first batches, unless weights are given."""
        networks = [network for pupil in self.pupils.values() for network in pupil.networks.values()]
        if self.given or not networks[0].standardised:
            return
        logs = torch.cat([inputs.flatten(0, 2).cpu() for inputs in self._inputs(self.examples)])
        mean, deviation = logs.mean(dim=0), logs.std(dim=0, correction=0).clamp_min(LEAST_DEVIATION)
        for network in networks:
            network.normalize(mean, deviation)

    def run(self, after_step: Callable[[Progress], None]) -> None:
        """Train from `self.step` to the recipe's end, or until every network has stopped."""
        before = time.monotonic()
        for batch in self._batches():
            learning = self._learning()
            if not learning:
                return
            rates = {pupil.name: pupil.learning_rate(self.step, self.done) for pupil in learning}
            losses, accuracies = self._train_step(batch, rates)
            self.step += 1
            seconds = time.monotonic() - before
            self._count(seconds)
            ends = self.step % self.recipe.validate_steps == 0 or self.done >= 1
            valid = self.validate() if ends else {}
            for name, scores in valid.items():
                self.pupils[name].judge(scores, self.step)
            self._count(time.monotonic() - before - seconds)
            after_step(Progress(self.step, seconds, losses, accuracies, rates, valid))
            before = time.monotonic()

    @property
    def done(self) -> float:
        """The share of the training that is over, from 0 to 1."""
        if self.recipe.minutes:
            return self.seconds / (60 * self.recipe.minutes)
        return self.step / self.recipe.steps

    def _count(self, seconds: float) -> None:
        """Add what the first of several processes says: all must agree on when to end."""
        self.seconds += self.fabric.broadcast(seconds) if self.fabric.world_size > 1 else seconds

    @property
    def frames(self) -> int:
        """Number of frames, or samples, that the networks answer for in an example."""
        return self.examples.frames - 2 * self.entry.context.margin

    @property
    def parameters(self) -> int:
        """Number of weights that are learnt, of all networks together."""
        networks = [pupil.networks["network"] for pupil in self.pupils.values()]
        return sum(parameter.numel() for network in networks for parameter in network.parameters())

    def best(self) -> dict[str, dict[str, Tensor]]:
        """Return each network's tensors at its best validation, or as they are now if it had none."""
        return {name: pupil.networks[pupil.kept].state_dict() for name, pupil in self.pupils.items()}

    def finish(self) -> None:
        """Let networks that were trained apart fit their shares of the answer to the validation examples."""
        for name, pupil in self.pupils.items():
            pupil.networks[pupil.kept].fit_weight(self._ratios(name))

    def _ratios(self, name: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield what a network hears of the validation and the true ratios, where these are known."""
        for number in range(self.validation_batches):
            inputs, truths = self._tensors(self.validation(number))
            truth = truths[name]
            whole = truth.known.bool().all(dim=1)
            yield inputs[whole], (truth.stem / truth.mixture.clamp_min(FLOOR))[whole]

    def _learning(self) -> list[NetworkTrainer]:
        return [pupil for pupil in self.pupils.values() if not pupil.stopped]

    def _batches(self) -> Iterator[Batch]:
        """Make the next batches while one is learnt."""
        rank, ranks = self.fabric.global_rank, self.fabric.world_size
        with ThreadPoolExecutor(self.workers) as pool:
            numbers = count(self.step * ranks + rank, ranks)
            ahead = deque(pool.submit(self.examples, number) for number in islice(numbers, self.workers))
            while self.done < 1:
                batch = ahead.popleft().result()
                ahead.append(pool.submit(self.examples, next(numbers)))
                yield batch

    def _train_step(
        self, batch: Batch, rates: Mapping[str, float]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        losses, accuracies = {}, {}
        inputs, truths = self._tensors(batch)
        for name, rate in rates.items():
            pupil, truth = self.pupils[name], truths[name]
            # A step's dropout depends on the step alone, so that a resumed run is the same run.
            torch.manual_seed(seed(self.recipe.seed, pupil.name, self.step, self.fabric.global_rank))
            outputs = pupil.predict(inputs)
            loss = pupil.loss(outputs, truth)
            pupil.learn(loss, self.step, rate)
            losses[name] = loss.detach()
            if self.recipe.loss in MASK_LOSSES:
                accuracies[name] = weighted_accuracy(pupil.logits(outputs.detach()), truth)
        return losses, accuracies

    @torch.no_grad()
    def validate(self) -> Scores:
        """Return what the averages reach, for the networks that still learn and are known in the examples."""
        learning = self._learning()
        names = ("loss", "sdr_db", *(() if self.entry.predicts_waveforms else MEASURES))
        sums = torch.zeros(len(learning), len(names) + 1, device=self.fabric.device)
        for pupil in learning:
            # What batch norms remember is of the weights that went into the average, and not of the average;
            # and of examples more varied than the songs to be separated.
            with self.fabric.autocast():
                update_bn(self._inputs(self.songs_as_they_are), pupil.networks["average"])
        for number in range(self.fabric.global_rank, self.validation_batches, self.fabric.world_size):
            inputs, truths = self._tensors(self.validation(number))
            for row, pupil in zip(sums, learning, strict=True):
                truth = truths[pupil.name]
                outputs = pupil.predict(inputs, averaged=True)
                found = [pupil.loss(outputs, truth), sdr_db(pupil.estimates(outputs, truth), truth)]
                if not self.entry.predicts_waveforms:
                    found += measure(pupil.logits(outputs), truth).values()
                row += truth.known.sum() * torch.stack([*found, torch.ones_like(found[0])])
        total = self.fabric.all_reduce(sums, reduce_op="sum")
        assert isinstance(total, Tensor)
        return {
            pupil.name: dict(zip(names, (row[:-1] / row[-1]).tolist(), strict=True))
            for pupil, row in zip(learning, total, strict=True)
            if row[-1] > 0
        }

    def _tensors(self, batch: Batch) -> tuple[Tensor, dict[str, Targets]]:
        """Return the networks' input `(example, view, ...)` and the truth of each, on the device."""
        mixture, stems, known = batch.mixture, batch.stems, batch.known
        if self.entry.predicts_waveforms and self.entry.channels == 1:  # each channel is an example
            mixture = mixture.flatten(0, 1)[:, None]
            stems = stems.transpose(1, 2).flatten(0, 1)[:, :, None]
            known = known.repeat_interleave(batch.mixture.shape[1], dim=0)
        margin, length = self.entry.context.margin, mixture.shape[2]
        inner = slice(margin, length - margin)
        stft = self.examples.stft
        each = len(self.stems) // len(self.pupils)
        truths = {
            name: Targets(
                mixture[:, None, :, inner],
                stems[:, row * each : (row + 1) * each, :, inner],
                known[:, row * each : (row + 1) * each].float(),
                self.entry.input is InputFeatures.RMS,
                stft.n_fft // stft.hop_length if stft else 1,
                self.recipe.threshold,
                self.recipe.weighting,
            )
            for row, name in enumerate(self.pupils)
        }
        return self._heard(mixture), truths

    def _inputs(self, examples: Examples) -> Iterator[Tensor]:
        """Yield what the networks hear of the first batches."""
        for number in range(STATISTICS_BATCHES):
            yield self._tensors(examples(number))[0]

    def _heard(self, mixture: Tensor) -> Tensor:
        """Return the networks' input for mixtures `(example, channel, ...)`."""
        if self.entry.predicts_waveforms:
            return mixture
        return log_magnitudes(mixture, self.entry.input)
