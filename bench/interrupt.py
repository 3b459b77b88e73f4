"""Kill a batch repeatedly: no track may be lost, done twice, or differ from an undisturbed run.

    python bench/interrupt.py [TRACKS] [SEED]

TRACKS (default: 200) short tracks in nested folders are split twice: once undisturbed, and once by a program
that is killed (SIGKILL) after one to four seconds and restarted, until one run completes. The exit status is
1 if anything differs.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np

from stemsplit.audio.reader import Reader, Signal
from stemsplit.audio.writer import Writer

SONG = Path(__file__).parent.parent / "examples" / "caesium-30s.mp3"
STEMSPLIT = str(Path(sys.executable).with_name("stemsplit"))
JOBS = 2
SECONDS = (1.0, 4.0)
"""Range of the time from the start of a run to its kill, in seconds."""


def generate(folder: Path, tracks: int, random: Random) -> None:
    """Write tracks of one to three seconds, cut from the example song."""
    reader = Reader(SONG)
    song = np.concatenate(list(reader), axis=-1)
    for number in range(tracks):
        length = random.randint(1, 3) * reader.sample_rate
        start = random.randrange(song.shape[1] - length)
        suffix = random.choice(("wav", "wav", "flac", "ogg"))
        path = folder / f"shelf {number % 5}" / f"album {number % 3}" / f"track {number:03}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with Writer(path, Signal(reader.sample_rate, reader.channels)) as writer:
            writer.write(song[:, start : start + length])


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of all files in a folder except the records, which contain times."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".stemsplit" not in path.parts
    }


def main() -> None:
    """Run, kill, compare, and print the results."""
    tracks = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    random = Random(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(folder / "music", tracks, random)
        command = [STEMSPLIT, "music", "-r", "--json", "--jobs", str(JOBS), "--out"]
        environment = os.environ | {"STEMSPLIT_CONFIG": os.devnull}
        began = time.monotonic()
        subprocess.run([*command, "whole"], cwd=folder, env=environment, check=True, capture_output=True)
        undisturbed = time.monotonic() - began

        kills, status, done = 0, None, Counter[str]()
        while status is None:
            with (folder / "events").open("wb") as events:
                process = subprocess.Popen(
                    [*command, "pieces", "--skip-existing"],
                    cwd=folder,
                    env=environment,
                    stdout=events,
                    stderr=subprocess.DEVNULL,
                )
                try:
                    status = process.wait(random.uniform(*SECONDS))
                except subprocess.TimeoutExpired:
                    os.kill(process.pid, signal.SIGKILL)
                    process.wait()
                    kills += 1
            lines = (folder / "events").read_text().splitlines(keepends=True)
            for event in (json.loads(line) for line in lines if line.endswith("\n")):
                if event["event"] == "track":
                    assert event["status"] != "error", event
                    done[event["input"]] += event["status"] == "ok"

        whole, pieces = contents(folder / "whole"), contents(folder / "pieces")
        facts = {
            "tracks": tracks,
            "kills": kills,
            "seconds undisturbed": round(undisturbed, 1),
            "last exit status": status,
            "files": len(pieces),
            "files that differ": sum(whole[path] != pieces.get(path) for path in whole),
            "files left over": len(pieces.keys() - whole.keys()),
            "records": len(list((folder / "pieces" / ".stemsplit").glob("*.json"))),
            "tracks reported done twice": sum(count > 1 for count in done.values()),
            "tracks reported nowhere": tracks - len(done),
        }
    print("\n".join(f"{name}: {value}" for name, value in facts.items()))
    wrong = (
        "last exit status",
        "files that differ",
        "files left over",
        "tracks reported done twice",
        "tracks reported nowhere",
    )
    sys.exit(any(facts[name] for name in wrong) or facts["records"] != tracks)


if __name__ == "__main__":
    main()
