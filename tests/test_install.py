"""Adding models: whatever is wrong is told in one sentence, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper, helper
from typer.testing import CliRunner

import stemsplit
from stemsplit.cli import app
from stemsplit.errors import BadWeights, OutputBusy, StemsplitError
from stemsplit.zoo import install, installed, onnx_file
from tests.conftest import SEGMENT, install_tiny, tiny_config, tiny_onnx

STEMS = ("vocals", "other")


@pytest.fixture(autouse=True)
def folder(models_folder, tmp_path, monkeypatch):
    """Return the folder of models. A model, and what describes it, are in the current folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    tiny_onnx(Path("tiny.onnx"), STEMS)
    tiny_config(Path("tiny.json"), STEMS)
    return models_folder


def add(*words):
    return CliRunner().invoke(app, ["models", "add", "tiny.onnx", "--config", "tiny.json", *words])


def one_sentence(done):
    """Return the error that a command printed, without its hint."""
    assert done.exit_code in (1, 2), done.output
    said = done.stderr.partition("hint:")[0].strip()
    assert said.startswith("error: ")
    assert "\n" not in said
    return said


@pytest.mark.slow
def test_what_was_added_separates_and_is_removed(folder):
    assert add("--name", "mine").exit_code == 0
    assert {path.name for path in folder.iterdir()} == {"mine.onnx", "mine.json"}
    noise = np.random.default_rng(1).normal(0, 0.1, (2, 10_000)).astype(np.float32)
    stems = stemsplit.split(noise, 44_100, model="mine")
    np.testing.assert_allclose(sum(stems.values()), noise, atol=1e-5)
    assert CliRunner().invoke(app, ["models", "remove", "mine"]).exit_code == 0
    assert not any(folder.iterdir())


NAMES = ["a+b", "a:b", "a/b", "..", ".a", "add", "remove", "best", "binary-mask-cnn", "projet", "x" * 65]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_means_something_else_is_refused(folder, name):
    assert f"`{name}`" in one_sentence(add("--name", name))
    assert not folder.exists()


def test_a_name_is_given_once(folder):
    add("--name", "mine")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert "mine is already installed" in one_sentence(add("--name", "mine"))
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "said"), [("binary-mask-cnn", "is part of stemsplit"), ("nothing", "No model called `nothing`")]
)
def test_what_is_not_installed_is_not_removed(name, said):
    assert said in one_sentence(CliRunner().invoke(app, ["models", "remove", name]))


def saved(name, model):
    Path(name).write_bytes(model.SerializeToString())


