from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from stemsplit.audio.reader import Signal
from stemsplit.audio.writer import Writer
from stemsplit.datasets.songs import Song, find_songs
from stemsplit.dsp import masks
from stemsplit.evaluation.metrics import sdr
from stemsplit.training import calibration
from stemsplit.zoo import page, store
from tests.conftest import SAMPLE_RATE, mask_separator, whole


@pytest.fixture
def song():
    """Four noises, each louder than the others for a second in turn."""
    rng = np.random.default_rng(440)
    parts = 0.02 * rng.standard_normal((5, 2, 4 * SAMPLE_RATE)).astype(np.float32)
    for stem in range(4):
        parts[stem, :, stem * SAMPLE_RATE : (stem + 1) * SAMPLE_RATE] *= 5
    parts[4] = 0
    return Song("song", parts, (True,) * 4)


@pytest.mark.slow
def test_a_network_that_says_yes_too_often_is_corrected(song):
    """The networks hear which stem is the loud one, but the first one claims everything else too."""
    reach = mask_separator().plan.context

    def network(features):
        frames = np.arange(features.shape[1] - 2 * reach) - 3  # that begin before the song and end in it
        loud = (frames * 512 + 1024) // SAMPLE_RATE
        probabilities = np.where(loud == np.arange(4)[:, None], 0.9, 0.3)
        probabilities[0] = np.where(loud == 0, 0.98, 0.9)
        return np.repeat(probabilities[:, None, :, None], 513, axis=3).astype(np.float32)

    separator = replace(mask_separator(), network=network)
    rows = calibration.fit(separator, [song])
    rule = partial(masks.matrix_scaled_softmax, scaling=np.array(rows, np.float32))
    fitted = whole(replace(separator, rule=rule), song.mixture)
    plain = whole(separator, song.mixture)
    for stem in range(4):
        assert sdr(song.parts[stem], fitted[stem]) > sdr(song.parts[stem], plain[stem]) + 1


def write_songs(folder, parts):
    for name, part in parts.items():
        with Writer(folder / "valid" / "song" / f"{name}.wav", Signal(SAMPLE_RATE, 2)) as writer:
            writer.write(part)


@pytest.mark.slow
def test_a_model_is_complete_if_songs_hold_nothing_else(song, tmp_path):
    shipped = store.read_card("binary-mask-cnn")
    card = replace(shipped, stems=("vocals", "drums"), complete=False, combination=(), scores={})
    model = tmp_path / "mine.safetensors"
    page.save(model, card, store.load("binary-mask-cnn", card.stems))

    def songs_of(folder):
        sources = find_songs([str(tmp_path / folder)], "valid", card.stems)
        return [source.load(SAMPLE_RATE) for source in sources]

    write_songs(tmp_path / "two", {"vocals": song.parts[0], "drums": song.parts[1]})
    write_songs(tmp_path / "three", {"vocals": song.parts[0], "drums": song.parts[1], "flute": song.parts[2]})
    calibration.calibrate(model, songs_of("three"), device="cpu")
    assert store.read_card(model) == card
    calibration.calibrate(model, songs_of("two"), device="cpu")
    found = store.read_card(model)
    assert found.complete
    assert [len(row) for row in found.combination] == [3, 3]
    assert "### Calibrated masks" in model.with_suffix(".md").read_text(encoding="utf-8")
