from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from importlib.util import find_spec
from types import SimpleNamespace
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from stemsplit import arrays
from stemsplit.audio.reader import Signal
from stemsplit.audio.writer import Writer
from stemsplit.cli import app
from stemsplit.cli.train import DEFAULTS, command
from stemsplit.datasets.songs import find_songs
from stemsplit.dsp.stft import Stft
from stemsplit.errors import BadWeights, DeviceUnavailable, StemsplitError, UnknownStem
from stemsplit.networks import factory
from stemsplit.networks.info import WHOLE
from stemsplit.training import checkpoint, logger, loop
from stemsplit.training.augment import Augmentation
from stemsplit.training.config import SCHEDULES, TrainConfig, learning_rate
from stemsplit.training.devices import PRECISIONS, launch
from stemsplit.training.loop import Progress, Samplers, Trainer
from stemsplit.training.losses import LOSSES, MASK_LOSSES
from stemsplit.training.merge import join
from stemsplit.training.network_trainer import NetworkTrainer
from stemsplit.training.presets import preset
from stemsplit.training.progress import Lines, LiveTable
from stemsplit.training.run import Settings, train
from stemsplit.training.sampler import Batch, MixtureSampler, map_songs, splits
from stemsplit.zoo import store
from tests.conftest import NOISES, SAMPLE_RATE

pytestmark = pytest.mark.slow

STEMS = NOISES


@pytest.fixture(scope="module")
def data(noise_songs, tmp_path_factory):
    """The same songs as files."""
    folder = tmp_path_factory.mktemp("data")
    for split in ("train", "valid"):
        for song in noise_songs:
            for name, part in zip(STEMS, song.parts, strict=False):
                path = folder / split / song.name / f"{name}.wav"
                with Writer(path, Signal(SAMPLE_RATE, 2)) as writer:
                    writer.write(part)
    return str(folder)


def trainer(
    noise_songs, steps, *, stems=STEMS, frames=16, examples=2, valid=None, kind=MixtureSampler, **recipe
):
    recipe = TrainConfig(**{"steps": steps, "warmup": 5, "learning_rate": 3e-3, **recipe})
    heard = kind(noise_songs, Stft(), 513, frames + 24, examples)
    judged = MixtureSampler(valid or noise_songs, Stft(), 513, frames + 24, 1, 5, Augmentation.none())
    return Trainer(stems, Samplers(heard, judged, validation_batches=2), recipe, launch())


def learn(trainer, after_step=lambda progress: None):
    trainer.start()
    trainer.run(after_step)
    return trainer


def same(one, other, tolerance=0.0):
    for name, tensors in one.best().items():
        for key, value in tensors.items():
            torch.testing.assert_close(value, other.best()[name][key], atol=tolerance, rtol=0)


@pytest.mark.parametrize("loss", MASK_LOSSES)
def test_a_tiny_task_is_learnt_by_every_loss(noise_songs, loss):
    alone = {"stems": STEMS[:1], "examples": 1, "dropout": 0.0, "dropout_dense": 0.0}
    scores = learn(trainer(noise_songs, 20, loss=loss, **alone)).network_trainers["high"].validation.scores
    assert scores["weighted_accuracy"] > 0.97
    assert scores["accuracy"] > 0.9
    # An empty mask is right in a quarter of the bins.
    assert scores["base_rate"] < 0.3


def test_the_tiny_task_is_not_learnt_from_a_broken_target(noise_songs):
    broken = [replace(song, parts=song.parts[[1, 0, 2]]) for song in noise_songs]
    scores = learn(trainer(broken, 20, stems=STEMS[:1], examples=1, valid=noise_songs)).validate()
    assert scores["high"]["weighted_accuracy"] < 0.5


