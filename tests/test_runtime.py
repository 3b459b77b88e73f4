from __future__ import annotations

import subprocess
import sys
import tracemalloc
import warnings
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from stemsplit.dsp.stft import Stft
from stemsplit.errors import BadWeights, DeviceUnavailable
from stemsplit.networks import factory, registry
from stemsplit.networks.base import Network, RatioNetwork
from stemsplit.networks.info import Context, OutputKind
from stemsplit.options import RuntimeOptions
from stemsplit.runtime import cache, openvino_runtime
from stemsplit.runtime.torch_runtime import AllStems, TorchRuntime
from stemsplit.separation.compose import with_residual
from stemsplit.separation.masking import MaskSeparator, NetworkInParts
from stemsplit.separation.plan import MaskPlan
from stemsplit.separation.separator import Execution
from stemsplit.separation.stream import separate_blocks
from stemsplit.zoo import loading, store
from stemsplit.zoo.ref import ModelRef
from tests.conftest import SAMPLE_RATE, mask_separator, random_network, whole

needs_openvino = pytest.mark.skipif(not find_spec("openvino"), reason="needs OpenVINO")
EQUAL = 1e-5  # of full scale, in float32
HALF_DB = -30  # what bfloat16 adds, relative to a stem


def has_bfloat16():
    openvino = pytest.importorskip("openvino")
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def error_db(found, expected):
    """The loudest stem's error, relative to it."""
    errors = np.sum((found - expected) ** 2, axis=(1, 2)) / np.sum(expected**2, axis=(1, 2))
    return 10 * np.log10(errors.max() + 1e-20)


@pytest.fixture(autouse=True, scope="module")
def networks_started_once():
    """Here each test starts them anew: that is what these tests are about."""


@pytest.fixture(scope="module")
def references(music):
    """Stems by torch in float32, window by window's equals, of every frame and of every third."""

    def stems(fast):
        running = RuntimeOptions(runtime="torch", device="cpu", precision="float32", threads=1, fast=fast)
        return whole(ModelRef.parse("binary-mask-cnn").load(running), music)

    return {fast: stems(fast) for fast in (False, True)}


@pytest.mark.slow
def test_fast_is_something_else_but_not_much(references):
    assert -30 < error_db(references[True], references[False]) < -5


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "threads"), [(None, 1), (20, 3)])
@pytest.mark.parametrize("fast", [False, True], ids=["every frame", "fast"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("runtime", ["torch", pytest.param("openvino", marks=needs_openvino)])
def test_stems_are_the_same_however_they_are_run(music, references, runtime, precision, fast, batch, threads):
    if precision == "bfloat16" and not has_bfloat16():
        pytest.skip("this processor has no bfloat16")
    running = RuntimeOptions(
        runtime=runtime, device="cpu", precision=precision, fast=fast, batch=batch, threads=threads
    )
    separator = ModelRef.parse("binary-mask-cnn").load(running)
    assert separator.spec.how == f"{runtime} on cpu in {precision}"
    blocks = [music[:, i : i + 10_007] for i in range(0, music.shape[1], 10_007)]
    for seconds in (None, 0.4):
        found = np.concatenate(list(separate_blocks(separator, blocks, segment_seconds=seconds)), axis=-1)
        if precision == "float32":
            np.testing.assert_allclose(found, references[fast], atol=EQUAL)
        else:
            assert -80 < error_db(found, references[fast]) < HALF_DB  # not the same, or it was not half


@pytest.mark.parametrize(("threads", "jobs", "workers"), [(4, 1, 4), (4, 2, 2), (4, 3, 1), (2, 4, 1)])
def test_tracks_share_the_threads(threads, jobs, workers):
    """Each is cut into as few segments as that takes, but they run on all threads."""
    running = RuntimeOptions(runtime="torch", device="cpu", threads=threads, jobs=jobs)
    separator = ModelRef.parse("binary-mask-cnn").load(running)
    assert separator.spec.workers == workers
    assert separator.network.workers == threads


@pytest.mark.parametrize("name", registry.REGISTRY)
def test_the_registry_says_what_the_networks_are(name):
    entry = registry.REGISTRY[name]
    network = getattr(import_module(f"stemsplit.networks.{entry.module}"), entry.name)
    if name == "binary-mask-cnn":
        assert (entry.bins, entry.context.frames) == (network.bins, network.context_frames)
    assert issubclass(network, RatioNetwork) == (entry.output is OutputKind.RATIO)
    assert f"class {entry.name}".encode() in factory.source(name)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "int4"}, "precision"),
        ({"runtime": "onnx"}, "runtime"),
        ({"batch": 0}, "batch"),
        ({"threads": 0}, "threads"),
    ],
)
def test_what_makes_no_sense_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        RuntimeOptions(**options)


