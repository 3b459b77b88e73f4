from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn, get_args, get_type_hints

import jsonschema
import numpy as np
import pytest
import soundfile
import typer
from typer.testing import CliRunner

import stemsplit
from stemsplit.batch.plan import BatchOptions
from stemsplit.batch.runner import BatchRunner
from stemsplit.cli import VERBS, app, console, split
from stemsplit.cli.bars import Bars
from stemsplit.defaults import DEFAULT_MODEL
from stemsplit.errors import EncodeError, StemsplitError, UnknownModel
from stemsplit.missing import no_stem
from stemsplit.options import OutputOptions, SplitOptions
from stemsplit.separation.separator import Spec
from stemsplit.zoo import loading
from stemsplit.zoo.card import MASKS
from stemsplit.zoo.ref import ModelRef
from tests.conftest import events

STEMS = ("vocals", "drums", "bass", "other")


class Pipeline(SimpleNamespace):
    """Stands in for the real one: notes what it is asked for, and writes empty stems."""

    def parse(self, model, sources, azimuths):
        if model == "nothing":
            raise UnknownModel("No model called `nothing`", "choose another")

        def load(running, **options):
            asked = {"model": model, "sources": sources, "azimuths": azimuths}
            self.loaded.append({**asked, **options, **asdict(running)})
            return SimpleNamespace(spec=Spec(STEMS, 44_100, 0, 1, how=f"torch on {running.device}"))

        ref = SimpleNamespace(load=load, output_stems=lambda stems, two_stems: STEMS, fingerprint="the same")
        ref.then = lambda models: ref
        return ref

    def split_track(self, path, options, method, *, outputs, progress, finished):
        self.split.append({"path": path, "outputs": outputs, "options": options})
        if self.together:
            self.together.wait()
        while path.name in self.endless:
            progress(44_100, 88_200)
        if path.name in self.failures:
            raise self.failures[path.name]
        for output in outputs.values():
            output.parent.mkdir(parents=True, exist_ok=True)
            output.touch()
        progress(44_100, 88_200)
        return stemsplit.pipeline.SplitResult(
            input=path,
            outputs=outputs,
            sample_rate=44_100,
            channels=2,
            frames=88_200,
            peaks=dict.fromkeys(STEMS, 0.5) | self.peaks,
            elapsed_seconds=0.5,
            warnings=["the file is cut short"] if "cut" in path.name else [],
        )


@pytest.fixture
def pipeline(monkeypatch, tmp_path):
    import stemsplit.pipeline

    fake = Pipeline(loaded=[], split=[], failures={}, peaks={}, together=None, endless=set())
    monkeypatch.setattr(ModelRef, "parse", fake.parse)
    monkeypatch.setattr(stemsplit.pipeline, "split_track", fake.split_track)
    monkeypatch.chdir(tmp_path)
    for name in ("a.wav", "b.wav", "c.wav", "cut.wav", "models"):
        write_wav(Path(name))
    return fake


def write_wav(path: Path) -> None:
    import wave

    with wave.open(os.fspath(path), "wb") as file:
        file.setparams((2, 2, 44_100, 0, "NONE", ""))
        file.writeframes(bytes(4 * 441))


@pytest.fixture
def shelf(monkeypatch, tmp_path):
    """A folder with the header of one model, which is the only one."""
    facts = {
        "name": DEFAULT_MODEL,
        "title": "A small one",
        "network": "binary-mask-cnn",
        "stems": STEMS,
        "sample_rate": 44_100,
        "n_fft": 2048,
        "hop_length": 512,
        "parameters": 1_292_932,
        "mask": "soft",
        "mask_power": 1.0,
        "threshold": 0.5,
        "data": "none",
        "licence": "MIT",
        "commit": "",
        "seed": 1,
        "scores": {"test": {"songs": 2, "soft": {"vocals": {"sdr_db": 3.14}}}},
    }
    header = json.dumps({"__metadata__": {"stemsplit": json.dumps(facts)}}).encode()
    path = tmp_path / f"{DEFAULT_MODEL}.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    monkeypatch.setattr("stemsplit.zoo.store.available", lambda: {DEFAULT_MODEL: path})
    monkeypatch.setattr("stemsplit.zoo.plugins.every", lambda: iter(()))
    monkeypatch.setattr("stemsplit.zoo.plugins.FAMILIES", {})
    return tmp_path


