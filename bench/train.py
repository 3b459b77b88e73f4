"""Train networks side by side in a given time, on one device, and measure them on the validation songs.

    python bench/train.py DATA OUT --minutes 8 mmdensenet band-transformer -- --device cuda --examples 16

What follows `--` goes to `stemsplit train`. All runs first make some steps at once, which says how many
there is time for, and then that many, with songs varied as in EXPERIMENTS.md. OUT/NAME holds weights, card
and log of each; the same command again goes on from where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from stemsplit import nets, weights
from stemsplit.songs import MUSDB18_STEMS
from stemsplit.training import dataset, journal

STEMSPLIT = (sys.executable, "-m", "stemsplit")
PROBE_STEPS = 2 * journal.LOG_STEPS
"""In the first half of them much is set up."""
VARIED = {"across": 0.5, "gain": 4.5, "drop": 0.06, "voiced": 0.5, "pitch": 2.5}
VARIED_SPECTRA = {"stretch": 0.12, "equalise": 3.0}
VALIDATIONS = 8
SHARE = 0.9
"""Of the time that is for steps; the rest is for validations and the end."""


def command(data: str, run: Path, name: str, steps: int, extra: list[str]) -> list[str]:
    """Return the command that trains a network for so many steps."""
    varied = VARIED | ({} if nets.find(name).hears_waves else VARIED_SPECTRA)
    options = {
        **varied,
        "data": data,
        "network": name,
        "run": run,
        "name": name,
        "steps": steps,
        "validate-every": max(1, steps // VALIDATIONS),
    }
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    return [*STEMSPLIT, "train", *words, *extra]


def decode(data: str, out: Path, names: list[str]) -> None:
    """Decode all songs once, for all runs."""
    for rate in {nets.find(name).sample_rate for name in names}:
        for sources in dataset.splits([data], MUSDB18_STEMS).values():
            dataset.map_songs(sources, sample_rate=rate, cache=out / dataset.DECODED)


def share_songs(out: Path, run: Path) -> None:
    """Let a run find the songs where they are decoded already."""
    run.mkdir(parents=True, exist_ok=True)
    if not (run / dataset.DECODED).exists():
        (run / dataset.DECODED).symlink_to((out / dataset.DECODED).resolve())


def together(commands: list[list[str]]) -> None:
    """Run commands side by side; end this program if one of them fails."""
    running = [subprocess.Popen(each) for each in commands]
    failed = [each.args for each in running if each.wait()]
    if failed:
        sys.exit(f"failed: {failed}")


def seconds_a_step(run: Path, name: str) -> float:
    """Return how long a step took at the end of a run."""
    last = journal.read(run / "log.jsonl")[-1]
    recipe = weights.read_card(run / f"{name}{weights.SUFFIX}").recipe
    return float(recipe["examples"] * recipe["frames"] * recipe["processes"] / last["frames_per_second"])


def main() -> None:
    """Probe, train and measure."""
    arguments = argparse.ArgumentParser(description="Train networks side by side.")
    arguments.add_argument("data")
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--minutes", type=float, required=True)
    arguments.add_argument("names", nargs="+", metavar="NAME")
    mine, extra = sys.argv[1:], []
    if "--" in mine:
        at = mine.index("--")
        mine, extra = mine[:at], mine[at + 1 :]
    options = arguments.parse_args(mine)
    decode(options.data, options.out, options.names)
    plan = options.out / "steps.json"
    if not plan.exists():
        probes = {name: options.out / "probes" / name for name in options.names}
        for run in probes.values():
            share_songs(options.out, run)
        short = [*extra, "--validation", "4"]
        together([command(options.data, run, name, PROBE_STEPS, short) for name, run in probes.items()])
        seconds = {name: seconds_a_step(run, name) for name, run in probes.items()}
        counts = {name: round(60 * SHARE * options.minutes / each) for name, each in seconds.items()}
        plan.write_text(json.dumps(counts) + "\n", encoding="utf-8")
    steps = json.loads(plan.read_text(encoding="utf-8"))
    runs = {name: options.out / name for name in steps}
    for run in runs.values():
        share_songs(options.out, run)
    together([command(options.data, run, name, steps[name], extra) for name, run in runs.items()])
    for name, run in runs.items():
        where = ["--data", options.data, "--split", "valid", "--model", str(run / f"{name}{weights.SUFFIX}")]
        subprocess.run([*STEMSPLIT, "evaluate", *where, "--keep"], check=True)


if __name__ == "__main__":
    main()
