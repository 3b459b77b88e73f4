"""`stemsplit practice`: tempo, key, loops and clicks, measured in what it writes."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import mutagen
import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from stemsplit.analysis import labels
from stemsplit.audio.reader import Reader, Signal
from stemsplit.audio.writer import Writer
from stemsplit.cli import app
from stemsplit.practice import practice, stretch

RATE = 44_100
BPM, FIRST = 97.0, 0.5
SECONDS = 9.0

needs_stretch = pytest.mark.skipif(find_spec("python_stretch") is None, reason="needs python-stretch")


def run(*words: str):
    return CliRunner().invoke(app, ["practice", *words])


def tone(hz: float, seconds: float = SECONDS, amplitude: float = 0.25) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)


def beat_times(seconds: float = SECONDS) -> np.ndarray:
    times = FIRST + np.arange(100) * 60 / BPM
    return times[times < seconds - 0.1]


def strikes(seconds: float = SECONDS) -> np.ndarray:
    """Short sounds with a sudden attack, on the beats."""
    sound = np.zeros(round(seconds * RATE))
    strike = 0.6 * np.exp(-np.arange(3000) / 500) * np.sin(2 * np.pi * 1500 * np.arange(3000) / RATE)
    for time in beat_times(seconds):
        start = round(time * RATE)
        sound[start : start + 3000] += strike[: len(sound) - start]
    return sound


@pytest.fixture
def song(tmp_path, monkeypatch) -> Path:
    """A folder with the stems of a song: strikes at 97 BPM, and tones of 440 and 110 Hz."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "song"
    folder.mkdir()
    stems = {"drums": strikes(), "bass": tone(110, amplitude=0.1), "other": tone(440)}
    for name, stem in stems.items():
        soundfile.write(folder / f"{name}.wav", stem, RATE, "FLOAT")
    return folder


def made(*words: str, out: str = "out.wav") -> np.ndarray:
    result = run("song", *words, "-o", out, "--force", "--depth", "32f")
    assert result.exit_code == 0, result.stderr
    samples, rate = soundfile.read(out)
    assert rate == RATE
    return samples


def attacks(sound: np.ndarray, near: np.ndarray) -> np.ndarray:
    """When the sound first reaches a quarter of its peak, within 50 ms of each time."""
    found = []
    for time in near:
        start = round((time - 0.05) * RATE)
        level = np.abs(sound[start : start + RATE // 10])
        found.append((start + np.argmax(level > level.max() / 4)) / RATE)
    return np.array(found)


def bpm_of(times: np.ndarray) -> float:
    return float(60 / np.polyfit(np.arange(len(times)), times, 1)[0])


def frequency(sound: np.ndarray) -> float:
    """The frequency of a sine, from its middle part."""
    middle = sound[len(sound) // 4 : -len(sound) // 4]
    size = 1 << 21
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), size))
    return float(spectrum.argmax() * RATE / size)


def cents(hz: float, wanted: float) -> float:
    return float(1200 * np.log2(hz / wanted))


@pytest.mark.slow
@needs_stretch
def test_clicks_at_97_bpm_are_at_77_6_after_tempo_80(song):
    sound = made("--only", "drums", "--tempo", "80%")
    assert len(sound) == round(SECONDS * RATE / 0.8)
    found = attacks(sound, beat_times() / 0.8)
    assert bpm_of(found) == pytest.approx(77.6, abs=0.1)
    assert np.abs(found - beat_times() / 0.8).max() < 0.002, "without latency"


@pytest.mark.slow
@needs_stretch
def test_a_tone_of_440_hz_is_at_392_after_key_minus_2(song):
    sound = made("--only", "other", "--key", "-2")
    assert len(sound) == round(SECONDS * RATE)
    assert abs(cents(frequency(sound), 440 * 2 ** (-2 / 12))) < 0.5
    middle = sound[RATE:-RATE]
    assert np.sqrt(2 * np.mean(middle**2)) == pytest.approx(0.25, rel=0.05)


