"""Measure speed, memory and startup of stemsplit and of its peers on this machine: `make bench`.

Every figure is measured in this one run. Most are medians of several interleaved measurements, so that other
load on the machine affects all of them. Across machines, compare ratios, not seconds. Long tracks are the
example song repeated, written block by block to a folder that is removed at the end. `--quick` skips long
measurements and saves nothing; `--longest` sets the length of the longest track in hours.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from stemsplit import _compat
from stemsplit.audio.reader import Reader, Signal
from stemsplit.audio.writer import Writer
from stemsplit.defaults import DEFAULT_MODEL
from stemsplit.networks import registry
from stemsplit.networks.base import Network
from stemsplit.networks.binary_mask_cnn import FRAMES, BinaryMaskCNN
from stemsplit.options import RuntimeOptions
from stemsplit.runtime import cores, openvino_runtime
from stemsplit.runtime.torch_runtime import AllStems
from stemsplit.separation.separator import FittedMethod
from stemsplit.separation.stream import separate_blocks
from stemsplit.zoo import installed
from stemsplit.zoo.ref import ModelRef

HERE = Path(__file__).parent
SONG = HERE.parent / "examples" / "caesium-30s.mp3"
COMMAND = [str(Path(sys.executable).with_name("stemsplit")), "--quiet", "--force"]
PEERS = HERE.parent / "build" / "peers" / "bin" / "python"
SAMPLE_RATE = 44_100
CORES = cores()
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CNN = "binary-mask-cnn"
WAYS: dict[str, dict[str, Any]] = {
    "default": {},
    "--runtime torch": {"runtime": "torch"},
    "--mask soft": {"mask": "soft"},
    f"--model {CNN}": {"model": CNN},
    f"--model {CNN} --fast": {"model": CNN, "fast": True},
    f"--model {CNN} --runtime torch": {"model": CNN, "runtime": "torch"},
}
Row = list[str]


def in_turns(ways: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Return the median result of each function, called in turns."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _, (name, measure) in itertools.product(range(rounds), ways.items()):
        found[name].append(measure())
    return {name: statistics.median(values) for name, values in found.items()}


def per_second(run: Callable[[], object], seconds: float = 1.0) -> float:
    """Return the runs per second of all cores together, with one independent thread per core."""

    def count() -> float:
        torch.set_num_threads(1)
        with torch.inference_mode():
            run()
            began, times = time.monotonic(), 0
            while time.monotonic() < began + seconds:
                run()
                times += 1
            return times / (time.monotonic() - began)

    with ThreadPoolExecutor(CORES) as pool:
        return sum(future.result() for future in [pool.submit(count) for _ in range(CORES)])


# The machine


def machine() -> str:
    """Return a description of the machine and of package versions."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    from importlib.metadata import version

    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "openvino"))
    return f"{CORES} cores of {model} ({platform.machine()}), Python {platform.python_version()}, {versions}"


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if os.path.exists(path) else []


def peaks() -> dict[str, float]:
    """Return the GFLOP/s of all cores in channels-last 3 x 3 convolutions: the machine's peak."""

    def convolution(precision: torch.dtype) -> Callable[[], float]:
        x = torch.randn(1, 64, 64, 128, dtype=precision).to(memory_format=torch.channels_last)
        weight = torch.randn(64, 64, 3, 3, dtype=precision).to(memory_format=torch.channels_last)
        flops = 2 * 9 * 64 * 64 * x[0, 0].numel()
        return lambda: per_second(lambda: F.conv2d(x, weight, padding=1)) * flops / 1e9

    return in_turns({name: convolution(dtype) for name, dtype in PRECISIONS.items()}, 3)


# The network


class WindowByWindow(Network):
    """The network as in the paper, with the interface of the network with shared columns."""

    def __init__(self, network: BinaryMaskCNN) -> None:
        super().__init__(network.stems)
        self.network = network

    def forward(self, features: Tensor, *, margin: int = 0, frame_stride: int = 1) -> Tensor:
        """Return logits `(1, 1, 1, frame, bin)` for features `(1, 1, frame, bin)`."""
        count = features.shape[2] - FRAMES + 1
        windows = torch.stack([features[0, 0, k : k + count] for k in range(FRAMES)], dim=1)
        logits: Tensor = self.network.forward_windows(windows)
        return logits[None, None, None]

    def masks(self, outputs: Tensor) -> Tensor:
        """Return probabilities for logits."""
        return torch.sigmoid(outputs)