def run(*arguments: str, **options):
    return CliRunner(**options).invoke(app, list(arguments), prog_name="stemsplit")


@pytest.mark.parametrize(
    "words",
    [["a.wav"], ["split", "a.wav"], ["-o", "stems", "a.wav"], ["--", "a.wav"], ["--depth=24", "a.wav"]],
)
def test_a_first_word_that_is_no_command_is_a_track(pipeline, words):
    result = run(*words)
    assert result.exit_code == 0
    assert [call["path"] for call in pipeline.split] == [Path("a.wav")]


@pytest.mark.parametrize("words", [["./models"], ["split", "models"]])
def test_a_track_called_like_a_command_can_be_split(pipeline, words):
    assert run(*words).stdout.splitlines()[0] == "stems/models/vocals.wav"


def test_paths_go_to_stdout_and_all_else_to_stderr(pipeline):
    result = run("a.wav")
    assert result.stdout.splitlines() == [f"stems/a/{stem}.wav" for stem in STEMS]
    assert result.stderr == "a.wav: 4 stems in 0.5 s (4.0 x real time)\n"


def test_quiet_leaves_the_paths_and_the_errors(pipeline):
    result = run("-q", "cut.wav", "gone.wav")
    assert len(result.stdout.splitlines()) == len(STEMS)
    assert result.stderr.startswith("error: ")
    assert "cut" not in result.stderr


def test_the_line_about_a_track_names_its_whole_path(pipeline):
    Path("songs").mkdir()
    Path("a.wav").rename("songs/a.wav")
    assert run("songs/a.wav").stderr.startswith("songs/a.wav: 4 stems in ")


def test_a_bad_track_stops_no_other(pipeline):
    pipeline.failures["b.wav"] = EncodeError("The disk is full", "make room")
    result = run("a.wav", "b.wav", "gone.wav", "c.wav")
    assert result.exit_code == 1
    assert [line for line in result.stdout.splitlines() if "vocals" in line] == [
        "stems/a/vocals.wav",
        "stems/c/vocals.wav",
    ]
    assert "error: The disk is full\n\nhint: make room\n" in result.stderr
    assert "gone.wav" in result.stderr
    assert len(pipeline.loaded) == 1


def test_two_tracks_with_one_folder_are_refused_before_work_starts(pipeline):
    Path("elsewhere").mkdir()
    write_wav(Path("elsewhere/a.mp3"))
    result = run("a.wav", "elsewhere/a.mp3")
    assert result.exit_code == 2
    assert "`a.wav` and `elsewhere/a.mp3`" in result.stderr
    assert pipeline.split == []


def test_a_mistyped_command_is_a_missing_file_with_a_hint(pipeline):
    result = run("modls")
    assert result.exit_code == 1
    assert "modls" in result.stderr.partition("hint: ")[0]
    assert "`stemsplit models`" in result.stderr.partition("hint: ")[2]
    assert pipeline.loaded == [], "a mistyped name is answered without loading a model"


def test_every_option_arrives(pipeline):
    words = "a.wav -m other -d cpu --batch 3 --mask soft --stems vocals,drums -o out -f ogg --depth 24"
    words += " --runtime torch --threads 2 --fast --overlap 0.5 --shifts 2 --jobs 2"
    words += " --precision bfloat16 --bitrate 192k --gain -1.5 --start 0:00.005 --duration 2.5 --force"
    words += " --audio-track 1 --downmix"
    result = run(*words.split())
    assert result.exit_code == 0
    assert pipeline.loaded == [
        {
            "model": "other",
            "stems": ("vocals", "drums"),
            "two_stems": None,
            "mask": "soft",
            "sources": None,
            "azimuths": (),
            "runtime": "torch",
            "device": "cpu",
            "precision": "bfloat16",
            "batch": 3,
            "threads": 2,
            "fast": True,
            "overlap": 0.5,
            "shifts": 2,
            "jobs": 1,
            "offline": False,
        }
    ]
    (call,) = pipeline.split
    assert call["path"] == Path("a.wav")
    assert call["outputs"] == {stem: Path("out", "a", f"{stem}.ogg") for stem in STEMS}
    part = {"start_seconds": 0.005, "duration_seconds": 2.5, "audio_track": 0, "downmix": True}
    sound = SplitOptions("other", ("vocals", "drums"), mask="soft", gain_db=-1.5, **part)
    assert call["options"].split == sound
    files = OutputOptions(Path("out"), None, "ogg", depth="24", bitrate="192k", force=True)
    assert call["options"].output == files


