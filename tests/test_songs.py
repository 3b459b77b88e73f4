from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stemsplit.audio import ffmpeg
from stemsplit.audio.reader import Signal
from stemsplit.audio.writer import Encoding, Writer
from stemsplit.datasets.songs import MUSDB18_TRACKS, MUSDB18_VALID, find_songs, summary
from stemsplit.errors import DecodeError, UnknownStem
from tests.conftest import SAMPLE_RATE, STEMS

VALIDATION_SONG = "Leaf - Summerghost"


def write(path, samples):
    with Writer(path, Signal(SAMPLE_RATE, len(samples)), Encoding("32f")) as writer:
        writer.write(samples.astype(np.float32))


@pytest.fixture(scope="module")
def sounds():
    """One second of a different noise each; `(channel, time)`."""
    rng = np.random.default_rng(440)
    return {name: 0.1 * rng.standard_normal((2, SAMPLE_RATE)) for name in (*STEMS, "piano")}


@pytest.fixture
def folder(tmp_path, sounds):
    song = tmp_path / "test" / "song"
    song.mkdir(parents=True)
    for name in STEMS:
        write(song / f"{name}.wav", sounds[name])
    return tmp_path


def load(data, split="test", stems=STEMS):
    (song,) = find_songs([str(data)], split, stems)
    return song.load(SAMPLE_RATE)


def test_a_song_is_the_sum_of_its_files(folder, sounds):
    write(folder / "test" / "song" / "mixture.wav", sounds["bass"])  # not a part of it
    song = load(folder)
    assert (song.name, song.known) == ("song", (True,) * 4)
    np.testing.assert_allclose(song.parts[2], sounds["bass"], atol=1e-6)
    np.testing.assert_allclose(song.mixture, sum(sounds[name] for name in STEMS), atol=1e-6)


def test_a_file_of_several_stems_makes_them_unknown(folder, sounds):
    path = folder / "test" / "song"
    (path / "bass.wav").unlink()
    (path / "other.wav").rename(path / "other_and_bass.wav")
    (path / "drums.wav").unlink()
    write(path / "piano.wav", sounds["piano"][:1, :1000])
    song = load(folder)
    assert song.known == (True, True, False, False)
    assert not song.parts[1:4].any()  # no drums: silent, and known to be
    rest = sounds["other"].copy()
    rest[:, :1000] += sounds["piano"][:1, :1000]
    np.testing.assert_allclose(song.parts[4], rest, atol=1e-6)
    bass = load(folder, stems=("bass",))  # nor is it known where the other one is not asked for
    assert bass.known == (False,)
    assert not bass.parts[0].any()


def test_songs_of_several_folders_come_in_their_order(folder, tmp_path_factory, sounds):
    second = tmp_path_factory.mktemp("second")
    (second / "test" / "a song").mkdir(parents=True)
    write(second / "test" / "a song" / "vocals.wav", sounds["vocals"])
    assert [song.name for song in find_songs([str(folder), str(second)], "test", STEMS)] == ["song", "a song"]


def test_songs_are_found_at_any_depth(folder, sounds):
    """As `stemsplit -r music -o DATA/test` writes them, with all that lies beside stems."""
    split = folder / "test"
    for name in ("album/song", "album/disc 2/song", ".stemsplit", "song/takes", "song/encore"):
        (split / name).mkdir(parents=True)
    for name in (
        "album/song/vocals.wav",
        "album/disc 2/song/bass.wav",
        "song/takes/one.wav",
        "song/encore/drums.wav",
    ):
        write(split / name, sounds["piano"])
    for name in (
        "song/song.rpp",
        "song/song.dawproject",
        "song/report.html",
        ".stemsplit/a.json",
        "song/._bass.wav",
    ):
        (split / name).write_text("{}")
    (split / "album" / "again").symlink_to(split, target_is_directory=True)
    songs = find_songs([str(folder)], "test", STEMS)
    assert [song.name for song in songs] == ["album/disc 2/song", "album/song", "song", "song/encore"]
    assert [len(song.sounds) for song in songs] == [1, 1, 4, 1]
    np.testing.assert_allclose(songs[0].load(SAMPLE_RATE).parts[2], sounds["piano"], atol=1e-6)


