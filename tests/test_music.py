"""Chords, sections, key and bars of stems, and what `inspect` says and writes of them."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from stemsplit.analysis import labels
from stemsplit.analysis.beats import Beats
from stemsplit.analysis.chords import find_chords
from stemsplit.analysis.frames import RATE, Onsets, Pitches
from stemsplit.analysis.harmony import lasting, semitones
from stemsplit.analysis.music import NO_MUSIC, MusicAnalyser, analyse_stems
from stemsplit.analysis.sections import find_sections
from stemsplit.audio import stem_folder
from stemsplit.cli import app
from stemsplit.export import report
from stemsplit.export.report.page import _lanes
from tests import browser

BEAT = 0.5
CHORDS = {"C": (48, 52, 55), "Am": (45, 48, 52), "F": (41, 45, 48), "G7": (43, 47, 50, 53), "N": ()}
VERSE, CHORUS = ["C", "Am", "F", "G7"], ["F", "F", "C", "C"]
SONG = ["N", *VERSE, *VERSE, *CHORUS, *CHORUS, *VERSE, *VERSE]
"""One chord per bar of four beats."""


def tone(notes: tuple[int, ...], seconds: float, cents: float = 0.0) -> np.ndarray:
    """Notes with four overtones."""
    time = np.arange(round(seconds * RATE)) / RATE
    hz = [440 * 2 ** ((note - 69 + cents / 100) / 12) for note in notes]
    return sum((0.1 * np.sin(2 * np.pi * f * k * time) / k for f in hz for k in range(1, 6)), 0 * time)


def stems() -> dict[str, np.ndarray]:
    """Chords, their roots in the bass, drums on the beats, and a voice in another key."""
    bar = 4 * BEAT
    other = np.concatenate([tone(tuple(note + 12 for note in CHORDS[name]), bar) for name in SONG])
    bass = np.concatenate([tone(CHORDS[name][:1], bar) for name in SONG])
    time = np.arange(len(other)) / RATE
    since = time % BEAT
    noise = np.random.default_rng(0).standard_normal(len(time))
    drums = 0.3 * noise * np.exp(-60 * since)
    voice = tone((66, 73), len(time) / RATE)
    return {"vocals": voice, "drums": drums, "bass": bass, "other": other}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("stems") / "song"
    path.mkdir()
    for name, sound in stems().items():
        soundfile.write(path / f"{name}.wav", sound, RATE, subtype="FLOAT")
    return path


@pytest.fixture(scope="module")
def found(folder):
    return analyse_stems(stem_folder.find(folder))


def at(spans: tuple[labels.Label, ...], time: float) -> str:
    return next(span.text for span in spans if span.start <= time < span.end)


@pytest.mark.slow
def test_chords_key_and_bars(found):
    middles = [(4 * bar + beat + 0.5) * BEAT for bar in range(len(SONG)) for beat in range(4)]
    right = [at(found.chords, time) == SONG[int(time // (4 * BEAT))] for time in middles]
    assert np.mean(right) > 0.95
    assert (found.key, found.bpm) == ("C major", pytest.approx(120, abs=0.1))
    assert found.beats.beats_per_bar == 4
    downbeats = found.beats.times_seconds[found.beats.downbeats]
    assert np.abs(downbeats - 4 * BEAT * np.round(downbeats / (4 * BEAT))).max() < 0.02
    assert found.tags == {"bpm": "120", "initialkey": "C"}


@pytest.mark.slow
def test_sections_cover_the_song_and_come_back(found):
    starts, ends = [span.start for span in found.sections], [span.end for span in found.sections]
    assert (starts[0], ends[-1], starts[1:]) == (0, pytest.approx(len(SONG) * 4 * BEAT), ends[:-1])
    for boundary in (9, 17):  # bars
        assert min(abs(start - boundary * 4 * BEAT) for start in starts) < 3
    verses, chorus = [at(found.sections, bar * 4 * BEAT) for bar in (5, 21)], at(found.sections, 26)
    assert verses[0] == verses[1] != chorus


@pytest.mark.slow
def test_the_blocks_make_no_difference(found):
    sounds = stems()
    analyser = MusicAnalyser(list(sounds), RATE)
    for block in np.array_split(np.stack(list(sounds.values())).astype(np.float32)[:, None], 13, axis=-1):
        analyser.add(block)
    again = analyser.finish(sections=False)
    assert (again.chords, again.key, again.sections) == (found.chords, found.key, ())
    assert again.beats.times_seconds == pytest.approx(found.beats.times_seconds)


@pytest.mark.parametrize("cents", [-35, 0, 20, 45])
@pytest.mark.parametrize(
    ("name", "notes"), [("E", (52, 56, 59)), ("Bm", (47, 50, 54)), ("Ab7", (56, 60, 63, 66))]
)
def test_a_chord_at_any_tuning(name, notes, cents):
    pitches = Pitches()
    pitches.add(tone(notes, 2, cents).astype(np.float32))
    bounds = np.array([0.0, 0.5, 1.0, 1.5])
    assert find_chords(semitones(pitches.spectra()), None, bounds).names == [name] * 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_mixture_with_a_voice_of_another_key_and_tempo(seed):
    sounds = stems()
    length = len(sounds["other"])
    notes = np.random.default_rng(seed).choice([66, 68, 70, 71, 73, 75, 77], 200)
    voice = np.concatenate([tone((int(note),), 0.37) for note in notes])[:length]
    mixture = 0.3 * sounds["drums"] + sounds["bass"] + sounds["other"] + 2 * voice
    analyser = MusicAnalyser(["mixture"], RATE)
    analyser.add(mixture.astype(np.float32)[None, None])
    music = analyser.finish()
    assert (music.bpm, music.key) == (pytest.approx(120, abs=0.1), "C major")
    times = music.beats.times_seconds
    assert np.abs(times - BEAT * np.round(times / BEAT)).max() < 0.02


def test_onsets_of_drums_count_notes_less():
    noise = np.random.default_rng(0).standard_normal(RATE)
    drum, note = 0.1 * noise, tone((57, 61, 64), 1.0) * np.minimum(1, 20 * np.arange(RATE) / RATE)
    shares = []
    for of_drums in (False, True):
        rises = []
        for sound in (note, drum):
            onsets = Onsets(of_drums=of_drums)
            onsets.add(np.concatenate([0.003 * noise, sound + 0.003 * noise]).astype(np.float32))
            rises.append(onsets.envelopes().sum(axis=1).max())
        shares.append(rises[0] / rises[1])
    assert shares[1] < 0.7 * shares[0]


def test_pitches_that_last():
    held, struck = np.ones((30, 1)), np.zeros((30, 1))
    struck[10:12] = 9
    assert lasting(np.hstack([held, struck])).tolist() == [[1, 0]] * 30


def test_what_has_no_music():
    for seconds in (0, 0.01, 3):
        analyser = MusicAnalyser(["drums", "other"], 44_100)
        analyser.add(np.zeros((2, 1, round(seconds * 44_100)), np.float32))
        music = analyser.finish()
        assert (music.beats, music.key, music.tags) == (None, None, {})
        assert {chord.text for chord in music.chords} <= {"N"}
    assert find_sections(np.zeros((0, 3))) == ([], [])
    assert find_sections(np.ones((5, 3))) == ([0], ["A"])


UNDER_THE_LINE = """(() => {
  const lane = document.querySelector(".chords").getBoundingClientRect();
  const now = lane.left + lane.width / 2;
  const box = (chord) => chord.getBoundingClientRect();
  const chords = [...document.querySelectorAll(".chords li")];
  return chords.find((chord) => box(chord).left <= now && now < box(chord).right).textContent;
})()"""


@pytest.mark.slow
def test_the_chords_move_past_the_playhead(folder, tmp_path):
    with browser.chromium() as program:
        page = report.write(stem_folder.find(folder), tmp_path / "report.html", facts={})
        for width in (375, 1280):
            tab = program.new_page(viewport={"width": width, "height": 700})
            tab.goto(page.as_uri())
            sections = tab.locator(".sections").bounding_box()
            for bar in (3, 10, 21):
                share = (bar + 0.5) / len(SONG)
                tab.mouse.click(sections["x"] + share * sections["width"], sections["y"] + 5)
                browser.wait(tab, f"{UNDER_THE_LINE} === {SONG[bar]!r}")
            assert tab.evaluate("document.documentElement.scrollWidth") == width
            tab.close()


def run(*words: object):
    return CliRunner().invoke(app, ["inspect", *map(str, words)])


@pytest.mark.slow
def test_inspect_writes_labels_and_a_chart(folder, found, tmp_path):
    paths = {name: tmp_path / f"{name}.txt" for name in ("beats", "chords", "sections")}
    options = [word for name, path in paths.items() for word in (f"--{name}", path)]
    shown = run(folder, "--chart", *options)
    assert shown.exit_code == 0, shown.stderr
    assert "  tempo     120.0 BPM, 4 beats per bar" in shown.stdout
    assert "  C Am F G7\n" in shown.stdout
    assert Beats.read(paths["beats"]).times_seconds == pytest.approx(found.beats.times_seconds, abs=1e-5)
    assert [label.text for label in labels.read(paths["chords"])] == [chord.text for chord in found.chords]
    assert len(labels.read(paths["sections"])) == len(found.sections)
    paths["beats"].write_text("mine")
    again = run(folder, *options)
    assert (again.exit_code, "beats.txt" in again.stderr, paths["beats"].read_text()) == (1, True, "mine")
    assert run(folder, folder, "--chords", tmp_path / "x.txt").exit_code == 2


@pytest.mark.slow
def test_inspect_tells_programs_chords_and_sections(folder, found):
    music = json.loads(run(folder, "--json").stdout.splitlines()[-1])
    assert (music["key"], music["beats_per_bar"]) == ("C major", 4)
    assert [chord["label"] for chord in music["chords"]] == [chord.text for chord in found.chords]
    assert all(one["end"] == other["start"] for one, other in pairwise(music["sections"]))


@pytest.mark.slow
def test_the_lanes_of_a_report(found):
    html = _lanes(found, len(SONG) * 4 * BEAT)
    assert html.count("<li") == len(found.sections) + sum(chord.text != "N" for chord in found.chords)
    assert ">G7</li>" in html
    assert _lanes(NO_MUSIC, 3.0) == ""
