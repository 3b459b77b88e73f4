"""The standard streams and signals of the program, with the descriptors that a shell would give it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile

from tests.conftest import SAMPLE_RATE

pytestmark = [
    pytest.mark.subprocess,
    pytest.mark.skipif(os.name != "posix", reason="descriptors and signals of POSIX"),
]
FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
SPLIT = "--model binary-mask-cnn --fast --stems bass --force"


@pytest.fixture
def folder(tmp_path, music):
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, 0.2 * music[:, :20_000].T, SAMPLE_RATE)
    return tmp_path


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which `stemsplit` is this one; its stdout is what bash itself says."""
    line = line.replace("stemsplit", f"{sys.executable} -m stemsplit")
    return subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, check=False)


def stems(folder: Path) -> list[str]:
    """Return the stems, each of which can be read to its end."""
    found = sorted(folder.rglob("bass.wav"))
    assert all(len(soundfile.read(path)[0]) == 20_000 for path in found)
    assert not list(folder.rglob("*.part"))
    return [path.parent.name for path in found]


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-", pytest.param("2>/dev/full", marks=FULL)])
def test_the_work_goes_on_without_its_streams(folder, closed):
    run = shell(f"stemsplit missing.wav a.wav b.wav {SPLIT} {closed}", folder)
    assert run.returncode == 1, "one track is missing"
    assert run.stderr == ""
    assert stems(folder) == ["a", "b"]


def test_nothing_is_printed_into_a_sound_file(folder):
    run = shell(f"stemsplit a.wav b.wav {SPLIT} --jobs 2 >&-", folder)
    assert run.returncode == 0, run.stderr
    assert stems(folder) == ["a", "b"]
    assert b"stems/" not in (folder / "stems" / "a" / "bass.wav").read_bytes()


@FULL
@pytest.mark.parametrize("option", ["", "--json"])
def test_a_full_standard_output_is_told_once_and_the_batch_is_done(folder, option):
    run = shell(f"stemsplit a.wav b.wav {SPLIT} {option} >/dev/full", folder)
    assert run.returncode == 1
    assert run.stderr.count("error: Cannot write to standard output: No space left on device") == 1
    assert "Traceback" not in run.stderr
    assert stems(folder) == ["a", "b"]


@FULL
@pytest.mark.parametrize("words", ["--help", "config"])
def test_every_command_ends_like_that(folder, words):
    run = shell(f"stemsplit {words} >/dev/full", folder)
    assert run.returncode == 1
    assert run.stderr.startswith("error: Cannot write to standard output: No space left on device")
    assert "Traceback" not in run.stderr


@FULL
@pytest.mark.parametrize("words", ["a.wav --stdout bass", "live --raw 44100:2:f32 --stem bass"])
@pytest.mark.parametrize("output", [">/dev/full", ">&-"])
def test_sound_that_cannot_be_written_is_an_error(folder, words, output):
    options = "" if "live" in words else SPLIT
    run = shell(f"head -c 800000 /dev/zero | stemsplit {words} {options} {output}", folder)
    assert run.returncode == 1
    assert "error: " in run.stderr
    assert "tandard output" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_reader_that_has_gone_ends_the_batch_after_a_track(folder):
    run = shell(f"stemsplit a.wav b.wav {SPLIT} | true; echo ${{PIPESTATUS[0]}}", folder)
    assert run.stdout == "141\n"
    assert "Traceback" not in run.stderr
    assert stems(folder) == ["a"]


def test_messages_without_a_reader_stop_nothing(folder):
    run = shell(f"stemsplit missing.wav a.wav b.wav {SPLIT} 2> >(true)", folder)
    assert run.returncode == 1
    assert stems(folder) == ["a", "b"]


WAIT = """
import sys, time
from stemsplit.cli import doctor, main
def checks():
    try:
        print("begun", file=sys.stderr, flush=True)
        time.sleep(9)
        yield from ()
    finally:
        time.sleep(0.3)
        print("tidied up", file=sys.stderr)
doctor.all_checks = checks
sys.argv = ["stemsplit", "doctor"]
main()
"""


def waiting(ignored: signal.Signals | None = None) -> subprocess.Popen[bytes]:
    """Start a program that waits, and return when it does so."""

    def before() -> None:
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a background job ignores SIGINT
            signal.signal(each, signal.SIG_IGN if each == ignored else signal.SIG_DFL)

    program = subprocess.Popen([sys.executable, "-c", WAIT], stderr=subprocess.PIPE, preexec_fn=before)
    assert program.stderr
    assert program.stderr.readline() == b"begun\n"
    return program


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_second_signal_does_not_interrupt_the_cleanup(name):
    with waiting() as program:
        program.send_signal(getattr(signal, name))
        time.sleep(0.1)
        program.send_signal(signal.SIGINT)
        assert program.stderr
        assert program.stderr.read() == b"tidied up\ninterrupted\n"
    assert program.returncode == 128 + getattr(signal, name)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_that_is_ignored_stays_ignored(name):
    with waiting(ignored=getattr(signal, name)) as program:
        program.send_signal(getattr(signal, name))
        with pytest.raises(subprocess.TimeoutExpired):
            program.wait(1.5)
        program.kill()