class Killed(Exception):
    pass


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_killed_and_resumed_run_is_the_same_run(noise_songs, tmp_path, schedule):
    # With so high a rate some validations are worse, so that the best, the plateau and patience all matter.
    options = {"schedule": schedule, "validate_steps": 1, "plateau": 1, "learning_rate": 0.3, "patience": 9}
    whole = learn(trainer(noise_songs, 6, frames=4, **options))
    first = trainer(noise_songs, 6, frames=4, **options)

    seconds = []

    def kill(progress):
        if progress.step == 3:
            checkpoint.save(first, tmp_path / "checkpoint")
            seconds.append(first.seconds)
        elif progress.step == 4:
            raise Killed

    with pytest.raises(Killed):
        learn(first, kill)
    second = trainer(noise_songs, 6, frames=4, **options)
    checkpoint.resume(second, tmp_path / "checkpoint")
    assert (second.step, second.seconds) == (3, seconds[0])
    assert any(network_trainer.validation.waiting for network_trainer in second.network_trainers.values())
    second.run(lambda progress: None)
    same(whole, second)
    for name in STEMS:
        assert asdict(whole.network_trainers[name].validation) == asdict(
            second.network_trainers[name].validation
        )


def test_a_checkpoint_torn_by_a_kill_leaves_the_one_before(noise_songs, tmp_path, monkeypatch):
    tiny = trainer(noise_songs, 6)
    checkpoint.save(tiny, tmp_path / "checkpoint")

    def torn(tensors, path, facts):
        path.write_bytes(b"half a check")
        raise Killed

    monkeypatch.setattr(checkpoint, "save_file", torn)
    tiny.step = 5
    with pytest.raises(Killed):
        checkpoint.save(tiny, tmp_path / "checkpoint")
    checkpoint.resume(tiny, tmp_path / "checkpoint")
    assert tiny.step == 0


def test_a_checkpoint_of_another_run_is_refused(noise_songs, tmp_path):
    checkpoint.save(trainer(noise_songs, 6), tmp_path / "checkpoint")
    others = [
        {"threshold": 0.7},
        {"loss": "mse"},
        {"init": "binary-mask-cnn"},
        {"dropout": 0.2},
        {"frames": 8},
    ]
    for other in others:
        with pytest.raises(BadWeights, match="different settings"):
            checkpoint.resume(trainer(noise_songs, 6, **other), tmp_path / "checkpoint")
    checkpoint.resume(trainer(noise_songs, 9, patience=3), tmp_path / "checkpoint")  # longer is the same
    (tmp_path / "damaged").write_bytes(b"nothing")
    with pytest.raises(BadWeights, match="damaged"):
        checkpoint.resume(trainer(noise_songs, 6), tmp_path / "damaged")


def test_the_best_network_is_kept_and_one_that_gets_no_better_stops(noise_songs, monkeypatch):
    tiny = trainer(noise_songs, 9, frames=4, validate_steps=1, patience=3, warmup=1)
    losses = {"high": iter([3.0, 1.0, 2.0, 2.0, 1.5]), "low": iter([9.0, 8, 7, 6, 5, 4, 3, 2, 1])}
    monkeypatch.setattr(
        tiny, "validate", lambda: {p.name: {"loss": next(losses[p.name])} for p in tiny._active()}
    )
    after = {}

    def keep(progress):
        after[progress.step] = tiny.network_trainers["high"].networks["average"].output.bias.clone()

    learn(tiny, keep)
    assert tiny.step == 9
    high, low = (tiny.network_trainers[name] for name in STEMS)
    assert (high.validation.step, high.validation.waiting, high.stopped) == (2, 3, True)
    assert (low.validation.step, low.validation.waiting, low.stopped) == (9, 0, False)
    torch.testing.assert_close(tiny.best()["high"]["output.bias"], after[2])
    assert (after[2] != after[5]).any()
    torch.testing.assert_close(after[5], after[9])  # stopped


def test_each_step_of_each_stem_drops_other_activations(noise_songs, monkeypatch):
    seeds = []
    tiny = trainer(noise_songs, 2, frames=4)
    monkeypatch.setattr(torch, "manual_seed", seeds.append)
    learn(tiny)
    assert len(set(seeds)) == len(seeds) == 4


