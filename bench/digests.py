"""Digests of the output of twelve commands, to compare two versions bit by bit: `python bench/digests.py`.

The songs are the example song, its first 8 seconds, and two short synthetic songs with stems. Times and
versions in JSON are ignored. Compare versions on one machine only, because other CPUs round differently.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

SONG = Path(__file__).parent.parent / "examples" / "caesium-30s.mp3"
SAMPLE_RATE = 44_100
STEMS = {"vocals": 440.0, "drums": 30.0, "bass": 82.5, "other": 1318.5}
TIMES = re.compile(r'"\w*(elapsed|seconds|real_time|time|version)\w*": ?("[^"]*"|[-\d.e]+)')
COMMANDS = {
    "default": "song.mp3",
    "binary-mask-cnn": "song.mp3 --model binary-mask-cnn --format flac",
    "projet": "short.wav --model projet",
    "mean of two": "short.wav --model band-transformer+sub-band-unet",
    "two stems, 32f": "short.wav --two-stems vocals --mask soft --depth 32f",
    "stem.mp4": "short.wav --format stem.mp4",
    "part, binary, fast": "song.mp3 --model binary-mask-cnn --fast --mask binary --start 3 --duration 5",
    "remix": "remix short.wav vocals=-6dB other=pan:-30 --out out/remix.wav",
    "to a pipe": "short.wav --stdout drums",
    "live": "live --raw 44100:2:f32 --stem vocals",
    "evaluate": "evaluate --data data --split test --json -",
    "json": "short.wav --json --model binary-mask-cnn",
}


def make_songs(folder: Path) -> None:
    """Write the songs, the same on every machine."""
    shutil.copy(SONG, folder / "song.mp3")
    mixture, rate = soundfile.read(SONG, frames=8 * SAMPLE_RATE, dtype="float32")
    soundfile.write(folder / "short.wav", mixture, rate, "FLOAT")
    (folder / "short.raw").write_bytes(mixture.astype("<f4").tobytes())
    time = np.arange(3 * SAMPLE_RATE)[:, None] / SAMPLE_RATE
    for number in (1, 2):
        song = folder / "data" / "test" / f"song {number}"
        song.mkdir(parents=True)
        for place, (stem, hz) in enumerate(STEMS.items(), 1):
            wave = np.sign(np.sin(2 * np.pi * hz * number * time)) * np.exp(-(time * place % 1) * 3)
            soundfile.write(song / f"{stem}.wav", 0.1 * wave * [1, place / 4], SAMPLE_RATE, "FLOAT")


def digest(folder: Path, name: str, command: str) -> str:
    """Run a command and return a digest of its output and of all files that it wrote."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    words = command.split()
    if words[0] not in ("evaluate", "live", "remix"):
        words += ["--out", "out"]
    given = (folder / "short.raw").read_bytes() if name == "live" else b""
    program = [sys.executable, "-m", "stemsplit", *words]
    done = subprocess.run(program, cwd=folder, input=given, stdout=subprocess.PIPE, check=True)
    text = done.stdout
    if "json" in command:
        lines = TIMES.sub("", text.decode()).splitlines()
        text = "\n".join(line for line in lines if '"event": "progress"' not in line).encode()
    found = hashlib.sha256(text)
    for path in sorted(out.rglob("*")):
        if path.is_file() and ".stemsplit" not in path.parts:
            found.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return found.hexdigest()[:16]


def main() -> None:
    """Print the digest of each command as a row of a table."""
    digests = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_songs(folder)
        for title, command in COMMANDS.items():
            digests[title] = digest(folder, title, command)
            print(f"| {title} | `{command}` | `{digests[title]}` |", flush=True)
    print(hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:16])


if __name__ == "__main__":
    main()
