"""Measure how a batch scales over nodes of a Ray cluster on this machine: `python bench/cluster.py [TRACKS]`.

Each node has one CPU core and one worker. With N nodes, timing starts when N tracks are done, so it
excludes loading the model. Results are medians of three interleaved runs.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray
from ray.cluster_utils import Cluster

from stemsplit.audio.writer import Writer
from stemsplit.batch import ray_backend
from stemsplit.batch.discovery import find_tracks
from stemsplit.batch.plan import BatchOptions
from stemsplit.runtime import cores

SONG = Path(__file__).parent.parent / "examples" / "caesium-30s.mp3"
SECONDS = 10


def generate(folder: Path, tracks: int) -> None:
    """Write the start of the example song as several tracks."""
    from stemsplit.audio.reader import Reader

    folder.mkdir()
    for number in range(tracks):
        reader = Reader(SONG, duration_seconds=SECONDS)
        path = folder / f"{number}.wav"
        with Writer(path, reader.signal) as writer:
            for block in reader:
                writer.write(block)


def seconds(nodes: int, music: Path, out: Path) -> float:
    """Return the seconds per track on a cluster, without the first tracks, one per node."""
    together = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(nodes):
        together.add_node(num_cpus=1)
    try:
        options = BatchOptions.of(out=out, device="cpu", force=True)
        jobs = options.plan(find_tracks([str(music)]).tracks)
        began, outcomes = 0.0, ray_backend.run(options, jobs, address=together.address)
        for back, (_, outcome) in enumerate(outcomes, 1):
            assert not isinstance(outcome, Exception), outcome
            if back == nodes:
                began = time.monotonic()
        return (time.monotonic() - began) / (len(jobs) - nodes)
    finally:
        ray.shutdown()
        together.shutdown()  # type: ignore[no-untyped-call]


def main() -> None:
    """Measure and print."""
    tracks = int(sys.argv[1]) if len(sys.argv) > 1 else 24
    with tempfile.TemporaryDirectory() as name:
        music, out = Path(name, "music"), Path(name, "out")
        generate(music, tracks)
        taken: dict[int, list[float]] = {nodes: [] for nodes in range(1, cores() + 1)}
        for _ in range(3):
            for nodes, found in taken.items():
                found.append(seconds(nodes, music, out))
    one = statistics.median(taken[1])
    print(f"{tracks} tracks of {SECONDS} s, four stems, a core and a worker on each node")
    for nodes, found in taken.items():
        each = statistics.median(found)
        speed = f"{SECONDS / each:.1f} x real time, {one / each:.2f} x one node"
        print(f"{nodes} nodes: {each:.2f} s a track, {speed}")


if __name__ == "__main__":
    main()