def test_a_loss_that_is_no_number_ends_the_run_before_it_is_saved(noise_songs, tmp_path):
    note = logger.TrainingLogger(trainer(noise_songs, 6), tmp_path, lambda entry, logged: None)
    nan, one = {"high": torch.tensor(torch.nan)}, {"high": torch.tensor(1.0)}
    with pytest.raises(StemsplitError, match="loss of high"):
        note(Progress(250, 1.0, nan, one, {"high": 1e-3}, {"high": {"loss": 1.0}}))
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_a_run_ends_once_no_network_learns(noise_songs, monkeypatch):
    tiny = trainer(noise_songs, 9, frames=4, validate_steps=1, patience=1)
    monkeypatch.setattr(tiny, "validate", lambda: {name: {"loss": 1.0} for name in STEMS})
    assert learn(tiny).step == 2


def test_a_run_may_end_by_the_clock(noise_songs, monkeypatch):
    now = iter(range(1000))
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: 4.0 * next(now)))
    timed = learn(trainer(noise_songs, 1, frames=4, minutes=1.0, schedule="linear", validate_steps=99))
    assert timed.done >= 1
    assert 60 <= timed.seconds < 80
    assert 3 <= timed.step < 15  # of which each took some readings of the clock
    assert all(
        network_trainer.validation.step == timed.step for network_trainer in timed.network_trainers.values()
    )  # judged at the end


def test_the_learning_rate_follows_its_schedule():
    rates = {
        name: [
            learning_rate(TrainConfig(steps=100, warmup=10, schedule=name, learning_rate=1.0), n, n / 100)
            for n in range(100)
        ]
        for name in SCHEDULES
    }
    for rate in rates.values():
        np.testing.assert_allclose(rate[:9], np.arange(1, 10) / 10)
        assert max(rate) == 1
    assert rates["linear"][59] == 1
    assert rates["linear"][80] == pytest.approx(0.5)
    assert rates["cosine"][55] == pytest.approx(0.5)
    assert rates["cosine"][99] < 0.001
    assert rates["plateau"][99] == 1
    assert learning_rate(TrainConfig(schedule="plateau", learning_rate=1.0), 500, 0.5, halvings=2) == 0.25


def test_the_plateau_halves_the_rate_each_time_nothing_gets_better():
    network_trainer = NetworkTrainer(
        "high", TrainConfig(plateau=2, schedule="plateau", learning_rate=1.0), launch(), None
    )
    rates = []
    for step, loss in enumerate([5.0, 6, 6, 4, 6, 6, 6, 6]):
        network_trainer.record_validation({"loss": loss}, step)
        rates.append(network_trainer.learning_rate(1000, 0.5))
    assert rates == [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]


def test_a_stem_that_no_validation_knows_keeps_its_last_network(noise_songs):
    unknown = [replace(song, known=(True, False)) for song in noise_songs]
    tiny = learn(trainer(noise_songs, 2, frames=4, valid=unknown))
    assert set(tiny.validate()) == {"high"}
    assert tiny.network_trainers["low"].kept == "average"


def test_a_validation_judges_the_averages(noise_songs):
    tiny = trainer(noise_songs, 1, frames=4)
    before = tiny.validate()
    with torch.no_grad():
        tiny.network_trainers["high"].networks["network"].output.bias.add_(1.0)
        assert tiny.validate() == before
        tiny.network_trainers["high"].networks["average"].output.bias.add_(1.0)
    assert tiny.validate()["high"]["loss"] != before["high"]["loss"]


def test_a_compiled_network_learns_the_same(noise_songs, monkeypatch):
    compiled = []

    def quickly(network, **options):
        compiled.append(id(network))
        return compile_network(network, **options | {"backend": "eager"})

    compile_network = torch.compile
    monkeypatch.setattr("torch.compile", quickly)  # its own backend would take a minute
    options = {"frames": 4, "stems": STEMS[:1]}
    plain, ours = (learn(trainer(noise_songs, 3, compiled=each, **options)) for each in (False, True))
    assert {*compiled} == {id(ours.network_trainers[STEMS[0]].networks["network"])}
    same(plain, ours, 1e-5)


