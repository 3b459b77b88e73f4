"""What holds of every network in the registry, whichever paper it is from."""

from __future__ import annotations

import math
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stemsplit.datasets.songs import Song
from stemsplit.dsp.features import FLOOR
from stemsplit.dsp.input_features import InputFeatures
from stemsplit.errors import StemsplitError
from stemsplit.networks import factory, registry
from stemsplit.networks.info import WHOLE
from stemsplit.options import RuntimeOptions
from stemsplit.runtime.torch_runtime import AllStems
from stemsplit.training.augment import Augmentation
from stemsplit.training.config import TrainConfig
from stemsplit.training.devices import launch
from stemsplit.training.loop import Samplers, Trainer
from stemsplit.training.presets import preset
from stemsplit.training.run import stft_of
from stemsplit.training.sampler import MixtureSampler
from stemsplit.zoo import store
from stemsplit.zoo.ref import ModelRef
from tests.conftest import (
    LIGHT,
    NOISES,
    QUICK,
    SAMPLE_RATE,
    STEMS,
    band_noise,
    random_model,
    random_networks,
    slow_but,
)

PLAIN = Augmentation.none()
EVERY = pytest.mark.parametrize("name", slow_but(QUICK, registry.REGISTRY))
EVERY_LIGHT = pytest.mark.parametrize("name", slow_but(QUICK, LIGHT))
PARAMETERS = {
    # Of the papers' configurations; where a paper states a count, the network's own test says so.
    "binary-mask-cnn": 323_233,
    "mdensenet": 121_030,
    "mmdensenet": 270_100,
    "deep-conv-sep": 357_482,
    "wave-u-net": 10_263_498,
    "wavenet": 3_277_763,
}
TINY = {
    "sub-band-unet": (40, 3e-3, 8.0),
    "mdensenet-small": (80, 1e-2, 4.0),
    "mmdensenet-small": (80, 1e-2, 5.0),
    "deep-conv-sep": (40, 3e-3, 7.0),
    "fnn-small": (40, 3e-3, 5.0),
    "blstm-small": (40, 1e-2, 5.0),
    "blend-small": (60, 1e-2, 5.0),
    "nug-small": (60, 3e-3, 6.0),
    "deep-nmf-small": (40, 3e-2, 6.0),
    "band-transformer": (40, 3e-3, 7.0),
    "band-transformer-full": (40, 3e-3, 8.0),
    "wave-u-net-small": (40, 1e-3, 2.0),
    "wavenet-small": (30, 3e-3, 4.0),
}
"""Steps, learning rate, and the SDR in dB that tones and a noise must then have; equal shares have 2.9 dB."""


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def features(entry, length, seed=0):
    """What a network may hear: `(1, view, position, ...)`."""
    heard, *bins = entry.input_shape
    noise = torch.randn((1, heard, length, *bins), generator=torch.Generator().manual_seed(seed))
    return 0.1 * noise if entry.predicts_waveforms else 2 * noise - 6


@EVERY
def test_the_registry_says_what_a_network_is(name):
    entry = registry.REGISTRY[name]
    (network,) = random_networks(name)[:1]
    assert f"class {entry.name}(" in factory.source(name).decode()
    if name in PARAMETERS:
        assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[name]
    length = entry.context.whole_strides(2 * entry.context.frames + 2 * entry.context.stride)
    heard = features(entry, length)
    with torch.inference_mode():
        outputs = network(heard)
        assert outputs.shape[:2] == (1, len(STEMS) if entry.joint else 1)
        assert outputs.shape[3] == length - 2 * entry.context.margin
        assert outputs.shape[4:] == heard.shape[3:]
        if not entry.predicts_waveforms:
            assert outputs.shape[2] == (1 if entry.input is InputFeatures.RMS else 2)
            masks = network.masks(outputs)
            assert 0 <= masks.min() <= masks.max() <= 1
            assert masks.std() > 1e-4