def graph(shape, outputs):
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, each)]
        for name, each in (("x", shape), ("y", outputs))
    ]
    node = helper.make_node("Concat", ["x", "x"], ["y"], axis=1)
    body = helper.make_graph([node], "g", ends[0], ends[1])
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def external(location):
    model = onnx.load("tiny.onnx")
    external_data_helper.convert_model_to_external_data(model, location="w.bin", size_threshold=0)
    onnx.save(model, "tiny.onnx")
    model = onnx.load("tiny.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    saved("tiny.onnx", model)


def unknown_operator():
    model = onnx.load("tiny.onnx")
    model.graph.node[0].op_type = "Frobnicate"
    saved("tiny.onnx", model)


def cut(share):
    data = Path("tiny.onnx").read_bytes()
    Path("tiny.onnx").write_bytes(data[: round(share * len(data))])


BAD_FILES = {
    "empty": (lambda: cut(0), "is not an ONNX file, or is truncated"),
    "half": (lambda: cut(0.5), "is not an ONNX file, or is truncated"),
    "almost whole": (lambda: cut(0.99), "is not an ONNX file, or is truncated"),
    "page": (lambda: Path("tiny.onnx").write_text("<html>Not found"), "is not an ONNX file"),
    "pickle": (lambda: Path("tiny.onnx").write_bytes(b"\x80\x04\x95\x10\0\0\0\0\0\0\0."), "is not an ONNX"),
    "picture": (lambda: saved("tiny.onnx", graph([1, 3, 224, 224], [1, 6, 224, 224])), "has a waveform of"),
    "absurd": (lambda: saved("tiny.onnx", graph([1, 2, 1 << 40], [1, 4, 1 << 40])), "is too large"),
    "two": (lambda: saved("tiny.onnx", graph([1, 2, SEGMENT], [1, 4, SEGMENT])), "has a waveform of shape"),
    "beside": (lambda: external("w.bin"), "has its weights in another file"),
    "elsewhere": (lambda: external("../here/w.bin"), "has its weights in another file"),
    "operator": (unknown_operator, "Frobnicate"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_leaves_nothing(folder, name):
    make, said = BAD_FILES[name]
    make()
    assert said in (told := one_sentence(add()))
    assert ".part" not in told
    assert not folder.exists()


def described(**facts):
    return json.dumps(json.loads(Path("tiny.json").read_text()) | facts)


SPECTRA = {"inputs": ["spectrum"], "outputs": ["spectrum"]}
BAD_DESCRIPTIONS = {
    "broken": lambda: "{",
    "list": lambda: "[]",
    "deep": lambda: "[" * 200_000,
    "network": lambda: described(network=[]),
    "framing": lambda: described(network=SPECTRA | {"framing": [1]}),
    "frames": lambda: described(
        network=SPECTRA | {"framing": {"n_fft": 2048.0, "hop_length": 512, "bins": 1025}}
    ),
    "n_fft": lambda: described(
        network=SPECTRA | {"framing": {"n_fft": 1 << 40, "hop_length": 512, "bins": 9}}
    ),
    "segment": lambda: described(segment=1 << 40),
    "no segment": lambda: described(segment="long"),
    "outputs": lambda: described(outputs=[1, 2]),
    "more outputs": lambda: described(outputs=["a", "b", "c"]),
    "path": lambda: described(outputs=["../a", "b"]),
    "key": lambda: described(nonsense=1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD_DESCRIPTIONS)
def test_a_bad_description_leaves_nothing(folder, name):
    Path("tiny.json").write_text(BAD_DESCRIPTIONS[name]())
    assert "does not match its description" in one_sentence(add())
    assert not folder.exists()


def test_a_description_cannot_choose_other_files(folder):
    Path("tiny.json").write_text(described(name="evil", file="../evil", sha256="0", kind="msst"))
    assert add().exit_code == 0
    assert {path.name for path in folder.iterdir()} == {"tiny.onnx", "tiny.json"}


@pytest.mark.slow
def test_a_file_that_was_changed_does_not_run(folder, music):
    add()
    with (folder / "tiny.onnx").open("r+b") as file:
        file.write(b"\0")
    with pytest.raises(BadWeights, match="is not the file that was installed as tiny") as failed:
        stemsplit.split(music, 44_100, model="tiny")
    assert "models remove tiny" in failed.value.hint
    (folder / "tiny.onnx").unlink()
    with pytest.raises(BadWeights, match="Cannot read"):
        stemsplit.split(music, 44_100, model="tiny")
    assert CliRunner().invoke(app, ["models", "remove", "tiny"]).exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize("text", ["{", "[]", "[" * 200_000, '{"name": "other"}', "x" * (1 << 20) + "x"])
def test_a_damaged_page_does_not_hide_other_models(folder, tmp_path, text):
    install_tiny(tmp_path, "good", STEMS)
    (folder / "bad.json").write_text(text)
    listed = CliRunner().invoke(app, ["models"])
    assert listed.exit_code == 0
    assert "good" in listed.stdout
    assert "bad.json` does not describe a model" in listed.stderr
    assert "does not describe a model" in one_sentence(CliRunner().invoke(app, ["models", "bad"]))
    assert CliRunner().invoke(app, ["models", "remove", "bad"]).exit_code == 0


def test_an_interruption_leaves_nothing(folder, monkeypatch):
    def interrupted(_source, target):
        Path(target).write_bytes(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        install.add(Path("tiny.onnx"), "mine", Path("tiny.json"))
    assert not folder.exists()


def test_of_two_adds_at_once_one_is_refused(folder, monkeypatch):
    copy, begun, told = shutil.copyfile, threading.Event(), threading.Event()

    def slowly(source, target):
        begun.set()
        assert told.wait(30)
        copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", slowly)
    first = threading.Thread(target=install.add, args=(Path("tiny.onnx"), "mine", Path("tiny.json")))
    first.start()
    try:
        assert begun.wait(30)
        with pytest.raises(OutputBusy, match="Another stemsplit is writing") as failed:
            install.add(Path("tiny.onnx"), "mine", Path("tiny.json"))
    finally:
        told.set()
        first.join()
    assert installed.FOLDER_VARIABLE in failed.value.hint
    assert {path.name for path in folder.iterdir()} == {"mine.onnx", "mine.json"}


@pytest.mark.subprocess
@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on files")
def test_a_full_disk_leaves_nothing(folder):
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200)); import stemsplit.cli as cli;"
        "cli.main()"
    )
    words = ["models", "add", "tiny.onnx", "--config", "tiny.json"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Cannot write" in done.stderr
    assert installed.FOLDER_VARIABLE in done.stderr
    assert "Traceback" not in done.stderr
    assert not folder.exists()


@pytest.mark.subprocess
@pytest.mark.skipif(sys.platform == "win32", reason="needs kill -9")
def test_what_a_killed_program_left_is_removed_by_the_next(folder):
    program = (
        "import os, shutil, signal; from pathlib import Path; from stemsplit.zoo import install;"
        "shutil.copyfile = lambda a, b: (Path(b).write_text('half'), os.kill(os.getpid(), signal.SIGKILL));"
        "install.add(Path('tiny.onnx'), 'mine', Path('tiny.json'))"
    )
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(os.listdir(folder)) > 0
    assert "No model called `mine`" in one_sentence(CliRunner().invoke(app, ["models", "mine"]))
    assert add("--name", "mine").exit_code == 0
    assert {path.name for path in folder.iterdir()} == {"mine.onnx", "mine.json"}


def test_the_structure_of_any_onnx_file_is_read():
    """Every cut is noticed, or leaves a file that ends between two fields."""
    data = Path("tiny.onnx").read_bytes()
    noticed = 0
    lengths = range(0, len(data), 7)
    for length in lengths:
        Path("cut.onnx").write_bytes(data[:length])
        try:
            onnx_file.check(Path("cut.onnx"))
        except StemsplitError:
            noticed += 1
    assert noticed > 0.95 * len(lengths)
    onnx_file.check(Path("tiny.onnx"))