def test_precision_changes_the_result_little(noise_songs):
    full, half = (trainer(noise_songs, 1, frames=4) for _ in range(2))
    half.fabric = launch(precision="bfloat16")
    for network_trainer in half.network_trainers.values():
        network_trainer.fabric = half.fabric
    inputs, _ = full._tensors(full.samplers.training(0))
    one, other = (t.network_trainers["high"].predict(inputs, averaged=True) for t in (full, half))
    assert other.dtype == torch.float32
    assert 0 < (one - other).abs().max() < 0.05 * one.abs().max()


def test_devices_that_are_not_there_are_refused(monkeypatch):
    with pytest.raises(DeviceUnavailable, match="float16"):
        launch("cpu", precision="float16")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DeviceUnavailable, match="2 cuda devices requested, but 1 available"):
        launch("cuda", devices=2)


def test_a_missing_package_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setattr(
        "stemsplit.training.devices.find_spec",
        lambda name: None if name == "lightning_fabric" else find_spec(name),
    )
    with pytest.raises(StemsplitError, match="lightning_fabric") as error:
        launch()
    assert "pip install 'stemsplit-audio[train]'" in error.value.hint


def settings(data, run, **options):
    options = {"name": "mine", "stems": STEMS, "examples": 1, "frames": 4, "validation": 2, **options}
    return Settings(data=(data,), run=run, **options)


def test_a_run_ends_with_weights_a_log_and_curves(data, tmp_path):
    said, shown = [], []
    run = tmp_path / "run"
    path = train(
        settings(data, run, source="two noises", augmentation=Augmentation(drop=0.25)),
        TrainConfig(steps=2, loss="mse"),
        say=said.append,
        display=lambda entry, logged: shown.append((entry["step"], logged)),
    )
    card = store.read_card(path)
    assert (card.name, card.stems, card.data) == ("mine", STEMS, "two noises")
    assert (card.recipe["loss"], card.recipe["augmentation"]["drop"]) == ("mse", 0.25)
    assert (card.recipe["trained_steps"], card.recipe["trained_frames"]) == (2, 8)
    assert card.recipe["validation"]["low"].keys() >= {"accuracy", "mse", "base_rate"}
    assert set(store.load(path, ["low"])["low"]) >= {"mean", "deviation", "conv1.weight"}
    (entry,) = logger.read(run / "log.jsonl")
    assert entry["step"] == 2
    assert entry.keys() >= {"frames_per_second", "learning_rate", "loss", "accuracy"}
    assert set(entry["valid"]) == set(STEMS)
    assert shown[-1] == (2, True)
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    with (run / "log.jsonl").open("a") as log:  # by a run that was killed later than its checkpoint was made
        log.write(json.dumps({**entry, "step": 3}) + "\n" + '{"step": 4, "lo')
    train(
        settings(data, run, augmentation=Augmentation(drop=0.25)),
        TrainConfig(steps=3, loss="mse"),
        say=said.append,
    )
    assert "resuming from step 2" in said
    assert [entry["step"] for entry in logger.read(run / "log.jsonl")] == [2, 3]


@pytest.mark.parametrize("shares", [(0.9, 0.1), (1.0, 3.0), ()])
def test_examples_come_from_each_folder_by_its_share(noise_songs, shares):
    songs = [replace(noise_songs[0], name=f"{folder}", data=folder) for folder in (0, 0, 0, 1)]
    sampler = MixtureSampler(songs, Stft(), 513, 8, 1, shares=shares)
    drawn = [
        excerpt.song.data
        for seed in range(300)
        for excerpt in sampler._draw_excerpts(np.random.default_rng(seed))[0]
    ]
    expected = shares[1] / sum(shares) if shares else 0.25
    assert abs(np.mean(drawn) - expected) < 0.06


