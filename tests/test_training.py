from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from stemsplit import weights
from stemsplit.errors import BadWeights
from stemsplit.songs import Song
from stemsplit.stft import Stft
from stemsplit.training.dataset import Examples
from stemsplit.training.loop import Recipe, Trainer
from stemsplit.training.run import Settings, train
from stemsplit.writer import Writer
from tests.conftest import SAMPLE_RATE

STEMS = ("high", "low")


def band_noise(seed, low_hz, high_hz, seconds=3):
    """Noise in a band, `(channel, time)`."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft(0.1 * rng.standard_normal((2, seconds * SAMPLE_RATE)))
    hz = np.fft.rfftfreq(seconds * SAMPLE_RATE, 1 / SAMPLE_RATE)
    return np.fft.irfft(np.where((hz > low_hz) & (hz < high_hz), spectrum, 0)).astype(np.float32)


@pytest.fixture(scope="module")
def songs():
    """Two songs of a high and a low noise, which a mask tells apart by frequency alone."""

    def song(seed):
        high, low = band_noise(seed, 3000, 10_000), band_noise(seed + 9, 50, 2500)
        return Song(f"song {seed}", np.stack([high, low, 0 * low]), (True, True))

    return [song(0), song(1)]


def examples(songs, **options):
    return Examples(songs, Stft(), 513, 16 + 24, 2, **options)


def learn(songs, steps, **recipe):
    trainer = Trainer(STEMS, examples(songs), Recipe(steps=steps, warmup=5, learning_rate=3e-3, **recipe))
    trainer.start()
    trainer.run(lambda _: None)
    return trainer


def test_a_batch_depends_on_its_number_and_seed_alone(songs):
    first, again, other = examples(songs)(3), examples(songs)(3), examples(songs)(4)
    np.testing.assert_array_equal(first.mixture, again.mixture)
    assert np.abs(first.mixture - other.mixture).max() > 0
    assert np.abs(first.mixture - examples(songs, seed=1)(3).mixture).max() > 0


@pytest.mark.parametrize("across", [0.0, 1.0])
def test_a_mixture_is_made_of_its_stems(songs, across):
    batch = examples(songs, across=across)(0)
    assert batch.mixture.shape == (2, 40, 513)
    assert batch.stems.shape == (2, 2, 40, 513)
    bins = np.arange(513) * SAMPLE_RATE / 2048
    high, low = batch.stems[:, 0], batch.stems[:, 1]
    np.testing.assert_allclose(batch.mixture[..., bins > 3500], high[..., bins > 3500], atol=1e-4)
    np.testing.assert_allclose(batch.mixture[..., bins < 2000], low[..., bins < 2000], atol=1e-4)


def test_what_no_one_could_tell_apart_is_never_a_target(songs):
    joined = Song("joined", songs[0].parts[[0, 2, 1]], (True, False))
    for number in range(20):
        batch = examples([joined, songs[1]], across=0.5)(number)
        silent_low = batch.stems[:, 1].max(axis=(1, 2)) == 0
        np.testing.assert_array_equal(silent_low & batch.known[:, 1], False)


def test_a_tiny_task_is_learnt_and_a_broken_target_is_not(songs):
    trainer = learn(songs, 25)
    accuracy = trainer.validate([examples(songs, seed=5)(0)])
    assert min(accuracy.values()) > 0.95
    # The same stems, each labelled as the other: what was learnt must now be wrong.
    broken = [Song(song.name, song.parts[[1, 0, 2]], song.known) for song in songs]
    assert max(trainer.validate([examples(broken, seed=5)(0)]).values()) < 0.5


def test_a_killed_and_resumed_run_is_the_same_run(songs, tmp_path):
    whole = learn(songs, 6)
    first = Trainer(STEMS, examples(songs), Recipe(steps=6, warmup=5, learning_rate=3e-3))
    first.start()

    class Killed(Exception):
        pass

    def kill(progress):
        if progress.step == 3:
            first.save(tmp_path / "checkpoint")
            raise Killed

    with pytest.raises(Killed):
        first.run(kill)
    second = Trainer(STEMS, examples(songs), Recipe(steps=6, warmup=5, learning_rate=3e-3))
    second.resume(tmp_path / "checkpoint")
    assert second.step == 3
    second.run(lambda _: None)
    for name in STEMS:
        for a, b in zip(whole.averages[name].parameters(), second.averages[name].parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_a_checkpoint_of_another_recipe_is_refused(songs, tmp_path):
    trainer = Trainer(STEMS, examples(songs), Recipe())
    trainer.save(tmp_path / "checkpoint")
    with pytest.raises(BadWeights, match="other settings"):
        Trainer(STEMS, examples(songs), Recipe(threshold=0.7)).resume(tmp_path / "checkpoint")
    Trainer(STEMS, examples(songs), Recipe(steps=9)).resume(tmp_path / "checkpoint")  # longer is the same


def test_a_run_ends_with_weights_and_a_log(songs, tmp_path, monkeypatch):
    monkeypatch.setattr("stemsplit.training.run.VALIDATION", (1, 1, 8))
    for split in ("train", "valid"):
        for song in songs:
            for name, part in zip(STEMS, song.parts, strict=False):
                path = tmp_path / "data" / split / song.name / f"{name}.wav"
                with Writer(path, sample_rate=SAMPLE_RATE, channels=2) as writer:
                    writer.write(part[:, : 2 * SAMPLE_RATE])
    settings = Settings(
        data=tmp_path / "data",
        run=tmp_path / "run",
        name="mine",
        stems=STEMS,
        examples=1,
        frames=4,
        device="cpu",
        licence="mine",
        source="two noises",
    )
    said = []
    path = train(settings, Recipe(steps=2), say=said.append)
    card = weights.read_card(path)
    assert (card.name, card.stems, card.data) == ("mine", STEMS, "two noises")
    assert set(weights.load(path, ["low"])["low"]) >= {"mean", "deviation", "conv1.weight"}
    (entry,) = map(json.loads, (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines())
    assert entry["step"] == 2
    assert set(entry["valid"]) == set(STEMS)
    train(settings, Recipe(steps=3), say=said.append)
    assert "going on from step 2" in said
