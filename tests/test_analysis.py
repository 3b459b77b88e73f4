"""What a sound is like, found block by block: levels, image, band, tempo and key."""

from __future__ import annotations

import json

import matplotlib.image
import numpy as np
import pyloudnorm
import pytest
from typer.testing import CliRunner

from stemsplit.analysis.sound import analyse
from stemsplit.audio.loudness import Loudness, Peaks
from stemsplit.audio.reader import Reader, Signal
from stemsplit.audio.writer import Encoding, Writer
from stemsplit.cli import app

RATE = 44_100


def noise(seconds: float, channels: int = 2, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal((channels, round(seconds * RATE)))).astype(np.float32)


def clicks(bpm: float, seconds: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """A click track `(1, time)`, and the clicks in seconds."""
    beats = np.arange(0.5, seconds - 0.1, 60 / bpm)
    sound = np.zeros((1, seconds * RATE), np.float32)
    click = 0.5 * np.exp(-np.arange(2000) / 200) * noise(1, 1)[0, :2000] * 10
    for beat in beats:
        sound[0, round(beat * RATE) :][:2000] += click
    return sound, beats


@pytest.mark.slow
@pytest.mark.parametrize("bpm", [75.5, 97, 128])
def test_the_tempo_of_a_click_track(bpm):
    sound, beats = clicks(bpm)
    found = analyse(np.array_split(sound, 9, axis=1), RATE, 1)
    tracked = found.music.beats
    assert tracked.bpm == pytest.approx(bpm, abs=0.3)
    assert tracked.confidence > 0.6
    late = [np.abs(beats - beat).min() for beat in tracked.times_seconds]
    assert np.quantile(late, 0.9) < 0.02
    assert np.median(late) < 0.01
    assert len(tracked.times_seconds) >= len(beats) - 3


@pytest.mark.slow
def test_what_has_no_beat_says_so():
    assert analyse([np.zeros((1, 5 * RATE), np.float32)], RATE, 1).music.bpm is None
    assert analyse([noise(20, 1)], RATE, 1).music.beats.confidence < 0.2
    short = analyse([noise(0.1, 1)], RATE, 1)
    assert (short.music.bpm, short.lufs) == (None, None)


def chords(*notes: tuple[int, ...]) -> np.ndarray:
    """A second of each chord of MIDI notes, with two overtones."""
    time = np.arange(RATE) / RATE
    hz = [[440 * 2 ** ((note - 69) / 12) for note in chord] for chord in notes]
    sounds = [sum(np.sin(2 * np.pi * f * k * time) / k for f in chord for k in (1, 2, 3)) for chord in hz]
    return 0.1 * np.concatenate(sounds)[None].astype(np.float32)


@pytest.mark.slow
def test_the_key_of_cadences():
    minor = analyse([chords((57, 60, 64), (62, 65, 69), (64, 68, 71), (57, 60, 64))], RATE, 1)
    assert minor.music.key == "A minor"
    major = analyse([chords((63, 67, 70), (68, 72, 75), (70, 74, 77), (63, 67, 70))], RATE, 1)
    assert major.music.key == "Eb major"
    assert min(minor.music.key_confidence, major.music.key_confidence) > 0.2
    assert analyse([noise(3, 1)], RATE, 1, music=False).music is None


@pytest.mark.parametrize("rate", [22_050, 44_100, 48_000])
def test_loudness_is_pyloudnorm_s(rate):
    sound = noise(7) * np.linspace(0, 1, 7 * RATE, dtype=np.float32)
    sound[:, 2 * RATE : 4 * RATE] = 0  # gates have something to leave out
    loudness = Loudness(rate, 2)
    for block in np.array_split(sound, 11, axis=1):
        loudness.add(block)
    assert loudness.lufs == pytest.approx(pyloudnorm.Meter(rate).integrated_loudness(sound.T), abs=0.01)


def test_silence_has_no_loudness():
    loudness = Loudness(RATE, 2)
    loudness.add(np.zeros((2, RATE), np.float32))
    assert loudness.lufs is None
    loudness.add(1e-6 * noise(1))
    assert loudness.lufs is None


def test_a_peak_between_samples():
    """A sine of a quarter of the sample rate whose crests fall between samples."""
    sound = np.sin(np.pi / 2 * np.arange(RATE) + np.pi / 4)[None].astype(np.float32)
    peaks = Peaks(RATE, 1)
    for block in np.array_split(sound[:, 1000:-1000] * np.hanning(RATE - 2000).astype(np.float32), 5, axis=1):
        peaks.add(block)
    peaks.add(np.zeros((1, 0), np.float32), last=True)
    assert peaks.sample == pytest.approx(np.sqrt(0.5), abs=0.001)
    assert peaks.true == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("sound", "image"),
    [(noise(1, 1), "mono"), (noise(1), "stereo"), (np.repeat(noise(1, 1), 2, axis=0), "dual mono")],
)
def test_the_stereo_image(sound, image):
    found = analyse([sound], RATE, len(sound), music=False)
    assert found.image == image
    assert found.energy == pytest.approx(np.sum(sound.astype(float) ** 2))
    assert (found.seconds, found.peak) == (1, pytest.approx(np.abs(sound).max()))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least", "most"), [("a.mp3", 15_500, 17_500), ("a.wav", None, None)])
