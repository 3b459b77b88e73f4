"""Peak memory of the default model, of a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs getrusage"),
    pytest.mark.skipif(not find_spec("openvino"), reason="needs OpenVINO"),
]
MEASURE = Path(__file__).parent.parent / "bench" / "measure.py"


def peak_mb(song, seconds):
    noise = np.random.default_rng(seconds).standard_normal((44_100, 2)) / 10
    soundfile.write(song, np.tile(noise, (seconds, 1)), 44_100)
    command = [sys.executable, MEASURE, sys.executable, "-m", "stemsplit", song, "--threads", "2", "--force"]
    done = subprocess.run(command, capture_output=True, check=True)
    return json.loads(done.stdout)["peak_mb"]


@pytest.mark.slow
def test_the_default_stays_below_800_megabytes(tmp_path):
    """At its full length the song is as many segments as there ever are at a time, and more."""
    peak_mb(tmp_path / "first.wav", 1)  # which compiles the network: from now on it is kept
    assert peak_mb(tmp_path / "song.wav", 180) < 800
