"""Run instances that write to one folder at the same time: each file must match what an instance reported.

    python bench/race.py [ROUNDS] [SEED]

In each of ROUNDS (default: 50) rounds, two to four instances start within a second. In half of the rounds,
they split the same song, otherwise different songs with the same name; with no option, with --skip-existing
or with --force. Some are killed (SIGKILL). Then eight songs with different names are split into one folder,
by one instance each, four at a time. The exit status is 1 if a file differs from the report or is missing, or
if anything is left over.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from stemsplit.audio.reader import Signal
from stemsplit.audio.writer import Writer

STEMSPLIT = str(Path(sys.executable).with_name("stemsplit"))
COMMAND = [STEMSPLIT, "--model", "binary-mask-cnn", "--fast", "--threads", "1", "--json", "-o", "out"]
RATE = 44_100
OPTIONS: tuple[list[str], ...] = ([], ["--skip-existing"], ["--force"])
SONGS = tuple(f"{number}/song.wav" for number in range(1, 5))
LATEST_SECONDS = 1.0
KILLED = 0.15
"""Share of the instances that are killed, within three seconds of their start."""


def generate(path: Path, seed: int) -> None:
    """Write two seconds of noise."""
    random = np.random.default_rng(seed)
    with Writer(path, Signal(RATE, 2)) as writer:
        writer.write((0.1 * random.standard_normal((2, 2 * RATE))).astype(np.float32))


def run(folder: Path, words: list[str], *, wait: float = 0.0, kill: float | None = None) -> list[Any]:
    """Run an instance after `wait` seconds, and return its `track` events."""
    time.sleep(wait)
    environment = os.environ | {"STEMSPLIT_CONFIG": os.devnull}
    process = subprocess.Popen(
        [*COMMAND, *words], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        printed, _ = process.communicate(timeout=kill)
    except subprocess.TimeoutExpired:
        process.kill()
        printed, _ = process.communicate()
    lines = [line for line in printed.decode().splitlines(keepends=True) if line.endswith("\n")]
    return [event for event in map(json.loads, lines) if event["event"] == "track"]


def reported(events: list[Any]) -> list[dict[str, str]]:
    """Return the reported digests of each track that was split, by path."""
    return [
        {stem["path"]: stem["sha256"] for stem in event["outputs"].values()}
        for event in events
        if event["status"] == "ok"
    ]


def there(folder: Path) -> dict[str, str]:
    """Return the digests of the stems in the output folder, by path."""
    paths = (folder / "out").rglob("*.wav")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def left_over(folder: Path) -> int:
    """Count part files, lock files and empty folders."""
    paths = list((folder / "out").rglob("*"))
    files = sum(path.suffix in (".part", ".lock") for path in paths)
    return files + sum(path.is_dir() and not any(path.iterdir()) for path in paths)


def race(folder: Path, truth: dict[str, dict[str, str]], random: Random) -> Counter[str]:
    """Run some instances at the same time, and count the outcomes."""
    option, one_song = random.choice(OPTIONS), random.random() < 0.5
    songs = [SONGS[0]] * 4 if one_song else list(SONGS)
    kills = [random.uniform(0.5, 3) if random.random() < KILLED else None for _ in songs]
    with ThreadPoolExecutor(len(songs)) as pool:
        started = [
            pool.submit(run, folder, [song, *option], wait=random.uniform(0, LATEST_SECONDS), kill=kill)
            for song, kill in list(zip(songs, kills, strict=True))[: random.randint(2, 4)]
        ]
        events = [event for each in started for event in each.result()]
    counts = Counter[str](event.get("code", event["status"]) for event in events)
    done, found = reported(events), there(folder)
    lost = sum(each != truth[event["input"]] for event, each in zip(_ok(events), done, strict=True))
    lost += len(done) > 1 and not option  # each would have replaced another one's files
    if any(kills):
        counts["killed"] += 1
        lost += reported(run(folder, [SONGS[0], "--force"])) != [truth[SONGS[0]]]
        lost += there(folder) != truth[SONGS[0]]
    else:
        lost += found not in done
    counts["files or sets lost"] += lost
    counts["left over"] += left_over(folder)
    return counts


def _ok(events: list[Any]) -> list[Any]:
    return [event for event in events if event["status"] == "ok"]


def share(folder: Path) -> Counter[str]:
    """Split eight songs of different names into one folder, four at a time."""
    songs = [f"song {number}.wav" for number in range(8)]
    for number, song in enumerate(songs):
        generate(folder / song, 10 + number)
    with ThreadPoolExecutor(4) as pool:
        events = [event for each in pool.map(lambda song: run(folder, [song]), songs) for event in each]
    expected: dict[str, str] = {}
    for each in reported(events):
        expected |= each
    lost = len(songs) - len(reported(events)) + (there(folder) != expected)
    return Counter({"ok": len(reported(events)), "files or sets lost": lost, "left over": left_over(folder)})


def main() -> None:
    """Race, compare, and print the counts."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    random = Random(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    with tempfile.TemporaryDirectory() as name:
        folder, truth = Path(name), {}
        for number, song in enumerate(SONGS):
            generate(folder / song, number)
            (truth[song],) = reported(run(folder, [song]))
            shutil.rmtree(folder / "out")
        raced = Counter[str]()
        for _ in range(rounds):
            raced += race(folder, truth, random)
            shutil.rmtree(folder / "out", ignore_errors=True)
        shared = share(folder)
    names = ("ok", "skipped", "busy", "exists", "killed", "files or sets lost", "left over")
    for name in names:
        print(f"{name:20}{raced[name]:6}{shared[name]:6}")
    sys.exit(any(each[name] for each in (raced, shared) for name in names[-2:]))


if __name__ == "__main__":
    main()