@pytest.mark.parametrize(
    "words",
    [
        ["--start", "x"],
        ["--start", "nan"],
        ["--batch", "0"],
        ["--what"],
        ["-f", "aiff"],
        ["--stems", "vocals", "--two-stems", "drums"],
        ["--gain", "nan"],
    ],
)
def test_usage_errors_exit_with_2(pipeline, words):
    assert run(*words, "a.wav").exit_code == 2


@pytest.mark.parametrize(
    "words",
    [
        "a.wav --json --nonsense",
        "a.wav --json --depth 8",
        "a.wav --json --stems bass --two-stems bass",
        "--json --template x a.wav b.wav",
        "unpack --json",
        "inspect --json a.wav b.wav --plot x.png",
    ],
)
def test_usage_errors_are_json_too(pipeline, words):
    result = run(*words.split())
    assert result.exit_code == 2
    (event,) = events(result.stdout)
    assert (event["event"], event["status"]) == ("error", "error")
    assert event["code"] in ("usage", "template", "collision")
    assert event["message"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("--nonsense", "usage"),
        ("--depth 8", "usage"),
        ("--bitrate 1k", "usage"),
        ("--model nothing", "model"),
    ],
)
def test_errors_are_json_too_where_a_setting_asks_for_it(pipeline, monkeypatch, words, code):
    monkeypatch.setenv("STEMSPLIT_JSON", "true")
    result = run("a.wav", *words.split())
    assert result.exit_code == 2
    assert [event["code"] for event in events(result.stdout)] == [code]


def test_a_bad_configuration_is_json_too(pipeline, monkeypatch):
    monkeypatch.setenv("STEMSPLIT_DEPTH", "8")
    result = run("a.wav", "--json")
    assert result.exit_code == 2
    assert [event["code"] for event in events(result.stdout)] == ["config"]


@pytest.mark.slow
def test_the_json_of_live_and_evaluate_is_no_event(pipeline):
    assert run("live", "--json").stdout == run("evaluate", "--json", "x.json").stdout == ""


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("1:30", 90), ("1:02:03.5", 3723.5), ("0", 0)])
def test_times(text, seconds):
    assert split.seconds(text) == seconds


def test_json_has_one_object_a_track_and_nothing_else(pipeline):
    pipeline.failures["b.wav"] = EncodeError("The disk is full", "make room")
    result = run("--json", "cut.wav", "b.wav")
    assert result.exit_code == 1
    start, plan, _, good, bad, end = events(result.stdout)
    assert start == {"event": "start", "schema": 1, "version": stemsplit.__version__, "tracks": 2}
    outputs = {stem: f"stems/cut/{stem}.wav" for stem in STEMS}
    assert plan == {"event": "plan", "input": "cut.wav", "seconds": 0.01, "outputs": outputs}
    assert end == {"event": "summary", "done": 1, "skipped": 0, "failed": 1}
    assert good["event"] == "track"
    assert good["status"] == "ok"
    assert good["input"] == "cut.wav"
    assert good["outputs"]["drums"] == {"path": "stems/cut/drums.wav", "frames": 88_200, "peak": 0.5}
    assert (good["frames"], good["sample_rate"], good["channels"]) == (88_200, 44_100, 2)
    assert (good["elapsed_seconds"], good["times_real_time"]) == (0.5, 4.0)
    assert good["warnings"] == ["the file is cut short"]
    assert bad == {
        "event": "track",
        "status": "error",
        "input": "b.wav",
        "code": "encode",
        "message": "The disk is full",
        "hint": "make room",
    }


@pytest.mark.slow
def test_json_tells_how_far_a_track_is_but_not_at_every_step(pipeline, monkeypatch):
    monkeypatch.setattr(console, "EVERY_SECONDS", 0.0)
    (progress,) = (e for e in events(run("--json", "a.wav").stdout) if e["event"] == "progress")
    assert progress == {
        "event": "progress",
        "input": "a.wav",
        "phase": "split",
        "done_seconds": 1.0,
        "seconds": 0.01,
    }
    monkeypatch.setattr(console, "EVERY_SECONDS", 60.0)
    assert not [e for e in events(run("--json", "--force", "a.wav").stdout) if e["event"] == "progress"]


