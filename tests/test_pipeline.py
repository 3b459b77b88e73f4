from __future__ import annotations

import re

import numpy as np
import pytest
import soundfile
import torch

import stemsplit
from stemsplit import pipeline
from stemsplit.audio.reader import Reader, Signal
from stemsplit.audio.writer import Encoding, Writer
from stemsplit.errors import DecodeError, DeviceUnavailable, EncodeError, OutputExists, StemsplitError
from stemsplit.options import RuntimeOptions
from stemsplit.zoo import loading
from stemsplit.zoo.ref import ModelRef
from stemsplit.zoo.variants import Trained
from tests.conftest import SAMPLE_RATE, STEMS, mask_separator, quick_separator, random_model, whole

ROUNDING = {"16": 4 / 2**16, "24": 4 / 2**24 + 1e-6, "32f": 2e-6}  # four stems, each half a step off


def read(path):
    return np.concatenate(list(Reader(path)), axis=-1)


def write(path, samples, sample_rate=SAMPLE_RATE, depth="32f"):
    with Writer(path, Signal(sample_rate, len(samples)), Encoding(depth)) as writer:
        writer.write(samples)
    return path


@pytest.fixture
def song(tmp_path, music):
    return write(tmp_path / "song.wav", music)


@pytest.fixture(scope="module")
def music(music):
    return music[:, : SAMPLE_RATE + 123]


@pytest.fixture(scope="module")
def separator():
    return quick_separator()


