"""What a person sees: the screen of a terminal, while a command runs and after it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile

from stemsplit.cli import console
from stemsplit.cli.bars import Bars

pty = pytest.importorskip("pty")
pyte = pytest.importorskip("pyte")
SECOND = SimpleNamespace(sample_rate=44_100, frames_estimate=44_100)


class Terminal:
    """A terminal of 80 columns: a program writes to `device`; `lines` are what its screen then shows."""

    def __init__(self) -> None:
        self._ours, self.device = pty.openpty()
        self._screen = pyte.Screen(80, 24)
        self._stream = pyte.ByteStream(self._screen)
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._ours, 65_536)
            except OSError:  # the last writer has closed the device
                return
            if not data:
                return
            with self._lock:
                self._stream.feed(data)

    @property
    def lines(self) -> list[str]:
        with self._lock:
            shown = [line.rstrip() for line in self._screen.display]
        return shown[: max((number + 1 for number, line in enumerate(shown) if line), default=0)]

    def wait_for(self, true: Callable[[list[str]], bool]) -> list[str]:
        """Return the screen as soon as it is as wanted."""
        until = time.monotonic() + 10
        while time.monotonic() < until:
            lines = self.lines
            if true(lines):
                return lines
            time.sleep(0.02)
        raise AssertionError("\n".join(self.lines))

    def close(self) -> list[str]:
        """Return the screen after all that was written."""
        os.close(self.device)
        self._reader.join(10)
        os.close(self._ours)
        return self.lines


@contextlib.contextmanager
def on_a_terminal() -> Iterator[Terminal]:
    """Make a terminal this process's stdout and stderr. Not a fixture: pytest would replace them again."""
    terminal = Terminal()
    with (
        pytest.MonkeyPatch.context() as patch,
        open(os.dup(terminal.device), "w", encoding="utf-8") as stdout,
        open(os.dup(terminal.device), "w", encoding="utf-8") as stderr,
    ):
        patch.setenv("TERM", "xterm")
        patch.setenv("COLUMNS", "80")
        patch.setattr(sys, "stdout", stdout)
        patch.setattr(sys, "stderr", stderr)
        yield terminal
    terminal.close()


@pytest.mark.slow
def test_messages_stand_above_the_bars():
    with on_a_terminal() as terminal:
        report = console.Report(quiet=False, verbose=False, json=False)
        with Bars([SECOND, SECOND], enabled=True) as bars:
            with bars.of("[1/2] a.wav", SECOND) as update:
                update(22_050, None)
                terminal.wait_for(lambda lines: any("a.wav" in line and "50%" in line for line in lines))
                report.remark("warning: loud [bold] :smile:")
                report.paths({"vocals": Path("stems/a/vocals.wav")})
                lines = terminal.wait_for(lambda lines: "stems/a/vocals.wav" in lines)
                assert lines[:2] == ["warning: loud [bold] :smile:", "stems/a/vocals.wav"]
                assert [line[:11] for line in lines[2:]] == ["2 tracks   ", "[1/2] a.wav"]
            with bars.shares("report of a.wav") as share:
                share(0.25)
                lines = terminal.wait_for(lambda lines: "report of a.wav" in lines[-1] and "25%" in lines[-1])
                assert len(lines) == 4, "two messages, two bars"
        report.remark("done")
        sys.stderr.flush()
        terminal.wait_for(
            lambda lines: lines == ["warning: loud [bold] :smile:", "stems/a/vocals.wav", "done"]
        )


@pytest.mark.slow
def test_threads_print_whole_lines():
    with on_a_terminal() as terminal:
        report = console.Report(quiet=False, verbose=False, json=False)

        def work(number: int) -> None:
            with bars.of(f"track {number}", SECOND) as update:
                for frames in range(0, 44_100, 4_410):
                    update(frames, None)
                    time.sleep(0.02)
                report.remark(f"track {number} is done")

        with Bars([SECOND] * 6, enabled=True) as bars:
            threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        wanted = [f"track {number} is done" for number in range(6)]
        terminal.wait_for(lambda lines: sorted(lines) == wanted)


def test_what_stdout_gets_elsewhere_is_unchanged(monkeypatch, tmp_path):
    with on_a_terminal():
        report = console.Report(quiet=False, verbose=False, json=False)
        name = os.fsdecode(b"caf\xe9.wav") if sys.platform == "linux" else "café.wav"
        with open(tmp_path / "log", "w", encoding="utf-8") as stdout:
            monkeypatch.setattr(sys, "stdout", stdout)
            with Bars([SECOND], enabled=True):
                report.paths({"vocals": Path(name)})
        assert (tmp_path / "log").read_bytes() == os.fsencode(name) + b"\n"


@pytest.mark.subprocess
def test_a_batch_leaves_its_lines_and_no_bars(tmp_path, music):
    for name in ("a", "b"):
        soundfile.write(tmp_path / f"{name}.wav", music[:, :44_100].T, 44_100)
    terminal = Terminal()
    words = ["a.wav", "b.wav", "--model", "binary-mask-cnn", "--fast", "--stems", "drums", "--daw", "reaper"]
    run = subprocess.run(
        [sys.executable, "-m", "stemsplit", *words],
        cwd=tmp_path,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
        stdout=terminal.device,
        stderr=terminal.device,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    lines = terminal.close()
    assert run.returncode == 0, lines
    assert len(lines) == 7, lines
    for track, shown in (("a", lines[:3]), ("b", lines[3:6])):
        assert shown[0].startswith(f"{track}.wav: 1 stem in ")
        assert shown[1:] == [f"stems/{track}/drums.wav", f"stems/{track}/{track}.rpp"]
    assert lines[6] == "2 done"
