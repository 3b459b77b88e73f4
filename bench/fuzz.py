"""Fuzz test with thousands of damaged files: splitting must give stems or one clear error message.

    python bench/fuzz.py [COUNT] [SEED]

Audio files of every format and weights files are damaged (see tests/mutate.py) and processed by two workers
with a memory limit. Inputs that fail are kept in build/fuzz, with the traceback if there is one. The exit
status is 1 if any input fails.
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
"""Address space limit per process in bytes. torch alone takes one GiB; ffmpeg is a separate process."""
VERDICTS = ("clean", "warning", "error", "crash", "hang", "left over", "wrong")


def run(count: int, seed: int) -> Counter[str]:
    """Return the number of inputs by verdict, and by kind and verdict; also the peak memory."""
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
    """Run some inputs in a process; if it dies or hangs, continue with the next input in a new one."""
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
        # No handler can interrupt C code that holds the GIL, so the process died, or faulthandler ended it.
        if last is None or "verdict" in last:
            raise RuntimeError("the worker died before its first input, or after its last")
        verdict = "hang" if worker.returncode == 1 else "crash"
        print(f"input {last['number']} ({last['kind']}): the process ended with {worker.returncode}")
        counts[verdict] += 1
        counts[f"{last['kind']}: {verdict}"] += 1
        numbers = range(last["number"] + numbers.step, numbers.stop, numbers.step)


def prepare(folder: Path) -> None:
    """Write the valid files from which the damaged files are made."""
    from tests import mutate

    (folder / "seeds").mkdir()
    (folder / "making").mkdir()
    for name, content in mutate.sounds(folder / "making").items():
        (folder / "seeds" / name).write_bytes(content)
    mutate.small_weights(folder / "seeds" / "a.safetensors")


def damaged(seeds: dict[str, bytes], number: int, seed: int) -> tuple[str, bytes, str]:
    """Return a damaged input: its name, its content, and the output format of the stems."""
    from tests import mutate

    random = Random(f"{seed}:{number}")
    sounds = {name: content for name, content in seeds.items() if not name.endswith(".safetensors")}
    if number % 4 == 3:
        return "a.safetensors", mutate.mutated_weights(seeds["a.safetensors"], random), ""
    name = sorted(sounds)[(number - number // 4) % len(sounds)]
    content = mutate.mutated(sounds[name], sounds, random)
    return name, content, random.choice(("wav", "wav", "wav", "wav", "flac", "mp3", "m4a", "ogg"))


def work(folder: Path, seed: int, numbers: range) -> None:
    """Run some inputs; print the number of each one before and its verdict after, as JSON."""
    import faulthandler

    from tests import mutate

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(10)
    seeds = {path.name: path.read_bytes() for path in sorted((folder / "seeds").iterdir())}
    # Trigger late imports before the first input.
    mutate.weights_outcome(folder / "seeds" / "a.safetensors")
    for number in numbers:
        faulthandler.dump_traceback_later(SECONDS + 5, exit=True)
        name, content, format = damaged(seeds, number, seed)
        print(json.dumps({"number": number, "kind": name}), flush=True)
        KEPT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            path = Path(place, name)
            path.write_bytes(content)
            shutil.copy(path, KEPT / f"{number} {name}")  # in case this process does not survive it
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
    """Print the verdicts, by kind of input and in total."""
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