def test_a_folder_without_stems_is_named_at_any_depth(folder):
    (folder / "test" / "album" / "empty").mkdir(parents=True)
    with pytest.raises(DecodeError, match="No stems in .*album/empty"):
        find_songs([str(folder)], "test", STEMS)


def test_the_state_of_a_song_changes_with_what_it_is_made_of(folder, sounds):
    def state(stems=STEMS):
        return find_songs([str(folder)], "test", stems)[0].state

    before = state()
    assert before == state()
    assert before != state(STEMS[:2])
    path = folder / "test" / "song" / "bass.wav"
    path.unlink()
    write(path, sounds["piano"])  # as long, but newer
    assert before != state()


def test_a_summary_shows_what_was_misnamed(folder):
    song = folder / "test" / "song"
    (song / "bass.wav").rename(song / "Lead Bass.wav")
    (song / "drums.wav").rename(song / "DRUMS.WAV")
    assert summary(find_songs([str(folder)], "test", STEMS)) == (
        "1 songs; 1 without bass; in the mixture alone: lead bass"
    )


def test_what_is_missing_is_named(tmp_path):
    def find(data, split="test"):
        return find_songs([str(data)], split, STEMS)

    with pytest.raises(DecodeError, match="No such folder: .*nowhere"):
        find(tmp_path / "nowhere")
    with pytest.raises(DecodeError, match="No songs of split `test`"):
        find(tmp_path)
    (tmp_path / "test" / "song").mkdir(parents=True)
    with pytest.raises(DecodeError, match="No stems in .*song"):
        find(tmp_path)
    (tmp_path / "test" / "song" / "Voice.wav").touch()
    with pytest.raises(UnknownStem, match=r"No song of split `test` has any of vocals, .*, but voice"):
        find(tmp_path)
    (tmp_path / "test" / "other song").mkdir()
    (tmp_path / "test" / "other song" / "vocals.wav").touch()
    assert [len(song.sounds) for song in find(tmp_path)] == [1, 1]  # the first one without vocals
    with pytest.raises(DecodeError, match="No such folder: `nowhere`"):
        find("musdb18:nowhere")
    with pytest.raises(DecodeError, match="No songs of split `valid`"):
        find(f"musdb18:{tmp_path}", "valid")
    with pytest.raises(DecodeError, match="no split `dev`"):
        find(f"musdb18:{tmp_path}", "dev")
    with pytest.raises(UnknownStem, match="`piano` in MUSDB18"):
        find_songs([f"musdb18:{tmp_path}"], "test", ("vocals", "piano"))


def tone(hz):
    """Half a second of a sine, half as loud on the right; `(channel, time)`."""
    sine = 0.3 * np.sin(2 * np.pi * hz * np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE)
    return np.stack([sine, 0.5 * sine])


TONES = {name: tone(220 * (number + 1)) for number, name in enumerate(MUSDB18_TRACKS[1:])}
TONES["mixture"] = sum(TONES.values())


def write_stem_file(path, tracks):
    """Write tones as the AAC tracks of one container."""
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [ffmpeg.executable(), "-v", "error", "-nostdin"]
    for name in tracks:
        sound = path.with_name(f"{name}.wav")
        soundfile.write(sound, TONES[name].T, SAMPLE_RATE, subtype="PCM_16")
        command += ["-i", sound]
    for number in range(len(tracks)):
        command += ["-map", str(number)]
    subprocess.run([*command, "-c:a", "aac", "-b:a", "256k", "-f", "mp4", path], check=True)
    for name in tracks:
        path.with_name(f"{name}.wav").unlink()