@pytest.mark.slow
@EVERY_LIGHT
def test_a_network_hears_as_far_as_the_registry_says_and_no_further(name):
    entry = registry.REGISTRY[name]
    together = AllStems(random_networks(name), entry.context)
    room = entry.context.whole_strides(entry.context.frames + 3 * entry.context.stride)
    heard = features(entry, 2 * room)
    recurrent = "blstm" in name or "blend" in name
    with torch.inference_mode():
        before = together(heard)
        changed = heard.clone()
        changed[:, :, : entry.context.stride] += 3
        changed[:, :, -1:] -= 3
        after = together(changed)
        # Outputs begin after the context: those of the middle are further than that from both ends.
        inner = slice(entry.context.stride, before.shape[2] - 1)
        tolerance = 1e-3 if recurrent else 1e-5
        torch.testing.assert_close(after[:, :, inner], before[:, :, inner], atol=tolerance, rtol=0)
        shifted = together(heard[:, :, entry.context.stride :])
        torch.testing.assert_close(shifted, before[:, :, entry.context.stride :], atol=tolerance, rtol=0)


@pytest.mark.slow
@EVERY
def test_what_a_network_learns_from_is_what_the_engine_gives_it(name):
    """One step of training, from a batch of songs."""
    entry = registry.REGISTRY[name]
    assert preset(name).get("frames", 32) % entry.context.stride == 0
    if name not in LIGHT:
        return
    trainer = tiny(name, [], frames=entry.context.stride)
    spectra = np.random.default_rng(0).standard_normal((2, 2, 9, max(1, entry.bins))).astype(np.complex64)
    heard = trainer._network_input(torch.from_numpy(spectra))
    if not entry.predicts_waveforms:
        from stemsplit.dsp.features import log_magnitude, magnitudes

        np.testing.assert_allclose(heard.numpy(), log_magnitude(magnitudes(spectra, entry.input)), atol=1e-5)
        assert heard.shape[1] == entry.input_shape[0]
        assert FLOOR == 1e-5


@pytest.fixture(scope="module")
def songs():
    """Two songs of a noise and of twenty tones, which lie in the same band."""

    def song(seed):
        rng = np.random.default_rng(seed)
        time = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
        tones = sum(np.sin(2 * np.pi * 311.0 * k * time + rng.random((2, 1))) for k in range(1, 20))
        parts = [band_noise(seed, 50, 7000), 0.02 * tones, 0 * tones]
        return Song(f"song {seed}", np.stack(parts).astype(np.float32), (True, True))

    return [song(0), song(1)]


def tiny(name, songs, *, frames, examples=2, augmentation=PLAIN):
    entry = registry.REGISTRY[name]
    frames = entry.context.whole_strides(frames) + 2 * entry.context.margin
    heard, judged = (
        MixtureSampler(songs, stft_of(entry), entry.bins, frames, examples, seed, changes)
        for seed, changes in ((0, augmentation), (5, PLAIN))
    )
    steps, rate, _ = TINY.get(name, (1, 1e-3, 0.0))
    loss = preset(name).get("loss", TrainConfig.loss)
    recipe = TrainConfig(network=name, steps=steps, warmup=5, learning_rate=rate, average=0.9, loss=loss)
    return Trainer(NOISES, Samplers(heard, judged, validation_batches=1), recipe, launch())


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in LIGHT if name != "binary-mask-cnn"])
def test_a_tiny_task_is_learnt_by_every_network(name, songs):
    """The binary-mask CNN has tests of its own, with each of its losses."""
    entry = registry.REGISTRY[name]
    trainer = tiny(name, songs, frames=4096 if entry.predicts_waveforms else 16, examples=1)
    trainer.start()
    trainer.run(lambda progress: None)
    assert min(scores["sdr_db"] for scores in trainer.validate().values()) > TINY[name][2]


