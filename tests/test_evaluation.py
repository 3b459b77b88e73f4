from __future__ import annotations

import csv
import inspect
import json
import math
import re
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
from typer.testing import CliRunner

from stemsplit import plots, spatial
from stemsplit.audio.reader import Signal
from stemsplit.audio.writer import Writer
from stemsplit.cli import app
from stemsplit.cli.evaluate import command
from stemsplit.datasets.songs import Song
from stemsplit.dsp import masks
from stemsplit.dsp.features import magnitude
from stemsplit.dsp.stft import Stft
from stemsplit.errors import EncodeError, StemsplitError, TooFewPositions, UsageError
from stemsplit.evaluation import evaluate as evaluation
from stemsplit.evaluation import tables
from stemsplit.evaluation.bsseval import MEASURES, Pool, bss_eval
from stemsplit.evaluation.comparison import Comparison
from stemsplit.evaluation.evaluate import EvaluationPlan, SongScores
from stemsplit.evaluation.metrics import count_bins
from stemsplit.evaluation.oracles import all_oracles
from stemsplit.evaluation.shared_network import separate_by_rules
from stemsplit.options import RuntimeOptions
from stemsplit.separation.stream import separate_blocks
from stemsplit.zoo import store
from stemsplit.zoo.variants import Trained
from tests.conftest import SAMPLE_RATE, STEMS, mask_separator, whole

pytestmark = pytest.mark.slow


@pytest.fixture
def song():
    """One second of a different noise each, at another place in the stereo image, and no other parts."""
    rng = np.random.default_rng(440)
    angles = np.linspace(0.1, 1.4, len(STEMS))
    gains = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    parts = 0.1 * gains[:, :, None] * rng.standard_normal((len(STEMS), 1, SAMPLE_RATE))
    return Song("noises", np.pad(parts, ((0, 1), (0, 0), (0, 0))).astype(np.float32), (True,) * 4)


@pytest.fixture
def separators():
    """Three rules of one network, of which one hears further."""
    soft = mask_separator("soft")
    binary = replace(soft, rule=partial(masks.binary, complete=True))
    return {
        "soft": soft,
        "wiener": replace(soft, plan=replace(soft.plan, wiener_context_frames=8)),
        "binary": binary,
    }


def median_sdr(song, estimates):
    scores = evaluation.score_stems(song, estimates, STEMS)
    return np.median([scores[stem]["sdr_db"] for stem in STEMS])


def test_oracles_beat_what_they_must(song):
    ideal = {name: median_sdr(song, oracle(song)) for name, oracle in all_oracles(Stft(), 513, 0.5).items()}
    mixture = median_sdr(song, evaluation.unprocessed(song))
    assert mixture < 0
    assert ideal["ideal wiener"] > ideal["ideal ratio"] > ideal["ideal binary"] > mixture + 3
    assert median_sdr(song, song.parts[:4]) == np.inf


def test_the_ideal_wiener_filter_takes_nothing_away(song):
    stems = all_oracles(Stft(), 513, 0.5)["ideal wiener"](song)
    np.testing.assert_allclose(stems.sum(axis=0), song.mixture, atol=1e-4)


def test_the_ideal_wiener_filter_tells_two_directions_apart(song):
    # Two sources in two channels, each at a point: an inverse exists, and it is found.
    song.parts[2:] = 0
    vocals = all_oracles(Stft(), 513, 0.5)["ideal wiener"](song)[0]
    assert evaluation.sdr(song.parts[0], vocals) > 30


def test_the_ideal_wiener_filter_stands_silence_and_mono(song):
    wiener = all_oracles(Stft(), 513, 0.5)["ideal wiener"]
    song.parts[:, 1] = song.parts[:, 0]
    assert median_sdr(song, wiener(song)) > 0
    assert not wiener(Song("", 0 * song.parts, song.known)).any()


def test_the_network_runs_once_whatever_the_masks(song, separators):
    asked = []

    def network(features):
        asked.append(len(features))
        return separators["soft"].network(features)

    counted = {name: replace(separator, network=network) for name, separator in separators.items()}
    estimates, _ = separate_by_rules(counted, song)
    assert len(asked) == 1
    for name, separator in separators.items():
        np.testing.assert_allclose(estimates[name], whole(separator, song.mixture), atol=1e-5)


