"""The player of a report: its speed, its loop, and how it is controlled without a mouse."""

from __future__ import annotations

import base64
import re

import numpy as np
import pytest

from tests import browser
from tests.test_report import (  # fixtures are found by their names
    RATE,
    SECONDS,
    chromium,
    folder,
    heard,
    opened,
    page,
    start,
    view,
)

__all__ = ["chromium", "folder", "opened", "page"]

STRETCH = """async ({ speed, loop, seconds, sounds }) => {
  const context = new OfflineAudioContext(1, 128, RATE);
  const tracks = sounds.map((data) => {
    const samples = new Float32Array(Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0)).buffer);
    const buffer = new AudioBuffer({ numberOfChannels: 1, length: samples.length, sampleRate: RATE });
    buffer.copyToChannel(samples, 0);
    return { buffer, node: { gain: { value: 1 } } };
  });
  const engine = new engines.Decoded(context, tracks, tracks[0].buffer.length / RATE);
  Object.assign(engine, { speed, loop });
  engine.begin(0);
  const parts = tracks.map(() => []);
  let length = 0;
  while (length < seconds * RATE && engine.position < engine.end) {
    const pieces = engine.pieces();
    length += pieces.reduce((sum, piece) => sum + piece.length, 0);
    tracks.forEach(({ buffer }, index) => parts[index].push(engine.joined(buffer, pieces).getChannelData(0)));
  }
  const read = (blob) => new Promise((done) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.split(",")[1] ?? "");
    reader.readAsDataURL(blob);
  });
  return Promise.all(parts.map((part) => read(new Blob(part))));
}""".replace("RATE", str(RATE))


def stretched(tab, sounds: np.ndarray, speed: float, loop=None, seconds: float = 60) -> np.ndarray:
    """Return what the player makes of sounds `(sound, time)`, of which it plays `seconds` at most."""
    data = [base64.b64encode(sound.astype("<f4").tobytes()).decode() for sound in sounds]
    span = loop and {"start": loop[0], "end": loop[1]}
    found = tab.evaluate(STRETCH, {"speed": speed, "loop": span, "seconds": seconds, "sounds": data})
    return np.stack([np.frombuffer(base64.b64decode(part), "<f4") for part in found])


def sine(hz: float, seconds: float) -> np.ndarray:
    return 0.2 * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)


def peak_hz(sound: np.ndarray) -> float:
    """The frequency of the highest peak of a spectrum, between its bins."""
    level = np.log(np.abs(np.fft.rfft(sound * np.hanning(len(sound)))) + 1e-9)
    at = int(level.argmax())
    before, here, after = level[at - 1 : at + 2]
    return (at + 0.5 * (before - after) / (before - 2 * here + after)) * RATE / len(sound)


@pytest.fixture(scope="module")
def tab(chromium, page):  # noqa: F811
    with view(chromium, page) as there:
        yield there


