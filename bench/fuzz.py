"""Damaged files by the thousand: whatever is in them, splitting ends in stems or in one clear sentence.

    python bench/fuzz.py [COUNT] [SEED]

Sounds of every kind and weights are damaged (see tests/mutate.py) and split, by two processes under a limit
of memory. An input that breaks a promise is kept in build/fuzz with what was said. Exit status 1 if there
is one.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "build" / "fuzz"
WORKERS = 2
SECONDS = 60.0
"""Wall time limit per input in seconds; an idle CPU needs less than one second."""
MEMORY = 4 << 30
"""Bytes of address space, of which torch alone takes one gibibyte; ffmpeg's share is its own."""
VERDICTS = ("clean", "warning", "error", "crash", "hang", "left over", "wrong")


def run(count: int, seed: int) -> Counter[str]:
    """Return how many inputs came to what: a verdict, or a kind and a verdict."""
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        counts: Counter[str] = Counter()
        threads = [
            threading.Thread(target=_watch, args=(Path(folder), range(number, count, WORKERS), seed, counts))
            for number in range(WORKERS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return counts


def _watch(folder: Path, numbers: range, seed: int, counts: Counter[str]) -> None:
    """Have a process work through some inputs, and start another one where it dies or hangs."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    while numbers:
        bounds = [str(number) for number in (numbers.start, numbers.stop, numbers.step)]
        command = [sys.executable, __file__, "--work", str(folder), str(seed), *bounds]
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert worker.stdout
        last = None
        for line in worker.stdout:
            said = json.loads(line)
            if "peak" in said:
                for name, peak in said["peak"].items():
                    counts[name] = max(counts[name], peak)
                continue
            last = said
            if "verdict" in said:
                counts[said["verdict"]] += 1
                counts[f"{said['kind']}: {said['verdict']}"] += 1
        if worker.wait() == 0:
            return
        # What C does while it holds the interpreter no handler interrupts: the process is gone.
        if last is None or "verdict" in last:
            raise RuntimeError("the worker died before its first input, or after its last")
        verdict = "hang" if worker.returncode == 1 else "crash"
        print(f"input {last['number']} ({last['kind']}): the process ended with {worker.returncode}")
        counts[verdict] += 1
        counts[f"{last['kind']}: {verdict}"] += 1
        numbers = range(last["number"] + numbers.step, numbers.stop, numbers.step)


def prepare(folder: Path) -> None:
    """Make the valid files that the damaged ones come from."""
    from tests import mutate

    (folder / "seeds").mkdir()
    (folder / "making").mkdir()
    for name, content in mutate.sounds(folder / "making").items():
        (folder / "seeds" / name).write_bytes(content)
    mutate.small_weights(folder / "seeds" / "a.safetensors")


def damaged(seeds: dict[str, bytes], number: int, seed: int) -> tuple[str, bytes, str]:
    """Return an input: its name, its content, and the format to write stems in."""
    from tests import mutate

    random = Random(f"{seed}:{number}")
    sounds = {name: content for name, content in seeds.items() if not name.endswith(".safetensors")}
    if number % 4 == 3:
        return "a.safetensors", mutate.mutated_weights(seeds["a.safetensors"], random), ""
    name = sorted(sounds)[(number - number // 4) % len(sounds)]
    content = mutate.mutated(sounds[name], sounds, random)
    return name, content, random.choice(("wav", "wav", "wav", "wav", "flac", "mp3", "m4a", "ogg"))


def work(folder: Path, seed: int, numbers: range) -> None:
    """Work through some inputs, and print each one's number before and its verdict after, as JSON."""
    import faulthandler

    from tests import mutate

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(10)
    seeds = {path.name: path.read_bytes() for path in sorted((folder / "seeds").iterdir())}
    mutate.weights_outcome(
        folder / "seeds" / "a.safetensors"
    )  # what is imported late, before the first input
    for number in numbers:
        faulthandler.dump_traceback_later(SECONDS + 5, exit=True)
        name, content, format = damaged(seeds, number, seed)
        print(json.dumps({"number": number, "kind": name}), flush=True)
        KEPT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            path = Path(place, name)
            path.write_bytes(content)
            shutil.copy(path, KEPT / f"{number} {name}")  # for the case that this process does not survive it
            try:
                if name.endswith(".safetensors"):
                    verdict = mutate.weights_outcome(path, seconds=SECONDS)
                else:
                    verdict = mutate.outcome(path, Path(place, "out"), seconds=SECONDS, format=format)
                (KEPT / f"{number} {name}").unlink()
            except (Exception, mutate.Hang) as problem:
                kinds = {mutate.Hang: "hang", mutate.LeftOver: "left over", AssertionError: "wrong"}
                verdict = kinds.get(type(problem), "crash")
                (KEPT / f"{number} {name}.txt").write_text(f"{verdict}, {format}\n{traceback.format_exc()}")
        print(json.dumps({"number": number, "kind": name, "verdict": verdict}), flush=True)
    faulthandler.cancel_dump_traceback_later()
    peaks = {
        "peak, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        "peak of a program it ran, MB": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10,
    }
    print(json.dumps({"peak": peaks}), flush=True)


def main() -> None:
    """Print what came of the inputs, in all and by kind."""
    sys.path.insert(0, str(ROOT))
    if sys.argv[1:2] == ["--work"]:
        folder, *numbers = sys.argv[2:]
        seed, *bounds = map(int, numbers)
        work(Path(folder), seed, range(*bounds))
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 440
    shutil.rmtree(KEPT, ignore_errors=True)
    began = time.monotonic()
    counts = run(count, seed)
    kinds = sorted({name.partition(": ")[0] for name in counts if ": " in name})
    print("| input | " + " | ".join(VERDICTS) + " |")
    print("|---" + "|--:" * len(VERDICTS) + "|")
    for kind in [*kinds, "all"]:
        prefix = "" if kind == "all" else f"{kind}: "
        print(f"| {kind} | " + " | ".join(str(counts[prefix + verdict]) for verdict in VERDICTS) + " |")
    peaks = ", ".join(f"{name} {value}" for name, value in counts.items() if name.startswith("peak"))
    print(f"{count} inputs of seed {seed} in {time.monotonic() - began:.0f} s; {peaks}")
    sys.exit(any(counts[verdict] for verdict in VERDICTS[3:]))


if __name__ == "__main__":
    main()
