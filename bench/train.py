"""Train networks in parallel for a given time on one device, and score them on the validation songs.

    python bench/train.py DATA OUT --minutes 8 mmdensenet band-transformer -- --device cuda --examples 16

Arguments after `--` are passed to `stemsplit train`. The augmentation is as in docs/research/experiments.md.
OUT/NAME has the weights, card and log of each network. The same command resumes a run that was stopped.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from stemsplit.datasets.songs import MUSDB18_STEMS
from stemsplit.networks import registry
from stemsplit.training import sampler
from stemsplit.zoo import store

STEMSPLIT = (sys.executable, "-m", "stemsplit")
VARIED = {"across": 0.5, "gain": 4.5, "drop": 0.06, "voiced": 0.5, "pitch": 2.5}
VARIED_SPECTRA = {"stretch": 0.12, "equalise": 3.0}


def command(data: str, run: Path, name: str, minutes: float, extra: list[str]) -> list[str]:
    """Return the command that trains a network for `minutes`."""
    varied = VARIED | ({} if registry.find(name).predicts_waveforms else VARIED_SPECTRA)
    options = {**varied, "data": data, "network": name, "run": run, "name": name, "minutes": minutes}
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    return [*STEMSPLIT, "train", *words, *extra]


def decode(data: str, out: Path, names: list[str]) -> None:
    """Decode all songs once, into a folder that all runs share."""
    for rate in {registry.find(name).sample_rate for name in names}:
        for sources in sampler.splits([data], MUSDB18_STEMS).values():
            sampler.map_songs(sources, sample_rate=rate, cache=out / sampler.DECODED)
    for name in names:
        (out / name).mkdir(parents=True, exist_ok=True)
        if not (out / name / sampler.DECODED).exists():
            (out / name / sampler.DECODED).symlink_to((out / sampler.DECODED).resolve())


def main() -> None:
    """Train and score."""
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
    runs = {name: options.out / name for name in options.names}
    running = [
        subprocess.Popen(command(options.data, run, name, options.minutes, extra))
        for name, run in runs.items()
    ]
    if failed := [each.args for each in running if each.wait()]:
        sys.exit(f"failed: {failed}")
    for name, run in runs.items():
        where = ["--data", options.data, "--split", "valid", "--model", str(run / f"{name}{store.SUFFIX}")]
        subprocess.run([*STEMSPLIT, "evaluate", *where, "--keep"], check=True)


if __name__ == "__main__":
    main()