@pytest.mark.slow
def test_a_runtime_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setattr("stemsplit.runtime.find_spec", lambda name: None)
    with pytest.raises(DeviceUnavailable, match="not installed") as error:
        loading.load_separator(runtime="openvino", device="cpu")
    assert "pip install 'stemsplit-audio[openvino]'" in error.value.hint
    assert loading.load_separator(device="cpu").spec.how.startswith("torch on cpu")


def test_openvino_is_for_processors(monkeypatch):
    monkeypatch.setattr("stemsplit.runtime.pick_device", lambda name: name)
    with pytest.raises(DeviceUnavailable, match="not on cuda"):
        loading.load_separator(runtime="openvino", device="cuda")


@pytest.mark.slow
def test_a_precision_that_is_not_there_is_an_error():
    with pytest.raises(DeviceUnavailable, match="float16"):
        loading.load_separator(runtime="torch", device="cpu", precision="float16")
    with pytest.raises(DeviceUnavailable, match="does not support bfloat16"):
        openvino_runtime.best_precision(["FP32", "INT8"], "bfloat16")
    assert openvino_runtime.best_precision(["FP32", "INT8"], "auto") == "float32"
    assert openvino_runtime.best_precision(["FP32", "BF16"], "auto") == "bfloat16"


@pytest.mark.slow
def test_threads_of_others_are_left_alone(music):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        list(separate_blocks(mask_separator(threads=2), [music], segment_seconds=0.4))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@needs_openvino
@pytest.mark.subprocess
def test_a_second_start_needs_no_torch_and_says_nothing_to_anyone():
    code = (
        "import sys; from stemsplit.zoo import loading; loading.load_separator(device='cpu', threads=2);"
        "print(*sorted({'torch', 'openvino', 'openvino_telemetry'} & set(sys.modules)))"
    )
    loaded = [subprocess.check_output([sys.executable, "-c", code], text=True).split() for _ in range(2)]
    assert loaded[1] == ["openvino"]


