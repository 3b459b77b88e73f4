"""Checkpoints: the complete state of a run, in one file that is written atomically."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stemsplit.errors import BadWeights
from stemsplit.files.claims import writing
from stemsplit.training.loop import Trainer
from stemsplit.training.network_trainer import NetworkTrainer, ValidationState


def save(trainer: Trainer, path: Path) -> None:
    """Write the state of a run."""
    tensors = {
        f"{stem}.{key}": value
        for stem, each in trainer.network_trainers.items()
        for key, value in _tensors(each).items()
    }
    state = {
        "step": trainer.step,
        "seconds": trainer.seconds,
        "standings": {stem: asdict(each.validation) for stem, each in trainer.network_trainers.items()},
        "precision": trainer.fabric.strategy.precision.state_dict(),  # state of the gradient scaler
    }
    with writing(path) as part:
        save_file(tensors, part, {"state": json.dumps(state), "run": identity(trainer)})


def resume(trainer: Trainer, path: Path) -> None:
    """Restore the state written by `save`.

    Raises:
        BadWeights: the checkpoint belongs to a run with different settings, or is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata()
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise BadWeights(f"`{path}` is damaged: {error}", "delete it to start again") from error
    if facts["run"] != identity(trainer):
        theirs, ours = json.loads(facts["run"]), json.loads(identity(trainer))
        other = [f"{key} {theirs.get(key)}, not {ours[key]}" for key in ours if theirs.get(key) != ours[key]]
        raise BadWeights(
            f"`{path}` was made with different settings: {'; '.join(other)}"[:500],
            "use the same settings, or another folder for the run",
        )
    state = json.loads(facts["state"])
    trainer.step, trainer.seconds = state["step"], state["seconds"]
    trainer.fabric.strategy.precision.load_state_dict(state["precision"])
    for stem, network_trainer in trainer.network_trainers.items():
        network_trainer.validation = ValidationState(**state["standings"][stem])
        _load(network_trainer, {key: tensors[f"{stem}.{key}"] for key in _names(tensors, stem)})


def identity(trainer: Trainer) -> str:
    """Return the settings that must not change during a run, as JSON."""
    recipe, samplers = asdict(trainer.recipe), trainer.samplers
    sampler, validation = samplers.training, samplers.validation
    del recipe["steps"], recipe["minutes"], recipe["patience"]  # a run can be extended
    facts = {
        **recipe,
        **asdict(sampler.augmentation),
        "stems": trainer.stems,
        "examples": sampler.size,
        "frames": trainer.frames,
        "validation": (validation.size, validation.frames, samplers.validation_batches),
        "songs": [song.name for song in sampler.songs],
        "processes": trainer.fabric.world_size,
        **({"shares": sampler.shares} if sampler.shares else {}),
    }
    return json.dumps(facts, sort_keys=True)


def _tensors(network_trainer: NetworkTrainer) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for kind, network in network_trainer.networks.items():
        found |= {f"{kind}.{key}": value for key, value in network.state_dict().items()}
    for index, state in network_trainer.optimizer.state_dict()["state"].items():
        found |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
    return found


def _names(tensors: dict[str, Tensor], prefix: str) -> list[str]:
    return [key.removeprefix(prefix + ".") for key in tensors if key.startswith(prefix + ".")]


def _load(network_trainer: NetworkTrainer, tensors: dict[str, Tensor]) -> None:
    for kind, network in network_trainer.networks.items():
        network.load_state_dict({key: tensors[f"{kind}.{key}"] for key in _names(tensors, kind)})
    state: dict[int, dict[str, Any]] = {}
    for key in _names(tensors, "optimizer"):
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = tensors[f"optimizer.{key}"]
    network_trainer.optimizer.load_state_dict({**network_trainer.optimizer.state_dict(), "state": state})