def test_the_schema_knows_every_code_and_nothing_else_passes():
    schema = json.loads(Path(console.__file__).with_name("events.schema.json").read_text(encoding="utf-8"))
    codes = {code for kind in schema["oneOf"] for code in kind["properties"].get("code", {}).get("enum", [])}
    kinds = [StemsplitError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    assert codes == {kind.code for kind in kinds}
    for wrong in ('{"event": "end"}', '{"event": "summary", "done": 1}', "[]"):
        with pytest.raises(jsonschema.ValidationError):
            events(wrong)


def test_verbose_names_the_model_and_the_device(pipeline):
    said = run("-v", "-d", "cpu", "a.wav").stderr
    assert f"{DEFAULT_MODEL} by torch on cpu: vocals, drums, bass, other\n" in said
    assert "drums         #####################...   -6.0 dBFS" in said


@pytest.mark.slow
def test_the_bar_goes_to_stderr_alone(monkeypatch, capfd):
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    reader = SimpleNamespace(sample_rate=44_100, frames_estimate=88_200)
    with open(theirs, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        tracks = [reader, reader, reader]
        with Bars(tracks, enabled=True) as bars, bars.of("[1/3] song.mp3", reader) as update:
            update(44_100, None)
            sys.stdout.write("data\n")
            time.sleep(0.3)  # the bar is drawn ten times a second
        shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "[1/3] song.mp3" in shown
    assert "50%" in shown
    assert "3 tracks" in shown
    assert "17%" in shown, "half of a track is a sixth of all"
    assert capfd.readouterr().out == "data\n"


@pytest.mark.parametrize("enabled", [True, False])
def test_there_is_no_bar_without_a_terminal(capfd, enabled):
    with Bars(enabled=enabled) as bars, bars.of("song.mp3", None) as update:
        update(44_100, None)
    assert capfd.readouterr() == ("", "")


def test_json_tells_of_a_model_that_cannot_be_loaded(pipeline):
    result = run("--json", "-m", "nothing", "a.wav")
    assert result.exit_code == 2
    assert events(result.stdout)[0]["code"] == "model"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are text here")
def test_names_that_are_no_text(pipeline):
    name = os.fsdecode(b"caf\xe9\x1b[31m.wav")
    write_wav(Path(name))
    result = run(name)
    assert b"stems/caf\xe9\x1b[31m/vocals.wav\n" in result.stdout_bytes
    assert "caf\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}[31m.wav: 4 stems" in result.stderr
    result = run("--json", "--force", "-o", "again", name)
    assert events(result.stdout)[1]["input"] == name


def test_an_interrupt_is_one_line_and_130(pipeline):
    pipeline.failures["a.wav"] = KeyboardInterrupt()
    result = run("a.wav", "b.wav")
    assert result.exit_code == 130
    assert result.stderr.startswith("interrupted")
    assert len(pipeline.split) == 1


@pytest.mark.parametrize("verb", [[], ["split"]])
def test_an_interrupted_batch_says_how_to_go_on(pipeline, monkeypatch, verb):
    pipeline.failures["b.wav"] = KeyboardInterrupt()
    words = [*verb, "a.wav", "b.wav", "my song.wav", "c.wav", "--json"]
    monkeypatch.setattr(sys, "argv", ["stemsplit", *words])
    write_wav(Path("my song.wav"))
    result = run(*words)
    assert result.exit_code == 130
    again = f"stemsplit {' '.join([*verb, '--skip-existing'])} a.wav b.wav 'my song.wav' c.wav --json"
    hint = f"resume with `{again}`"
    assert result.stderr.endswith(f"\ninterrupted: 3 of 4 tracks are left\n\nhint: {hint}\n")
    *_, error, end = events(result.stdout)
    assert (error["event"], error["code"], error["hint"]) == ("error", "interrupted", hint)
    assert end == {"event": "summary", "done": 1, "skipped": 0, "failed": 0}


def test_the_command_to_go_on_is_not_longer_than_one_reads(pipeline, monkeypatch):
    pipeline.failures["a.wav"] = KeyboardInterrupt()
    monkeypatch.setattr(sys, "argv", ["stemsplit", *(f"{number}.wav" for number in range(1000))])
    assert "resume with the same command and --skip-existing\n" in run("a.wav", "b.wav").stderr


@pytest.mark.slow
def test_paths_of_tracks_that_are_done_are_printed_as_those_of_others(pipeline, monkeypatch):
    monkeypatch.setattr(BatchRunner, "is_done", lambda runner, job: job.track.path.name == "a.wav")
    run("a.wav", "--daw", "reaper")
    session = Path("stems/a/a.rpp")
    session.parent.mkdir(parents=True)
    session.touch()
    result = run("a.wav", "b.wav", "--skip-existing")
    assert result.stdout.splitlines() == [f"stems/{track}/{stem}.wav" for track in "ab" for stem in STEMS]
    assert run("a.wav", "--daw", "reaper").stdout.splitlines()[-1] == str(session)
    (event,) = (e for e in events(run("a.wav", "--daw", "reaper", "--json").stdout) if e["event"] == "track")
    assert (event["status"], event["session"]) == ("skipped", str(session))


def test_paths_may_end_in_nul(pipeline):
    write_wav(Path("two\nlines.wav"))
    paths = run("two\nlines.wav", "--print0").stdout.split("\0")
    assert paths == [*(f"stems/two\nlines/{stem}.wav" for stem in STEMS), ""]
    assert run("a.wav", "--print0", "--json").exit_code == 2


def test_several_tracks_at_once(pipeline):
    pipeline.together = threading.Barrier(2, timeout=20)  # broken unless two are worked on side by side
    pipeline.failures["c.wav"] = EncodeError("The disk is full")
    result = run("--jobs", "2", "a.wav", "b.wav", "c.wav", "models", "--quiet")
    assert result.exit_code == 1
    paths = result.stdout.splitlines()
    tracks = [paths[start : start + 4] for start in range(0, len(paths), 4)]
    assert sorted(Path(track[0]).parent.name for track in tracks) == ["a", "b", "models"]
    for track in tracks:  # together, whichever was first
        assert [Path(path).stem for path in track] == list(STEMS)
    assert result.stderr.count("The disk is full") == 1


def test_an_interrupt_stops_all_that_is_under_way(pipeline):
    """One track is interrupted while the other is in the middle, and would go on for ever."""
    pipeline.together = threading.Barrier(2, timeout=20)
    pipeline.failures["a.wav"] = KeyboardInterrupt()
    pipeline.endless.add("b.wav")
    result = run("--jobs", "2", "a.wav", "b.wav", "c.wav")
    assert result.exit_code == 130
    assert {asked["path"].name for asked in pipeline.split} == {"a.wav", "b.wav"}


def bug(*_: object) -> NoReturn:
    raise ZeroDivisionError("division by zero\nand more")


@pytest.mark.parametrize(("words", "jobs"), [("", 1), ("--jobs 2", 2), ("--jobs 9", 3)])
def test_tracks_side_by_side_share_the_threads(pipeline, words, jobs):
    assert run("a.wav", "b.wav", "c.wav", *words.split()).exit_code == 0
    (loaded,) = pipeline.loaded
    assert loaded["jobs"] == jobs, "no more than there are tracks"


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_bug_in_a_track_stops_no_other(pipeline, jobs):
    pipeline.failures["a.wav"] = ZeroDivisionError("division by zero\nand more")
    result = run("--json", "--jobs", jobs, "a.wav", "b.wav")
    assert result.exit_code == 1
    tracks = {each["input"]: each for each in events(result.stdout) if each["event"] == "track"}
    assert tracks["b.wav"]["status"] == "ok"
    message = "Unexpected error in `a.wav`: ZeroDivisionError: division by zero"
    assert (tracks["a.wav"]["code"], tracks["a.wav"]["message"]) == ("internal", message)
    assert events(result.stdout)[-1] == {"event": "summary", "done": 1, "skipped": 0, "failed": 1}
    assert f"error: {message}\n\nhint: " in result.stderr
    assert "Traceback" not in result.stderr


def test_verbose_shows_the_traceback_of_a_bug(pipeline):
    pipeline.failures["a.wav"] = ZeroDivisionError()
    assert "Traceback (most recent call last)" in run("-v", "a.wav").stderr


def test_a_bug_while_looking_at_a_track_stops_no_other(pipeline, monkeypatch):
    opened = BatchRunner.open

    def look(runner, job):
        return bug() if job.track.path.name == "a.wav" else opened(runner, job)

    monkeypatch.setattr(BatchRunner, "open", look)
    result = run("a.wav", "b.wav")
    assert result.exit_code == 1
    assert "Unexpected error in `a.wav`: ZeroDivisionError" in result.stderr
    assert [call["path"] for call in pipeline.split] == [Path("b.wav")]


def test_a_bug_in_what_is_written_beside_the_stems_stops_no_other(pipeline, monkeypatch):
    monkeypatch.setattr("stemsplit.export.sidecars.analyse_stems", bug)
    result = run("--daw", "reaper", "a.wav", "b.wav")
    assert result.stderr.count("ZeroDivisionError") == 2
    assert [call["path"].name for call in pipeline.split] == ["a.wav", "b.wav"]


def test_a_bug_in_inspect_stops_no_other_sound(pipeline, monkeypatch):
    from stemsplit.analysis import sound

    analyse = sound.analyse
    bugs = iter([bug])
    monkeypatch.setattr(sound, "analyse", lambda *words: next(bugs, analyse)(*words))
    result = run("inspect", "a.wav", "b.wav")
    assert result.exit_code == 1
    assert result.stdout.startswith("b.wav\n")
    assert "Traceback" in result.stderr, "there is no -v to show it"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    ],
)
def test_a_track_that_needs_too_much_memory_stops_no_other(pipeline, error):
    pipeline.failures["a.wav"] = error
    result = run("--json", "a.wav", "b.wav")
    assert [each.get("code") for each in events(result.stdout) if each["event"] == "track"] == [
        "memory",
        None,
    ]
    assert "--batch" in result.stderr


