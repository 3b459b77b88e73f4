"""The parts of a practice track: joints, stretching in segments, the timeline, and the words for it."""

from __future__ import annotations

import tracemalloc
from importlib.util import find_spec

import numpy as np
import pytest

from stemsplit.analysis.beats import Beats
from stemsplit.analysis.sections import find_sections
from stemsplit.errors import UsageError
from stemsplit.practice import grid, options, stretch
from stemsplit.practice.clicks import SOUNDS, Metronome, sound
from stemsplit.practice.joints import Joint, correlation, crossfade, joined
from stemsplit.practice.onsets import onsets
from stemsplit.practice.options import Key, PracticeOptions
from stemsplit.practice.stretch import Passage
from stemsplit.practice.timeline import Click, rates, snapped, timeline

RATE = 8000
needs_stretch = pytest.mark.skipif(find_spec("python_stretch") is None, reason="needs python-stretch")


def sine(hz, start, stop, phase=0.0):
    return np.sin(2 * np.pi * hz * np.arange(start, stop) / RATE + phase)[np.newaxis].astype(np.float32)


def test_correlation_is_that_of_each_lag():
    random = np.random.default_rng(0)
    first, second = random.standard_normal((2, 100)), random.standard_normal((2, 130))
    second[:, 7:107] = 3 * first
    found = correlation(first, second)
    assert len(found) == 31
    assert found[7] == pytest.approx(1)
    part = second[:, 20:120]
    wanted = (first * part).sum() / np.sqrt((first**2).sum() * (part**2).sum())
    assert found[20] == pytest.approx(wanted)
    assert correlation(0 * first, 0 * second).min() == 1, "silence is like silence"


def test_a_crossfade_keeps_the_level_whatever_the_phases():
    same = sine(200, 0, 800)
    np.testing.assert_allclose(crossfade(same, same), same, atol=1e-6)
    noise = np.random.default_rng(0).standard_normal((2, 1, 80_000)).astype(np.float32)
    middle = crossfade(*noise)[0, 30_000:50_000]
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("frames", [500, 1000, 1099, 1100, 1101, 5000])
def test_segments_make_up_the_whole(frames):
    whole = np.random.default_rng(0).standard_normal((2, 6000)).astype(np.float32)
    asked = []

    def render(start, stop):
        asked.append(stop - start)
        assert stop <= frames + 20
        return whole[:, start + 20 : stop + 20]

    found = np.concatenate(list(joined(render, frames, Joint(1000, 100, 40, 20))), axis=1)
    np.testing.assert_allclose(found, whole[:, 20 : 20 + frames], atol=1e-6)
    assert max(asked) <= 1000 + 100 + 40


def test_segments_out_of_phase_are_brought_into_phase():
    phases = iter(np.linspace(0, 40, 20))
    found = np.concatenate(
        list(
            joined(
                lambda start, stop: sine(137, start, stop, next(phases)), 12_000, Joint(1500, 400, 200, 40)
            )
        ),
        axis=1,
    )
    assert found.shape == (1, 12_000)
    steps = np.abs(np.diff(found[0]))
    assert steps.max() < 1.03 * np.abs(np.diff(sine(137, 0, 1000)[0])).max()
    level = [np.abs(found[0, start : start + 100]).max() for start in range(0, 11_900, 50)]
    assert min(level) > 0.97


def read_from(samples):
    def read(start, stop):
        padded = np.pad(samples, ((0, 0), (max(0, -start), max(0, stop - samples.shape[1]))))
        return padded[:, start + max(0, -start) : stop + max(0, -start)]

    return read


