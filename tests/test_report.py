from __future__ import annotations

import base64
import contextlib
import io
import re
import shutil
import tracemalloc
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from typer.testing import CliRunner

from stemsplit.audio import stem_folder
from stemsplit.audio.reader import Reader
from stemsplit.audio.tags import Tags, write_tags
from stemsplit.cli import app
from stemsplit.errors import EncodeError, OutputExists, StemsplitError
from stemsplit.export import report
from stemsplit.export.report import pictures
from stemsplit.export.report.page import _axis, allowed
from tests import browser

RATE = 44_100
SECONDS = 4
TONES = {"vocals": 1200, "drums": 2500, "bass": 150}
HOSTILE = """<img src=x onerror="alert(1)">&'"""


def tone(hz: float, seconds: float = SECONDS, rate: int = RATE) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return np.stack([0.2 * np.sin(2 * np.pi * hz * time)] * 2).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A song of three tones, each a stem; and the mixture beside it."""
    there = tmp_path_factory.mktemp("song")
    stems = {name: tone(hz) for name, hz in TONES.items()}
    for name, samples in stems.items():
        soundfile.write(there / f"{name}.wav", samples.T, RATE, subtype="FLOAT")
    soundfile.write(there / "mixture.wav", sum(stems.values()).T, RATE, subtype="FLOAT")
    return there


@pytest.fixture(scope="module")
def page(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "report.html"
    named = replace(stem_folder.find(folder), name=HOSTILE)
    return report.write(named, out, facts={"Model": HOSTILE, HOSTILE: "42"})


@pytest.fixture(scope="module")
def lonely(folder, tmp_path_factory):
    """A page of stems without their mixture."""
    alone = replace(stem_folder.find(folder), mixture=None)
    return report.write(alone, tmp_path_factory.mktemp("lonely") / "page.html", facts={})


class Elements(HTMLParser):
    """Every element of a page with its attributes, and its text."""

    VOID = {"meta", "link", "img", "input", "br", "path"}

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def sounds(page: Path) -> list[bytes]:
    marker = "data:audio/mpeg;base64,"
    sources = [attributes["src"] for attributes in Elements(page).all("audio")]
    assert all(source.startswith(marker) for source in sources)
    return [base64.b64decode(source.removeprefix(marker), validate=True) for source in sources]


@pytest.mark.slow
def test_the_page_is_whole_and_asks_for_nothing(page):
    elements = Elements(page)
    assert elements.open == []
    addresses = [
        attributes[name]
        for _, attributes in elements.found
        for name in ("src", "href", "srcset", "action", "poster", "xlink:href")
        if name in attributes
    ]
    assert len(addresses) > 4
    assert all(address.startswith("data:") for address in addresses)
    text = page.read_text(encoding="utf-8")
    assert "//" not in re.sub(r"base64,[^\"]*|^ *//.*$|; // .*$", "", text, flags=re.MULTILINE)
    assert "@import" not in text
    assert "url(" not in text


@pytest.mark.slow
def test_every_control_has_a_name(page):
    elements = Elements(page)
    buttons = elements.all("button")
    assert len(buttons) == 1 + 3 + 1 + 2 * len(TONES)
    labels = [button["aria-label"] for button in buttons if "aria-label" in button]
    assert len(labels) == len(set(labels)) == len(buttons) - 2, "Play and Loop say it in their texts"
    assert all(button["aria-pressed"] == "false" for button in buttons if "id" not in button)
    assert all(image["alt"] for image in elements.all("img"))


@pytest.mark.slow
def test_the_sounds_are_those_of_the_stems(page, folder, tmp_path):
    encoded = sounds(page)
    assert len(encoded) == 1 + len(TONES)
    for data, name in zip(encoded, ["mixture", *TONES], strict=True):
        path = tmp_path / f"{name}.mp3"
        path.write_bytes(data)
        heard = np.concatenate(list(Reader(path)), axis=-1)
        original = np.concatenate(list(Reader(folder / f"{name}.wav")), axis=-1)
        assert heard.shape == original.shape
        assert np.square(heard - original).mean() < 1e-2 * np.square(original).mean()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "fields", "title"),
    [
        ("mixture.wav", {"title": ["Song"], "artist": ["Me", "You"]}, "Me, You \N{EN DASH} Song"),
        ("mixture.wav", {"title": ["<Song>"]}, "<Song>"),
        ("mixture.wav", {"artist": ["Me"]}, "a folder"),
        ("bass.wav", {"title": ["Song (bass)"], "artist": ["Me"]}, "Me \N{EN DASH} Song"),
        ("bass.wav", {"title": ["a folder (bass)"]}, "a folder"),
    ],
)
def test_a_page_is_named_by_the_tags_of_the_song(source, fields, title, folder, tmp_path):
    there = tmp_path / "a folder"
    there.mkdir()
    for name in ("bass.wav", "mixture.wav") if source == "mixture.wav" else ("bass.wav",):
        shutil.copy(folder / name, there)
    write_tags(there / source, "wav", Tags(fields))
    page = report.write(stem_folder.find(there), tmp_path / "page.html", facts={})
    elements = Elements(page)
    assert f"{title}: stems" in elements.text
    assert {link["download"] for link in elements.all("a")} >= {f"{title} (bass).mp3"}


@pytest.mark.parametrize(
    ("seconds", "marks"),
    [
        (0.4, ["0:00"]),
        (4, ["0:00", "0:01", "0:02", "0:03"]),
        (200, ["0:00", "1:00", "2:00", "3:00"]),
        (86_400, ["0:00", "4:00:00", "8:00:00", "12:00:00", "16:00:00", "20:00:00"]),
    ],
)
def test_a_time_axis_has_few_and_round_marks(seconds, marks):
    axis = _axis(seconds)
    assert re.findall(r">([\d:]+)<", axis) == marks
    places = [float(left) for left in re.findall(r"left:([\d.]+)%", axis)]
    assert places == sorted(places)
    assert places[-1] < 96


@pytest.mark.slow
def test_the_page_is_little_larger_than_its_sounds(tmp_path):
    songs = tmp_path / "song"
    songs.mkdir()
    rng = np.random.default_rng(1)
    for name in ("vocals", "bass"):
        soundfile.write(songs / f"{name}.wav", 0.1 * rng.standard_normal(40 * RATE), RATE)
    page = report.write(stem_folder.find(songs), tmp_path / "page.html", facts={})
    encoded = sum(map(len, sounds(page)))
    assert page.stat().st_size < 1.5 * encoded
    # Noise is what compresses worst.
    sources = [image["src"] for image in Elements(page).all("img")]
    assert len(sources) == 5
    assert max(map(len, sources)) * 3 / 4 < 60_000


@pytest.mark.slow
def test_names_are_text(page):
    elements = Elements(page)
    assert elements.text.count(HOSTILE) >= 3
    assert not any("onerror" in attributes for _, attributes in elements.found)


@pytest.mark.slow
def test_names_of_stems_are_text(folder, tmp_path):
    stems = {HOSTILE: folder / "bass.wav", "\udcff": folder / "drums.wav"}
    named = replace(stem_folder.find(folder), stems=stems, mixture=None)
    elements = Elements(report.write(named, tmp_path / "page.html", facts={}))
    assert elements.open == []
    assert f"Solo {HOSTILE}" in [button.get("aria-label") for button in elements.all("button")]
    assert not any("onerror" in attributes for _, attributes in elements.found)


def rows(page):
    (table,) = re.findall(r"<tbody>(.*?)</tbody>", page.read_text(encoding="utf-8"), re.DOTALL)
    return {row[0]: row[1:] for row in re.findall(r"<th[^>]*>(.*?)</th>" + "<td>(.*?)</td>" * 3, table)}


@pytest.mark.slow
def test_the_levels_are_right(page):
    found = rows(page)
    assert list(found) == ["mixture", *TONES]
    peak, _, share = found["vocals"]
    assert peak == "\N{MINUS SIGN}14.0"  # 0.2
    assert share == "33.3%"
    assert found["mixture"][2] == ""


@pytest.mark.slow
def test_it_says_how_well_the_stems_add_up(page, lonely, folder, tmp_path):
    exact = r"(sum exactly to the mixture|sum to the mixture: .* \N{MINUS SIGN}1\d\d\.\d dB)"
    assert re.search(exact, Elements(page).text)
    halved = {name: folder / f"{name}.wav" for name in ("vocals", "drums")}
    lacking = replace(stem_folder.find(folder), stems=halved)
    text = Elements(report.write(lacking, tmp_path / "lacking.html", facts={})).text
    assert "do not sum to the mixture: the difference is at \N{MINUS SIGN}4.8 dB" in text
    assert "shows the sum of the stems" in Elements(lonely).text
    assert len(sounds(lonely)) == len(TONES)


def surveyed(stems: np.ndarray, block: int = 10_000, rate: int = RATE) -> pictures.Survey:
    both = np.concatenate([stems.sum(axis=0, keepdims=True), stems])
    time = both.shape[-1]
    return pictures.survey((both[..., i : i + block] for i in range(0, time, block)), rate, time)


@pytest.mark.slow
def test_pictures_do_not_depend_on_the_blocks():
    rng = np.random.default_rng(0)
    stems = rng.standard_normal((2, 2, 50_001)).astype(np.float32)
    one, many = surveyed(stems, 60_000), surveyed(stems, 777)
    assert np.array_equal(one.waves, many.waves)
    assert np.allclose(one.bands, many.bands, rtol=1e-4)
    edges = -(-np.arange(801) * 50_001 // 800)
    mono = stems[0].max(axis=0)
    expected = [mono[start:end].max() for start, end in zip(edges, edges[1:], strict=False)]
    assert np.allclose(one.waves[1, 1], np.maximum(expected, 0))


@pytest.mark.slow
def test_a_mask_is_a_stem_s_share():
    loud, soft = 3 * tone(1000, 1), tone(1000, 1)
    found = surveyed(np.stack([loud, soft]))
    column = found.bands[0].mean(axis=1)
    band = int(column.argmax())
    assert found.masks[0, band].mean() == pytest.approx(0.75, abs=0.01)
    assert found.masks[1, band].mean() == pytest.approx(0.25, abs=0.01)
    assert found.masks[:, -1].max() == 0  # nothing is up there


@pytest.mark.slow
@pytest.mark.parametrize("rate", [8000, 44_100, 192_000])
def test_a_tone_is_drawn_where_its_label_is(rate):
    found = surveyed(tone(2000, 1, rate)[None], rate=rate)
    picture = np.asarray(Image.open(io.BytesIO(pictures.spectrograms(found)[1])).convert("L"), float)
    height = 1 - (picture.mean(axis=1).argmax() + 0.5) / len(picture)
    assert dict(pictures.ticks(rate))[2000] == pytest.approx(height, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("frames", "channels", "rate"), [(1, 1, 44_100), (700, 2, 8000), (9000, 1, 96_000)])
def test_short_silent_and_odd_ones(tmp_path, frames, channels, rate):
    soundfile.write(tmp_path / "a.wav", np.zeros((frames, channels)), rate)
    page = report.write(stem_folder.find(tmp_path), tmp_path / "page.html", facts={})
    assert rows(page)["a"][0] == "silent"
    assert len(sounds(page)) == 1


@pytest.mark.slow
def test_memory_does_not_grow_with_the_track(page, tmp_path, monkeypatch):
    # They have the same size whatever the length, but leave rubbish that is collected at any time.
    monkeypatch.setattr(pictures, "_draw", lambda *_, **__: b"")

    def peak(seconds):
        there = tmp_path / str(seconds)
        there.mkdir()
        for name in ("vocals", "bass"):
            soundfile.write(there / f"{name}.wav", np.zeros((seconds * 32_000, 1)), 32_000)
        page = there / "page.html"
        tracemalloc.start()
        report.write(stem_folder.find(there), page, facts={})
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    # The page has had all that is imported, and compiled, already.
    assert peak(60) - peak(10) < 0.2 * 2 * 50 * 32_000 * 4  # of two stems as floats


@pytest.mark.slow
def test_the_mixture_must_be_theirs(folder, tmp_path):
    soundfile.write(tmp_path / "other.wav", np.zeros((100, 1)), RATE)
    wrong = replace(stem_folder.find(folder), mixture=tmp_path / "other.wav")
    with pytest.raises(StemsplitError, match="is not the source of these stems"):
        report.write(wrong, tmp_path / "page.html", facts={})


@pytest.mark.slow
def test_a_page_is_not_replaced_unasked_nor_left_half_written(folder, tmp_path, monkeypatch):
    page = tmp_path / "page.html"
    page.write_text("mine")
    with pytest.raises(OutputExists):
        report.write(stem_folder.find(folder), page, facts={})

    with pytest.raises(EncodeError, match="is a folder"):
        report.write(stem_folder.find(folder), tmp_path, facts={}, force=True)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "_embed", full)
    with pytest.raises(EncodeError, match="the disk is full"):
        report.write(stem_folder.find(folder), page, facts={}, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert page.read_text() == "mine"


@pytest.mark.slow
def test_the_verb(folder, tmp_path):
    page = tmp_path / "page.html"
    result = CliRunner().invoke(app, ["report", str(folder), "-o", str(page)])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{page}\n"
    assert result.stderr == ""
    assert "Report by" in Elements(page).text
    assert CliRunner().invoke(app, ["report", str(folder), "-o", str(page)]).exit_code == 1
    assert CliRunner().invoke(app, ["report", str(tmp_path / "nowhere")]).exit_code == 1


# What is heard, in a browser: how loud each stem's tone is in all that is sent to the loudspeakers.
HEARD = """(tones) => {
  const { output } = stemsplitPlayer;
  const ear = (window.ear ??= new AnalyserNode(output.context, { fftSize: 8192, smoothingTimeConstant: 0 }));
  output.connect(ear);
  const level = new Float32Array(ear.frequencyBinCount);
  ear.getFloatFrequencyData(level);
  const bin = (hz) => Math.round((hz * ear.fftSize) / output.context.sampleRate);
  return tones.map((hz) => Math.max(...level.subarray(bin(hz) - 3, bin(hz) + 4)));
}"""


@pytest.fixture(scope="module")
def chromium():
    with browser.chromium() as program:
        yield program


@pytest.fixture
def opened(chromium, page):
    with view(chromium, page) as there:
        yield there


@contextlib.contextmanager
def view(chromium, page, **options):
    """A page in a tab of its own, which must not complain nor ask the network for anything."""
    complaints, requests = [], []
    tab = chromium.new_page(**options)
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(page.as_uri())
    yield tab
    tab.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("data:", "blob:"))] == [page.as_uri()]


def start(tab) -> None:
    tab.click("#play")
    browser.wait(tab, "stemsplitPlayer.playing && stemsplitPlayer.currentTime > 0.3")


@pytest.mark.slow
def test_each_sound_can_be_downloaded(chromium, page):
    with view(chromium, page) as tab:
        for link, sound in zip(tab.query_selector_all("a.save"), sounds(page), strict=True):
            for _ in range(2):  # the first click makes the address
                with tab.expect_download() as download:
                    link.click()
                assert Path(download.value.path()).read_bytes() == sound


@pytest.mark.slow
def test_the_transport_stays_in_view_on_a_phone(chromium, page):
    with view(chromium, page, viewport={"width": 390, "height": 700}) as tab:
        tab.evaluate("scrollTo(0, document.body.scrollHeight)")
        box = tab.query_selector("#play").bounding_box()
        assert 0 <= box["y"] < 40
        assert tab.evaluate("document.documentElement.scrollWidth") == 390


def heard(tab) -> set[str]:
    """The stems whose tones sound."""
    tab.evaluate(HEARD, list(TONES.values()))
    tab.wait_for_timeout(450)  # gains settle, and the ear hears the last 8192 samples
    if tab.evaluate("stemsplitPlayer.currentTime") > SECONDS - 1.5:
        tab.keyboard.press("Home")
        tab.wait_for_timeout(450)
    levels = tab.evaluate(HEARD, list(TONES.values()))
    return {name for name, level in zip(TONES, levels, strict=True) if level > -60}


@pytest.mark.slow
def test_it_plays_and_pauses(opened):
    assert opened.evaluate("stemsplitPlayer.currentTime") == 0
    start(opened)
    assert opened.evaluate("stemsplitPlayer.exact")
    assert opened.text_content("#play") == "Pause"
    assert heard(opened) == set(TONES)
    opened.keyboard.press("Space")  # the button has the focus
    assert not opened.evaluate("stemsplitPlayer.playing")
    before = opened.evaluate("stemsplitPlayer.currentTime")
    opened.wait_for_timeout(200)
    assert opened.evaluate("stemsplitPlayer.currentTime") == before > 0
    assert heard(opened) == set()


@pytest.mark.slow
def test_it_stops_at_the_end_and_begins_again(opened):
    start(opened)
    opened.evaluate("document.querySelector('#position').value = 3.8")
    opened.dispatch_event("#position", "input")
    browser.wait(opened, "!stemsplitPlayer.playing")
    assert opened.evaluate("stemsplitPlayer.currentTime") == pytest.approx(SECONDS)
    start(opened)
    assert opened.evaluate("stemsplitPlayer.currentTime") < 2


@pytest.mark.slow
def test_solo_mute_and_the_mixture(opened):
    start(opened)
    opened.click("text=Solo >> nth=1")
    assert heard(opened) == {"drums"}
    assert opened.get_attribute("[aria-label='Solo drums']", "aria-pressed") == "true"
    opened.keyboard.press("Digit3")
    assert heard(opened) == {"drums", "bass"}
    opened.click("[aria-label='Mute drums']")
    assert heard(opened) == {"bass"}
    opened.keyboard.press("Digit0")
    assert heard(opened) == set(TONES)
    gains = opened.evaluate("stemsplitPlayer.gains()")
    assert gains["mixture"] == pytest.approx(1, abs=0.01)
    assert max(gains[name] for name in TONES) < 0.01
    opened.keyboard.press("Digit0")
    opened.keyboard.press("Shift+Digit2")
    for digit in "23":
        opened.keyboard.press(f"Digit{digit}")
    assert heard(opened) == set(TONES)


@pytest.mark.slow
def test_gain(opened):
    start(opened)
    heard(opened)
    before = opened.evaluate(HEARD, list(TONES.values()))
    slider = ".track[data-name=vocals] .gain input"
    opened.focus(slider)
    place = opened.evaluate("stemsplitPlayer.currentTime")
    for _ in range(12):
        opened.keyboard.press("ArrowLeft")
    assert opened.evaluate("stemsplitPlayer.currentTime") >= place  # the arrows were the slider's
    assert opened.text_content(".track[data-name=vocals] output") == "\N{MINUS SIGN}6 dB"
    heard(opened)
    after = opened.evaluate(HEARD, list(TONES.values()))
    assert np.subtract(after, before) == pytest.approx([-6, 0, 0], abs=0.5)
    assert opened.evaluate("stemsplitPlayer.gains().vocals") == pytest.approx(0.501, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("playing", [False, True])
def test_seeking(opened, playing):
    if playing:
        start(opened)
    slack = 0.5 if playing else 0.02
    for surface in (".wave >> nth=1", ".picture >> nth=2"):
        opened.locator(surface).scroll_into_view_if_needed()
        box = opened.locator(surface).bounding_box()
        opened.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        assert 1.98 <= opened.evaluate("stemsplitPlayer.currentTime") < 2.02 + slack
    opened.keyboard.press("ArrowLeft")
    assert opened.evaluate("stemsplitPlayer.currentTime") < slack
    opened.focus("#position")
    opened.keyboard.press("ArrowRight")
    assert opened.evaluate("stemsplitPlayer.currentTime") > SECONDS - 0.1
    opened.keyboard.press("Home")
    assert opened.evaluate("stemsplitPlayer.currentTime") < slack


@pytest.mark.slow
def test_long_tracks_are_decoded_as_they_play(chromium, page, tmp_path):
    changed = page.read_text(encoding="utf-8").replace("2 ** 30", "1")
    script = re.search(r"<script>(.*)</script>", changed, re.DOTALL)[1]
    short = tmp_path / "short.html"
    policy = allowed(script)
    short.write_text(re.sub(r"script-src '[^']*'", f"script-src {policy}", changed), encoding="utf-8")
    with view(chromium, short) as tab:
        start(tab)
        assert not tab.evaluate("stemsplitPlayer.exact")
        assert heard(tab) == set(TONES)
        tab.keyboard.press("Digit1")
        assert heard(tab) == {"vocals"}
        tab.keyboard.press("Home")
        assert tab.evaluate("stemsplitPlayer.currentTime") < 0.5
        for _ in range(4):
            tab.keyboard.press("-")
        how = "[...document.querySelectorAll('audio')].map((e) => [e.playbackRate, e.preservesPitch])"
        assert tab.evaluate(how) == 4 * [[0.8, True]]
        browser.wait(tab, "stemsplitPlayer.currentTime > 0.2")  # a loop lasts at least 0.1 s
        tab.keyboard.press("b")
        loop = tab.evaluate("stemsplitPlayer.loop")
        assert loop["start"] == 0
        for _ in range(20):
            tab.wait_for_timeout(50)
            assert tab.evaluate("stemsplitPlayer.currentTime") < loop["end"] + 0.2
        assert heard(tab) == {"vocals"}
        tab.click("#play")
        assert not tab.evaluate("stemsplitPlayer.playing")
        assert heard(tab) == set()


@pytest.mark.slow
def test_without_a_mixture_it_is_the_sum(chromium, lonely):
    with view(chromium, lonely) as tab:
        start(tab)
        tab.keyboard.press("Digit1")
        assert heard(tab) == {"vocals"}
        tab.keyboard.press("Digit0")
        assert heard(tab) == set(TONES)
        assert "mixture" not in tab.evaluate("stemsplitPlayer.gains()")


@pytest.mark.slow
@pytest.mark.parametrize("width", [375, 1280])
def test_nothing_sticks_out(chromium, page, width):
    with view(chromium, page, viewport={"width": width, "height": 800}) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.slow
def test_without_scripts_there_are_plain_players(chromium, page):
    with view(chromium, page, java_script_enabled=False) as tab:
        assert tab.locator("audio").count() == 1 + len(TONES)
        assert tab.locator("audio >> nth=0").is_visible()
        assert not tab.locator("#play").is_visible()
