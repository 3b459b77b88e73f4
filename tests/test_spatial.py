"""Separation by position: tones that never meet come apart, and what has no positions is told so."""

from __future__ import annotations

import json
from functools import partial
from itertools import pairwise

import matplotlib.image
import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

import stemsplit
from stemsplit import spatial
from stemsplit.cli import app
from stemsplit.errors import StemsplitError
from stemsplit.separation.stream import separate_blocks
from stemsplit.spatial import scan
from stemsplit.spatial.adress import Adress, angles, nulls
from stemsplit.spatial.duet import Duet
from stemsplit.spatial.ica import Ica
from stemsplit.spatial.projet import Projet
from tests.conftest import events

RATE = 44_100
METHODS = (Adress, Duet, partial(Projet, iterations=20, inner_iterations=5, frames=40), Ica)
ANGLES = (-30.0, -10.0, 10.0, 30.0)
TONES_HZ = ((220.0, 1760.0), (330.0, 2500.0), (500.0, 3100.0), (700.0, 4100.0))


def sources(seconds: float = 3.0) -> np.ndarray:
    """Four sources `(source, time)` of two tones each, none of which another one has."""
    time = np.arange(round(seconds * RATE)) / RATE
    swells = 1 + 0.5 * np.sin(2 * np.pi * np.arange(1, 5)[:, None] * time)
    return 0.1 * swells * np.stack([sum(np.sin(2 * np.pi * hz * time) for hz in pair) for pair in TONES_HZ])


def panned(sound: np.ndarray, degrees: tuple[float, ...]) -> np.ndarray:
    """Stereo images `(source, channel, time)` at angles: 0 is the centre, 45 the right."""
    turned = np.radians(45 + np.array(degrees))
    gains = np.stack([np.cos(turned), np.sin(turned)], axis=1)
    return (gains[:, :, None] * sound[:, None]).astype(np.float32)


def sdr_db(estimate: np.ndarray, reference: np.ndarray) -> float:
    return float(10 * np.log10(np.sum(reference**2) / np.sum((estimate - reference) ** 2)))


def separated(method, mixture: np.ndarray, **how) -> np.ndarray:
    separator = method.fit([mixture], RATE)
    return np.concatenate(list(separate_blocks(separator, [mixture], **how)), axis=-1)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "least_db"), [(Adress, 20), (Duet, 20), (Projet, 12)])
def test_tones_that_never_meet_come_apart(method, least_db):
    images = panned(sources(), ANGLES)
    stems = separated(method(sources=4), images.sum(axis=0))
    assert min(sdr_db(*pair) for pair in zip(stems, images, strict=True)) > least_db


@pytest.mark.slow
def test_projet_tells_apart_what_sounds_at_the_same_time_in_the_same_bins():
    images = panned(np.stack([speech_like(seed) for seed in range(1, 5)]), ANGLES)
    mixture = images.sum(axis=0)
    stems = {method: separated(method(sources=4), mixture) for method in (Projet, Adress, Duet)}
    before = np.median([sdr_db(mixture, image) for image in images])
    after = {
        method: [sdr_db(*pair) for pair in zip(found, images, strict=True)] for method, found in stems.items()
    }
    gains = {method: np.median(found) - before for method, found in after.items()}
    assert gains[Projet] > 8
    assert gains[Projet] > max(gains[Adress], gains[Duet])