def test_a_bug_outside_of_tracks_keeps_its_traceback(pipeline, monkeypatch):
    monkeypatch.setattr(BatchOptions, "plan", bug)
    result = run("--json", "a.wav")
    assert isinstance(result.exception, ZeroDivisionError)
    assert events(result.stdout)[-1]["code"] == "internal"


@pytest.mark.subprocess
def test_a_closed_pipe_ends_quietly():
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-m", "stemsplit", "doctor"], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert ended.stderr == b""


@pytest.mark.subprocess
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM")
def test_being_ended_tidies_up():
    script = """
import os, signal, sys, time
from stemsplit.cli import doctor, main
def checks():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        yield from time.sleep(9)
    finally:
        print("tidied up", end="")
doctor.all_checks = checks
sys.argv = ["stemsplit", "doctor"]
main()
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (143, b"tidied up", b"interrupted\n")


def test_alone_it_prints_help():
    assert "Split music into stems" in run().output


def test_version():
    assert re.fullmatch(r"stemsplit \d+\.\S+\n", run("--version").stdout)


def test_models_lists_what_is_there(shelf):
    lines = run("models").stdout.splitlines()
    assert lines[0].split() == ["model", *STEMS, "parameters", "size", "licence"]
    assert lines[1].split() == f"{DEFAULT_MODEL} 3.1 dB - - - {4 * 323_233:,} 0.0 MB MIT".split()
    assert {line.split()[0] for line in lines[-4:]} == {"adress", "duet", "projet", "ica"}


@pytest.mark.parametrize("words", [["models", "--json"], ["models", DEFAULT_MODEL, "--json"]])
def test_models_as_json(shelf, words):
    (line,) = run(*words).stdout.splitlines()
    assert json.loads(line)["scores"]["test"]["soft"] == {"vocals": {"sdr_db": 3.14}}


@pytest.mark.parametrize("name", [DEFAULT_MODEL, f"{DEFAULT_MODEL}.safetensors"])
def test_models_prints_a_card_as_it_is(shelf, name, monkeypatch):
    monkeypatch.chdir(shelf)
    monkeypatch.setattr("stemsplit.zoo.page.page", lambda card: f"# {card.title}\n\n| stem | SDR |\n")
    assert run("models", name).stdout == "# A small one\n\n| stem | SDR |\n\n"


def test_an_unknown_model_is_an_error_with_a_hint(shelf):
    result = run("models", "nothing")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: No model called `nothing`\n\nhint: ")


def test_a_wrong_choice_is_reported_with_the_choices_alone(shelf):
    result = run("song.mp3", "--format", "mp4")
    assert result.exit_code == 2
    assert "'mp4' is not one of" in result.stderr
    assert "Value error" not in result.stderr


@pytest.mark.parametrize(("word", "meant"), [("song", []), ("remx", ["remix"]), ("eval", ["evaluate"])])
def test_a_word_much_like_a_command_is_taken_for_one(shelf, monkeypatch, word, meant):
    monkeypatch.chdir(shelf)
    result = run(word)
    assert result.exit_code == 1
    assert re.findall(r"did you mean the command `stemsplit (\w+)`", result.stderr) == meant


def commands():
    group = typer.main.get_command(app)
    return [group, *group.commands.values()]


@pytest.mark.parametrize("command", commands(), ids=lambda command: command.name)
def test_every_command_and_option_has_help(command):
    assert command.help
    for parameter in command.params:
        assert parameter.help, f"{parameter.name} has no help"


@pytest.mark.parametrize("command", commands(), ids=lambda command: command.name)
def test_no_two_options_share_a_flag(command):
    flags = [flag for parameter in command.params for flag in parameter.opts]
    assert len(flags) == len(set(flags))


def test_the_defaults_and_choices_are_the_package_s():
    from stemsplit.audio import formats, tags

    hints = get_type_hints(split.command)
    assert get_args(get_args(hints["mask"])[0]) == MASKS
    assert get_args(hints["format"]) == (*formats.FORMATS, formats.STEM_FILE)
    assert get_args(hints["depth"]) == formats.DEPTHS
    assert set(formats.FORMATS) == tags._WRITE.keys()
    assert inspect.signature(loading.load_separator).parameters["model"].default == DEFAULT_MODEL


@pytest.mark.slow
@pytest.mark.parametrize("verb", [None, *VERBS])
def test_help_is_a_command_too(verb):
    words = [verb] if verb else []
    result = run("help", *words)
    assert result.exit_code == 0
    assert result.stdout == run(*words, "--help").stdout != ""


def test_help_for_no_command_is_wrong_usage():
    result = run("help", "nothing")
    assert result.exit_code == 2
    assert "No command called `nothing`" in result.stderr


def complete(line: str, shell: str = "bash") -> list[str]:
    """Return what a shell would offer."""
    words = line.split(" ")
    environment = {
        "_STEMSPLIT_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": "\n".join(words),
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    result = CliRunner(env=environment).invoke(app, prog_name="stemsplit")
    if shell == "zsh":
        offered = re.findall(r'[(\n]"([^"]+)"', result.stdout)
        return [word.replace("\\\\:", ":") for word in offered]
    return [line.partition("\t")[0] for line in result.stdout.splitlines() if line]


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("stemsplit mod", ["models"]),
        ("stemsplit son", []),  # nothing from us: the shell offers files
        ("stemsplit song.mp3 --two", ["--two-stems"]),
        ("stemsplit --two", ["--two-stems"]),
        ("stemsplit --vers", ["--version"]),
        ("stemsplit song.mp3 -f f", ["flac"]),
        ("stemsplit song.mp3 --stems vo", ["vocals"]),
        ("stemsplit --stems vocals,d", ["vocals,drums"]),
        ("stemsplit --stems vocals,v", []),
        ("stemsplit song.mp3 -m nothing --stems vo", []),
        ("stemsplit split --model ban", [DEFAULT_MODEL]),
        ("stemsplit models ban", [DEFAULT_MODEL]),
        ("stemsplit remix song.mp3 k", ["karaoke"]),
        ("stemsplit remix song.mp3 practice:b", ["practice:bass"]),
        ("stemsplit help ev", ["evaluate"]),
    ],
)
def test_completion(shelf, shell, line, offered):
    assert complete(line, shell) == offered


@pytest.mark.parametrize(
    "words",
    [
        ["--bitrate", "192k"],
        ["-f", "flac", "--bitrate", "192k"],
        ["-f", "flac", "--depth", "32f"],
        ["--duration", "0"],
    ],
)
def test_options_that_exclude_each_other_are_wrong_usage(pipeline, words):
    assert run("a.wav", *words).exit_code == 2
    assert pipeline.loaded == []


def test_what_cannot_be_written_is_refused_before_the_work(pipeline):
    there = Path("stems", "b", "drums.wav")
    there.parent.mkdir(parents=True)
    there.touch()
    result = run("a.wav", "b.wav")
    assert result.exit_code == 1
    assert [call["path"] for call in pipeline.split] == [Path("a.wav")]
    assert "already exists" in result.stderr.partition("a.wav: 4 stems")[0]


def test_a_name_of_nothing_does_not_stop_the_others(pipeline):
    Path("empty").mkdir()
    names = ("Song [dQw4w9WgXcQ].mp3", "a.wav", "empty", "*.xyz", "s3://bucket")
    result = run(*names, "--json")
    assert result.exit_code == 1
    assert [call["path"] for call in pipeline.split] == [Path("a.wav")]
    told = events(result.stdout)
    failed = {event["input"]: event["code"] for event in told if event.get("status") == "error"}
    assert failed == {**dict.fromkeys((names[0], *names[2:4]), "not_found"), names[4]: "decode"}
    assert told[0]["tracks"] == 5
    assert told[-1] == {"event": "summary", "done": 1, "skipped": 0, "failed": 4}


def test_names_that_differ_in_case_alone_share_a_folder(pipeline):
    write_wav(Path("A.wav"))
    assert run("a.wav", "A.wav").exit_code == 2


def test_nobody_else_prints_to_stdout_while_it_is_ours(capfd):
    with console.alone():
        sys.stdout.write("a library's remark\n")
        console.event(event="ours")
    sys.stdout.write("done\n")
    assert capfd.readouterr() == ('{"event": "ours"}\ndone\n', "a library's remark\n")


@pytest.mark.parametrize(
    ("peak", "shown"),
    [
        (1.0, "########################    0.0 dBFS"),
        (2.0, "########################    6.0 dBFS"),
        (10 ** (-24 / 20), "############............  -24.0 dBFS"),
        (0.0, "........................   -inf dBFS"),
    ],
)
def test_a_peak_is_shown_as_a_bar(peak, shown):
    assert console.meter(peak) == shown


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--stems", "drums,guitar"], "guitar is in the stem `other`"),
        (["--two-stems", "Piano"], "Piano is in the stem `other`"),
        (["--stems", "vocal"], "did you mean `vocals`?"),
        (["--stems", "DRUM"], "did you mean `drums`?"),
        (["--stems", "kazoo"], "hint: choose from vocals"),
        (["--stdout", "guitar"], "guitar is in the stem `other`"),
        (["--remix", "practice:guitar"], "guitar is in the stem `other`"),
    ],
)
def test_a_stem_that_the_model_lacks_is_wrong_usage(words, hint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", np.zeros((999, 2)), 44_100)
    verb = ["remix", "a.wav", words[1]] if words[0] == "--remix" else ["a.wav", *words]
    result = run(*verb, "--model", "binary-mask-cnn")
    assert (result.exit_code, hint in result.stderr) == (2, True), result.stderr
    assert "No stem called" in result.stderr


def test_the_hint_names_only_stems_that_are_there():
    assert no_stem("piano", ["vocals", "rest"], "here").hint == "choose from vocals, rest"


def test_json_gives_the_code_of_a_stem_that_the_model_lacks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.wav").touch()
    event = json.loads(run("a.wav", "--stems", "guitar", "--json").stdout.splitlines()[0])
    assert event["code"] == "stem"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "name", "hint"),
    [
        (["-rf.wav"], "-rf.wav", "put `--` before it or write `./-rf.wav`"),
        (["split", "-x.wav"], "-x.wav", "put `--` before it or write `./-x.wav`"),
        (["live"], "live", "write `./live`"),
        (["models", "a.wav"], "models", "write `./models`"),
    ],
)
def test_a_file_that_is_named_like_an_option_or_a_command(words, name, hint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert hint not in said(run(*words).stderr)
    Path(name).touch()
    result = run(*words)
    assert (result.exit_code, hint in said(result.stderr)) == (2, True), result.stderr
    assert hint not in said(run("--", *words).stderr)


def said(text: str) -> str:
    """A message of typer without its frame and its line breaks."""
    return " ".join(text.replace("│", " ").split())