def test_songs_know_their_folder_and_the_card_the_shares(data, tmp_path):
    words = ["--data", data, "--data", data, "--stems", "high", "--steps", "1", "--examples", "1"]
    words += ["--validation", "1", "--quiet", "--run", str(tmp_path / "run")]
    refused = CliRunner().invoke(app, ["train", *words, "--share", "1"])
    assert refused.exit_code == 2
    assert "one share above 0 for each" in refused.output
    assert [song.data for song in splits([data, data], ("high",))["train"]] == [0, 0, 1, 1]
    CliRunner().invoke(app, ["train", *words, "--share", "0.6", "--share", "0.4"], catch_exceptions=False)
    card = store.read_card(tmp_path / "run" / "trained.safetensors")
    assert card.recipe["shares"] == [0.6, 0.4]


def test_training_can_begin_with_a_model(data, tmp_path):
    first = train(settings(data, tmp_path / "a"), TrainConfig(steps=1), say=str)
    quiet = TrainConfig(steps=1, learning_rate=0.0, init=str(first))
    again = train(settings(data, tmp_path / "b", stems=("low",)), quiet, say=str)
    before, after = (store.load(path, ["low"])["low"] for path in (first, again))
    for key, value in before.items():
        torch.testing.assert_close(after[key], value, atol=1e-3, rtol=1e-3)
    with pytest.raises(UnknownStem, match="No stem called `high` in"):
        train(settings(data, tmp_path / "c", stems=("high",)), replace(quiet, init=str(again)), say=str)


def test_a_network_learns_a_teacher_s_masks_instead_of_the_stems(data, tmp_path):
    recipe = TrainConfig(network="fnn-small", loss="phase-sensitive", steps=80, learning_rate=1e-2)
    many = {"frames": 32, "examples": 4}
    teacher = train(settings(data, tmp_path / "teacher"), replace(recipe, steps=1, seed=1), say=str)
    alone = train(settings(data, tmp_path / "alone", **many), recipe, say=str)
    taught_by = replace(recipe, teacher=str(teacher))
    taught = train(settings(data, tmp_path / "taught", **many), taught_by, say=str)
    noise = np.random.default_rng(4).normal(0, 0.1, 9000).astype(np.float32)
    goal, *others = (
        arrays.split(noise, SAMPLE_RATE, model=path, mask="soft")["low"] for path in (teacher, alone, taught)
    )
    far, near = (np.square(stem - goal).mean() for stem in others)
    assert near < 0.3 * far
    assert store.read_card(taught).recipe["teacher"] == str(teacher)
    for options, error, words in (
        ({"loss": "l2"}, StemsplitError, "use --loss phase-sensitive"),
        ({"network": "binary-mask-cnn"}, BadWeights, "are not of the same kind"),
        ({"network": "deep-nmf-small"}, BadWeights, "are not of the same kind"),
    ):
        with pytest.raises(error) as raised:
            train(settings(data, tmp_path / "other"), replace(taught_by, **options), say=str)
        assert words in f"{raised.value} {raised.value.hint}"
    with pytest.raises(BadWeights, match="has the stems high, low"):
        train(settings(data, tmp_path / "one", stems=("low",)), taught_by, say=str)


@pytest.mark.parametrize("network", ["fnn-small", "wavenet-small"])
def test_another_network_is_trained_by_the_same_command(data, tmp_path, network):
    words = ["--data", data, "--stems", "high,low", "--network", network, "--frames", "64", "--examples", "2"]
    words += ["--steps", "3", "--validation", "2", "--name", "mine", "--quiet", "--run"]
    result = CliRunner().invoke(app, ["train", *words, str(tmp_path / "first")])
    path = tmp_path / "first" / "mine.safetensors"
    assert result.stdout.strip() == str(path)
    card = store.read_card(path)
    assert (card.network, card.stems, card.complete) == (network, STEMS, True)
    assert card.recipe["loss"] == preset(network)["loss"]
    assert card.parameters == sum(p.numel() for p in factory.make(network, 2).parameters())
    assert set(arrays.split(np.zeros(9000), SAMPLE_RATE, model=path)) == set(STEMS)
    again = ["--init", str(path), "--learning-rate", "0", "--run", str(tmp_path / "again")]
    CliRunner().invoke(app, ["train", *words[:-1], *again], catch_exceptions=False)
    before, after = (
        store.load(each, (WHOLE,))[WHOLE] for each in (path, tmp_path / "again" / "mine.safetensors")
    )
    for key, value in before.items():
        torch.testing.assert_close(after[key], value, atol=1e-3, rtol=1e-3)
    with pytest.raises(BadWeights, match="has the stems high, low"):
        train(
            settings(data, tmp_path / "c", stems=("low",)),
            TrainConfig(network=network, loss="l1", init=str(path)),
            say=str,
        )
    with pytest.raises(BadWeights, match="has one network for all stems"):
        join([str(path)], tmp_path, "joined")


