"""A stem of one model, split further by another."""

from __future__ import annotations

import errno
import gc
import tempfile
import warnings
import weakref
from dataclasses import replace

import numpy as np
import pytest

import stemsplit
from stemsplit.batch.plan import BatchOptions
from stemsplit.errors import EncodeError, UnknownModel, UnknownStem, UsageError
from stemsplit.options import RuntimeOptions, SplitOptions
from stemsplit.separation.chain import Chained, Kept, Link, chained
from stemsplit.separation.compose import shifted, with_residual
from stemsplit.separation.segments import NormalizedSegments, Segmentation, SegmentSeparator
from stemsplit.separation.separator import FittedMethod
from stemsplit.separation.stream import separate_blocks, separate_stream
from stemsplit.zoo.ref import ModelRef
from tests.conftest import quick_separator

LENGTH = 100


def segments(names=("lead", "back"), rate=44_100, factor=0.25, residual="back"):
    def network(window):
        return np.stack([factor * window + 0.1 * window[:, ::-1] for _ in names])

    return SegmentSeparator(names, rate, names, residual, Segmentation.of(LENGTH, 0.25), network)


FIRST = segments(("vocals", "drums", "other"), residual="other")


def noise(samples, channels=2):
    return np.random.default_rng(samples).standard_normal((channels, samples)).astype(np.float32)


def whole(method, mixture, rate=44_100, block=None):
    if isinstance(method, FittedMethod):
        method = method.fit([mixture], rate)
    blocks = [
        mixture[:, start : start + (block or 1 << 30)]
        for start in range(0, mixture.shape[-1], block or 1 << 30)
    ]
    return np.concatenate(list(separate_stream(method, blocks, rate)), axis=-1)


def test_the_second_gets_the_very_stem_of_the_first():
    mixture = noise(1003)
    stems = whole(FIRST, mixture)
    chain = chained(FIRST, segments(), "drums", ("drums-lead", "drums-back"))
    assert chain.spec.stems == ("vocals", "drums-lead", "drums-back", "other")
    assert chain.spec.complete
    found = whole(chain, mixture)
    np.testing.assert_allclose(found[[0, 3]], stems[[0, 2]], atol=1e-6)
    np.testing.assert_allclose(found[1:3], whole(segments(), stems[1]), atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=0), mixture, atol=1e-5)


@pytest.mark.parametrize("block", [1, 33, 128])
@pytest.mark.parametrize(
    "second", [segments(), segments(rate=48_000), NormalizedSegments(segments()), quick_separator()]
)
def test_any_block_size_gives_the_same_stems_and_they_sum_to_the_mixture(second, block):
    mixture = noise(505)
    names = second.stems if isinstance(second, FittedMethod) else second.spec.stems
    chain = chained(FIRST, second, "vocals", tuple(f"vocals-{name}" for name in names))
    stems = whole(chain, mixture)
    assert stems.shape == (len(names) + 2, *mixture.shape)
    np.testing.assert_allclose(whole(chain, mixture, block=block), stems, atol=1e-5)
    np.testing.assert_allclose(stems.sum(axis=0), mixture, atol=1e-4)


@pytest.mark.parametrize("rate", [44_100, 48_000])
@pytest.mark.parametrize("first", [FIRST, NormalizedSegments(FIRST)])
def test_the_second_is_fitted_to_its_stem(first, rate):
    mixture = noise(2003)
    heard = []

    def record(window):
        heard.append(window)
        return 0.5 * window[None]

    second = NormalizedSegments(replace(segments(), outputs=("lead",), network=record))
    chain = chained(first, second, "drums", ("drums-lead", "drums-back"))
    assert isinstance(chain, FittedMethod)
    assert chain.stems == ("vocals", "drums-lead", "drums-back", "other")
    stems = whole(chain, mixture, rate)
    np.testing.assert_allclose(stems.sum(axis=0), mixture, atol=1e-4)
    if rate == 44_100:
        drums = whole(first, mixture)[1]
        mono = drums.mean(axis=0)
        np.testing.assert_allclose(heard[0], (drums[:, :LENGTH] - mono.mean()) / mono.std(ddof=1), atol=1e-4)


def test_a_first_that_is_fitted_needs_no_temporary_file(monkeypatch):
    monkeypatch.setattr(tempfile, "TemporaryFile", None)
    chain = chained(NormalizedSegments(FIRST), segments(), "drums", ("drums-lead", "drums-back"))
    mixture = noise(505)
    np.testing.assert_allclose(whole(chain, mixture).sum(axis=0), mixture, atol=1e-5)


@pytest.mark.slow
def test_what_was_kept_is_closed_with_the_separator():
    kept = Kept(FIRST.spec)
    kept.append(np.zeros((3, 2, 10), np.float32))
    file = kept._file
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del kept
        gc.collect()
    assert file.closed