def test_probabilities_are_those_of_the_frames_that_lie_in_the_song(song, separators, monkeypatch):
    monkeypatch.setitem(separate_blocks.__kwdefaults__, "segment_seconds", 0.3)
    separator = separators["soft"]
    _, found = separate_by_rules(separators, song)
    mixture = separator.stft.transform(song.mixture)
    inside = separator.probabilities(mixture)[:, 0]
    reach = separator.plan.context
    assert found.shape[1] == mixture.shape[1]
    np.testing.assert_allclose(found[:, reach:-reach], inside, atol=1e-5)


def test_masks_are_scored_against_the_binary_mask(song):
    separator = mask_separator()
    _, probabilities = separate_by_rules({"soft": separator}, song)
    counts = evaluation.score_bins(song, separator, probabilities, 0.5)
    assert list(counts) == list(STEMS)
    for stem in STEMS:  # networks that no one trained
        assert counts[stem].scores()["balanced_accuracy"] == pytest.approx(0.5, abs=0.1)
    parts = magnitude(separator.stft.transform(song.parts)[..., : separator.bins])
    mixture = magnitude(separator.stft.transform(song.mixture)[..., : separator.bins])
    perfect = (parts[:4] > 0.5 * mixture).astype(np.float32)
    assert all(
        counts.scores()["accuracy"] == 1 and counts.scores()["mse"] == 0
        for counts in evaluation.score_bins(song, separator, perfect, 0.5).values()
    )


def test_silent_stems_have_bins_but_no_ratio_and_unknown_ones_have_neither(song):
    song.parts[1] = 0
    song = replace(song, known=(True, True, False, True))
    separator = mask_separator()
    found = EvaluationPlan("model", STEMS, {"soft": separator}, {}, 0.5).measure("test", song)
    assert list(found.systems) == ["soft", "mixture", "bins"]
    assert all(list(scores) == ["vocals", "other"] for scores in found.systems.values())
    assert list(found.bins) == ["vocals", "drums", "other"]
    assert found.bins["drums"].inside == 0


def test_medians_are_over_the_songs_that_have_the_stem():
    each = [
        {"bass": {"sdr_db": 1.0}},
        {"bass": {"sdr_db": 5.0}, "drums": {"sdr_db": 2.0}},
        {"bass": {"sdr_db": math.nan}},
    ]
    assert evaluation.summarise(each, np.median) == {"bass": {"sdr_db": 3.0}, "drums": {"sdr_db": 2.0}}


def song_scores(split, name, value, wrong, bins):
    """Scores of a song one stem of which has so many wrong bins."""
    systems = {"soft": {"bass": {"sdr_db": value, "si_sdr_db": 1.0}}, "mixture": {"bass": {"sdr_db": -9.0}}}
    found = (np.arange(bins)[:, None] < wrong).astype(np.float32)
    return SongScores(split, name, systems, {"bass": count_bins(found, np.zeros((bins, 1), bool))})


def test_pooled_bins_count_alike_in_short_songs_and_in_long():
    songs = [song_scores("test", "short", 1, 5, 10), song_scores("test", "long", 2, 0, 90)]
    assert evaluation.pooled(songs)["bass"]["accuracy"] == pytest.approx(0.95)


def test_bss_eval_in_processes_is_bss_eval(song):
    rng = np.random.default_rng(1)
    references = song.parts[:2, :1, :12_000]
    scores = []
    with Pool(1, 4_000) as pool:
        for loudness in (0.01, 0.02, 0.03, 0.04):
            estimates = references + loudness * rng.standard_normal(references.shape)
            expected = bss_eval(["vocals", "drums"], references, estimates, 4_000)
            scores.append(({"vocals": {"sdr_db": 1.0}, "drums": {"sdr_db": 2.0}}, expected))
            pool.measure(scores[-1][0], references, estimates)
    for found, expected in scores:
        assert [*found["vocals"]] == ["sdr_db", *MEASURES]
        for stem in found:
            assert {**found[stem], **expected[stem]} == pytest.approx(found[stem])


def test_a_song_without_stems_to_measure_asks_bss_eval_nothing(song):
    silent = Song("silence", 0 * song.parts, song.known)
    found = EvaluationPlan("model", STEMS, {"soft": mask_separator()}, {}, 0.5).measure(
        "test", silent, pool=NoPool()
    )
    assert found.systems == {"soft": {}, "mixture": {}, "bins": {}}