def test_what_another_network_cannot_do_is_refused(data, tmp_path):
    for network, options, words in (
        ("fnn-small", {"dropout": 0.1}, "no --dropout for fnn-small"),
        ("wavenet-small", {"loss": "bce"}, "wavenet-small does not support --loss bce"),
    ):
        with pytest.raises(StemsplitError, match=words):
            train(settings(data, tmp_path / "run"), TrainConfig(network=network, **options), say=str)
    varied = settings(data, tmp_path / "run", augmentation=Augmentation(stretch=0.1))
    with pytest.raises(StemsplitError, match="does not support --stretch and --equalise"):
        train(varied, TrainConfig(network="wavenet-small", loss="l1"), say=str)
    with pytest.raises(BadWeights, match="no-such-network"):
        train(settings(data, tmp_path / "run"), TrainConfig(network="no-such-network"), say=str)


def test_models_of_single_stems_join_into_one(data, tmp_path):
    paths = [
        train(settings(data, tmp_path / stem, stems=(stem,)), TrainConfig(steps=steps), say=str)
        for steps, stem in enumerate(STEMS, 1)
    ]
    words = [word for path in paths for word in ("--join", str(path))]
    result = CliRunner().invoke(app, ["train", *words, "--run", str(tmp_path / "all"), "--name", "both"])
    joined = tmp_path / "all" / "both.safetensors"
    assert result.stdout.strip() == str(joined)
    card = store.read_card(joined)
    assert (card.name, card.stems, card.parameters) == ("both", STEMS, 2 * 323_233)
    assert card.recipe["steps"] == {"high": 1, "low": 2}
    assert card.recipe["loss"] == "weighted-bce"
    for stem, path in zip(STEMS, paths, strict=True):
        for key, value in store.load(path, [stem])[stem].items():
            torch.testing.assert_close(store.load(joined, [stem])[stem][key], value)
    with pytest.raises(BadWeights, match="Two of the models have high"):
        join([str(paths[0]), str(joined)], tmp_path / "all", "both")


class Pairs(MixtureSampler):
    """What two processes hear together, as one batch."""

    def __call__(self, number):
        both = [super(Pairs, self).__call__(2 * number + rank) for rank in range(2)]
        fields = Batch.__dataclass_fields__
        return Batch(**{name: torch.cat([getattr(b, name) for b in both]) for name in fields})


