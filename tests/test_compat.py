"""What `_compat` relies on in other packages is still there, and still does what it is for."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import numpy as np
import pytest
import soundfile

from stemsplit import _compat

RATE = 8000


def needs(package):
    return pytest.mark.skipif(not find_spec(package), reason=f"needs {package}")


def test_frames_are_counted_and_complaints_are_passed_on(tmp_path):
    noise = np.random.default_rng(1).standard_normal(4 * RATE) / 10
    soundfile.write(tmp_path / "whole.flac", noise, RATE)
    content = bytearray((tmp_path / "whole.flac").read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    (tmp_path / "damaged.flac").write_bytes(content)
    samples = np.zeros((5 * RATE, 1), np.float32)
    with soundfile.SoundFile(tmp_path / "whole.flac") as file:
        assert _compat.read_frames(file, samples) == (4 * RATE, "")
    with soundfile.SoundFile(tmp_path / "damaged.flac") as file:
        count, complaint = _compat.read_frames(file, samples)
    assert 0 < count < 4 * RATE
    assert complaint


@pytest.mark.parametrize("left_out", [False, True])
def test_the_peak_chunk_can_be_left_out(tmp_path, left_out):
    path = tmp_path / "float.wav"
    with soundfile.SoundFile(path, "w", RATE, 1, "FLOAT") as file:
        if left_out:
            _compat.leave_out_peak_chunk(file)
        file.write(np.zeros(10))
    assert (b"PEAK" in path.read_bytes()) is not left_out


def test_pydub_takes_another_converter():
    before = _compat.pydub_with(None).AudioSegment.converter
    try:
        assert _compat.pydub_with("another").AudioSegment.converter == "another"
    finally:
        _compat.pydub_with(before)


def test_the_filters_of_loudness_have_what_lfilter_takes():
    shelf, high_pass = _compat.loudness_filters(48_000)
    for stage in (shelf, high_pass):
        assert len(stage.b) == len(stage.a) == 3
        assert stage.passband_gain == 1


def test_no_two_files_of_numba_s_cache_have_one_name():
    from numba.core.caching import IndexDataCacheFile

    _compat.never_reuse_numba_cache_names()
    cache = IndexDataCacheFile("folder", "name", 0)
    names = {cache._data_name(1) for _ in range(9)}
    assert len(names) == 9
    assert all(name.startswith("name.1.") and name.endswith(".nbc") for name in names)


@needs("museval")
def test_functions_of_museval_are_replaced_by_name():
    def project(*_):
        return 7

    module = _compat.museval_metrics({"_project": project})
    assert module._project is project
    assert module.bss_eval.__globals__["_project"] is project, "which is what its own functions call"
    with pytest.raises(AttributeError):
        _compat.museval_metrics({"_gone": project})


@needs("openvino")
def test_importing_openvino_reports_to_nobody(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "openvino_telemetry"]:
        monkeypatch.delitem(sys.modules, name)
    assert hasattr(_compat.openvino(), "Core")
    assert "openvino_telemetry" not in sys.modules


@needs("openunmix")
def test_openunmix_needs_no_torchaudio(monkeypatch):
    before = sys.modules.get("torchaudio")
    package = _compat.openunmix()
    assert package.model.Separator
    assert sys.modules.get("torchaudio") is before or hasattr(sys.modules["torchaudio"], "load")


@pytest.mark.slow
@needs("openunmix")
def test_openunmix_gets_its_weights_from_us():
    import torch

    asked = []
    original = torch.hub.load_state_dict_from_url

    def fetch(url):
        asked.append(url)
        raise LookupError

    for name in ("umx", "umxhq", "umxl"):
        with pytest.raises(LookupError), _compat.openunmix_weights(fetch) as package:
            getattr(package, f"{name}_spec")(["vocals"])
        assert torch.hub.load_state_dict_from_url is original
    assert [url.partition("/records/")[2].partition("/")[0] for url in asked] == [
        "3370486",
        "3370489",
        "5069601",
    ]
    assert all(url.endswith(".pth") and "/vocals-" in url for url in asked)
