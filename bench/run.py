"""Speed, memory and start-up of the command line on this machine: `make bench`.

Every figure is measured in this one run, each command in a process of its own. Compare ratios between
machines, not seconds. The long tracks are the example song repeated, written block by block to a folder
that is removed in the end.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from stemsplit.audio import Reader
from stemsplit.nets.binary_mask_cnn import BinaryMaskCNN
from stemsplit.writer import Writer

HERE = Path(__file__).parent
SONG = HERE.parent / "examples" / "caesium-30s.mp3"
COMMAND = [str(Path(sys.executable).with_name("stemsplit"))]
LENGTHS = {"30 s": 30, "4 min": 240, "10 min": 600, "1 h": 3600}


def repeated(path: Path, seconds: int) -> None:
    """Write the example song over and over until it lasts so long."""
    reader = Reader(SONG)
    missing = seconds * reader.sample_rate
    with Writer(path, sample_rate=reader.sample_rate, channels=reader.channels, frames=missing) as writer:
        for block in itertools.chain.from_iterable(itertools.repeat(reader)):
            writer.write(block[:, :missing])
            missing -= block.shape[1]
            if missing <= 0:
                return


def measured(command: list[str]) -> dict[str, float]:
    """Run a command; return its wall time, processor time and peak memory."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - began
    if status:
        raise SystemExit(f"failed: {' '.join(command)}")
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "peak_mb": usage.ru_maxrss / 1024}


def whole_command(folder: Path, lengths: dict[str, int]) -> dict[str, dict[str, float]]:
    """Split tracks of several lengths into four stems."""
    found = {}
    for name, seconds in lengths.items():
        track, out = folder / f"{seconds}.wav", folder / "out"
        repeated(track, seconds)
        found[name] = measured([*COMMAND, "-q", str(track), "--out", str(out), "--force"])
        found[name]["times_real_time"] = seconds / found[name]["wall"]
        for path in [track, *(out / track.stem).iterdir()]:
            path.unlink()
    return found


def networks() -> dict[str, float]:
    """Return frames per second of one network, window by window and with shared columns."""
    network = BinaryMaskCNN().eval()
    frames = torch.randn(1, 64 + 2 * network.reach, 513)
    windows = frames[0].unfold(0, 25, 1).transpose(1, 2).contiguous()
    ways = {
        "window by window": lambda: network(windows),
        "shared columns": lambda: network.forward_frames(frames),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    with torch.inference_mode():
        for _, (name, run) in itertools.product(range(6), ways.items()):
            began, count = time.monotonic(), 0
            while time.monotonic() - began < 1:
                run()
                count += 64
            rates[name].append(count / (time.monotonic() - began))
    return {name: float(np.median(values[1:])) for name, values in rates.items()}


def main() -> None:
    """Measure, print and keep."""
    quick = "--quick" in sys.argv
    lengths = dict(itertools.islice(LENGTHS.items(), 2)) if quick else LENGTHS
    start_up = min(measured([*COMMAND, "--help"])["wall"] for _ in range(7))
    rates = networks()
    with tempfile.TemporaryDirectory() as folder:
        tracks = whole_command(Path(folder), lengths)
    machine = f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}"
    lines = [
        f"Measured by `make bench` on {machine}.",
        "",
        "| four stems, wav to wav | wall, s | x real time | processor, s | peak memory, MB |",
        "|---|--:|--:|--:|--:|",
        *(
            f"| {name} | {t['wall']:.1f} | {t['times_real_time']:.1f} | {t['cpu']:.1f} | {t['peak_mb']:.0f} |"
            for name, t in tracks.items()
        ),
        "",
        "| one network, 64 frames at a time | frames a second | ratio |",
        "|---|--:|--:|",
        *(
            f"| {name} | {rate:.0f} | {rate / rates['window by window']:.1f} |"
            for name, rate in rates.items()
        ),
        "",
        f"`stemsplit --help`: {start_up:.2f} s.",
    ]
    print("\n".join(lines))
    if not quick:
        (HERE / "RESULTS.md").write_text("\n".join(["# Measured", "", *lines, ""]), encoding="utf-8")
        results = {"machine": machine, "tracks": tracks, "networks": rates, "help": start_up}
        (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
