from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.subprocess

HEAVY = {"torch", "numpy", "scipy", "librosa", "soundfile", "soxr", "pydub", "safetensors"}


def loaded_after(code: str, **options: Any) -> set[str]:
    """The names of the heavy packages that a fresh interpreter has loaded after `code`."""
    report = "import sys; print('loaded:', *{name.partition('.')[0] for name in sys.modules})"
    run = subprocess.run(
        [sys.executable, "-c", f"try:\n    {code}\nfinally:\n    {report}"],
        capture_output=True,
        text=True,
        env=options.get("env"),
        check=False,
    )
    assert "loaded: " in run.stdout, run.stderr
    return HEAVY & set(run.stdout.rpartition("loaded: ")[2].split())


@pytest.mark.parametrize(
    "code",
    [
        "import stemsplit, stemsplit.cli",
        "import stemsplit; stemsplit.StemsplitError, stemsplit.__version__",
        "from stemsplit.cli import app; app(['--help'])",
        "from stemsplit.cli import app; app(['split', '--help'])",
        "from stemsplit.cli import app; app(['models'])",
        "from stemsplit.cli import app; app(['models', 'binary-mask-cnn'])",
    ],
)
def test_nothing_heavy_is_loaded(code):
    assert loaded_after(code) == set()