def test_two_processes_learn_what_one_learns_from_twice_as_much(data, noise_songs, tmp_path):
    """About ten seconds: each process loads torch."""
    start = train(settings(data, tmp_path / "start"), TrainConfig(steps=1), say=str)
    recipe = {"loss": "mse", "dropout": 0.0, "dropout_dense": 0.0, "init": str(start), "warmup": 1}
    options = [
        word
        for name, value in {**recipe, "steps": 3, "examples": 1, "frames": 4, "validation": 2}.items()
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    command = [sys.executable, "-m", "stemsplit", "train", "--data", data, "--stems", ",".join(STEMS)]
    run = [*command, "--run", str(tmp_path / "two"), "--device", "cpu", "--devices", "2", "--polarity", "1"]
    done = subprocess.run(
        [*run, *options],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    path = tmp_path / "two" / "trained.safetensors"
    assert done.stdout.split() == [str(path)]  # once, not from each process
    assert store.read_card(path).recipe["trained_frames"] == 24
    heard = map_songs(
        find_songs([data], "train", STEMS), sample_rate=SAMPLE_RATE, cache=tmp_path / "start" / "decoded"
    )
    varied = Augmentation(polarity=1.0)
    pairs = Pairs(heard, Stft(), 513, 4 + 24, 1, 0, varied)
    given = store.load(start, STEMS)
    samplers = Samplers(pairs, pairs, validation_batches=1)
    one = Trainer(STEMS, samplers, TrainConfig(steps=3, **recipe), launch(), weights=given)
    learn(one)
    for stem in STEMS:
        for key, value in store.load(path, [stem])[stem].items():
            moved = (one.best()[stem][key] - given[stem][key]).abs().max()
            assert (one.best()[stem][key] - value).abs().mean() <= 0.02 * moved + 1e-3 * value.abs().mean(), (
                key
            )


ENTRY = {
    "step": 50,
    "seconds": 60.0,
    "done": 0.0125,
    "seconds_left": 3600,
    "frames_per_second": 1234,
    "loss": {"high": 0.5},
    "accuracy": {"high": 0.75},
    "learning_rate": {"high": 1e-3},
}
VALID = {"high": {"loss": 0.4, "weighted_accuracy": 0.8}, "low": {"loss": 0.3, "weighted_accuracy": 0.9}}


def test_a_line_is_said_for_each_line_of_the_log():
    said = []
    lines = Lines(said.append)
    lines(ENTRY, False)
    lines(ENTRY, True)
    lines({**ENTRY, "valid": VALID}, True)
    assert said[0] == "step 50 (1%), 1,234 frames/s, 1:00:00 left; high loss 0.5000 accuracy 0.750"
    assert said[1] == said[0] + " (validation 0.4000, 0.800)"
    assert len(said) == 2


def test_a_line_has_the_scores_of_mono_versions():
    said = []
    scores = {"high": {"loss": 0.4, "sdr_db": 5.123, "mono_sdr_db": 4.567}}
    Lines(said.append)({**ENTRY, "valid": scores}, True)
    assert said[0].endswith("(validation 0.4000, 5.12 dB, mono 4.57 dB)")


def test_the_live_table_shows_the_last_validation_and_the_best(monkeypatch):
    from rich.console import Console
    from rich.live import Live

    console = Console(record=True, width=120, force_terminal=True, file=open(os.devnull, "w"))  # noqa: SIM115
    monkeypatch.setattr("stemsplit.training.progress._live", lambda: Live(console=console))
    with LiveTable() as table:
        table({**ENTRY, "valid": VALID}, True)
        worse = {"high": {"loss": 0.45, "weighted_accuracy": 0.7}}
        table({**ENTRY, "valid": worse}, True)
        console.print(table._table(ENTRY))
    *_, high, low = [line.split() for line in console.export_text().splitlines() if line.strip()]
    assert high == ["high", "0.5000", "0.7500", "0.4500", "0.7000", "0.4000", "0.8000", "1.0e-03"]
    assert low == ["low", "-", "-", "0.3000", "0.9000", "0.3000", "0.9000", "stopped"]


def test_the_command_line_has_the_package_s_defaults_and_choices():
    parameters = inspect.signature(command).parameters
    ours = {**asdict(Settings((), None, "", ())), **asdict(TrainConfig()), **asdict(Augmentation())}
    renamed = {
        "gain": "gain_db",
        "equalise": "equalise_db",
        "noise": "noise_db",
        "validate_every": "validate_steps",
    }
    ours |= dict.fromkeys(DEFAULTS)  # as suits the network
    for name in parameters.keys() - {"data", "share", "run", "name", "stems", "join", "quiet", "device"}:
        assert parameters[name].default == ours[renamed.get(name, name)], name
    assert DEFAULTS.items() <= {**asdict(Settings((), None, "", ())), **asdict(TrainConfig())}.items()
    hints = get_type_hints(command)
    assert get_args(get_args(hints["loss"])[0]) == tuple(LOSSES)
    assert get_args(hints["schedule"]) == SCHEDULES
    assert get_args(hints["precision"]) == PRECISIONS