@needs_openvino
@pytest.mark.subprocess
def test_threads_that_begin_together_do_not_wait_for_each_other_for_ever():
    """In a process of its own, as it happens at the first call; without care, in every third of them."""
    code = """
import threading
import numpy as np
from stemsplit.zoo.ref import ModelRef
from stemsplit.options import RuntimeOptions

separator = ModelRef.parse("binary-mask-cnn").load(RuntimeOptions(device="cpu", threads=8, batch=1))
together = threading.Barrier(8)

def ask():
    together.wait()
    separator.network(np.zeros((1, 30, 513), np.float32))

threads = [threading.Thread(target=ask) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""
    for _ in range(4):
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.slow
@needs_openvino
def test_damaged_weights_are_refused_though_good_ones_are_kept(tmp_path):
    running = RuntimeOptions(runtime="openvino", device="cpu", threads=1)
    ModelRef.parse("binary-mask-cnn").load(running)
    content = bytearray(store.find("binary-mask-cnn").read_bytes())
    content[-2:] = b"\x00\x7c"  # infinity
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(content)
    with pytest.raises(BadWeights, match="not finite"):
        ModelRef.parse(damaged).load(running)


@pytest.mark.slow
@needs_openvino
def test_half_precision_leaves_the_preparation_in_float32(music, monkeypatch):
    """Where the CPU has no bfloat16, OpenVINO computes all in float32: then the stems are the same."""
    running = RuntimeOptions(runtime="openvino", device="cpu", precision="float32", threads=1)
    expected = whole(ModelRef.parse("band-transformer").load(running), music)
    monkeypatch.setattr(openvino_runtime, "best_precision", lambda *_: "bfloat16")
    hints, translate = [], openvino_runtime.configuration
    monkeypatch.setattr(
        openvino_runtime,
        "configuration",
        lambda precision, threads: hints.append(precision) or translate(precision, threads),
    )
    found = whole(ModelRef.parse("band-transformer").load(running), music)
    assert hints == ["float32", "bfloat16"]
    assert error_db(found, expected) < (-25 if has_bfloat16() else -90)


@pytest.mark.slow
@pytest.mark.parametrize("mask", ["soft", "wiener"])
@pytest.mark.parametrize("runtime", ["torch", pytest.param("openvino", marks=needs_openvino)])
def test_a_network_on_a_stream_gives_the_stems_of_batches(music, runtime, mask):
    """In segments of one length or another, side by side: with `batch`, each batch has its own context."""
    running = {"runtime": runtime, "device": "cpu", "precision": "float32", "threads": 2}
    batches, stream = (
        ModelRef.parse("band-transformer").load(RuntimeOptions(**running, **batch), mask=mask)
        for batch in ({"batch": 64}, {})
    )
    assert not isinstance(batches.network, NetworkInParts)
    assert isinstance(stream.network, NetworkInParts)
    expected = whole(batches, music)
    for seconds in (None, 0.7):
        found = np.concatenate(list(separate_blocks(stream, [music], segment_seconds=seconds)), axis=-1)
        np.testing.assert_allclose(found, expected, atol=EQUAL)
    features = np.random.default_rng(0).standard_normal((4, 200, 2048), np.float32)
    np.testing.assert_allclose(stream.network(features), batches.network(features), atol=EQUAL)


class Parts:
    """A network without context, on a stream."""

    def __call__(self, features):
        shares = 1 / (1 + np.exp(-features[:, None]))
        return np.concatenate([shares, 1 - shares])

    def stream(self, parts):
        return map(self, parts)


@pytest.mark.parametrize("wiener", [0, 8])
@pytest.mark.parametrize("stems", [("one", "two"), ("one",)])
def test_stems_on_a_stream_come_in_pieces(music, stems, wiener):
    """With the residual as a stem, too; a network that is not on a stream gives the same stems."""
    network, complete = Parts(), len(stems) == 2
    plan = MaskPlan(Stft(), wiener_context_frames=wiener)
    common = {"stems": stems, "sample_rate": SAMPLE_RATE, "plan": plan, "bins": 1025, "complete": complete}
    common |= {"stem_indices": () if complete else (0,), "rule": lambda found: found}
    at_once, stream = (
        MaskSeparator(network=each, execution=Execution(batch=16), **common)
        for each in (network.__call__, network)
    )
    samples, context = 100 * plan.stride_samples, stream.spec.context
    window = music[:, : samples + 2 * context]
    pieces = list(stream.pieces(window))
    assert len(pieces) > 5
    np.testing.assert_allclose(np.concatenate(pieces, axis=-1), at_once.separate(window), atol=EQUAL)
    every = list(with_residual(stream, "rest").pieces(window))
    assert len(every) == len(pieces)
    assert [len(piece) for piece in every] == [len(stems) + 1] * len(every)
    whole_track = np.concatenate(every, axis=-1)
    np.testing.assert_allclose(whole_track.sum(axis=0), window[:, context : context + samples], atol=EQUAL)


class Maker:
    """Counts how often it had to make something."""

    def __init__(self):
        self.made = 0

    def __call__(self):
        self.made += 1
        return b"compiled"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "folder", lambda: tmp_path / "cache" / "stemsplit")
    return tmp_path / "cache" / "stemsplit"


def test_what_is_kept_is_not_made_again(home):
    make = Maker()
    assert [cache.kept("a", make), cache.kept("a", make)] == [b"compiled"] * 2
    assert make.made == 1
    assert [path.name for path in home.iterdir()] == ["a.blob"]
    cache.kept("b", make)
    assert make.made == 2


@pytest.mark.parametrize("damage", [b"", b"short", 40 * b"x"])
def test_what_is_damaged_is_made_again(home, damage):
    make = Maker()
    cache.kept("a", make)
    (home / "a.blob").write_bytes(damage)
    assert cache.kept("a", make) == cache.kept("a", make) == b"compiled"
    assert make.made == 2


def test_where_nothing_can_be_kept_it_is_made_each_time(home):
    home.parent.mkdir()
    home.write_text("no folder")
    make = Maker()
    assert [cache.kept("a", make), cache.kept("a", make)] == [b"compiled"] * 2
    assert make.made == 2


def test_only_so_many_are_kept(home):
    for name in range(cache.KEPT + 3):
        cache.kept(str(name), Maker())
    assert len(list(home.iterdir())) == cache.KEPT


def test_keys_tell_all_parts_apart():
    assert cache.key(b"a", b"bc") != cache.key(b"ab", b"c")
    assert cache.key(b"a", b"bc") == cache.key(b"a", b"bc")


class Crowded(Network):
    """A network on a device that has room for so many frames."""

    def __init__(self, room):
        super().__init__(1)
        self.room, self.tried = room, []

    def forward(self, features, *, margin=0, frame_stride=1):
        self.tried.append(features.shape[2] - 24)
        if self.tried[-1] > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return features[:, None, :, 12:-12]


def test_out_of_memory_halves_the_batch_and_goes_on():
    network = Crowded(room=10)
    runtime = TorchRuntime(AllStems([network], Context(12)), batch=64)
    features = np.random.default_rng(440).standard_normal((1, 124, 513)).astype(np.float32)
    found = runtime(features)
    assert network.tried[:5] == [64, 32, 16, 8, 8]
    np.testing.assert_array_equal(found[0], features[:, 12:-12])


def test_out_of_memory_for_one_frame_is_an_error():
    runtime = TorchRuntime(AllStems([Crowded(room=0)], Context(12)), batch=4)
    with pytest.raises(DeviceUnavailable, match="one frame"):
        runtime(np.zeros((1, 30, 513), np.float32))


def test_running_leaves_the_networks_as_they_are():
    network = random_network(0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    TorchRuntime(AllStems([network], Context(12)), batch=64)(np.zeros((1, 30, 513), np.float32))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length():
    """The engine alone, with a network that costs nothing; `make bench` measures the whole program."""
    separator = MaskSeparator(
        stems=("one", "two"),
        sample_rate=SAMPLE_RATE,
        plan=MaskPlan(Stft(), context=12),
        bins=513,
        network=lambda features: np.broadcast_to(
            features[None, :, 12:-12], (2, 1, features.shape[1] - 24, 513)
        ),
        rule=lambda found: 0 * found + np.float32(0.5),
    )

    def peak(seconds):
        blocks = (np.ones((2, SAMPLE_RATE), np.float32) for _ in range(seconds))
        tracemalloc.start()
        for _ in separate_blocks(separator, blocks, segment_seconds=5.0):
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(120) < 1.05 * peak(20)


@needs_openvino
def test_a_translation_prints_no_warning():
    from stemsplit.runtime.openvino_runtime import translated

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        translated(torch.nn.Linear(4, 4).eval(), (1, 4))
    assert [str(warning.message) for warning in caught] == []