def networks(limits: dict[str, float]) -> tuple[list[Row], dict[str, Any]]:
    """Measure the network of one stem: each form, in each runtime and precision."""
    network, info = BinaryMaskCNN().eval(), registry.find(CNN)
    forms: dict[str, tuple[Network, int, int]] = {
        "window by window": (WindowByWindow(network), 8, 1),
        "shared columns": (network, info.batch, 1),
        "shared columns, every third": (network, info.batch, 3),
    }
    rows, facts = [], {}
    # A CPU without bfloat16 emulates it in float32, which is not useful.
    useful = [each for each in PRECISIONS.items() if limits[each[0]] >= limits["float32"]]
    for runtime, (precision, dtype) in itertools.product(("torch", "openvino"), useful):
        ways: dict[str, Callable[[], float]] = {}
        flops = {}
        for form, (module, size, step) in forms.items():
            together = AllStems([module], info.context, frame_stride=step)
            frames = torch.randn(1, 1, (size - 1) * step + FRAMES, network.bins)
            with torch.inference_mode(), FlopCounterMode(display=False) as counter:
                together(frames)
            flops[form] = counter.get_total_flops() / size / step
            run = _runner(runtime, together, frames, dtype, precision)
            ways[form] = partial(_masked_per_second, run, size * step)
        rates = in_turns(ways, 3)
        for form, rate in rates.items():
            gflops = rate * flops[form] / 1e9
            ratio = rate / rates["window by window"]
            share = gflops / limits[precision]
            name = f"{runtime}, {precision}: {form}"
            facts[name] = {"frames_a_second": rate, "ratio": ratio, "gflops": gflops, "of_peak": share}
            rows.append(
                [
                    name,
                    f"{rate:.0f}",
                    f"{ratio:.1f}",
                    f"{flops[form] / 2e6:.1f}",
                    f"{gflops:.0f}",
                    f"{share:.0%}",
                ]
            )
    return rows, facts


def _masked_per_second(run: Callable[[], object], masked: int) -> float:
    """Return the frames masked per second; each run masks `masked` frames."""
    return per_second(run) * masked


def _runner(
    runtime: str, module: nn.Module, frames: Tensor, dtype: torch.dtype, precision: str
) -> Callable[[], object]:
    if runtime == "torch":

        def run() -> Tensor:
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                found: Tensor = module(frames)
                return found

        return run
    core = _compat.openvino().Core()
    graph = openvino_runtime.translated(module, tuple(frames.shape))
    compiled = core.compile_model(graph, "CPU", openvino_runtime.configuration(precision, CORES))
    requests = threading.local()
    array = frames.numpy()

    def infer() -> object:
        if not hasattr(requests, "own"):
            requests.own = compiled.create_infer_request()
        return requests.own.infer([array], share_inputs=True, share_outputs=True)

    infer()  # the first run, before the threads start
    return infer


# The peers


