"""The training loop: one network for all stems, or one per stem on the same examples, on any devices."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
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
from stemsplit.training.sampler import Batch, MixtureSampler
from stemsplit.training.teacher import masks

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from stemsplit.networks.base import Network

STATISTICS_BATCHES = 32
LEAST_DEVIATION = 0.5
"""Minimum standard deviation of a bin's log magnitudes, which is 0 above the cut-off of lossy codecs."""


@dataclass(frozen=True)
class Progress:
    """The metrics of a step, per network. Networks whose training has stopped are left out."""

    step: int
    """Number of steps done."""
    seconds: float
    """Duration of the step, without validation."""
    loss: dict[str, Tensor]
    accuracy: dict[str, Tensor]
    """Fraction of bins on the correct side of 0.5, weighted by magnitude; for mask losses only."""
    learning_rate: dict[str, float]
    valid: Scores
    """Scores of the averaged networks on the validation examples; empty after most steps."""


@dataclass(frozen=True)
class Samplers:
    """The samplers of training and validation examples."""

    training: MixtureSampler
    validation: MixtureSampler
    validation_batches: int = 12
    """The first batches of `validation` are used."""
    workers: int = 1
    """Number of threads that make training examples."""


class Trainer:
    """Trains a model's networks: one for all stems, or one per stem, each with its own loss.

    With several devices, each draws its own examples, and gradients are averaged over the devices.

    Args:
        stems: names, in the order of the examples' stems.
        samplers: the sources of training and validation examples.
        recipe: optimizer, schedule, loss.
        fabric: devices and precision.
        weights: name of a network -> initial tensors, instead of random ones.
        teacher: the network whose masks are the targets of training steps, not of validations.
    """

    def __init__(
        self,
        stems: Sequence[str],
        samplers: Samplers,
        recipe: TrainConfig,
        fabric: Fabric,
        *,
        weights: Mapping[str, Mapping[str, Tensor]] | None = None,
        teacher: Network | None = None,
    ) -> None:
        self.teacher = teacher.to(fabric.device) if teacher else None
        self.stems, self.samplers = tuple(stems), samplers
        self.unaugmented_sampler = samplers.training.unaugmented()
        self.recipe, self.fabric = recipe, fabric
        self.given = weights is not None
        self.entry = registry.find(recipe.network)
        parts = self.entry.parts(self.stems)
        each = len(self.stems) // len(parts)
        self.network_trainers = {
            part: NetworkTrainer(part, recipe, fabric, weights[part] if weights else None, stems=each)
            for part in parts
        }
        self.step = 0
        self.seconds = 0.0
        """Duration of all steps so far, including validations."""

    def start(self) -> None:
        """Set input mean and deviation per bin from the first batches, unless weights are given."""
        networks = [network for each in self.network_trainers.values() for network in each.networks.values()]
        if self.given or not networks[0].standardised:
            return
        logs = torch.cat([inputs.flatten(0, 2).cpu() for inputs in self._inputs(self.samplers.training)])
        mean, deviation = logs.mean(dim=0), logs.std(dim=0, correction=0).clamp_min(LEAST_DEVIATION)
        for network in networks:
            network.normalize(mean, deviation)

    def run(self, after_step: Callable[[Progress], None]) -> None:
        """Train from `self.step` to the recipe's end, or until every network has stopped."""
        before = time.monotonic()
        for batch in self._batches():
            active = self._active()
            if not active:
                return
            rates = {each.name: each.learning_rate(self.step, self.done) for each in active}
            losses, accuracies = self._train_step(batch, rates)
            self.step += 1
            seconds = time.monotonic() - before
            self._count(seconds)
            ends = self.step % self.recipe.validate_steps == 0 or self.done >= 1
            valid = self.validate() if ends else {}
            for name, scores in valid.items():
                self.network_trainers[name].record_validation(scores, self.step)
            self._count(time.monotonic() - before - seconds)
            after_step(Progress(self.step, seconds, losses, accuracies, rates, valid))
            before = time.monotonic()

    @property
    def done(self) -> float:
        """The fraction of the training that is done, from 0 to 1."""
        if self.recipe.minutes:
            return self.seconds / (60 * self.recipe.minutes)
        return self.step / self.recipe.steps

    def _count(self, seconds: float) -> None:
        """Add the seconds measured by the first process, so that all processes end at the same step."""
        self.seconds += self.fabric.broadcast(seconds) if self.fabric.world_size > 1 else seconds

    @property
    def frames(self) -> int:
        """Number of frames or samples in the networks' output for an example."""
        return self.samplers.training.frames - 2 * self.entry.context.margin

    @property
    def in_stereo(self) -> bool:
        """Whether the input has separate channels; if so, validation also uses mono versions."""
        return self.entry.input_shape[0] > 1

    @property
    def parameters(self) -> int:
        """Total number of parameters of all networks."""
        networks = [each.networks["network"] for each in self.network_trainers.values()]
        return sum(parameter.numel() for network in networks for parameter in network.parameters())

    def best(self) -> dict[str, dict[str, Tensor]]:
        """Return each network's averaged tensors at its best validation; without one, the current ones."""
        return {name: each.networks[each.kept].state_dict() for name, each in self.network_trainers.items()}

    def finish(self) -> None:
        """Fit the weights of blended networks on the validation examples."""
        for name, each in self.network_trainers.items():
            each.networks[each.kept].fit_weight(self._ratios(name))

    def _ratios(self, name: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield a network's inputs and target ratios for the validation examples with known targets."""
        for number in range(self.samplers.validation_batches):
            inputs, all_targets = self._tensors(self.samplers.validation(number))
            targets = all_targets[name]
            whole = targets.known.bool().all(dim=1)
            yield inputs[whole], (targets.stem / targets.mixture.clamp_min(FLOOR))[whole]

    def _active(self) -> list[NetworkTrainer]:
        return [each for each in self.network_trainers.values() if not each.stopped]

    def _batches(self) -> Iterator[Batch]:
        """Yield batches; threads make the next ones in the background."""
        rank, ranks = self.fabric.global_rank, self.fabric.world_size
        sampler, workers = self.samplers.training, self.samplers.workers
        with ThreadPoolExecutor(workers) as pool:
            numbers = count(self.step * ranks + rank, ranks)
            ahead = deque(pool.submit(sampler, number) for number in islice(numbers, workers))
            while self.done < 1:
                batch = ahead.popleft().result()
                ahead.append(pool.submit(sampler, next(numbers)))
                yield batch

    def _train_step(
        self, batch: Batch, rates: Mapping[str, float]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        losses, accuracies = {}, {}
        inputs, all_targets = self._tensors(batch)
        if self.teacher:
            with self.fabric.autocast():
                taught = masks(self.teacher, inputs)
            known = torch.ones(taught.shape[:2], device=taught.device)
            all_targets = {
                name: replace(targets, taught=taught, known=known) for name, targets in all_targets.items()
            }
        for name, rate in rates.items():
            network_trainer, targets = self.network_trainers[name], all_targets[name]
            # Seeded per step, so that dropout is identical in a resumed run.
            torch.manual_seed(
                seed(self.recipe.seed, network_trainer.name, self.step, self.fabric.global_rank)
            )
            outputs = network_trainer.predict(inputs)
            loss = network_trainer.loss(outputs, targets)
            network_trainer.update(loss, self.step, rate)
            losses[name] = loss.detach()
            if self.recipe.loss in MASK_LOSSES:
                accuracies[name] = weighted_accuracy(network_trainer.logits(outputs.detach()), targets)
        return losses, accuracies

    @torch.no_grad()
    def validate(self) -> Scores:
        """Return scores of the averaged networks, without stopped ones and those with no known stem."""
        active = self._active()
        names = ("loss", "sdr_db", *(() if self.entry.predicts_waveforms else MEASURES))
        names += ("mono_sdr_db",) if self.in_stereo else ()
        sums = torch.zeros(len(active), len(names) + 1, device=self.fabric.device)
        for network_trainer in active:
            # The average's batch norm statistics come from unaveraged weights and augmented examples:
            # recompute them.
            with self.fabric.autocast():
                update_bn(self._inputs(self.unaugmented_sampler), network_trainer.networks["average"])
        fabric, samplers = self.fabric, self.samplers
        for number in range(fabric.global_rank, samplers.validation_batches, fabric.world_size):
            batch = samplers.validation(number)
            inputs, all_targets = self._tensors(batch)
            for row, network_trainer in zip(sums, active, strict=True):
                targets = all_targets[network_trainer.name]
                outputs = network_trainer.predict(inputs, averaged=True)
                estimates = network_trainer.estimates(outputs, targets)
                found = [network_trainer.loss(outputs, targets), sdr_db(estimates, targets)]
                if not self.entry.predicts_waveforms:
                    found += measure(network_trainer.logits(outputs), targets).values()
                if self.in_stereo:
                    found.append(self._sdr_db(network_trainer, batch.mono()))
                row += targets.known.sum() * torch.stack([*found, torch.ones_like(found[0])])
        total = self.fabric.all_reduce(sums, reduce_op="sum")
        assert isinstance(total, Tensor)
        return {
            each.name: dict(zip(names, (row[:-1] / row[-1]).tolist(), strict=True))
            for each, row in zip(active, total, strict=True)
            if row[-1] > 0
        }

    def _sdr_db(self, network_trainer: NetworkTrainer, batch: Batch) -> Tensor:
        """Return the mean SDR of the averaged network's estimates."""
        inputs, all_targets = self._tensors(batch)
        outputs, targets = network_trainer.predict(inputs, averaged=True), all_targets[network_trainer.name]
        return sdr_db(network_trainer.estimates(outputs, targets), targets)

    def _tensors(self, batch: Batch) -> tuple[Tensor, dict[str, Targets]]:
        """Return the networks' input `(example, view, ...)` and the targets for each network."""
        mixture, stems, known = batch.mixture, batch.stems, batch.known
        if self.entry.predicts_waveforms and self.entry.channels == 1:  # each channel is a separate example
            mixture = mixture.flatten(0, 1)[:, None]
            stems = stems.transpose(1, 2).flatten(0, 1)[:, :, None]
            known = known.repeat_interleave(batch.mixture.shape[1], dim=0)
        margin, length = self.entry.context.margin, mixture.shape[2]
        inner = slice(margin, length - margin)
        stft = self.samplers.training.stft
        each = len(self.stems) // len(self.network_trainers)
        all_targets = {
            name: Targets(
                mixture[:, None, :, inner],
                stems[:, row * each : (row + 1) * each, :, inner],
                known[:, row * each : (row + 1) * each].float(),
                self.entry.input is InputFeatures.RMS,
                stft.n_fft // stft.hop_length if stft else 1,
                self.recipe.threshold,
                self.recipe.weighting,
            )
            for row, name in enumerate(self.network_trainers)
        }
        return self._network_input(mixture), all_targets

    def _inputs(self, sampler: MixtureSampler) -> Iterator[Tensor]:
        """Yield the networks' input for the first batches."""
        for number in range(STATISTICS_BATCHES):
            yield self._tensors(sampler(number))[0]

    def _network_input(self, mixture: Tensor) -> Tensor:
        """Return the networks' input for mixtures `(example, channel, ...)`."""
        if self.entry.predicts_waveforms:
            return mixture
        return log_magnitudes(mixture, self.entry.input)