@pytest.mark.slow
@pytest.mark.parametrize("speed", [0.5, 0.8, 1.25, 1.5])
def test_another_speed_keeps_the_pitch_and_the_stems_in_step(tab, speed):
    seconds = 3.0
    high, low = 0.3 * sine(440, seconds), sine(55, seconds)
    sounds = np.stack([high, low, high])
    slower = stretched(tab, sounds, speed)
    assert slower.shape[1] == pytest.approx(seconds * RATE / speed, abs=0.04 * RATE)
    middle = slower[:, RATE // 4 : -RATE // 4]
    for sound, hz, cents in zip(middle, (440, 55, 440), (3, 5, 3), strict=True):
        assert abs(1200 * np.log2(peak_hz(sound) / hz)) < cents
    assert np.sqrt(np.mean(middle[1] ** 2)) == pytest.approx(0.2 / np.sqrt(2), rel=0.1)
    assert np.array_equal(slower[0], slower[2]), "all are cut at the same samples"


@pytest.mark.slow
@pytest.mark.parametrize(("speed", "seconds"), [(0.5, 0.035), (0.7, 0.02), (1.3, 0.015)])
def test_attacks_are_where_they_belong(tab, speed, seconds):
    clicks = np.zeros(4 * RATE)
    for second in np.arange(0.5, 3.6, 0.5):
        at = round(second * RATE)
        clicks[at : at + 2000] += np.exp(-np.arange(2000) / 400) * np.sin(np.arange(2000))
    (slower,) = stretched(tab, clicks[None], speed)
    for second in np.arange(0.5, 3.6, 0.5):
        there = round(second / speed * RATE)
        near = np.abs(slower[there - 4000 : there + 4000])
        assert near.max() > 0.5
        assert abs(int(np.argmax(near > 0.5 * near.max())) - 4000) < seconds * RATE


@pytest.mark.slow
def test_at_normal_speed_nothing_changes(tab):
    noise = np.random.default_rng(1).uniform(-1, 1, (2, 2 * RATE)).astype(np.float32)
    played = stretched(tab, noise, 1)
    assert np.abs(played[:, : 2 * RATE] - noise).max() == 0


@pytest.mark.slow
@pytest.mark.parametrize("speed", [0.7, 1.0])
def test_a_loop_has_its_exact_length_and_no_click(tab, speed):
    # The tone does not fit into the loop; its ramp shows where in the song a sample comes from.
    loud = np.linspace(0, 1, 4 * RATE)
    sounds = np.stack([sine(220.7, 4), loud])
    played = stretched(tab, sounds, speed, (1.0, 2.37), seconds=9)
    slope = 0.2 * 2 * np.pi * 220.7 / RATE
    assert np.abs(np.diff(played[0])).max() < 1.7 * slope
    jumps = np.flatnonzero(np.diff(played[1][:: RATE // 100]) < -0.02) / 100
    joints = jumps[np.r_[True, np.diff(jumps) > 0.1]]
    assert len(joints) > 2
    assert np.diff(joints) == pytest.approx(1.37 / speed, abs=0.011)
    assert joints[0] == pytest.approx(2.37 / speed, abs=0.03)
    assert played[1].max() < (2.37 + 0.07) / 4


def moved(tab, seconds: float = 0.8) -> float:
    """How far the song goes on in a second."""
    script = """(seconds) => new Promise((done) => {
      const [context, from] = [stemsplitPlayer.output.context, stemsplitPlayer.currentTime];
      const began = context.currentTime;
      const speed = () => (stemsplitPlayer.currentTime - from) / (context.currentTime - began);
      setTimeout(() => done(speed()), 1000 * seconds);
    })"""
    return tab.evaluate(script, seconds)


@pytest.mark.slow
def test_speed_by_keys_and_slider(opened):  # noqa: F811
    start(opened)
    for _ in range(4):
        opened.keyboard.press("-")
    assert opened.evaluate("stemsplitPlayer.speed") == 0.8
    assert opened.text_content("#speed-now") == "80 %"
    opened.wait_for_timeout(400)  # the piece that sounded is over
    assert moved(opened) == pytest.approx(0.8, abs=0.05)
    assert heard(opened) == {"vocals", "drums", "bass"}, "their tones are where they were"
    opened.focus("#speed")
    for _ in range(40):
        opened.keyboard.press("ArrowLeft")
    assert opened.evaluate("stemsplitPlayer.speed") == 0.5
    assert opened.get_attribute("#speed", "aria-valuetext") == "50 %, at the same pitch"
    for _ in range(12):
        opened.keyboard.press("=")
    assert opened.evaluate("stemsplitPlayer.speed") == pytest.approx(1.1)


@pytest.mark.slow
def test_a_loop_by_dragging_plays_over_and_over(opened):  # noqa: F811
    opened.locator(".wave >> nth=1").scroll_into_view_if_needed()
    box = opened.locator(".wave >> nth=1").bounding_box()
    opened.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 9)
    opened.mouse.down()
    opened.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 9, steps=5)
    opened.mouse.up()
    loop = opened.evaluate("stemsplitPlayer.loop")
    assert (loop["start"], loop["end"]) == pytest.approx((0.3 * SECONDS, 0.5 * SECONDS), abs=0.02)
    assert opened.evaluate("stemsplitPlayer.currentTime") == loop["start"]
    assert opened.get_attribute("#loop", "aria-pressed") == "true"
    assert re.fullmatch(r"Loop on: 0:01\.[12] to 0:0(1\.9|2\.0)", opened.text_content("#said"))
    opened.click("#play")
    times = set()
    for _ in range(30):
        opened.wait_for_timeout(80)
        times.add(opened.evaluate("stemsplitPlayer.currentTime"))
    assert loop["start"] - 0.01 <= min(times) < max(times) <= loop["end"] + 0.06
    opened.keyboard.press("l")
    assert opened.evaluate("stemsplitPlayer.loop") is None
    assert opened.evaluate("document.querySelector('main').dataset.loop") == "off"
    browser.wait(opened, f"stemsplitPlayer.currentTime > {loop['end'] + 0.2}")


@pytest.mark.slow
def test_a_loop_by_keys_and_buttons(opened):  # noqa: F811
    opened.keyboard.press("Shift+ArrowRight")
    opened.keyboard.press("Shift+ArrowRight")
    opened.keyboard.press("a")
    assert opened.evaluate("stemsplitPlayer.loop") == {"start": 1, "end": SECONDS}
    opened.keyboard.press("Shift+ArrowRight")
    opened.click("[aria-label='End the loop here']")
    assert opened.evaluate("stemsplitPlayer.loop") == {"start": 1, "end": 1.5}
    assert opened.text_content("#loop-now") == "0:01.0\N{EN DASH}0:01.5"
    opened.focus("#loop")
    opened.keyboard.press("Space")  # the button's, not the player's
    assert opened.evaluate("[stemsplitPlayer.loop, stemsplitPlayer.playing]") == [None, False]
    opened.keyboard.press("Control+a")  # the browser's
    assert opened.evaluate("stemsplitPlayer.loop") is None


@pytest.mark.slow
def test_every_control_has_a_name_and_shows_its_focus(opened):  # noqa: F811
    for selector in ("#play", "#position", "#speed", "#loop-start", "#loop-end", "#loop"):
        opened.focus(selector)
        opened.keyboard.press("Tab")
        opened.keyboard.press("Shift+Tab")
        name = "(e) => e.ariaLabel || e.labels?.[0]?.innerText || e.innerText"
        assert opened.eval_on_selector(selector, name).strip()
        assert opened.eval_on_selector(selector, "(e) => getComputedStyle(e).outlineStyle") == "solid"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_on_every_screen(chromium, page, width, scheme):  # noqa: F811
    with view(chromium, page, viewport={"width": width, "height": 760}, color_scheme=scheme) as tab:
        tab.keyboard.press("b")
        tab.keyboard.press("l")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.locator(".transport").bounding_box()["height"] < 200