class Peer:
    """A peer in its own process, see `peers.py`."""

    def __init__(self, name: str, seconds: int) -> None:
        self._process = subprocess.Popen(
            [str(PEERS), str(HERE / "peers.py"), name, str(seconds), str(CORES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self) -> float:
        """Separate once, and return the time in seconds."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def end(self) -> None:
        """End the process, which uses a gigabyte of memory."""
        self._process.kill()
        self._process.wait()


def against_peers(
    seconds: int, rounds: int, own: dict[str, dict[str, Any]], peers: tuple[str, ...]
) -> tuple[list[Row], dict[str, float]]:
    """Measure stemsplit, in its `own` ways, and its peers on audio of the same length in memory."""
    sound = 0.1 * np.random.default_rng(1).standard_normal((2, seconds * SAMPLE_RATE)).astype(np.float32)

    def ours(options: dict[str, Any]) -> Callable[[], float]:
        ref = ModelRef.parse(options.get("model", DEFAULT_MODEL))
        running = {name: value for name, value in options.items() if name not in ("model", "mask")}
        method = ref.load(RuntimeOptions(device="cpu", **running), mask=options.get("mask"))

        def run() -> float:
            began = time.monotonic()
            separator = method.fit([sound], SAMPLE_RATE) if isinstance(method, FittedMethod) else method
            for _ in separate_blocks(separator, [sound], frames=sound.shape[-1]):
                pass
            return time.monotonic() - began

        run()
        return run

    ways: dict[str, Callable[[], float]] = {f"stemsplit, {name}": ours(how) for name, how in own.items()}
    if PEERS.exists():
        ways |= {name: Peer(name, seconds) for name in peers}
    found = {name: seconds / taken for name, taken in in_turns(ways, rounds).items()}
    for peer in ways.values():
        if isinstance(peer, Peer):
            peer.end()
    base = found.get("open-unmix", float("nan"))
    rows = [[name, f"{times:.1f}", f"{times / base:.2f}"] for name, times in found.items()]
    return rows, found


# The whole command


def repeated(path: Path, seconds: int) -> None:
    """Write the example song repeatedly, to a length of `seconds`."""
    reader = Reader(SONG)
    missing = seconds * reader.sample_rate
    with Writer(path, Signal(reader.sample_rate, reader.channels, missing)) as writer:
        for block in itertools.chain.from_iterable(itertools.repeat(reader)):
            writer.write(block[:, :missing])
            missing -= block.shape[1]
            if missing <= 0:
                return


def measured(command: list[str], **environment: str) -> dict[str, float]:
    """Run a command; return its wall time, CPU time and peak memory."""
    run = [sys.executable, str(HERE / "measure.py"), *command]
    environment |= {"STEMSPLIT_CONFIG": os.devnull}  # without user defaults
    return dict(json.loads(subprocess.check_output(run, env=os.environ | environment)))


def whole_command(folder: Path, lengths: dict[str, int]) -> tuple[list[Row], dict[str, Any]]:
    """Measure the command on tracks of several lengths, split into four stems."""
    found: dict[str, Any] = {}

    def split(name: str, track: Path, seconds: int, *options: str, rounds: int = 1) -> None:
        command = [*COMMAND, str(track), "--out", str(folder / "out"), *options]
        taken = sorted((measured(command) for _ in range(rounds)), key=lambda each: each["wall"])
        found[name] = taken[rounds // 2]
        print(f"{name}: {found[name]['wall']:.1f} s", file=sys.stderr, flush=True)
        found[name]["times_real_time"] = seconds / found[name]["wall"]
        for path in (folder / "out" / track.stem).iterdir():
            path.unlink()

    song = folder / "song.mp3"
    repeated(song, 240)
    for name in WAYS:
        options = [] if name == "default" else name.split()
        split(f"4 min, mp3 to flac, {name}", song, 240, "--format", "flac", *options, rounds=3)
    for name, seconds in lengths.items():
        track = folder / f"{seconds}.wav"
        repeated(track, seconds)
        split(f"{name}, wav to wav", track, seconds, rounds=3 if seconds <= 240 else 1)
        track.unlink()
    rows = [
        [
            name,
            f"{each['wall']:.1f}",
            f"{each['times_real_time']:.1f}",
            f"{each['cpu']:.1f}",
            f"{each['peak_mb']:.0f}",
        ]
        for name, each in found.items()
    ]
    return rows, found


def many_tracks(folder: Path) -> dict[str, float]:
    """Return the seconds for 24 short tracks, one after another and in parallel."""
    tracks = [folder / f"{number}.wav" for number in range(24)]
    for track in tracks:
        repeated(track, 10)

    def split(jobs: int) -> Callable[[], float]:
        command = [*COMMAND, *map(str, tracks), "--out", str(folder / "out"), "--jobs", str(jobs)]
        return lambda: measured(command)["wall"]

    return in_turns({f"--jobs {jobs}": split(jobs) for jobs in (1, 2, 4)}, 3)


def starting(folder: Path) -> dict[str, float]:
    """Return the seconds for `--help`, and to split one second of audio."""
    second = folder / "second.wav"
    repeated(second, 1)
    split = [*COMMAND, str(second), "--out", str(folder / "out")]

    def first() -> float:
        with tempfile.TemporaryDirectory() as empty:
            return measured(split, XDG_CACHE_HOME=empty)["wall"]

    return in_turns(
        {
            "`stemsplit --help`": lambda: measured([COMMAND[0], "--help"])["wall"],
            "one second of sound, first run (compiles)": first,
            "one second of sound, later runs": lambda: measured(split)["wall"],
            "one second of sound, --runtime torch": lambda: measured([*split, "--runtime", "torch"])["wall"],
        },
        5,
    )


def table(headings: Row, rows: list[Row]) -> list[str]:
    """Return the lines of a table in markdown."""
    lines = [headings, ["---", *["--:"] * (len(headings) - 1)], *rows]
    return ["", *(f"| {' | '.join(line)} |" for line in lines)]


def main() -> None:
    """Measure, print the tables, and save them."""
    arguments = argparse.ArgumentParser(description="Measure speed, memory and start-up.")
    arguments.add_argument("--quick", action="store_true", help="leave out what takes long; keep nothing")
    arguments.add_argument("--longest", type=int, default=8, metavar="HOURS", help="of the long tracks")
    options = arguments.parse_args()
    lengths = {"30 s": 30, "4 min": 240}
    if not options.quick:
        lengths |= {f"{hours} h": hours * 3600 for hours in (1, options.longest)}
    lines: list[str] = []

    def tell(*more: str) -> None:
        print("\n".join(more), flush=True)
        lines.extend(more)

    limits = peaks()
    peak = " and ".join(f"{each:.0f} GFLOP/s in {name}" for name, each in limits.items())
    tell(f"Measured by `make bench` on {machine()}.")
    tell(f"3 x 3 convolutions, channels last, reach {peak} on all cores together.")
    rows, network_facts = networks(limits)
    headings = [
        "one network, all cores",
        "frames per second",
        "speed-up",
        "M multiply-adds",
        "GFLOP/s",
        "of peak",
    ]
    tell(*table(headings, rows))
    own = WAYS | ({"--model htdemucs": {"model": "htdemucs"}} if installed.is_installed("htdemucs") else {})
    rows, peer_facts = against_peers(30, 5, own, ("open-unmix", "open-unmix, Wiener filter", "HT Demucs"))
    tell(*table(["30 s of stereo in memory, four stems", "x real time", "open-unmix = 1"], rows))
    long_facts: dict[str, float] = {}
    if not options.quick:
        own = {name: WAYS[name] for name in ("default", "--mask soft")}
        rows, long_facts = against_peers(240, 3, own, ("open-unmix",))
        tell(*table(["4 min of stereo in memory, four stems", "x real time", "open-unmix = 1"], rows))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start_facts = starting(folder)
        tell(*table(["start-up", "s"], [[name, f"{each:.2f}"] for name, each in start_facts.items()]))
        jobs_facts = many_tracks(folder)
        tell(*table(["24 tracks of 10 s", "s"], [[name, f"{each:.1f}"] for name, each in jobs_facts.items()]))
        rows, track_facts = whole_command(folder, lengths)
    headings = ["the whole command, four stems", "wall, s", "x real time", "CPU, s", "peak memory, MB"]
    tell(*table(headings, rows))
    if options.quick:
        return
    (HERE / "RESULTS.md").write_text("\n".join(["# Speed and memory", "", *lines, ""]), encoding="utf-8")
    results = {
        "machine": machine(),
        "peak_gflops": limits,
        "tracks": track_facts,
        "start": start_facts,
        "jobs": jobs_facts,
        "x_real_time": peer_facts,
        "x_real_time_of_4_minutes": long_facts,
        "networks": network_facts,
    }
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