@needs_stretch
@pytest.mark.parametrize(("rate", "hz"), [(0.8, 440.0), (0.4, 440.0), (1.3, 1000.0)])
def test_a_sine_has_no_dip_where_segments_meet(monkeypatch, rate, hz):
    monkeypatch.setattr(stretch, "SEGMENT_SECONDS", 2.0)
    monkeypatch.setattr(stretch, "OVERLAP_SECONDS", 0.5)
    tone = sine(hz, 0, 8 * RATE)
    passage = Passage(0, rate, round(8 * RATE / rate))
    found = np.concatenate(list(stretch.stretched(read_from(tone), passage, RATE)), axis=1)
    assert found.shape == (1, passage.frames)
    inner = found[0, RATE // 2 : -RATE // 2]
    level = np.array([np.abs(inner[start : start + 200]).max() for start in range(0, len(inner) - 200, 100)])
    assert 20 * np.log10(level.max() / level.min()) < 0.6
    assert np.abs(np.diff(inner)).max() < 1.03 * 2 * np.sin(np.pi * hz / RATE)


@needs_stretch
@pytest.mark.parametrize("rate", [0.3, 0.5, 0.8, 1.7])
def test_the_same_input_gives_the_same_output(rate):
    noise = np.random.default_rng(0).standard_normal((2, RATE)).astype(np.float32)
    passage = Passage(0.0, rate, round(RATE / rate))
    for function in (stretch.stretched, stretch.stretched_drums):
        first, second = (
            np.concatenate(list(function(read_from(noise), passage, RATE)), axis=1) for _ in "ab"
        )
        assert first.shape == (2, passage.frames)
        np.testing.assert_array_equal(first, second)


@needs_stretch
@pytest.mark.parametrize("semitones", [-12, -0.5, 3, 12])
def test_transposing_keeps_the_length_and_the_time(semitones):
    burst = np.zeros((1, 4 * RATE), np.float32)
    burst[:, 2 * RATE : 2 * RATE + 1600] = sine(500, 0, 1600) * np.hanning(1600).astype(np.float32)
    found = np.concatenate(
        list(stretch.transposed(read_from(burst), Passage(0, 1.0, 4 * RATE), RATE, semitones)), axis=1
    )
    assert found.shape == burst.shape
    energy = np.square(found[0], dtype=np.float64)
    assert (energy * np.arange(len(energy))).sum() / energy.sum() == pytest.approx(2 * RATE + 800, abs=80)
    spectrum = np.abs(np.fft.rfft(found[0], 1 << 18))
    assert spectrum.argmax() * RATE / (1 << 18) == pytest.approx(500 * 2 ** (semitones / 12), rel=0.01)


@pytest.mark.slow
@needs_stretch
def test_memory_does_not_grow_with_the_length(monkeypatch):
    monkeypatch.setattr(stretch, "SEGMENT_SECONDS", 2.0)
    monkeypatch.setattr(stretch, "OVERLAP_SECONDS", 0.5)
    noise = np.random.default_rng(0).standard_normal((1, RATE)).astype(np.float32)
    peaks = []
    for seconds in (6, 12):
        tracemalloc.start()
        frames = 0
        passage = Passage(0.0, 0.8, round(seconds * RATE / 0.8))
        read = lambda start, stop: np.take(noise, np.arange(start, stop), axis=1, mode="wrap")  # noqa: E731
        for function in (stretch.stretched, stretch.stretched_drums):
            frames += sum(block.shape[1] for block in function(read, passage, RATE))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert frames == 2 * passage.frames
    assert peaks[1] < 1.1 * peaks[0]


@pytest.mark.slow
def test_the_sections_of_hours_are_found_in_bounded_memory():
    """Beats of a practice track come from an analysis that finds sections, too."""
    random = np.random.default_rng(0)
    parts = random.standard_normal((2, 40, 12))  # of 40 beats each
    features = np.concatenate([parts[index // 15 % 2] for index in range(180)])
    tracemalloc.start()
    starts, letters = find_sections(features)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300e6
    assert len(starts) == len(letters)
    for change in range(0, 7200, 600):
        assert np.abs(np.array(starts) - change).min() <= 15


def test_onsets_are_where_drums_are_struck():
    rate = 44_100
    drums = np.zeros(4 * rate, np.float32)
    times = [0.3, 0.8, 1.05, 1.3, 2.0, 2.11, 3.1]
    random = np.random.default_rng(0)
    for time in times:
        decay = np.exp(-np.arange(rate // 4) / (0.03 * rate))
        drums[round(time * rate) :][: rate // 4] += 0.3 * decay * random.standard_normal(rate // 4)
    found = onsets(drums[np.newaxis], rate) / rate
    for time in times:
        assert np.abs(found - time).min() < 0.006
    assert len(found) < 2 * len(times)
    assert not len(onsets(np.zeros((2, rate), np.float32), rate))
    assert not len(onsets(np.zeros((2, 10), np.float32), rate))


def test_a_ramp_has_equal_steps():
    assert rates(1.0, (0.7, 1.0), 4) == pytest.approx([0.7, 0.8, 0.9, 1.0])
    assert rates(0.5, (0.5, 1.0), 2) == pytest.approx([0.25, 0.5])
    assert rates(0.8, None, 3) == [0.8, 0.8, 0.8]


def clicks_of(plan):
    return [(click.frame, click.number) for click in plan.clicks]


def test_a_count_in_ends_where_the_next_beat_is_the_first_of_the_music():
    beats = Beats.from_bpm(60, 0.0, 60.0, 4)
    plan = timeline((8 * RATE, 10 * RATE), [0.5], RATE, beats, 1)
    assert plan.lead == 8 * RATE, "4 beats at half the tempo"
    assert plan.frames == 12 * RATE
    numbers = [1, 2, 3, 4, 1, 2]
    assert clicks_of(plan) == [(2 * RATE * index, number) for index, number in enumerate(numbers)]
    assert [click.counts_in for click in plan.clicks] == [True] * 4 + [False] * 2


def test_a_loop_within_a_bar_is_counted_from_the_bar_before():
    beats = Beats.from_bpm(60, 0.0, 60.0, 4)
    plan = timeline((6 * RATE, 10 * RATE), [1.0], RATE, beats, 1)
    assert clicks_of(plan) == [(RATE * index, index % 4 + 1) for index in range(10)]
    assert plan.lead == 6 * RATE


def test_an_upbeat_begins_within_the_count():
    beats = Beats.from_bpm(60, 0.0, 60.0, 4)
    plan = timeline((round(7.5 * RATE), 10 * RATE), [1.0], RATE, beats, 1)
    assert plan.lead == round(3.5 * RATE)
    assert clicks_of(plan) == [(RATE * index, index % 4 + 1) for index in range(6)]
    assert [click.counts_in for click in plan.clicks] == [True] * 4 + [False] * 2


def test_music_before_the_first_beat_is_counted_from_its_own_start():
    beats = Beats.from_bpm(60, 5.25, 60.0)
    plan = timeline((0, 8 * RATE), [1.0], RATE, beats, 1)
    assert plan.lead == round((4 + 3 - 0.25) * RATE)
    assert plan.clicks[-1].frame == plan.lead + round(7.25 * RATE)
    with pytest.raises(UsageError, match="no beat in the loop"):
        timeline((0, 2 * RATE), [1.0], RATE, beats, 1)


def test_a_beat_at_the_end_of_a_loop_is_that_of_the_next_pass():
    beats = Beats.from_bpm(120, 0.0, 60.0)
    plan = timeline((RATE, 2 * RATE), [1.0, 0.5], RATE, beats, 0)
    assert clicks_of(plan) == [(0, None), (RATE // 2, None), (RATE, None), (2 * RATE, None)]
    assert [each.start for each in plan.passes] == [0, RATE]
    assert plan.frames == 3 * RATE


def test_a_loop_snaps_to_beats():
    beats = Beats.from_bpm(120, 0.1, 10.0)
    assert snapped((0.97, 3.3), beats) == pytest.approx((1.1, 3.1))


def test_a_given_tempo_is_where_the_tracked_beats_are():
    tracked = Beats(np.array([0.31, 0.80, 1.29, 1.81, 2.30]), None, 0, 121, 0.5)
    found = grid.grid(PracticeOptions(bpm=120), tracked, 0.0, 4.0)
    assert found.times_seconds[0] == pytest.approx(0.302, abs=0.01)
    assert len(found.times_seconds) == 8
    given = grid.grid(PracticeOptions(bpm=120, first_beat=11.5, meter=4), None, 10.0, 4.0)
    assert given.times_seconds[0] == pytest.approx(1.5)
    from_loop = grid.grid(PracticeOptions(bpm=120, meter=4, loop=(10.7, 14.0)), None, 10.0, 4.0)
    np.testing.assert_allclose(from_loop.times_seconds[from_loop.downbeats], [0.7, 2.7])
    early = grid.grid(PracticeOptions(bpm=120, first_beat=1.0, meter=4, loop=(12.0, 14.0)), None, 10.0, 4.0)
    assert early.times_seconds[0] == pytest.approx(1.0), "bars go on from the first one"


def test_bars_begin_with_the_loop():
    tracked = Beats(np.arange(20) * 0.5, None, 0, 120, 0.9)
    found = grid.grid(PracticeOptions(meter=3, loop=(14.02, 16.0)), tracked, 10.0, 10.0)
    assert [found.number(index) for index in range(8, 12)] == [1, 2, 3, 1]


@pytest.mark.parametrize("name", SOUNDS)
def test_a_click_begins_on_its_frame_in_any_block(name):
    clicks = [Click(100, 1), Click(5000, 2)]
    silence = np.zeros((2, 9000), np.float32)
    whole = Metronome(clicks, name, -6.0, RATE).added(silence, 0)
    assert np.flatnonzero(whole[0])[0] == 101, "a sine begins with 0"
    assert np.abs(whole[:, :4000]).max() == pytest.approx(10 ** (-6 / 20))
    accent, plain = (sound(name, RATE, accented=accented) for accented in (True, False))
    np.testing.assert_allclose(whole[1, 100 : 100 + len(accent)] * 10 ** (6 / 20), accent, atol=1e-6)
    np.testing.assert_allclose(whole[1, 5000 : 5000 + len(plain)] * 10 ** (6 / 20), plain, atol=1e-6)
    metronome = Metronome(clicks, name, -6.0, RATE)
    blocks = [metronome.added(silence[:, start : start + 77], start) for start in range(0, 9000, 77)]
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), whole)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("Am", Key(9, True)),
        ("F#", Key(6, False)),
        ("eb minor", Key(3, True)),
        ("C major", Key(0, False)),
        ("B♭maj", Key(10, False)),
        ("Cb", Key(11, False)),
        ("c# min", Key(1, True)),
    ],
)
def test_keys(text, key):
    assert options.parse_key(text) == key


@pytest.mark.parametrize(
    ("song", "wanted", "semitones"),
    [("C", "D", 2), ("C", "Bb", -2), ("Am", "Gm", -2), ("C", "Am", 0), ("Em", "C", 5), ("C", "F#", 6)],
)
def test_a_song_is_moved_the_shortest_way_to_the_notes_of_a_key(song, wanted, semitones):
    assert options.parse_key(song).semitones_to(options.parse_key(wanted)) == semitones


def test_words_for_tempo_key_and_loop():
    assert options.parse_tempo("80%") == (0.8, None)
    assert options.parse_tempo("96 BPM") == (None, 96)
    assert options.parse_ramp("70%-100%") == (0.7, 1.0)
    assert options.parse_ramp("70-100%") == (0.7, 1.0)
    assert options.parse_shift("-2") == (-2, None)
    assert options.parse_shift("+1.5") == (1.5, None)
    assert options.parse_shift("Am") == (0, Key(9, True))
    assert options.parse_loop("1:02-1:30.5") == (62, 90.5)
    assert options.parse_loop("62-90") == (62, 90)
    assert options.parse_loop("1:00:02-1:00:30") == (3602, 3630)
    assert options.parse_loop("1:02-") == (62, None)
    assert options.clock(90.5) == "1:30.500"