def test_duet_tells_delays_apart_where_levels_are_the_same():
    sound = sources()
    images = np.stack(
        [[tone, np.roll(tone, delay)] for tone, delay in zip(sound, (-3, -1, 1, 3), strict=True)]
    )
    stems = separated(Duet(sources=4), images.sum(axis=0).astype(np.float32))
    assert min(sdr_db(*pair) for pair in zip(stems, images, strict=True)) > 15


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_stems_add_up_and_do_not_depend_on_how_they_are_cut(method):
    noise = 0.1 * np.random.default_rng(1).standard_normal((4, 2 * RATE))
    mixture = (panned(sources(2.0), ANGLES) + panned(noise, ANGLES)).sum(axis=0)
    whole = separated(method(), mixture, segment_seconds=60.0)
    np.testing.assert_allclose(whole.sum(axis=0), mixture, atol=1e-6)
    np.testing.assert_allclose(separated(method(), mixture, segment_seconds=0.3), whole, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_blocks_are_as_good_as_the_whole(method):
    mixture = panned(sources(), ANGLES).sum(axis=0)
    blocks = [mixture[:, start:end] for start, end in pairwise([0, 1, 5000, 70_000, mixture.shape[1]])]
    assert method().fit(blocks, RATE).how == method().fit([mixture], RATE).how


@pytest.mark.parametrize("method", METHODS)
def test_what_has_no_positions_is_told_so(method):
    stereo = panned(sources(1.0), ANGLES).sum(axis=0)
    for mixture, words in (
        (stereo[:1], "mono"),
        (np.zeros_like(stereo), "silent"),
        (np.stack([stereo[0], stereo[0]]), "the same"),
        (stereo[:, :0], "silent"),
    ):
        with pytest.raises(StemsplitError, match=words):
            method().fit([mixture], RATE)
    method().fit([stereo[:, :4410]], RATE)  # a tenth of a second will do


@pytest.mark.parametrize("method", [Adress, Duet, Ica])
def test_one_position_is_not_taken_for_several(method):
    with pytest.raises(StemsplitError, match="Only 1|one position"):
        method().fit([panned(sources(1.0)[:1], (-20.0,))[0]], RATE)


def speech_like(seed: int) -> np.ndarray:
    """Three seconds of noise that swells and fades, `(time,)`: peaky, as most sound is."""
    rng = np.random.default_rng(seed)
    return 0.1 * rng.laplace(size=3 * RATE) * np.abs(np.sin(np.arange(3 * RATE) * (seed + 3) / RATE)) ** 3


def test_two_sources_at_once_are_told_apart_by_ica():
    images = panned(np.stack([speech_like(1), speech_like(2)]), (-15.0, 15.0))
    stems = separated(Ica(), images.sum(axis=0))
    assert min(sdr_db(*pair) for pair in zip(stems, images, strict=True)) > 30


@pytest.mark.slow
def test_ica_finds_what_scikit_learn_finds():
    from sklearn.decomposition import FastICA

    images = panned(np.stack([speech_like(3), speech_like(4)]), (-30.0, 5.0))
    mixture = images.sum(axis=0)
    theirs = (
        FastICA(2, fun="cube", whiten="unit-variance", random_state=0, tol=1e-6).fit_transform(mixture.T).T
    )
    for stem in separated(Ica(), mixture):
        loudest = stem[np.abs(stem).sum(axis=1).argmax()]
        likeness = [abs(np.corrcoef(loudest, component)[0, 1]) for component in theirs]
        assert max(likeness) > 0.999


@pytest.mark.parametrize("wrong", [0, 1, 3])
def test_ica_finds_two(wrong):
    with pytest.raises(StemsplitError, match="sources|One source"):
        spatial.build("ica", wrong)


def test_the_null_is_where_the_paper_s_planes_have_it():
    """All gains tried one by one, against the closed form."""
    rng = np.random.default_rng(2)
    spectrum = (rng.standard_normal((2, 7, 33)) + 1j * rng.standard_normal((2, 7, 33))).astype(np.complex64)
    left, right = spectrum
    gains = np.arange(101)[:, None, None] / 100
    right_half, left_half = np.abs(left - gains * right), np.abs(right - gains * left)
    planes = np.concatenate([left_half, right_half[-2::-1]])
    right_louder = np.abs(right) > np.abs(left)
    planes[:100, right_louder], planes[101:, ~right_louder] = np.inf, np.inf
    index, depth = nulls(spectrum)
    best = planes.min(axis=0)
    np.testing.assert_allclose(np.take_along_axis(planes, index[None], 0)[0], best, atol=1e-5)
    planes[np.isinf(planes)] = 0
    in_phase = (left * right.conj()).real > 0
    np.testing.assert_allclose(depth[in_phase], (planes.max(axis=0) - best)[in_phase], atol=1e-5)
    assert 0.3 < np.mean(depth == 0) < 0.5, "out of phase"


def test_angles_are_those_of_the_gains():
    assert angles()[[0, 100, 200]].tolist() == [-45, 0, 45]
    found = {}
    for degrees in (-40.0, -20.0, 0.0, 15.0, 33.0):
        spectrum = panned(np.ones((1, 1)), (degrees,))[0][:, None].astype(np.complex64)
        found[degrees] = angles()[nulls(spectrum)[0][0, 0]]
    for degrees, angle in found.items():
        assert angle == pytest.approx(degrees, abs=0.3)


@pytest.fixture
def song(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mixture = panned(sources(), ANGLES).sum(axis=0)
    soundfile.write("panned.wav", mixture.T, RATE, "FLOAT")
    soundfile.write("mono.wav", mixture[0], RATE)
    return mixture


@pytest.mark.slow
@pytest.mark.parametrize("method", spatial.METHODS)
def test_a_method_is_a_model_like_any_other(song, method):
    run = CliRunner().invoke(app, ["panned.wav", "mono.wav", "--model", method, "--json"])
    assert run.exit_code == 1
    told = {event["status"]: event for event in events(run.stdout) if event["event"] == "track"}
    assert "mono" in told["error"]["message"]
    done = told["ok"]
    count = spatial.METHODS[method].sources
    assert list(done["outputs"]) == [f"source-{n}" for n in range(1, count + 1)]
    stems = [soundfile.read(each["path"])[0] for each in done["outputs"].values()]
    np.testing.assert_allclose(sum(stems), song.T, atol=1e-5)
    again = CliRunner().invoke(app, ["panned.wav", "--model", method, "--skip-existing"])
    assert again.exit_code == 0, "already done"
    assert again.stderr == "panned.wav: already done\n"


@pytest.mark.slow
def test_some_sources_may_be_asked_for(song):
    words = ["panned.wav", "--model", "adress", "--sources", "3", "--stems", "source-2"]
    run = CliRunner().invoke(app, words)
    assert run.stdout == "stems/panned/source-2.wav\n"
    assert "panned.wav: positions at " in run.stderr
    assert list(stemsplit.split(song, RATE, model="adress", stems=["source-1"])) == ["source-1"]


@pytest.mark.parametrize(
    "words",
    [
        ["--model", "duet", "--two-stems", "source-1"],
        ["--model", "duet", "--mask", "soft"],
        ["--model", "duet", "--stems", "vocals"],
        ["--model", "ica", "--sources", "3"],
        ["--sources", "3"],
    ],
)
def test_what_a_method_does_not_know_is_refused(song, words):
    run = CliRunner().invoke(app, ["panned.wav", *words])
    assert run.exit_code == 2
    assert run.stderr.startswith("error: ")
    assert "hint: " in run.stderr


@pytest.mark.slow
def test_samples_that_come_but_once_are_refused(song):
    raw = song.T.astype("<f4").tobytes()
    words = ["-", "--raw", f"{RATE}:2:f32", "--model", "adress", "--stdout", "source-1"]
    run = CliRunner().invoke(app, words, input=raw)
    assert run.exit_code == 1
    assert "needs a whole track" in run.stderr
    run = CliRunner().invoke(app, ["panned.wav", *words[1:]])
    assert len(run.stdout_bytes) == len(raw)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "least_db"), [("adress", 20), ("duet", 20), ("projet", 8)])
