"""Take the README's screenshot, `docs/pictures/report.png`: the player in the example song's report.

    python bench/screenshot.py [REPORT.html]

Splits the song first, unless a report is given. Requires playwright and Chromium.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tests.browser import PROGRAM

ROOT = Path(__file__).parent.parent
SONG = ROOT / "examples" / "caesium-30s.mp3"
PICTURE = ROOT / "docs" / "pictures" / "report.png"
WIDTH, SCALE, COLOURS = 1100, 1.6, 96
"""Width of the page in CSS pixels, image pixels per CSS pixel, and number of colors of the image."""
AT_SECONDS = 15.0
"""Position of the playhead: the middle of the song, in line with the fixed playhead of the chords."""


def report_page(folder: Path) -> Path:
    """Split the example song into a folder, and return the path of its report."""
    command = [sys.executable, "-m", "stemsplit", str(SONG), "--out", str(folder), "--report", "--quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder / SONG.stem / "report.html"


def photograph(page: Page, report: Path) -> bytes:
    """Return a PNG of the page from its title to the last stem's waveform."""
    page.goto(report.resolve().as_uri())
    page.wait_for_selector(".player:not([hidden])")
    page.evaluate(
        "seconds => { const bar = document.getElementById('position'); bar.value = seconds;"
        " bar.dispatchEvent(new Event('input', { bubbles: true })); }",
        AT_SECONDS,
    )
    page.wait_for_timeout(1000)
    tracks = page.locator(".tracks").bounding_box()
    assert tracks is not None
    height = tracks["y"] + tracks["height"] - 1  # without the line below the last stem
    return page.screenshot(clip={"x": 0, "y": 0, "width": WIDTH, "height": height}, full_page=True)


def main() -> None:
    """Write the screenshot."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        report = Path(sys.argv[1]) if len(sys.argv) > 1 else report_page(Path(folder))
        browser = play.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 800}, device_scale_factor=SCALE)
        shot = photograph(page, report)
        browser.close()
    picture = Image.open(io.BytesIO(shot)).convert("RGB")
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(PICTURE, optimize=True)
    print(f"{PICTURE}: {picture.width} x {picture.height}, {PICTURE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