def test_where_an_encoder_has_cut(tmp_path, name, least, most):
    with Writer(tmp_path / name, Signal(RATE, 2), Encoding(bitrate="128k" if least else None)) as writer:
        writer.write(noise(3))
    cutoff = analyse(Reader(tmp_path / name), RATE, 2, music=False).cutoff_hz
    assert cutoff is None if least is None else least < cutoff < most


# stemsplit inspect


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Writer(tmp_path / "clicks.wav", Signal(RATE, 1), Encoding("24")) as writer:
        writer.write(clicks(97)[0])
    (tmp_path / "song").mkdir()
    for name, gain in (("vocals", 1.0), ("drums", 0.5), ("other", 0.0)):
        with Writer(tmp_path / "song" / f"{name}.wav", Signal(RATE, 2)) as writer:
            writer.write(gain * noise(1))


@pytest.mark.slow
def test_inspect_tells_people(files):
    run = CliRunner().invoke(app, ["inspect", "clicks.wav", "song", "nothing.wav"])
    assert run.exit_code == 1
    assert "nothing.wav" in run.stderr
    lines = run.stdout.splitlines()
    assert "  format    WAV, 44,100 Hz, 24 bit" in lines
    assert "  length    0:20.000" in lines
    assert any(line.startswith("  tempo     97.") for line in lines)
    assert "  image     mono" in lines
    shares = [line.split()[-1] for line in lines if line.split()[0] in ("vocals", "drums", "other")]
    assert shares == ["80.0%", "20.0%", "0.0%"]


@pytest.mark.slow
def test_inspect_tells_programs(files):
    run = CliRunner().invoke(app, ["inspect", "clicks.wav", "song", "--json"])
    sound, *stems, song = [json.loads(line) for line in run.stdout.splitlines()]
    assert sound["bpm"] == pytest.approx(97, abs=0.3)
    assert len(sound["beats"]) > 28
    assert [(each["stem"], round(each["energy_share"], 2)) for each in stems] == [
        ("vocals", 0.8),
        ("drums", 0.2),
        ("other", 0),
    ]
    assert stems[2]["lufs"] is None


@pytest.mark.slow
def test_inspect_draws_a_sound_or_a_set_of_stems(files):
    heights = []
    for source in ("clicks.wav", "song"):
        run = CliRunner().invoke(app, ["inspect", source, "--plot", f"{source}.png"])
        assert run.exit_code == 0, run.stderr
        heights.append(matplotlib.image.imread(f"{source}.png").shape[0])
    assert heights[1] > 2 * heights[0], "the mixture and three stems"
    for words in (["clicks.wav", "--plot", "no/where.png"], ["clicks.wav", "--plot", "a.xyz"]):
        assert CliRunner().invoke(app, ["inspect", *words]).exit_code == 1
    assert CliRunner().invoke(app, ["inspect", "clicks.wav", "song", "--plot", "a.png"]).exit_code == 2


@pytest.mark.slow
def test_inspect_draws_the_mixture_of_a_folder(files, tmp_path):
    def draw(mixture):
        with Writer(tmp_path / "song" / "mixture.wav", Signal(RATE, len(mixture)), force=True) as writer:
            writer.write(mixture)
        return CliRunner().invoke(app, ["inspect", "song", "--plot", "song.png"])

    pictures = []
    for gain in (1.0, 0.0):
        assert draw(gain * noise(1)).exit_code == 0
        pictures.append(matplotlib.image.imread("song.png"))
    differ = (pictures[0] != pictures[1]).any(axis=(1, 2)).nonzero()[0]
    assert differ.size, "the mixture is drawn"
    assert differ.max() < len(pictures[0]) / 2, "above the stems"
    run = draw(noise(1, channels=1))
    assert run.exit_code == 1
    assert "is not the source of these stems" in run.stderr


def test_two_programs_that_compile_at_once_do_not_mix_their_code(tmp_path):
    from numba.core.caching import IndexDataCacheFile

    from stemsplit.files.scratch import librosa_caches

    librosa_caches()
    one, other, third = (IndexDataCacheFile(str(tmp_path), "function", "stamp") for _ in range(3))
    save_data = one._save_data

    def meanwhile(name, data):
        other._load_index = dict  # as it was before the first one wrote its own
        other.save("float64", "code for float64")
        save_data(name, data)

    one._save_data = meanwhile
    one.save("float32", "code for float32")
    assert third.load("float64") == "code for float64"
    assert third.load("float32") in (None, "code for float32")