def test_positions_may_be_given(song, method, least_db):
    """The files are named by position, and all else is the rest."""
    run = CliRunner().invoke(app, ["panned.wav", "--model", method, "--azimuth", "-30,10", "--json"])
    assert run.exit_code == 0, run.stderr
    (done,) = (event for event in events(run.stdout) if event["event"] == "track")
    assert list(done["outputs"]) == ["left-30", "right-10", "rest"]
    stems = [soundfile.read(each["path"])[0].T for each in done["outputs"].values()]
    images = panned(sources(), ANGLES)
    truth = [images[0], images[2], images[1] + images[3]]
    assert min(sdr_db(*pair) for pair in zip(stems, truth, strict=True)) > least_db
    again = CliRunner().invoke(
        app, ["panned.wav", "--model", method, "--azimuth", "-30,12", "--skip-existing"]
    )
    assert "already done" not in again.stderr


def test_positions_have_names():
    assert spatial.names(3, (-7.5, 0.0)) == ("left-7.5", "center", "rest")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--azimuth", "-50"], "-45"),
        (["--azimuth", "0,2"], "4 degrees apart"),
        (["--azimuth", "0,nan"], "-45"),
        (["--azimuth", "left"], "write -30,0,30"),
        (["--azimuth", "0", "--sources", "3"], "choose one"),
        (["--azimuth", "0", "--model", "ica"], "finds its own"),
        (["--azimuth", "0", "--model", "binary-mask-cnn"], "has fixed stems"),
    ],
)
def test_what_is_no_position_is_refused(song, words, said):
    run = CliRunner().invoke(app, ["panned.wav", "--model", "adress", *words])
    assert run.exit_code in (1, 2)
    assert said in run.stderr