class NoPool:
    def measure(self, *_):
        raise AssertionError


def test_a_csv_has_a_row_for_each_song_system_and_stem(tmp_path):
    songs = [song_scores("test", "one, two", 1.5, 0, 9), song_scores("valid", "three", math.nan, 0, 9)]
    tables.write_csv(tmp_path / "scores.csv", songs)
    with (tmp_path / "scores.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [*rows[0]] == ["song", "split", "system", "stem", "sdr_db", "si_sdr_db"]
    assert [*rows[0].values()] == ["one, two", "test", "soft", "bass", "1.5", "1.0"]
    assert [*rows[2].values()] == ["three", "valid", "soft", "bass", "", "1.0"]
    assert len(rows) == 4


def test_what_cannot_be_written_is_the_user_s_error(tmp_path):
    with pytest.raises(EncodeError, match="Is a directory"):
        tables.write_csv(tmp_path, [])
    with pytest.raises(EncodeError, match="strange"):
        plots.box_plot(tmp_path / "a.strange", {"soft": {"bass": [1.0]}}, groups=["bass"], title="", label="")


def test_a_song_without_width_is_mono(song):
    mono, half = song.with_width(0), song.with_width(0.5)
    np.testing.assert_array_equal(mono.parts[:, 0], mono.parts[:, 1])
    np.testing.assert_allclose(mono.mixture.mean(axis=0), song.mixture.mean(axis=0), atol=1e-6)
    sides = [np.subtract(*each.parts.swapaxes(0, 1)) for each in (half, song)]
    np.testing.assert_allclose(2 * sides[0], sides[1], atol=1e-6)
    assert song.with_width(1) is song


def test_a_box_plot_has_boxes_for_systems_whose_stems_lack_values(tmp_path):
    values = {"soft": {"bass": [1.0, 2.0, math.nan]}, "mixture": {"bass": [0.0], "drums": [-math.inf, 1.0]}}
    plots.box_plot(tmp_path / "a.png", values, groups=["bass", "drums"], title="Boxes", label="SDR, dB")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("stemsplit.plots.find_spec", lambda name: None)
    with pytest.raises(StemsplitError, match="matplotlib") as caught:
        plots.check()
    assert "pip install 'stemsplit-audio[plot]'" in caught.value.hint


@pytest.fixture
def data(tmp_path, music):
    """A song without vocals whose bass no one could tell from the rest, and a silent one."""
    for split in ("train", "valid"):
        for song, gain in (("song", 0.5), ("silence", 0.0)):
            for name, part in (("drums", music), ("other_and_bass", music[::-1])):
                path = tmp_path / "data" / split / song / f"{name}.wav"
                with Writer(path, Signal(SAMPLE_RATE, 2)) as writer:
                    writer.write(gain * part[:, :30_000])
    return tmp_path / "data"


def evaluate(*words):
    return CliRunner().invoke(app, ["evaluate", *map(str, words)])


def test_evaluate_shows_the_model_the_mixture_and_the_oracles(data):
    run = evaluate("--data", data, "--split", "valid")
    assert run.exit_code == 0, run.output
    assert "median (mean) over 2 songs of valid" in run.stdout
    sdr = run.stdout.partition("SI-SDR")[0].splitlines()[2:]
    names = ["wiener", "mixture", "ideal binary", "ideal ratio", "ideal wiener"]
    assert [line[:13].strip() for line in sdr] == names
    assert all(line[13:].split()[0] == "-" and line[13:].split()[1] != "-" for line in sdr)


def test_evaluate_measures_what_is_asked_for(data, tmp_path):
    words = [
        "--mask",
        "binary",
        "--mask",
        "soft",
        "--baseline",
        "none",
        "--oracle",
        "none",
        "--plot",
        tmp_path / "a.png",
    ]
    run = evaluate("--data", data, "--split", "valid", "--split", "train", "--json", "-", *words)
    assert run.exit_code == 0, run.output
    (line,) = run.stdout.splitlines()
    facts = json.loads(line)
    assert list(facts["splits"]) == ["valid", "train"]
    valid = facts["splits"]["valid"]
    assert [each["song"] for each in valid["each"]] == ["silence", "song"]
    assert list(valid["median"]) == list(valid["mean"]) == ["binary", "soft", "bins"]
    assert valid["median"]["soft"]["drums"] == pytest.approx(valid["each"][1]["scores"]["soft"]["drums"])
    # Of vocals and drums all bins count, those of silent songs too.
    assert list(valid["pooled_bins"]) == ["vocals", "drums"]
    assert (tmp_path / "a.png").exists()


def test_evaluate_with_museval_puts_null_where_there_is_no_ratio(data, tmp_path):
    out = tmp_path / "scores.json"
    run = evaluate(
        "--data", data, "--split", "valid", "--museval", "--jobs", "1", "--oracle", "none", "--json", out
    )
    assert run.exit_code == 0, run.output
    scores = json.loads(out.read_text())["splits"]["valid"]["each"][1]["scores"]["wiener"]["drums"]
    assert scores["museval_sdr_db"] == pytest.approx(scores["sdr_db"], abs=0.01)  # the song is one window
    assert scores["museval_sir_db"] is None  # of one stem alone
    assert "SDR, BSSEval v4" in run.stdout


def test_evaluate_measures_songs_as_mono(data, tmp_path):
    model = tmp_path / "mine.safetensors"
    model.write_bytes(store.find("binary-mask-cnn").read_bytes())
    words = ["--split", "valid", "--model", model, "--oracle", "none", "--json", "-"]
    stereo, mono = (
        json.loads(evaluate("--data", data, *words, "--width", width, "--keep").stdout)["splits"]
        for width in (1, 0)
    )
    assert (list(stereo), list(mono)) == (["valid"], ["valid, mono"])
    estimated = [split["median"]["soft"]["drums"]["sdr_db"] for split in (*stereo.values(), *mono.values())]
    assert estimated[0] != estimated[1]
    assert {"valid", "valid, mono"} <= store.read_card(model).scores.keys()
    assert "of the `valid` split (mono)" in model.with_suffix(".md").read_text()


def test_evaluate_computes_in_float32_on_every_machine():
    assert inspect.signature(command).parameters["precision"].default == "float32"


def test_evaluate_puts_the_paper_s_figures_beside_ours(data):
    run = evaluate("--data", data, "--paper", "--oracle", "none")
    assert run.exit_code == 0, run.output
    table = run.stdout.partition("All bins of a split together")[2]
    assert "T = 0.5" in table
    (drums,) = [line for line in table.splitlines() if line.startswith("valid: drums")]
    accuracy, paper, mse, paper_mse, base_rate, _balanced = drums.split()[2:]
    assert (paper, paper_mse) == ("0.685", "0.203")
    assert 0 < float(mse) < 1
    assert float(accuracy) > 0.5
    assert float(base_rate) >= 0.5  # silent songs, half of all bins, count
    assert [line[:13] for line in table.splitlines() if ":" in line[:7]][0] == "train: vocals"


@pytest.mark.parametrize("option", ["--json", "--csv", "--plot"])
def test_evaluate_refuses_a_missing_folder_before_the_work(data, tmp_path, option):
    run = evaluate("--data", data, "--split", "valid", option, tmp_path / "gone" / "file.png")
    assert run.exit_code == 1
    assert "gone" in run.stderr
    assert "[1/2]" not in run.stderr


def test_evaluate_measures_the_mean_of_models(data):
    both = "binary-mask-cnn+mmdensenet-small"
    options = "--data", data, "--split", "valid", "--model", both, "--oracle", "none"
    run = evaluate(*options, "--json", "-")
    assert run.exit_code == 0, run.output
    facts = json.loads(run.stdout)
    assert facts["model"] == both
    assert set(facts["splits"]["valid"]["median"]) == {"mean", "mixture"}
    assert "leave out --keep" in evaluate(*options, "--keep").output


def test_evaluate_compares_models_in_one_table(data, tmp_path):
    models = "--model", "binary-mask-cnn", "--model", "mmdensenet-small"
    options = ["--data", data, "--split", "valid", "--oracle", "irm"]
    table, plot = tmp_path / "scores.csv", tmp_path / "a.png"
    run = evaluate(*options, *models, "--csv", table, "--plot", plot, "--json", tmp_path / "a.json")
    assert run.exit_code == 0, run.output
    facts = json.loads((tmp_path / "a.json").read_text())
    assert facts["model"] == "binary-mask-cnn and mmdensenet-small"
    found = facts["splits"]["valid"]["median"]
    both = [f"{name} (soft)" for name in ("binary-mask-cnn", "mmdensenet-small")]
    assert list(found) == [*both, "mixture", "ideal ratio"]
    shown = run.stdout.partition("SI-SDR")[0]
    for name, model in zip(both, models[1::2], strict=True):
        alone = json.loads(evaluate(*options, "--model", model, "--mask", "soft", "--json", "-").stdout)
        score = alone["splits"]["valid"]["median"]["soft"]["drums"]["sdr_db"]
        assert found[name]["drums"]["sdr_db"] == pytest.approx(score, abs=1e-4)
        assert re.search(rf"{re.escape(name)} +- +{score:.2f} ", shown)
    systems = {row["system"] for row in csv.DictReader(table.open(encoding="utf-8"))}
    assert systems == set(found)
    assert plot.exists()


@pytest.mark.parametrize("option", ["--keep", "--paper"])
def test_evaluate_compares_without_options_for_one_model(data, option):
    run = evaluate("--data", data, "-m", "binary-mask-cnn", "-m", "mmdensenet-small", option)
    assert run.exit_code == 2
    assert "one --model" in run.stderr


def test_models_with_different_stems_are_not_compared():
    model = Trained.find("binary-mask-cnn")
    other = replace(model, card=replace(model.card, name="b", stems=("vocals",), combination=()))
    with pytest.raises(UsageError, match="and b have different stems"):
        Comparison.of([model, other], RuntimeOptions())


def test_evaluate_keeps_the_medians_in_the_card(data, tmp_path):
    model = tmp_path / "mine.safetensors"
    model.write_bytes(store.find("binary-mask-cnn").read_bytes())
    before = store.read_card(model).scores
    run = evaluate(
        "--data", data, "--split", "valid", "--model", model, "--keep", "--oracle", "mwf", "--json", "-"
    )
    assert run.exit_code == 0, run.output
    kept = store.read_card(model).scores
    assert kept["test"] == before["test"]
    assert kept["valid"] == {"songs": 2, **json.loads(run.stdout)["splits"]["valid"]["median"]}
    page = model.with_suffix(".md").read_text()
    assert "ideal multichannel Wiener filter" in page
    assert "ideal ratio mask" not in page.partition("## Scores: valid")[2].partition("\n## ")[0]


def test_sources_without_names_go_to_the_stems_that_they_are_nearest_to(song):
    found = song.parts[[2, 0, 3, 1]] + np.float32(0.1) * song.parts[[1, 2, 0, 3]]
    np.testing.assert_array_equal(evaluation.assigned(song, found), found[[1, 3, 0, 2]])
    few = found[:2]
    np.testing.assert_array_equal(evaluation.assigned(song, few)[[0, 2]], few[[1, 0]])
    song.parts[3] = 0
    np.testing.assert_array_equal(evaluation.assigned(song, found)[:3], found[[1, 3, 0]])


@pytest.mark.parametrize("method", ["adress", "ica"])
def test_a_method_that_is_fitted_to_each_song_is_measured_at_its_best(song, method):
    found = EvaluationPlan("model", STEMS, {"spatial": spatial.build(method)}, {}, 0.5, blind=True).measure(
        "test", song
    )
    assert list(found.systems) == ["spatial", "mixture"]
    for name in STEMS:
        assert found.systems["spatial"][name]["sdr_db"] > found.systems["mixture"][name]["sdr_db"]


@dataclass(frozen=True)
class TellsTwoApart:
    sources: int = 4

    @property
    def stems(self):
        return spatial.names(self.sources)

    def fit(self, mixture, sample_rate):
        if self.sources > 2:
            raise TooFewPositions(2, "two", "choose 2 sources")
        return spatial.build("ica").fit(mixture, sample_rate)


def test_of_a_song_with_few_positions_a_method_is_asked_for_few(song):
    assert evaluation.sources(TellsTwoApart(), song).shape == (2, *song.mixture.shape)
    mono = replace(song, parts=np.repeat(song.parts[:, :1], 2, axis=1))
    for method in ("adress", "duet"):
        np.testing.assert_array_equal(evaluation.sources(spatial.build(method), mono), mono.mixture[None])
    scores = (
        EvaluationPlan("model", STEMS, {"spatial": spatial.build("adress")}, {}, 0.5, blind=True)
        .measure("test", mono)
        .systems
    )
    assert scores["spatial"] == scores["mixture"]