@pytest.fixture(scope="module")
def musdb18(tmp_path_factory):
    """MUSDB18's layout: a song to train on, one of the official validation songs, one to test on."""
    root = tmp_path_factory.mktemp("musdb18")
    for name in ("train/A - One", f"train/{VALIDATION_SONG}", "test/B - Two"):
        write_stem_file(root / f"{name}.stem.mp4", MUSDB18_TRACKS)
    return root


@pytest.mark.parametrize(
    ("split", "name"), [("train", "A - One"), ("valid", VALIDATION_SONG), ("test", "B - Two")]
)
def test_musdb18_has_three_splits_in_two_folders(musdb18, split, name):
    assert [song.name for song in find_songs([f"musdb18:{musdb18}"], split, STEMS)] == [name]


@pytest.mark.slow
def test_the_tracks_of_a_stem_file_are_its_stems(musdb18):
    song = load(f"musdb18:{musdb18}")
    heard = slice(2048, SAMPLE_RATE // 2 - 2048)  # codecs smear where a tone sets in
    for part, name in zip(song.parts, STEMS, strict=False):
        np.testing.assert_allclose(part[:, heard], TONES[name][:, heard], atol=0.03)
    assert not song.parts[4].any()
    few = load(f"musdb18:{musdb18}", stems=("bass", "vocals"))
    np.testing.assert_array_equal(few.parts[:2], song.parts[[2, 0]])
    np.testing.assert_allclose(few.parts[2], song.parts[1] + song.parts[3], atol=1e-6)


@pytest.mark.slow
def test_stems_are_those_that_musdb_gives(musdb18):
    try:
        import musdb
    except (ImportError, RuntimeError) as reason:  # the latter where there is no ffprobe
        pytest.skip(f"no musdb: {reason}")
    (track,) = musdb.DB(root=str(musdb18), subsets=["test"])
    song = load(f"musdb18:{musdb18}")
    for part, name in zip(song.parts, STEMS, strict=False):
        # It decodes to 16 bits, with the PATH's ffmpeg; old ones leave the encoder's padding at the end.
        theirs = track.targets[name].audio.T
        assert part.shape[1] <= theirs.shape[1] < part.shape[1] + 1024
        np.testing.assert_allclose(part, theirs[:, : part.shape[1]], atol=0.51 / 2**15)


def test_the_validation_songs_are_those_of_musdb():
    found = importlib.util.find_spec("musdb")
    if not (found and found.origin):
        pytest.skip("no musdb")
    text = Path(found.origin).with_name("configs").joinpath("mus.yaml").read_text(encoding="utf-8")
    listed = [line.strip("- '") for line in text.partition("validation_tracks:")[2].split("\n") if line]
    assert sorted(MUSDB18_VALID) == sorted(listed)


@pytest.mark.slow
def test_a_stem_file_with_too_few_tracks_is_named(tmp_path):
    write_stem_file(tmp_path / "test" / "C - Three.stem.mp4", MUSDB18_TRACKS[:3])
    with pytest.raises(DecodeError, match="C - Three.stem.mp4` has fewer than 5 audio tracks"):
        load(f"musdb18:{tmp_path}")


def test_musdb18_hq_is_a_folder_a_song(tmp_path):
    song = tmp_path / "train" / VALIDATION_SONG
    song.mkdir(parents=True)
    for name in MUSDB18_TRACKS:
        write(song / f"{name}.wav", TONES[name])
    loaded = load(f"musdb18:{tmp_path}", "valid")
    np.testing.assert_allclose(loaded.parts[2], TONES["bass"], atol=1e-6)
    np.testing.assert_allclose(loaded.mixture, TONES["mixture"], atol=1e-6)
    with pytest.raises(DecodeError, match="No songs of split `train`"):
        load(f"musdb18:{tmp_path}", "train")
    (song / "drums.wav").unlink()
    with pytest.raises(DecodeError, match=r"No such file: .*drums\.wav"):
        find_songs([f"musdb18:{tmp_path}"], "valid", STEMS)
