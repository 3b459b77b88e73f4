"""Models of the Open-Unmix package: a tiny random one in a folder, and published ones without a network."""

from __future__ import annotations

import json
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from stemsplit import _compat
from stemsplit.errors import BadWeights, DownloadFailed, StemsplitError, UnknownModel
from stemsplit.options import RuntimeOptions
from stemsplit.separation.stream import separate_blocks
from stemsplit.zoo import downloads, openunmix
from stemsplit.zoo.ref import ModelRef

pytestmark = pytest.mark.slow  # each test starts networks

if not find_spec("openunmix"):
    pytest.skip("needs openunmix", allow_module_level=True)

RATE, N_FFT, HOP, HIDDEN = 8_000, 256, 64, 8
SEGMENT = 599 * HOP
FOUR = ("bass", "drums", "other", "vocals")


def network(seed, n_fft=N_FFT, hidden=HIDDEN):
    """A network in its initial state, except that its masks are not all alike."""
    torch.manual_seed(seed)
    bins = n_fft // 2 + 1
    model = _compat.openunmix().model.OpenUnmix(bins, 2, hidden, max_bin=bins * 3 // 4).eval()
    torch.nn.init.normal_(model.output_mean, 0.5, 0.3)
    return model


@pytest.fixture
def folder(tmp_path):
    """Make FOLDER/tiny, and return its networks."""

    def make(stems=FOUR):
        (tmp_path / "tiny").mkdir(exist_ok=True)
        described = {"sample_rate": RATE, "nfft": N_FFT, "nhop": HOP, "nb_channels": 2}
        (tmp_path / "tiny" / "separator.json").write_text(json.dumps(described))
        networks = {}
        for seed, stem in enumerate(stems):
            networks[stem] = network(seed)
            torch.save(networks[stem].state_dict(), tmp_path / "tiny" / f"{stem}.pth")
            (tmp_path / "tiny" / f"{stem}.json").write_text(json.dumps({"args": {"hidden_size": HIDDEN}}))
        return networks

    return make


def noise(samples, channels=2):
    return np.random.default_rng(1).normal(0, 0.1, (channels, samples)).astype(np.float32)


def ours(name, mixture, block=5_000, **options):
    separator = ModelRef.parse(name).load(RuntimeOptions(threads=1), **options)
    blocks = [mixture[:, start : start + block] for start in range(0, mixture.shape[1], block)]
    return np.concatenate(list(separate_blocks(separator, blocks)), axis=-1)


def theirs(networks, mixture, **options):
    separator = _compat.openunmix().model.Separator(
        networks, niter=1, sample_rate=RATE, n_fft=N_FFT, n_hop=HOP, **options
    )
    with torch.no_grad():
        found = separator(torch.from_numpy(mixture)[None])[0].numpy()
    return dict(zip([*networks, "residual"], found, strict=False))


def test_a_segment_is_what_the_package_gives(folder, tmp_path):
    networks = folder()
    mixture = noise(SEGMENT)
    stems = ours(f"openunmix:tiny@{tmp_path}", mixture, block=SEGMENT)
    expected = theirs(networks, mixture)
    first = SEGMENT - SEGMENT // 4  # from there on the next segment counts, too
    for stem, found in zip(("vocals", "drums", "bass", "other"), stems, strict=True):
        np.testing.assert_allclose(found[:, :first], expected[stem][:, :first], atol=1e-4)
    assert not np.allclose(stems[0], stems[1], atol=0.01)


def test_any_block_size_gives_the_same_stems_and_they_sum_to_the_mixture(folder, tmp_path):
    folder()
    mixture = noise(50_000)
    stems = ours(f"openunmix:tiny@{tmp_path}", mixture)
    np.testing.assert_array_equal(ours(f"openunmix:tiny@{tmp_path}", mixture, 50_000), stems)
    np.testing.assert_allclose(stems.sum(axis=0), mixture, atol=1e-5)
    alone = ours(f"openunmix:tiny@{tmp_path}", mixture, stems=["drums"])
    np.testing.assert_allclose(alone[0], stems[1], atol=1e-6)


def test_without_other_that_is_what_the_others_leave(folder, tmp_path):
    networks = folder(("vocals",))
    mixture = noise(SEGMENT)
    stems = ours(f"openunmix:tiny@{tmp_path}", mixture, block=SEGMENT)
    expected = theirs(networks, mixture, residual=True)
    first = SEGMENT - SEGMENT // 4
    np.testing.assert_allclose(stems[0, :, :first], expected["vocals"][:, :first], atol=1e-4)
    np.testing.assert_allclose(stems.sum(axis=0), mixture, atol=1e-5)
    assert ModelRef.parse(f"openunmix:tiny@{tmp_path}").stems == ("vocals", "other")


class Code:
    def __reduce__(self):
        return Path.touch, (Path("ran"),)


BAD = {
    "code": lambda path: torch.save({"input_mean": Code()}, path / "vocals.pth"),
    "another network": lambda path: torch.save({"input_mean": torch.zeros(9)}, path / "vocals.pth"),
    "empty": lambda path: (path / "vocals.pth").write_bytes(b""),
    "no numbers": lambda path: (path / "vocals.json").write_text('{"args": {"hidden_size": "many"}}'),
    "absurd": lambda path: (path / "vocals.json").write_text('{"args": {"hidden_size": 1000000000}}'),
    "no description": lambda path: (path / "vocals.json").unlink(),
    "not JSON": lambda path: (path / "separator.json").write_text("["),
    "too many channels": lambda path: (path / "separator.json").write_text(
        json.dumps({"sample_rate": RATE, "nfft": N_FFT, "nhop": HOP, "nb_channels": 6})
    ),
}


@pytest.mark.parametrize("spoil", BAD.values(), ids=BAD)
def test_a_file_that_cannot_be_used_is_one_sentence(folder, tmp_path, monkeypatch, spoil):
    folder()
    monkeypatch.chdir(tmp_path)
    spoil(tmp_path / "tiny")
    with pytest.raises(BadWeights) as caught:
        ModelRef.parse("openunmix:tiny@.").load(RuntimeOptions())
    assert "\n" not in caught.value.message
    assert not Path("ran").exists()


@pytest.mark.parametrize("name", ["openunmix:umxse", "openunmix:", "openunmix:tiny@/nowhere", "openunmix:@"])
def test_a_name_that_does_not_exist_is_one_sentence(name):
    with pytest.raises(UnknownModel):
        ModelRef.parse(name)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The addresses that are asked for; torch's cache is empty."""
    asked = []

    def fetch(url, *_, **__):
        asked.append(url)
        raise OSError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    monkeypatch.delenv(downloads.VARIABLE, raising=False)
    return asked


def test_published_models_are_known_without_a_download(hub):
    for name in openunmix.names():
        ref = ModelRef.parse(f"openunmix:{name}")
        assert ref.stems == ("vocals", "drums", "bass", "other")
        assert "zenodo.org" in ref.describe()
    assert "CC BY-NC-SA 4.0" in ModelRef.parse("openunmix:umxl").describe()
    assert not hub


def test_a_download_is_announced_and_fails_in_one_sentence(hub, capsys):
    with pytest.raises(DownloadFailed, match="Name or service not known"):
        ModelRef.parse("openunmix:umxl").load(RuntimeOptions())
    said = capsys.readouterr().err
    assert said.startswith("downloading openunmix:umxl from zenodo.org: 453 MB; licence: CC BY-NC-SA 4.0")
    assert said.count("\n") == 1
    assert len(hub) == 1


def test_offline_there_is_no_download(hub):
    with pytest.raises(DownloadFailed, match="offline"):
        ModelRef.parse("openunmix:umxhq").load(RuntimeOptions(offline=True))
    assert not hub


def test_what_is_downloaded_is_read_without_its_code_and_its_digest_is_checked(hub, monkeypatch, tmp_path):
    cache = tmp_path / "torch" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    store = openunmix._Store(openunmix.Published("umxhq"), RuntimeOptions(offline=True))

    def put(thing):
        torch.save(thing, cache / "new")
        digest = sha256((cache / "new").read_bytes()).hexdigest()[:8]
        (cache / "new").rename(cache / f"vocals-{digest}.pth")
        return f"https://zenodo.org/records/1/files/vocals-{digest}.pth"

    assert store(put({"a": torch.ones(2)}))["a"].sum() == 2
    with pytest.raises(Exception, match="weights_only"):
        store(put(Code()))
    damaged = put({"b": torch.ones(3)})
    (cache / damaged.rpartition("/")[2]).write_bytes(b"damaged")
    with pytest.raises(StemsplitError, match="digest"):
        store(damaged)