@pytest.mark.slow
@needs_stretch
def test_tempo_and_key_at_once(song):
    both = made("--mute", "bass", "--tempo", "80%", "--key", "-2")
    assert len(both) == round(SECONDS * RATE / 0.8)
    assert abs(cents(frequency(both), 440 * 2 ** (-2 / 12))) < 0.5
    drums = both - made("--only", "other", "--tempo", "80%", "--key", "-2")
    assert bpm_of(attacks(drums, beat_times() / 0.8)) == pytest.approx(77.6, abs=0.1)
    spectrum = np.abs(np.fft.rfft(drums[round(0.5 / 0.8 * RATE) :][:3000] * np.hanning(3000), 1 << 16))
    assert spectrum.argmax() * RATE / (1 << 16) == pytest.approx(1500, rel=0.02), "drums are not transposed"


@pytest.mark.slow
@needs_stretch
@pytest.mark.parametrize("tempo", ["70%", "45%", "150%"])
def test_attacks_stay_as_they_are(song, tempo):
    rate = float(tempo[:-1]) / 100
    sound, original = made("--only", "drums", "--tempo", tempo), strikes()

    def rise_seconds(sound: np.ndarray, time: float) -> float:
        """From 10 to 90 % of the peak of the envelope."""
        start = round((time - 0.03) * RATE)
        level = np.convolve(np.abs(sound[start : start + RATE // 12]), np.ones(44) / 44, "same")
        level = level[: level.argmax() + 1]
        low, high = (np.flatnonzero(level < share * level[-1])[-1] for share in (0.1, 0.9))
        return float(high - low) / RATE

    for time in beat_times():
        assert rise_seconds(sound, time / rate) <= 1.5 * rise_seconds(original, time)


@pytest.mark.slow
def test_levels_of_stems_need_no_other_tempo(song, monkeypatch):
    monkeypatch.setattr(stretch, "find_spec", lambda name: None)
    sound = made("--mute", "drums", "--quieter", "other=-6dB", "--quieter", "bass")
    wanted = 10 ** (-6 / 20) * tone(440) + 10 ** (-18 / 20) * tone(110, amplitude=0.1)
    np.testing.assert_allclose(sound, wanted, atol=1e-6)
    refused = run("song", "--tempo", "90%")
    assert refused.exit_code == 1
    assert "python-stretch" in refused.stderr
    assert "[practice]" in refused.stderr


@pytest.mark.slow
def test_a_loop_has_the_song_s_samples_between_its_joints(song):
    sound = made("--mute", "bass,drums", "--loop", "1.3-2.45", "--times", "3")
    start, length = round(1.3 * RATE), round(1.15 * RATE)
    assert len(sound) == 3 * length
    fade = round(0.02 * RATE)
    for index in range(3):
        part = sound[index * length : (index + 1) * length - fade]
        inner = slice(fade if index == 0 else 0, None)
        np.testing.assert_allclose(part[inner], tone(440)[start:][: len(part)][inner], atol=1e-6)


@pytest.mark.parametrize("hz", [440.0, 60.0, 3000.0])
def test_no_joint_steps_more_than_the_signal(song, hz):
    soundfile.write("song/other.wav", tone(hz), RATE, "FLOAT")
    sound = made("--only", "other", "--loop", "1.3-2.4567", "--times", "5")
    assert np.abs(np.diff(sound)).max() < 1.02 * np.abs(np.diff(tone(hz))).max()
    assert np.abs(sound).max() < 1.02 * 0.25
    assert np.abs(sound[[0, -1]]).max() < 0.01, "nor do the ends"


EXAMPLE = Path(__file__).parent.parent / "examples" / "caesium-30s.mp3"


@pytest.mark.slow
def test_joints_of_music_step_no_more_than_the_music(song):
    music = np.concatenate(list(Reader(EXAMPLE, duration_seconds=8)), axis=1).mean(axis=0)
    soundfile.write("song/other.wav", music, RATE, "FLOAT")
    sound = made("--only", "other", "--loop", "2.013-4.57", "--times", "4")
    length, around = len(sound) // 4, round(0.03 * RATE)
    largest = np.abs(np.diff(music)).max()
    for joint in (length, 2 * length, 3 * length):
        assert np.abs(np.diff(sound[joint - around : joint + around])).max() <= largest


@pytest.mark.slow
@needs_stretch
def test_stretched_music_steps_no_more_than_the_music(song, monkeypatch):
    monkeypatch.setattr(stretch, "SEGMENT_SECONDS", 2.0)
    monkeypatch.setattr(stretch, "OVERLAP_SECONDS", 1.0)
    music = np.concatenate(list(Reader(EXAMPLE, duration_seconds=8)), axis=1).mean(axis=0)
    soundfile.write("song/other.wav", music, RATE, "FLOAT")
    sound = made("--only", "other", "--tempo", "80%")
    assert np.abs(np.diff(sound)).max() <= 1.1 * np.abs(np.diff(music)).max()
    levels = [np.sqrt(np.mean(np.square(each))) for each in (music, sound)]
    assert levels[1] == pytest.approx(levels[0], rel=0.1)


@pytest.mark.slow
def test_clicks_and_count_in_are_on_the_beats(song):
    words = ("--loop", "0:00.5-0:05.5", "--times", "2", "--snap", "--only", "drums", "--click-sound", "tick")
    plain, clicked = made(*words, "--bpm", "97", "--first-beat", "0.5"), made(*words, "--click")
    facts = json.loads(run("song", *words, "--click", "--json", "-o", "facts.wav").stdout)
    assert facts["bpm"] == pytest.approx(BPM, abs=0.2)
    length = facts["frames"] // 2
    assert length == pytest.approx(8 * 60 / BPM * RATE, abs=0.02 * RATE)
    counted = made(*words, "--click", "--count-in", "2")
    lead = len(counted) - len(clicked)
    assert lead == pytest.approx(8 * 60 / BPM * RATE, abs=0.02 * RATE)
    assert len(clicked) == pytest.approx(len(plain), abs=0.02 * RATE)
    clicks = clicked - made(*words)
    beats = np.concatenate([index * length / RATE + np.arange(8) * 60 / BPM for index in range(2)])
    starts = np.flatnonzero(np.abs(clicks) > 0.02)
    starts = starts[np.diff(starts, prepend=-RATE) > RATE / 10] / RATE
    assert len(starts) == len(beats)
    assert np.abs(starts - beats).max() < 0.01
    before = np.flatnonzero(np.abs(counted[: lead - RATE // 20]) > 0.02)
    before = before[np.diff(before, prepend=-RATE) > RATE / 10] / RATE
    np.testing.assert_allclose(before, np.arange(8) * 60 / BPM, atol=0.01)


@pytest.mark.slow
@needs_stretch
def test_everything_at_once(song):
    for path in song.iterdir():  # tags are those of the mixture
        assert path.suffix == ".wav"
    with Writer(song / "mixture.flac", Signal(RATE, 1)) as writer:
        writer.write(tone(440)[np.newaxis].astype(np.float32))
    tagged = mutagen.File(song / "mixture.flac")
    tagged["title"], tagged["artist"], tagged["bpm"], tagged["initialkey"] = "Old", "Somebody", "97", "Am"
    tagged.save()
    words = ["--mute", "bass", "--quieter", "other=-3dB", "--tempo", "90bpm", "--ramp", "70%-100%"]
    words += ["--loop", "0:01.1-0:05.9", "--times", "3", "--snap", "--key", "Gm", "--from-key", "Am"]
    words += ["--click", "--click-sound", "wood", "--click-level", "-12", "--count-in", "1"]
    words += ["--bpm", "97", "--first-beat", "0.5", "--meter", "3", "--beats", "beats.txt"]
    result = run("song", *words, "-o", "all.flac", "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    period = 60 / BPM
    start, stop = 0.5 + period, 0.5 + 9 * period
    tempi = [90 / 97 * share for share in (0.7, 0.85, 1.0)]
    assert facts["tempi"] == pytest.approx(tempi)
    assert facts["loop"] == pytest.approx([start, stop], abs=2 / RATE)
    assert facts["semitones"] == -2
    loop = round(stop * RATE) - round(start * RATE)
    # The loop begins on the second beat of a bar: one bar and one beat are counted.
    lead = round(4 * period * RATE / tempi[0])
    lengths = [round(loop / tempo) for tempo in tempi]
    sound, _ = soundfile.read("all.flac")
    assert len(sound) == facts["frames"] == pytest.approx(lead + sum(lengths), abs=2)
    found = labels.read(Path("beats.txt"))
    assert [label.text for label in found[:9]] == ["count 1", "count 2", "count 3", "count 1", *"23123"]
    passes = [lead + sum(lengths[:index]) for index in range(3)]
    wanted = [beat * period / tempi[0] for beat in range(4)]
    for begin, tempo in zip(passes, tempi, strict=True):
        wanted += [begin / RATE + beat * period / tempo for beat in range(8)]
    np.testing.assert_allclose([label.start for label in found], wanted, atol=3 / RATE)
    tags = mutagen.File("all.flac")
    assert (tags["title"], tags["artist"]) == (["Old (practice)"], ["Somebody"])
    assert not {"bpm", "initialkey"} & set(tags), "which are not true of it"
    tonal = made(*(word for word in words if word not in ("--click", "--mute", "bass")), "--only", "other")
    inner = tonal[round(4.9 * period * RATE / tempi[0]) :]
    slope = 10 ** (-3 / 20) * np.abs(np.diff(tone(440 * 2 ** (-2 / 12)))).max()
    assert np.abs(np.diff(inner)).max() < 1.1 * slope


@pytest.mark.slow
@needs_stretch
def test_a_song_is_split_on_the_way_and_only_around_the_loop(song, monkeypatch):
    with Writer(Path("a song.flac"), Signal(RATE, 2)) as writer:
        mixture = (strikes(40) + tone(440, 40)).astype(np.float32)
        writer.write(np.stack([mixture, mixture]))
    read = []
    opened = practice.open_song
    monkeypatch.setattr(
        practice,
        "open_song",
        lambda source, options: read.append(options.split.reading) or opened(source, options),
    )
    words = ["--model", "binary-mask-cnn", "--fast", "--loop", "0:20-0:22", "--times", "2", "--tempo", "80%"]
    result = run("a song.flac", *words, "--click", "--mute", "vocals", "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts["output"] == "a song-practice.flac"
    assert facts["frames"] == 2 * round(2 * RATE / 0.8)
    assert facts["loop"] == [20, 22]
    assert (read[0]["start_seconds"], read[0]["duration_seconds"]) == (10, 22)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--loop", "0:05-0:30"], "The loop reaches 0:30.000, but `song` ends at 0:09.000"),
        (["--loop", "0:20-"], "The loop reaches 0:20.000, but `song` ends at 0:09.000"),
        (["--loop", "5-4"], "ends before it starts"),
        (["--loop", "chorus"], "is not a loop"),
        (["--loop", "1-1.01"], "too short"),
        (["--loop", "1-1.2", "--snap"], "shorter than a beat"),
        (["--snap"], "give --loop"),
        ([], "Nothing is to be changed"),
        (["--tempo", "0%"], "A tempo of 0% is out of range"),
        (["--tempo", "0bpm"], "A tempo of 0 bpm is out of range"),
        (["--tempo", "80"], "is not a tempo"),
        (["--tempo", "50%", "--ramp", "40%-100%"], "A tempo of 20% is out of range"),
        (["--ramp", "fast"], "is not a ramp"),
        (["--key", "Z"], "`Z` is not a key"),
        (["--key", "-13"], "out of range"),
        (["--key", "Am", "--from-key", "loud"], "`loud` is not a key"),
        (["--first-beat", "1", "--click"], "give --bpm"),
        (["--mute", "piano"], "choose from"),
        (["--mute", "drums,bass,other"], "Every stem is muted"),
        (["--only", "other", "-o", "song/new.wav"], "one of the stems"),
        (["--click", "-o", "there.wav"], "--force"),
        (["--click", "--beats", "there.wav"], "--force"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_leaves_nothing(song, tmp_path, words, said):
    (tmp_path / "there.wav").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    result = run("song", *words)
    assert result.exit_code in (1, 2)
    assert result.stderr.startswith("error: ")
    assert said in result.stderr
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "there.wav").read_text() == "mine"


@pytest.mark.slow
def test_a_song_without_beats_has_no_clicks(song):
    for path in song.iterdir():
        soundfile.write(path, np.zeros(3 * RATE), RATE)
    result = run("song", "--click")
    assert result.exit_code == 1
    assert "No beats were found" in result.stderr
    assert run("song", "--click", "--bpm", "90", "--first-beat", "0").exit_code == 0
    sound, _ = soundfile.read("song-practice.wav")
    assert np.abs(sound).max() == pytest.approx(10 ** (-9 / 20), abs=0.01)


@pytest.mark.slow
def test_a_song_without_pitches_has_no_key(song):
    for path in song.iterdir():
        soundfile.write(path, np.zeros(3 * RATE), RATE)
    assert run("song", "--key", "Am").stderr.startswith("error: No key was found")
