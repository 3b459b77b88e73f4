"""Separation by place: tones that never meet come apart, and what has no positions is told so."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import soundfile

import stemsplit
from stemsplit.errors import StemsplitError
from stemsplit.spatial.adress import Adress, angles, nulls
from stemsplit.spatial.duet import Duet
from stemsplit.stream import separate_blocks

RATE = 44_100
METHODS = (Adress, Duet)
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


@pytest.mark.parametrize("method", METHODS)
def test_tones_that_never_meet_come_apart(method):
    images = panned(sources(), ANGLES)
    stems = separated(method(sources=4), images.sum(axis=0))
    assert [sdr_db(*pair) > 20 for pair in zip(stems, images, strict=True)] == [True] * 4


def test_duet_tells_delays_apart_where_levels_are_the_same():
    sound = sources()
    images = np.stack(
        [[tone, np.roll(tone, delay)] for tone, delay in zip(sound, (-3, -1, 1, 3), strict=True)]
    )
    stems = separated(Duet(sources=4), images.sum(axis=0).astype(np.float32))
    assert min(sdr_db(*pair) for pair in zip(stems, images, strict=True)) > 15


@pytest.mark.parametrize("method", METHODS)
def test_stems_add_up_and_do_not_depend_on_how_they_are_cut(method):
    noise = 0.1 * np.random.default_rng(1).standard_normal((4, 2 * RATE))
    mixture = (panned(sources(2.0), ANGLES) + panned(noise, ANGLES)).sum(axis=0)
    whole = separated(method(), mixture, segment_seconds=60.0)
    np.testing.assert_allclose(whole.sum(axis=0), mixture, atol=1e-6)
    np.testing.assert_allclose(separated(method(), mixture, segment_seconds=0.3), whole, atol=1e-6)


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
        (np.zeros_like(stereo), "silence"),
        (np.stack([stereo[0], stereo[0]]), "the same"),
        (stereo[:, :0], "silence"),
        (panned(sources(1.0)[:1], (-20.0,))[0], "Only 1"),
    ):
        with pytest.raises(StemsplitError, match=words):
            method().fit([mixture], RATE)
    method(sources=4).fit([stereo[:, :4410]], RATE)  # a tenth of a second will do


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
    np.testing.assert_allclose(depth, planes.max(axis=0) - best, atol=1e-5)


def test_angles_are_those_of_the_gains():
    assert angles()[[0, 100, 200]].tolist() == [-45, 0, 45]
    found = {}
    for degrees in (-40.0, -20.0, 0.0, 15.0, 33.0):
        spectrum = panned(np.ones((1, 1)), (degrees,))[0][:, None].astype(np.complex64)
        found[degrees] = angles()[nulls(spectrum)[0][0, 0]]
    for degrees, angle in found.items():
        assert angle == pytest.approx(degrees, abs=0.3)


def test_a_fitted_method_splits_files(tmp_path):
    mixture = panned(sources(), ANGLES).sum(axis=0)
    path = tmp_path / "panned.wav"
    soundfile.write(path, mixture.T, RATE, "FLOAT")
    from stemsplit.audio import Reader

    reader = Reader(path)
    separator = Adress(sources=4).fit(reader, reader.sample_rate)
    result = stemsplit.split_file(path, tmp_path, separator=separator)
    assert list(result.outputs) == ["source-1", "source-2", "source-3", "source-4"]
    stems = [soundfile.read(each)[0] for each in result.outputs.values()]
    np.testing.assert_allclose(sum(stems), mixture.T, atol=1e-5)
