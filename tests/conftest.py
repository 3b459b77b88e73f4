"""Sounds that the tests make themselves, and separators with weights that no one trained."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import stemsplit
from stemsplit import _compat
from stemsplit.cli import console
from stemsplit.datasets.songs import Song
from stemsplit.dsp import masks
from stemsplit.dsp.stft import Stft
from stemsplit.networks import factory, registry
from stemsplit.networks.base import Network
from stemsplit.networks.binary_mask_cnn import BinaryMaskCNN
from stemsplit.options import RuntimeOptions
from stemsplit.runtime import cache as compiled
from stemsplit.runtime.torch_runtime import AllStems, TorchRuntime
from stemsplit.separation.compose import Ensemble, WithResidual
from stemsplit.separation.masking import MaskSeparator
from stemsplit.separation.plan import MaskPlan
from stemsplit.separation.separator import Execution, FittedMethod, Separator, StreamSeparator
from stemsplit.zoo import install, installed, separators, store
from stemsplit.zoo.ref import ModelRef

STEMS = ("vocals", "drums", "bass", "other")
SAMPLE_RATE = 44_100

_KEPT = Path(__file__).parent.parent / ".pytest_cache"
# All workers and runs share what librosa compiles, which takes a minute.
os.environ["NUMBA_CACHE_DIR"] = str(_KEPT / "numba")


def random_network(seed: int) -> BinaryMaskCNN:
    """A network in its initial state, whose outputs are spread over all probabilities."""
    torch.manual_seed(seed)
    network = BinaryMaskCNN().eval()
    network.mean.fill_(-6.0)
    network.deviation.fill_(3.0)
    torch.nn.init.normal_(network.output.weight, std=0.2)
    return network


@cache
def mask_separator(
    mask: str = "soft", stems: tuple[str, ...] = STEMS, *, frame_stride: int = 1, **options: Any
) -> MaskSeparator:
    networks = [random_network(STEMS.index(name)) for name in stems]
    context = registry.find("binary-mask-cnn").context
    all_stems = AllStems(networks, context, frame_stride=frame_stride)
    runtime = TorchRuntime(all_stems, **{"batch": 64, **options})
    complete = stems == STEMS
    return MaskSeparator(
        stems=stems,
        sample_rate=SAMPLE_RATE,
        plan=MaskPlan(
            Stft(2048, 512),
            context=context.frames,
            wiener_context_frames=5 if mask == "wiener" else 0,
            frame_stride=frame_stride,
        ),
        bins=513,
        network=runtime,
        rule=RULES[mask] if mask in RULES else partial(masks.soft, complete=complete),
        complete=complete,
        execution=Execution(runtime.batch, runtime.workers),
    )


def _shares(features: np.ndarray) -> np.ndarray:
    """Probabilities that depend on the features of each frame, in no time."""
    heard = features[:, BinaryMaskCNN.context_frames : -BinaryMaskCNN.context_frames]
    turns = 1.5 * np.arange(len(STEMS), dtype=np.float32)[:, None, None, None]
    return 0.5 + 0.5 * np.sin(heard.mean(axis=0) + turns)


def quick_separator() -> MaskSeparator:
    """A separator for tests of what is done with stems, not of how they are made."""
    return replace(mask_separator(), network=_shares)


def random_networks(name: str, stems: tuple[str, ...] = STEMS) -> list[Network]:
    """A model's networks in their initial state, which depends on the name alone."""
    entry = registry.find(name)
    torch.manual_seed(sum(map(ord, name)))
    parts = entry.parts(stems)
    networks = [factory.make(name, len(stems) // len(parts)).eval() for _ in parts]
    for network in networks:
        if network.standardised:
            network.mean.fill_(-6.0)
            network.deviation.fill_(3.0)
    return networks


@cache
def random_model(name: str) -> Path:
    """A weights file of a network that no one trained."""
    path = Path(tempfile.mkdtemp()) / f"{name}.safetensors"
    entry, networks = registry.find(name), random_networks(name)
    card = replace(
        store.read_card("binary-mask-cnn"),
        name=name,
        network=name,
        sample_rate=entry.sample_rate,
        n_fft=entry.n_fft,
        hop_length=entry.hop_length,
        parameters=sum(p.numel() for network in networks for p in network.parameters()),
        mask="waveform" if entry.predicts_waveforms else "soft",
        combination=(),
        scores={},
    )
    parts = entry.parts(STEMS)
    store.save(path, card, {part: net.state_dict() for part, net in zip(parts, networks, strict=True)})
    return path


@cache
def any_network(name: str) -> Separator:
    running = RuntimeOptions(runtime="torch", device="cpu", precision="float32", threads=1)
    separator = ModelRef.parse(random_model(name)).load(running)
    assert not isinstance(separator, FittedMethod | StreamSeparator)
    return separator


SMALL = {entry.module for entry in registry.REGISTRY.values() if entry.config == "SMALL"}
LIGHT = [
    name for name, entry in registry.REGISTRY.items() if entry.config == "SMALL" or entry.module not in SMALL
]
"""Of networks that there are in several sizes, the small one: the others have tests of their own."""
QUICK = {"binary-mask-cnn", "deep-conv-sep", "fnn-small", "wave-u-net-small"}
"""One network per family, which `make test-fast` runs; the others are slow."""


FAMILIES = ("band-transformer", "fnn-small", "blstm-small", "wave-u-net-small")
"""One network for each way through the engine: joint masks, magnitudes, recurrent, waveforms.

What the engine promises then holds of every network whose receptive field and stride are what its entry
says, and `tests/test_nets.py` checks that of all.
"""


def slow_but(quick: set[str], names: Iterable[str]) -> list:
    """Return names as parameters of a test, those that are not quick with the mark `slow`."""
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in names]


def default_signals() -> None:
    """Undo in a child process what `nohup` and `&` do: they have signals ignored."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)


def events(lines: str) -> list[dict]:
    """Return the objects that a program printed, each of which is as the schema says."""
    path = Path(console.__file__).with_name("events.schema.json")
    schema = jsonschema.Draft202012Validator(json.loads(path.read_text(encoding="utf-8")))
    found = [json.loads(line) for line in lines.splitlines()]
    for event in found:
        schema.validate(event)
    return found


def whole(separator, mixture: np.ndarray) -> np.ndarray:
    """Stems of all of a mixture at once, with silence around it."""
    spec, time = separator.spec, mixture.shape[-1]
    window = np.pad(mixture, ((0, 0), (spec.context, spec.context + -time % spec.stride)))
    return separator.separate(window)[..., :time]


RULES = {
    "binary": partial(masks.binary, complete=True),
    "joint": partial(masks.matrix_scaled_softmax, scaling=np.eye(4, 5, dtype=np.float32) + 0.1),
}
METHODS = {
    "soft": lambda: mask_separator("soft"),
    "joint": lambda: mask_separator("joint"),
    "wiener": lambda: mask_separator("wiener"),
    "binary": lambda: mask_separator("binary"),
    "fast": lambda: mask_separator("soft", frame_stride=3),
    "side by side": lambda: mask_separator("soft", threads=3),
    "one stem": lambda: mask_separator("soft", ("bass",)),
    **{name: partial(any_network, name) for name in FAMILIES},
    "mean": lambda: Ensemble((mask_separator("soft"), any_network("sub-band-unet"))),
    "two stems": lambda: WithResidual(mask_separator("soft", ("vocals",)), "accompaniment"),
}


def _compiled() -> Path:
    """Return the folder of compiled networks, which all workers and runs share.

    Its name is a digest of the code that compiles them: the key of the cache has only the version, which
    stays the same while that code is changed. What other code has compiled is removed.
    """
    package = Path(stemsplit.__file__).parent
    sources = [
        path for name in ("networks", "runtime", "zoo") for path in sorted(package.glob(f"{name}/*.py"))
    ]
    folder = _KEPT / f"compiled-{compiled.key(*(path.read_bytes() for path in sources))[:16]}"
    for old in set(_KEPT.glob("compiled-*")) - {folder}:
        shutil.rmtree(old, ignore_errors=True)
    return folder


@pytest.fixture(autouse=True, scope="session")
def _caches_of_their_own():
    """Compiled networks are kept for these tests, not among the user's, whose settings do not count."""
    _compat.never_reuse_numba_cache_names()  # two workers may compile at once
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(_compiled()))
        patch.setattr(compiled, "KEPT", 64)  # the tests compile more networks than a user does
        for name in [name for name in os.environ if name.startswith("STEMSPLIT_")]:
            patch.delenv(name)
        patch.setenv("STEMSPLIT_CONFIG", os.devnull)
        patch.setenv(installed.FOLDER_VARIABLE, str(_KEPT / "no models"))
        yield