# Looking before separating


@pytest.mark.slow
def test_scan_finds_the_positions_and_draws_them(song):
    run = CliRunner().invoke(app, ["scan", "panned.wav", "--json", "--plot", "positions.png"])
    assert run.exit_code == 0, run.stderr
    told = json.loads(run.stdout)
    assert [each["degrees"] for each in told["azimuths"]] == pytest.approx(ANGLES, abs=0.5)
    assert sum(each["share"] for each in told["azimuths"]) == pytest.approx(1, abs=0.001)
    assert [each["degrees"] for each in told["pairs"]] == pytest.approx(ANGLES, abs=1)
    assert {each["delay_samples"] for each in told["pairs"]} == {0}
    width, height, _ = matplotlib.image.imread("positions.png").shape
    assert min(width, height) > 1000
    plain = CliRunner().invoke(app, ["scan", "panned.wav"]).stdout
    assert "-29.9 degrees" in plain
    assert "+30.0 degrees   +0.0 samples" in plain


def test_what_is_nowhere_makes_no_peak():
    """Noise whose channels have nothing to do with each other, beside a tone."""
    rng = np.random.default_rng(3)
    mixture = panned(sources()[:1], (20.0,))[0] + 0.03 * rng.standard_normal((2, 3 * RATE))
    survey = scan.scan([mixture.astype(np.float32)])
    assert survey.azimuths == pytest.approx([20.0], abs=0.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mono.wav"], "mono"),
        (["nothing.wav"], "nothing.wav"),
        (["panned.wav", "--plot", "panned.wav/a.png"], "panned.wav"),
        (["panned.wav", "--plot", "a.xyz"], "xyz"),
    ],
)
def test_what_cannot_be_scanned_is_refused(song, words, said):
    run = CliRunner().invoke(app, ["scan", *words])
    assert run.exit_code == 1
    assert run.stderr.startswith("error: ")
    assert said in run.stderr


@pytest.mark.slow
@pytest.mark.parametrize("method", spatial.METHODS)
def test_bad_input_gets_one_clear_sentence(song, method):
    """Identical channels, silence, a tenth of a second, samples that are no numbers."""
    soundfile.write("same.wav", np.stack([song[0], song[0]], 1), RATE)
    soundfile.write("silence.wav", np.zeros((RATE, 2)), RATE)
    soundfile.write("nan.wav", np.where(np.arange(RATE)[:, None] == 99, np.nan, song.T[:RATE]), RATE, "FLOAT")
    soundfile.write("short.wav", song.T[: RATE // 10], RATE)
    names = ["same.wav", "silence.wav", "nan.wav", "short.wav"]
    run = CliRunner().invoke(app, [*names, "--model", method, "--sources", "2"])
    assert run.exit_code == 1
    assert run.stderr.count("error: ") == 3
    assert all(words in run.stderr for words in ("are the same", "track is silent", "NaN"))
    assert len(run.stdout.splitlines()) == 2, "a tenth of a second will do"


@pytest.mark.slow
def test_projet_tells_delays_apart_where_levels_are_the_same():
    sound = np.stack([speech_like(1), speech_like(2)])
    images = np.stack(
        [[source, np.roll(source, delay)] for source, delay in zip(sound, (-3, 3), strict=True)]
    )
    mixture = images.sum(axis=0).astype(np.float32)
    small = partial(Projet, 2, n_fft=1024, hop_length=256, angles=7, projections=5, iterations=40, frames=60)
    worst = {}
    for delays in ((0.0,), (-3.0, 0.0, 3.0)):
        stems = separated(small(delays=delays), mixture)
        orders = (stems, stems[::-1])
        worst[delays] = max(
            min(sdr_db(*pair) for pair in zip(order, images, strict=True)) for order in orders
        )
    assert worst[-3.0, 0.0, 3.0] > 3.5 > 2.5 > worst[0.0,]