@pytest.mark.parametrize(
    ("format", "depth"), [("wav", "16"), ("wav", "24"), ("wav", "32f"), ("flac", "16"), ("flac", "24")]
)
def test_stems_on_disk_add_up_to_the_song(song, music, separator, tmp_path, format, depth):
    result = pipeline.split_file(song, tmp_path / "out", separator=separator, format=format, depth=depth)
    assert list(result.outputs) == list(STEMS)
    assert result.outputs["bass"] == tmp_path / "out" / "song" / f"bass.{format}"
    stems = [read(path) for path in result.outputs.values()]
    np.testing.assert_allclose(sum(stems), music, atol=ROUNDING[depth])
    assert result.frames == music.shape[1]
    assert result.peaks["bass"] == pytest.approx(np.abs(stems[2]).max(), abs=1e-4)
    assert sorted(path.name for path in (tmp_path / "out" / "song").iterdir()) == sorted(
        f"{name}.{format}" for name in STEMS
    )


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "m4a"])
@pytest.mark.parametrize(("sample_rate", "channels"), [(44_100, 2), (22_050, 1), (48_000, 2)])
def test_stems_line_up_with_what_the_decoder_gives(music, separator, tmp_path, suffix, sample_rate, channels):
    track = tmp_path / f"track.{suffix}"
    depth = {"wav": "16", "flac": "24"}.get(suffix, "16")
    write(track, music[:channels, : sample_rate // 2 + 7], sample_rate, depth)
    decoded = read(track)
    result = pipeline.split_file(track, tmp_path, separator=separator, depth="32f")
    stems = np.stack([read(path) for path in result.outputs.values()])
    assert stems.shape[1:] == decoded.shape
    assert (result.sample_rate, result.channels) == (sample_rate, channels)
    np.testing.assert_allclose(stems.sum(axis=0), decoded, atol=1e-5)


def test_a_part_of_a_song_is_cut_to_the_sample(song, music, separator, tmp_path):
    result = pipeline.split_file(
        song, tmp_path, separator=separator, start_seconds=0.25, duration_seconds=0.5
    )
    start, stop = SAMPLE_RATE // 4, SAMPLE_RATE // 4 + SAMPLE_RATE // 2
    stems = [read(path) for path in result.outputs.values()]
    np.testing.assert_allclose(sum(stems), music[:, start:stop], atol=1e-5)


def test_one_gain_is_the_same_for_all_stems(song, separator, tmp_path):
    plain = pipeline.split_file(song, tmp_path / "plain", separator=separator)
    louder = pipeline.split_file(song, tmp_path / "louder", separator=separator, gain_db=6.0206)
    for name in STEMS:
        np.testing.assert_allclose(
            read(louder.outputs[name]), 2 * read(plain.outputs[name]), rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize(
    ("format", "depth", "words"),
    [
        ("wav", "16", "vocals and drums .* were clipped"),
        ("m4a", "same", "were clipped"),
        ("mp3", "same", "will clip when played"),
        ("wav", "32f", None),
    ],
)
def test_what_is_too_loud_is_kept_or_reported(song, tmp_path, format, depth, words):
    class Loud:
        spec = mask_separator(stems=("vocals", "drums", "bass")).spec

        def separate(self, window):
            segment = window[:, self.spec.context : -self.spec.context]
            return np.stack([2 * np.ones_like(segment), -3 * np.ones_like(segment), 0 * segment])

    options = {"separator": Loud(), "format": format, "depth": depth, "gain_db": 1.0}
    result = pipeline.split_file(song, tmp_path, **options)
    assert result.peaks["drums"] == pytest.approx(3 * 10 ** (1 / 20))
    if words is None:
        assert result.warnings == []
        np.testing.assert_allclose(read(result.outputs["drums"]), -3 * 10 ** (1 / 20), rtol=1e-5)
        return
    (warning,) = result.warnings
    assert re.search(words, warning)
    assert "10.6 dB above full scale" in warning
    assert "--gain -9.6" in warning  # on top of the gain there was


@pytest.mark.slow
def test_a_bitrate_makes_smaller_files(song, separator, tmp_path):
    sizes = [
        pipeline.split_file(song, tmp_path / rate, separator=separator, format="mp3", bitrate=rate)
        .outputs["drums"]
        .stat()
        .st_size
        for rate in ("64k", "192k")
    ]
    assert 2 * sizes[0] < sizes[1]


def test_a_float_song_becomes_a_flac_of_24_bit(song, separator, tmp_path):
    result = pipeline.split_file(song, tmp_path, separator=separator, format="flac")
    assert soundfile.info(result.outputs["bass"]).subtype == "PCM_24"


def test_warnings_of_the_decoder_reach_the_result(song, separator, tmp_path):
    song.write_bytes(song.read_bytes()[:200_000])
    (warning,) = pipeline.split_file(song, tmp_path, separator=separator).warnings
    assert "is truncated" in warning


def test_progress_ends_with_the_last_frame(song, music, separator, tmp_path):
    seen = []
    pipeline.split_file(song, tmp_path, separator=separator, progress=lambda *at: seen.append(at))
    assert seen[-1] == (music.shape[1], music.shape[1])


def test_stems_that_are_there_are_not_replaced(song, separator, tmp_path):
    kept = tmp_path / "out" / "song" / "drums.wav"
    kept.parent.mkdir(parents=True)
    kept.write_text("mine")
    with pytest.raises(OutputExists, match=r"drums\.wav"):
        pipeline.split_file(song, tmp_path / "out", separator=separator)
    assert [path.name for path in kept.parent.iterdir()] == ["drums.wav"]
    assert kept.read_text() == "mine"
    pipeline.split_file(song, tmp_path / "out", separator=separator, force=True)
    assert soundfile.info(kept).frames > 0


@pytest.mark.parametrize("problem", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_split_leaves_nothing(song, separator, tmp_path, problem):
    def stop(*_):
        raise problem

    with pytest.raises(problem):
        pipeline.split_file(song, tmp_path / "out", separator=separator, progress=stop)
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_a_failure_at_the_very_end_leaves_nothing(song, separator, tmp_path, monkeypatch):
    finish = Writer.finish

    def full(writer):
        if writer.path.stem == "bass":
            raise EncodeError("the disk is full")
        finish(writer)

    monkeypatch.setattr(Writer, "finish", full)
    with pytest.raises(EncodeError):
        pipeline.split_file(song, tmp_path / "out", separator=separator)
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_a_track_is_never_replaced_by_its_own_stem(song, separator, tmp_path):
    track = tmp_path / "out" / "bass" / "bass.wav"
    track.parent.mkdir(parents=True)
    song.rename(track)
    before = track.read_bytes()
    with pytest.raises(EncodeError, match="overwrite the track itself"):
        pipeline.split_file(track, tmp_path / "out", separator=separator, force=True)
    assert track.read_bytes() == before


def test_a_song_that_breaks_off_leaves_nothing(song, music, separator, tmp_path):
    bad = music.copy()
    bad[0, 40_000] = np.nan
    soundfile.write(song, bad.T, SAMPLE_RATE, subtype="FLOAT")
    with pytest.raises(DecodeError, match=r"0\.907 s"):
        pipeline.split_file(song, tmp_path / "out", separator=separator)
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_silence_gives_silent_files(separator, tmp_path):
    track = write(tmp_path / "silence.wav", np.zeros((2, 30_000), np.float32))
    result = pipeline.split_file(track, tmp_path, separator=separator)
    assert all(not read(path).any() for path in result.outputs.values())


def test_an_impossible_depth_is_refused_before_the_work(song, separator, tmp_path):
    with pytest.raises(EncodeError, match="cannot store float samples"):
        pipeline.split_file(song, tmp_path / "out", separator=separator, format="flac", depth="32f")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_arrays_are_split_like_files(music):
    stems = stemsplit.split(music, SAMPLE_RATE)
    assert list(stems) == list(STEMS)
    np.testing.assert_allclose(sum(stems.values()), music, atol=1e-5)
    mono = stemsplit.split(music[0], SAMPLE_RATE, two_stems="vocals")
    assert list(mono) == ["vocals", "accompaniment"]
    assert mono["vocals"].shape == music[0].shape
    np.testing.assert_allclose(mono["vocals"] + mono["accompaniment"], music[0], atol=1e-5)
    assert stemsplit.split(music[:, :0], SAMPLE_RATE)["bass"].shape == (2, 0)


@pytest.mark.parametrize("shape", [(3, 100), (100, 2), (2, 2, 100)])
def test_arrays_of_another_layout_are_refused(shape):
    with pytest.raises(ValueError, match="mixture must be"):
        stemsplit.split(np.zeros(shape, np.float32), SAMPLE_RATE)
    with pytest.raises(ValueError, match="not finite"):
        stemsplit.split(np.full(100, np.inf), SAMPLE_RATE)


def test_progress_of_an_array_ends_with_the_last_frame(music, separator):
    told = []
    stemsplit.split(music, SAMPLE_RATE, separator=separator, progress=lambda *frames: told.append(frames))
    assert told[-1] == (music.shape[-1], music.shape[-1])
    assert told == sorted(told)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stems": ["bass", "other"]},
        {"model": "binary-mask-cnn"},
        {"model": "binary-mask-cnn", "stems": ["bass", "other"], "fast": True},
    ],
)
def test_masks_make_the_stems_from_the_spectrum(music, options):
    loaded = stemsplit.load_separator(mask="soft", **options)
    length = music.shape[-1] // 512 * 512  # a frame is centred on the end, too
    told = []
    for sound in (music[:, :length], music[:, : length - 100], music[0]):
        masks = stemsplit.estimate_masks(
            sound, SAMPLE_RATE, separator=loaded, progress=lambda *frames: told.append(frames)
        )
        setting = {"n_fft": loaded.stft.n_fft, "hop_length": loaded.stft.hop_length}
        setting["window"] = torch.hann_window(loaded.stft.n_fft)
        mixture = torch.from_numpy(np.atleast_2d(sound))
        spectra = torch.stft(mixture, **setting, pad_mode="constant", return_complex=True)
        assert masks.shape == (len(loaded.spec.stems), *spectra.shape)
        stems = stemsplit.split(sound, SAMPLE_RATE, separator=loaded)
        for mask, stem in zip(masks, stems.values(), strict=True):
            masked = torch.istft(spectra * torch.from_numpy(mask), **setting, length=sound.shape[-1])
            # Near either end `split` overlaps one frame more.
            inner = np.s_[:, loaded.stft.n_fft // 2 : -loaded.stft.n_fft // 2]
            np.testing.assert_allclose(masked.numpy()[inner], np.atleast_2d(stem)[inner], atol=2e-5)
        assert told[-1] == (sound.shape[-1], sound.shape[-1])


@pytest.mark.slow
def test_masks_add_up_to_one(music):
    masks = stemsplit.estimate_masks(music, SAMPLE_RATE)
    np.testing.assert_allclose(masks.sum(axis=0), 1, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"two_stems": "vocals"}, {"model": "ica"}])
def test_what_has_no_masks_says_so(music, options):
    with pytest.raises(StemsplitError, match="single mask-based model"):
        stemsplit.estimate_masks(music, SAMPLE_RATE, **options)


def test_masks_are_at_the_rate_of_the_model(music, separator):
    with pytest.raises(ValueError, match="44100 Hz"):
        stemsplit.estimate_masks(music, 48_000, separator=separator)


def test_help_describes_every_public_name():
    for name in stemsplit.__all__:
        assert name.startswith("__") or f"\n{name} " in stemsplit.__doc__
        assert getattr(stemsplit, name)


def test_integers_are_refused_not_misheard(music):
    with pytest.raises(ValueError, match="floating point"):
        stemsplit.split((32767 * music).astype(np.int16), SAMPLE_RATE)


def test_a_loaded_separator_serves_many_times(music, separator):
    stems = stemsplit.split(music, SAMPLE_RATE, separator=separator)
    np.testing.assert_allclose(stems["bass"], whole(separator, music)[2], atol=1e-6)
    with pytest.raises(TypeError, match="two_stems"):
        stemsplit.split(music, SAMPLE_RATE, separator=separator, two_stems="vocals")
    with pytest.raises(TypeError, match="mask"):
        stemsplit.split_file("song.wav", separator=separator, mask="soft")


@pytest.mark.slow
@pytest.mark.parametrize("mask", ["wiener", "soft", "binary"])
def test_some_stems_of_a_network_for_all_are_as_among_all(music, mask):
    every = stemsplit.split(music, SAMPLE_RATE, mask=mask)
    some = stemsplit.split(music, SAMPLE_RATE, mask=mask, stems=["other", "drums"])
    assert list(some) == ["drums", "other"]
    for name, stem in some.items():
        np.testing.assert_allclose(stem, every[name], atol=1e-5)


@pytest.mark.slow
def test_only_the_networks_asked_for_are_loaded():
    features = np.zeros((1, 30, 513), np.float32)
    for runtime in ("torch", "auto"):
        running = RuntimeOptions(runtime=runtime, device="cpu")
        alone = ModelRef.parse("binary-mask-cnn").load(running, stems=["bass"])
        assert alone.network(features).shape == (1, 1, 6, 513)
    assert loading.load_separator(stems=["bass", "vocals"]).spec.stems == ("vocals", "bass")


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"stems": ["piano"]}, StemsplitError, "piano"),
        ({"two_stems": "piano"}, StemsplitError, "piano"),
        ({"stems": []}, StemsplitError, "No stems"),
        ({"stems": ["bass"], "two_stems": "bass"}, StemsplitError, "exclude each other"),
        ({"mask": "hard"}, StemsplitError, "hard"),
        ({"device": "tpu"}, DeviceUnavailable, "tpu"),
    ],
)
def test_what_is_not_there_is_named(options, kind, words):
    with pytest.raises(kind, match=words) as caught:
        loading.load_separator(**options)
    assert caught.value.hint