_start = separators._start


@lru_cache(maxsize=6)
def _started(path: Path, modified: int, network: str, stems: tuple[str, ...], running: RuntimeOptions) -> Any:
    return _start(replace(store.read_card(path), network=network), path, stems, running)


@pytest.fixture(autouse=True, scope="module")
def networks_started_once():
    """Start a model's networks once per worker and not once per split: that takes as long as a short split.

    A module whose tests are about that overrides this fixture.
    """

    def start(card, path, stems, running):
        return _started(path, path.stat().st_mtime_ns, card.network, stems, running)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(separators, "_start", start)
        yield


SEGMENT = 4096
"""Of `tiny_onnx`, in samples."""


def tiny_onnx(path: Path, stems: tuple[str, ...]) -> Path:
    """Write an ONNX file that filters a waveform to stems, each in its own way."""
    rng = np.random.default_rng(len(stems))
    taps = rng.normal(0, 0.5 / len(stems), (2 * len(stems), 2, 5)).astype(np.float32)
    shape = np.array([1, len(stems), 2, SEGMENT])
    nodes = [
        helper.make_node("Conv", ["mixture", "taps"], ["filtered"], pads=[2, 2]),
        helper.make_node("Reshape", ["filtered", "shape"], ["stems"]),
    ]
    ends = [
        [helper.make_tensor_value_info("mixture", TensorProto.FLOAT, [1, 2, SEGMENT])],
        [helper.make_tensor_value_info("stems", TensorProto.FLOAT, shape.tolist())],
    ]
    constants = [numpy_helper.from_array(taps, "taps"), numpy_helper.from_array(shape, "shape")]
    graph = helper.make_graph(nodes, "tiny", ends[0], ends[1], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def tiny_config(path: Path, stems: tuple[str, ...], **facts: Any) -> Path:
    """Write the description of a `tiny_onnx`."""
    network = {"inputs": ["waveform"], "outputs": ["waveform"]}
    facts = {"outputs": list(stems), "segment": SEGMENT, "network": network, **facts}
    path.write_text(json.dumps(facts), encoding="utf-8")
    return path


def install_tiny(folder: Path, name: str, stems: tuple[str, ...], **facts: Any) -> None:
    """Add a tiny model to the folder of installed models; its file is made in another folder."""
    file = tiny_onnx(folder / f"{name}.onnx", stems)
    install.add(file, name, tiny_config(folder / f"{name}.json", stems, **facts))


@pytest.fixture
def models_folder(tmp_path, monkeypatch):
    """The folder of installed models, which is not there yet."""
    folder = tmp_path / "models of mine"
    monkeypatch.setenv(installed.FOLDER_VARIABLE, str(folder))
    return folder


EVERY_METHOD = slow_but({"soft", "two stems", "wave-u-net-small"}, METHODS)


@pytest.fixture(params=EVERY_METHOD, scope="module")
def method(request):
    """Each kind of separator, loaded once: pytest runs all tests of one before those of the next."""
    return METHODS[request.param]()


@pytest.fixture(scope="session")
def music():
    """One and a half seconds of stereo: a chord that swells, clicks, and noise; `(channel, time)`."""
    rng = np.random.default_rng(440)
    time = np.arange(3 * SAMPLE_RATE // 2 + 123) / SAMPLE_RATE
    chord = sum(np.sin(2 * np.pi * hz * time + hz) for hz in (110.0, 277.2, 329.6, 1318.5))
    clicks = np.zeros_like(time)
    clicks[:: SAMPLE_RATE // 4] = 1.0
    noise = rng.standard_normal((2, time.size)) * np.abs(np.sin(2 * np.pi * time))
    left_right = np.array([[0.9], [0.4]])
    sound = left_right * chord * 0.1 * time + 0.5 * clicks + 0.03 * noise
    return sound.astype(np.float32)


NOISES = ("high", "low")


def band_noise(seed: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Three seconds of noise in a band, `(channel, time)`."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft(0.1 * rng.standard_normal((2, 3 * SAMPLE_RATE)))
    hz = np.fft.rfftfreq(3 * SAMPLE_RATE, 1 / SAMPLE_RATE)
    return np.fft.irfft(np.where((hz > low_hz) & (hz < high_hz), spectrum, 0)).astype(np.float32)


@pytest.fixture(scope="session")
def noise_songs():
    """Two songs of a high and a low noise, which a mask tells apart by frequency alone."""

    def song(seed):
        high, low = band_noise(seed, 3000, 10_000), band_noise(seed + 9, 50, 2500)
        return Song(f"song {seed}", np.stack([high, low, 0 * low]), (True, True))

    return [song(0), song(1)]