def test_no_room_for_the_temporary_file_is_one_sentence(monkeypatch):
    class Full:
        def write(self, _data):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            pass

    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    chain = chained(FIRST, NormalizedSegments(segments()), "drums", ("drums-lead", "drums-back"))
    with pytest.raises(EncodeError, match="Cannot keep stems in .*: No space left"):
        chain.fit([noise(505)], 44_100)


def test_chains_can_be_chained_and_get_a_residual():
    mixture = noise(505)
    chain = chained(FIRST, segments(), "drums", ("kit", "room"))
    twice = chained(chain, segments(), "kit", ("kit-lead", "kit-back"))
    assert twice.spec.stems == ("vocals", "kit-lead", "kit-back", "room", "other")
    np.testing.assert_allclose(whole(twice, mixture).sum(axis=0), mixture, atol=1e-5)
    some = Chained(replace(FIRST, stems=("drums",)), segments(), Link("drums", ("kit", "room")))
    assert not some.spec.complete
    rest = whole(with_residual(some, "rest"), mixture)
    np.testing.assert_allclose(rest.sum(axis=0), mixture, atol=1e-5)


@pytest.mark.parametrize(
    "method",
    [
        chained(FIRST, segments(), "drums", ("kit", "room")),
        with_residual(replace(FIRST, stems=("vocals",)), "rest"),
        shifted(FIRST, 2, 0.001),
    ],
)
def test_memory_does_not_grow_with_the_stream(method):
    alive: list[weakref.ref] = []
    most = 0

    def blocks():
        nonlocal most
        for number in range(200):
            block = noise(LENGTH + number % 7)
            alive.append(weakref.ref(block))
            yield block
            most = max(most, sum(each() is not None for each in alive))

    for _ in separate_blocks(method, blocks()):
        pass
    assert len(alive) == 200
    assert most < 10


def test_silence_stays_silent():
    chain = chained(FIRST, NormalizedSegments(segments()), "drums", ("kit", "room"))
    assert not whole(chain, np.zeros((2, 505), np.float32)).any()


CNN = "binary-mask-cnn"
NAMES = ("vocals-vocals", "vocals-drums", "vocals-bass", "vocals-other", "drums", "bass", "other")


def test_names_of_a_chain():
    ref = ModelRef.of(SplitOptions(model=CNN, then={"vocals": CNN}))
    assert ref.stems == NAMES
    assert ref.output_stems(["other", "vocals-bass"]) == ("vocals-bass", "other")
    assert ModelRef.parse(CNN).then({"vocals": CNN, "vocals-bass": CNN}).stems[2:4] == (
        "vocals-bass-vocals",
        "vocals-bass-drums",
    )
    assert ref.fingerprint not in (
        ModelRef.parse(CNN).fingerprint,
        ModelRef.parse(CNN).then({"bass": CNN}).fingerprint,
    )


def test_the_settings_of_a_batch_tell_chains_apart():
    each = [BatchOptions.of(model=CNN, then=then).settings for then in ({}, {"bass": CNN}, {"drums": CNN})]
    assert len({repr(settings) for settings in each}) == 3


@pytest.mark.parametrize(
    ("then", "error", "said"),
    [
        ({"voice": CNN}, UnknownStem, "No stem called `voice` in"),
        ({"vocals": "nonsense"}, UnknownModel, "nonsense"),
    ],
)
def test_what_a_chain_cannot_be(then, error, said):
    with pytest.raises(error, match=said):
        ModelRef.parse(CNN).then(then)


def test_a_chain_excludes_two_stems_and_stem_files():
    with pytest.raises(UsageError, match="two_stems and then exclude each other"):
        SplitOptions(two_stems="bass", then={"bass": CNN})
    with pytest.raises(UsageError, match="two_stems and then exclude each other"):
        stemsplit.load_separator(two_stems="bass", then={"bass": CNN})


@pytest.fixture(scope="module")
def running():
    return RuntimeOptions(runtime="torch", device="cpu", precision="float32", threads=1, fast=True)


@pytest.fixture(scope="module")
def stems(music, running):
    options = {"model": CNN, **{name: getattr(running, name) for name in ("runtime", "device", "precision")}}
    return stemsplit.split(music, 44_100, threads=1, then={"vocals": CNN}, **options), options


@pytest.mark.slow
def test_the_api_takes_a_chain(stems, music):
    found, options = stems
    assert tuple(found) == NAMES
    np.testing.assert_allclose(sum(found.values()), music, atol=1e-4)
    separator = stemsplit.load_separator(then={"vocals": CNN}, threads=1, **options)
    again = np.concatenate(list(separate_blocks(separator, [music])), axis=-1)
    np.testing.assert_allclose(again, np.stack(list(found.values())), atol=1e-5)


def test_only_the_networks_of_requested_stems_run(running):
    ref = ModelRef.parse(CNN).then({"vocals": CNN})
    some = ref.load(running, stems=["vocals-bass", "other"])
    assert isinstance(some, Chained)
    assert some.first.spec.stems == ("vocals", "other")
    assert some.second.spec.stems == ("bass",)
    assert not isinstance(ref.load(running, stems=["bass"]), Chained)