@pytest.mark.slow
def test_batch_norms_are_of_the_weights_that_are_kept_and_of_songs_as_they_are(songs):
    trainer = tiny("mdensenet-small", songs, frames=16, augmentation=Augmentation(gain_db=12))
    trainer.run(lambda progress: None)
    average = trainer.network_trainers["network"].networks["average"]
    plain = replace(trainer.samplers.training, augmentation=PLAIN)
    heard = [trainer._tensors(plain(number))[0] for number in range(32)]
    with torch.inference_mode():
        inputs = [average.trunk.convolution(F.pad(x, average.trunk.padding)) for x in heard]
    found = average.trunk.dense[0].norms[0].running_mean
    torch.testing.assert_close(found, torch.cat(inputs).mean(dim=(0, 2, 3)), atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_networks_in_stereo_are_validated_on_mono_versions_too(songs):
    scores, narrow = (
        tiny("mdensenet-small", found, frames=8).validate()["network"]
        for found in (songs, [song.with_width(0) for song in songs])
    )
    assert narrow["mono_sdr_db"] == pytest.approx(narrow["sdr_db"], abs=1e-4)
    assert abs(scores["mono_sdr_db"] - scores["sdr_db"]) > 1e-3
    assert "mono_sdr_db" not in tiny("fnn-small", songs, frames=8).validate()["network"]


@pytest.mark.slow
def test_a_blend_finds_its_weights_in_the_end(songs):
    trainer = tiny("blend-small", songs, frames=16)
    trainer.start()
    trainer.run(lambda progress: None)
    before, (network_trainer,) = trainer.validate(), trainer.network_trainers.values()
    average, best = network_trainer.networks["average"], network_trainer.networks["best"]
    trainer.finish()
    assert (best.weight != average.weight).all()
    average.load_state_dict(best.state_dict())
    assert trainer.validate()["network"]["sdr_db"] > before["network"]["sdr_db"] - 0.2


@pytest.mark.skipif(not find_spec("openvino"), reason="needs OpenVINO")
@pytest.mark.slow
@pytest.mark.parametrize("name", LIGHT)
def test_both_runtimes_give_the_same(name, music):
    entry = registry.REGISTRY[name]
    batch = entry.context.whole_strides(4096 if entry.predicts_waveforms else 32)
    found = {}
    for runtime in ("torch", "openvino"):
        running = RuntimeOptions(runtime=runtime, device="cpu", precision="float32", threads=1, batch=batch)
        separator = ModelRef.parse(random_model(name)).load(running)
        spec = separator.spec
        time = spec.stride * math.ceil(6000 / spec.stride)
        window = np.resize(music, (2, time + 2 * spec.context))
        found[runtime] = separator.separate(window)
        assert found[runtime].shape == (4, 2, time)
    np.testing.assert_allclose(found["openvino"], found["torch"], atol=1e-4)
    assert np.abs(found["torch"]).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", slow_but(QUICK, (name for name in LIGHT if registry.REGISTRY[name].joint)))
def test_some_stems_of_a_network_for_all_are_what_they_are_among_all(name, music):
    running = RuntimeOptions(runtime="torch", device="cpu", precision="float32", threads=1)
    every, some = (
        ModelRef.parse(random_model(name)).load(running, stems=stems) for stems in (None, ["drums", "other"])
    )
    window = np.resize(music, (2, 2 * every.spec.context + every.spec.stride))
    np.testing.assert_allclose(some.separate(window), every.separate(window)[[1, 3]], atol=1e-5)
    assert some.spec.stems == ("drums", "other")
    assert not some.spec.complete


def test_what_a_network_cannot_do_is_said():
    with pytest.raises(StemsplitError, match="no --fast for sub-band-unet"):
        ModelRef.parse(random_model("sub-band-unet")).load(RuntimeOptions(fast=True))
    with pytest.raises(StemsplitError, match="does not use masks"):
        ModelRef.parse(random_model("wavenet-small")).load(RuntimeOptions(), mask="soft")


def test_weights_of_a_network_for_all_stems_come_back_as_they_were():
    path = random_model("sub-band-unet")
    (network,) = random_networks("sub-band-unet")
    state = store.load(path, (WHOLE,))[WHOLE]
    for key, value in network.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(state[key], value, atol=1e-3, rtol=1e-3)