@pytest.mark.slow
def test_models_joined_by_a_plus_are_averaged(music):
    paths = [str(random_model(name)) for name in ("sub-band-unet", "binary-mask-cnn")]
    options = {"runtime": "torch", "device": "cpu", "precision": "float32"}
    both, *each = (stemsplit.split(music, SAMPLE_RATE, model=m, **options) for m in ("+".join(paths), *paths))
    for stem in STEMS:
        np.testing.assert_allclose(both[stem], (each[0][stem] + each[1][stem]) / 2, atol=1e-6)
    assert np.abs(each[0]["bass"] - each[1]["bass"]).max() > 1e-3
    (bass,) = stemsplit.split(music, SAMPLE_RATE, model="+".join(paths), stems=["bass"], **options)
    assert bass == "bass"


def test_models_that_are_not_alike_have_no_mean():
    waves = str(random_model("wave-u-net-small"))
    for load in (ModelRef.parse, loading.load_separator):
        with pytest.raises(StemsplitError, match="different stems or sample rates"):
            load(f"binary-mask-cnn+{waves}")
        with pytest.raises(StemsplitError, match="No model called `nothing`"):
            load("binary-mask-cnn+nothing")


def test_a_file_with_a_plus_in_its_name_is_one_model(tmp_path):
    path = tmp_path / "one+two.safetensors"
    path.write_bytes(random_model("binary-mask-cnn").read_bytes())
    assert isinstance(ModelRef.parse(path), Trained)


def test_a_device_that_is_not_there_is_not_replaced(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(DeviceUnavailable, match="cuda"):
        loading.load_separator(device="cuda")
