"""Sessions for DAWs: what their schemas and parsers say of them, and where each stem ends up."""

from __future__ import annotations

import math
import os
import shutil
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rpp
import soundfile
from lxml import etree
from typer.testing import CliRunner

from stemsplit.analysis.beats import Beats
from stemsplit.analysis.music import NO_MUSIC, Music, analyse_stems
from stemsplit.audio import stem_folder
from stemsplit.audio.reader import Reader
from stemsplit.audio.stem_labels import COLOURS, ORDER
from stemsplit.audio.writer import Writer
from stemsplit.cli import app
from stemsplit.errors import DecodeError, EncodeError, OutputExists
from stemsplit.export import daw

SCHEMAS = Path(__file__).parent / "data" / "dawproject"
RATE, FRAMES = 44_100, 30_011
BEATS = replace(Beats.from_bpm(97.0004, 0.3, 30), confidence=0.81)
MUSIC = replace(NO_MUSIC, beats=BEATS, key="A minor", key_confidence=0.3)
ODD = (
    'a <b> & "c" ]]>',
    "it's",
    "grave ` mark",
    "a\"b'c`d",
    "ベース 🎸",
    "#;|x",
    "tab\tand\x07bell",
    "\ufffe",
)


def write_stems(folder: Path, *names: str, rate: int = RATE, channels: int = 2, frames: int = FRAMES) -> Path:
    """A folder of noises, each of its own; a name without an ending is a WAV's."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names or ("vocals", "drums", "bass", "other")):
        noise = 0.1 * np.random.default_rng(seed).standard_normal((channels, frames), np.float32)
        known = Path(name).suffix in (".flac", ".mp3", ".ogg", ".aiff")
        path = folder / (name if known else f"{name}.wav")
        soundfile.write(os.fsencode(path), noise.T, rate)
    return folder


def write(kind: str, folder: Path, music: Music = MUSIC, **options: Any) -> Path:
    return daw.write(
        kind, stem_folder.find(folder), folder / f"session{daw.SUFFIXES[kind]}", music, **options
    )


def parts(path: Path) -> tuple[etree._Element, etree._Element]:
    """The project and the metadata of a DAWproject, both as their schemas say."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        trees = [etree.fromstring(archive.read(f"{name}.xml")) for name in ("project", "metadata")]
    for tree, name in zip(trees, ("Project", "MetaData"), strict=True):
        etree.XMLSchema(etree.parse(SCHEMAS / f"{name}.xsd")).assertValid(tree)
    return trees[0], trees[1]


def placed(path: Path) -> dict[str, tuple[float, float, str]]:
    """When each named track of a session begins, how long it sounds, and its file."""
    if path.suffix == ".rpp":
        found = {}
        for track in rpp.loads(path.read_text(encoding="utf-8")).findall("TRACK"):
            item = track.find("ITEM")
            assert item.find("NAME") == track.find("NAME")
            times = [float(item.find(word)[1]) for word in ("POSITION", "LENGTH")]
            found[track.find("NAME")[1]] = (*times, item.find("SOURCE").find("FILE")[1])
        return found
    project, _ = parts(path)
    names = {track.get("id"): track.get("name") for track in project.iterfind("Structure/Track")}
    clips = {names[row.get("track")]: row.find("Clip") for row in project.iterfind("Arrangement/Lanes/Clips")}
    return {
        name: (float(clip.get("time")), float(clip.get("duration")), clip.find("Audio/File").get("path"))
        for name, clip in clips.items()
    }


@pytest.mark.parametrize("kind", daw.SUFFIXES)
@pytest.mark.parametrize(("rate", "channels"), [(44_100, 2), (22_050, 1), (96_000, 2)])
def test_every_stem_is_a_track_that_sounds_from_0_to_its_end(tmp_path, kind, rate, channels):
    tracks = placed(write(kind, write_stems(tmp_path, rate=rate, channels=channels)))
    assert list(tracks) == ["vocals", "drums", "bass", "other"]
    for start, seconds, _ in tracks.values():
        assert start == 0
        assert seconds * rate == pytest.approx(FRAMES, abs=1e-6)


@pytest.mark.parametrize("kind", daw.SUFFIXES)
def test_stems_of_different_length_keep_theirs(tmp_path, kind):
    write_stems(tmp_path, "short", frames=1000)
    tracks = placed(write(kind, write_stems(tmp_path, "long.flac", frames=2000)))
    assert {name: round(track[1] * RATE) for name, track in tracks.items()} == {"long": 2000, "short": 1000}


def test_a_dawproject_holds_the_stems_as_they_are(tmp_path):
    path = write("dawproject", write_stems(tmp_path, "vocals", "Drums.flac", "drums.flac"))
    with zipfile.ZipFile(path) as archive:
        files = {name: file for name, (_, _, file) in placed(path).items()}
        assert files["vocals"] == "audio/vocals.wav"
        assert len({file.casefold() for file in files.values()}) == 3
        assert archive.read(files["Drums"]) == (tmp_path / "Drums.flac").read_bytes()
        assert archive.read(files["drums"]) == (tmp_path / "drums.flac").read_bytes()
        assert set(archive.namelist()) == {"project.xml", "metadata.xml", *files.values()}
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())


@pytest.mark.parametrize("name", ["bass.mp3", "bass.ogg", "bass.aiff"])
def test_other_formats_become_wav_of_the_same_samples(tmp_path, name):
    path = write("dawproject", write_stems(tmp_path, name))
    ((_, seconds, file),) = placed(path).values()
    assert file == "audio/bass.wav"
    with zipfile.ZipFile(path) as archive, archive.open(file) as inside:
        samples, rate = soundfile.read(inside, dtype="float32")
    heard = np.concatenate(list(Reader(tmp_path / name)), axis=1)
    np.testing.assert_array_equal(samples.T, heard)
    assert (rate, round(seconds * rate)) == (RATE, heard.shape[1])
    assert sorted(each.name for each in tmp_path.iterdir()) == [name, path.name]


def test_what_a_dawproject_says_of_its_tracks(tmp_path):
    project, metadata = parts(
        write("dawproject", write_stems(tmp_path / "A song", "vocals", "guitar", rate=48_000))
    )
    assert (project.find("Application").get("name"), project.get("version")) == ("stemsplit", "1.0")
    tracks = project.findall("Structure/Track")
    assert [track.find("Channel").get("role") for track in tracks] == ["regular", "regular", "master"]
    master = tracks[-1].find("Channel").get("id")
    assert [track.find("Channel").get("destination") for track in tracks] == [master, master, None]
    assert {track.get("contentType") for track in tracks} == {"audio"}
    assert {volume.get("value") for volume in project.iter("Volume")} == {"1.0"}
    units = [each.get("timeUnit") for each in project.find("Arrangement").iter("Lanes", "Clips", "Audio")]
    assert set(units) == {"seconds"}
    assert project.find(".//Warps") is None
    for clip in project.iter("Clip"):
        audio = clip.find("Audio")
        assert (clip.get("contentTimeUnit"), clip.get("playStart")) == ("seconds", "0.0")
        assert audio.get("duration") == clip.get("duration")
        assert (audio.get("sampleRate"), audio.get("channels")) == ("48000", "2")
    assert metadata.findtext("Title") == "A song"


def test_what_a_reaper_project_says_of_its_tracks(tmp_path):
    names = ("drums.flac", "guitar.mp3", "keys.ogg", "strings.aiff", "vocals")
    project = rpp.loads(write("reaper", write_stems(tmp_path / "it's", *names)).read_text(encoding="utf-8"))
    assert project.tag == "REAPER_PROJECT"
    assert project.find("SAMPLERATE") == ["SAMPLERATE", "44100", "1", "0"]
    assert project.find("TITLE") == ["TITLE", "it's"]
    tracks = {track.find("NAME")[1]: track for track in project.findall("TRACK")}
    sources = {name: track.find("ITEM").find("SOURCE").attrib for name, track in tracks.items()}
    kinds = {"drums": "FLAC", "guitar": "MP3", "keys": "VORBIS", "strings": "WAVE", "vocals": "WAVE"}
    assert sources == {name: [kind] for name, kind in kinds.items()}
    assert tracks["drums"].find("PEAKCOL")[1] == str(0x1_739E00)  # 0x1BBGGRR of #009E73
    for track in tracks.values():
        lines = {line[0]: line[1:] for line in track.find("ITEM") if isinstance(line, list)}
        assert (lines["LOOP"], lines["BEAT"], lines["SOFFS"], lines["PLAYRATE"][0]) == (
            ["0"],
            ["0"],
            ["0"],
            "1",
        )
        assert lines["FADEIN"][1] == lines["FADEOUT"][1] == "0"


def test_colours_are_those_of_stem_files_and_of_others_in_turn(tmp_path):
    project, _ = parts(write("dawproject", write_stems(tmp_path, *ORDER, "a", "b", "c", "d", "e")))
    colours = {track.get("name"): track.get("color") for track in project.iterfind("Structure/Track")}
    assert [colours[name] for name in ORDER] == list(COLOURS)
    assert len({colours[name] for name in (*ORDER, *"abcd")}) == 8
    assert colours["e"] == colours["a"]


def tempo(path: Path) -> tuple[str, str, str, str]:
    """A session's tempo, meter, and what it says of them."""
    if path.suffix == ".rpp":
        project = rpp.loads(path.read_text(encoding="utf-8"))
        return (*project.find("TEMPO")[1:], project.find("NOTES")[0].removeprefix("|"))
    project, metadata = parts(path)
    meter = project.find("Transport/TimeSignature")
    value = project.find("Transport/Tempo").get("value")
    return value, meter.get("numerator"), meter.get("denominator"), metadata.findtext("Comment")


@pytest.mark.parametrize("kind", daw.SUFFIXES)
def test_the_tempo_and_how_sure_it_is(tmp_path, kind):
    said = "tempo 97.0 BPM, confidence 0.81; key A minor, confidence 0.30"
    assert tempo(write(kind, write_stems(tmp_path))) == ("97.0", "4", "4", said)


def changes(path: Path) -> list[tuple[float, float]]:
    """The tempo map of a session as pairs of a time in seconds and a tempo."""
    if path.suffix == ".rpp":
        envelope = rpp.loads(path.read_text(encoding="utf-8")).find("TEMPOENVEX")
        return [(float(point[1]), float(point[2])) for point in envelope.findall("PT")]
    points = parts(path)[0].findall("Arrangement/TempoAutomation/RealPoint")
    found, seconds = [], 0.0
    for point, after in zip(points, [*points[1:], None], strict=True):
        found.append((seconds, float(point.get("value"))))
        beats = 0 if after is None else float(after.get("time")) - float(point.get("time"))
        seconds += beats * 60 / found[-1][1]
    return found


def lines(changes: list[tuple[float, float]], seconds: float) -> np.ndarray:
    """The lines of the grid that a tempo map draws, from 0 s on."""
    found, beat = [], 0.0
    for (start, bpm), (end, _) in zip(changes, [*changes[1:], (seconds, 0.0)], strict=True):
        last = beat + (end - start) * bpm / 60
        found += [
            start + (line - beat) * 60 / bpm for line in range(math.ceil(beat - 1e-6), math.ceil(last - 1e-6))
        ]
        beat = last
    return np.array(found)


@pytest.mark.parametrize("kind", daw.SUFFIXES)
@pytest.mark.parametrize("drift", [0.0, 0.1])
@pytest.mark.parametrize("first", [0.05, 0.3, 3.3])
def test_the_grid_is_on_the_beats(tmp_path, kind, drift, first):
    bpm = 100 * (1 + drift * np.sin(np.linspace(0, 3, 60)))
    times = first + np.concatenate([[0], np.cumsum(60 / bpm)])
    beats = Beats(times, None, 0, 60 * 60 / (times[-1] - first), 1.0)
    found = changes(write(kind, write_stems(tmp_path), replace(MUSIC, beats=beats)))
    assert len(found) == (16 if drift else 2)
    assert all(60 < tempo < 170 for _, tempo in found)
    grid = lines(found, times[-1] + 1)
    away = np.abs(grid[:, None] - times).min(axis=0)
    assert away[1:].max() < (0.01 if drift else 1e-6)
    assert np.diff(grid).min() > 0.3


@pytest.mark.parametrize("kind", daw.SUFFIXES)
def test_without_a_tempo_it_is_120_and_says_so(tmp_path, kind):
    said = "no tempo was detected: 120.0 BPM is used"
    assert tempo(write(kind, write_stems(tmp_path), NO_MUSIC)) == ("120.0", "4", "4", said)


def test_names_that_xml_must_escape_or_cannot_hold(tmp_path):
    folder = write_stems(tmp_path / "Tom & <Jerry>\n\x01", *ODD, os.fsdecode(b"caf\xe9"))
    path = write("dawproject", folder)
    tracks = placed(path)
    assert {*ODD[:6], "tab\N{REPLACEMENT CHARACTER}and\N{REPLACEMENT CHARACTER}bell"} < set(tracks)
    with zipfile.ZipFile(path) as archive:
        inside = [file for _, _, file in tracks.values()]
        assert set(inside) < set(archive.namelist())
        assert not set("".join(inside)) & set('\\:*?"<>|\t\n')
        whole = {archive.read(file) for file in inside}
    assert whole == {each.read_bytes() for each in folder.glob("*.wav")}
    assert parts(path)[1].findtext("Title").startswith("Tom & <Jerry>")


def test_names_that_a_reaper_project_must_quote(tmp_path):
    names = {name.replace("/", "_") for name in ODD[:6]}
    path = write("reaper", write_stems(tmp_path, *names))
    tracks = placed(path)
    assert set(tracks) == names
    for name, (_, _, file) in tracks.items():
        assert file == f"{name}.wav"


@pytest.mark.parametrize("name", ["a \"b\" 'c' `d`", "\"a'b`c", "two\nlines", os.fsdecode(b"caf\xe9")])
def test_files_that_a_reaper_project_cannot_name_are_refused(tmp_path, name):
    with pytest.raises(EncodeError, match="cannot name"):
        write("reaper", write_stems(tmp_path, name))
    assert [each.suffix for each in tmp_path.iterdir()] == [".wav"]


def test_a_title_with_every_quote_gets_another_mark(tmp_path):
    folder = write_stems(tmp_path / "a \"b\" 'c' `d`")
    project = rpp.loads(write("reaper", folder).read_text(encoding="utf-8"))
    assert project.find("TITLE")[1] == "a \"b\" 'c' 'd'"


def test_a_reaper_project_elsewhere_finds_its_stems(tmp_path):
    folder, path = write_stems(tmp_path / "stems" / "a song"), tmp_path / "sessions" / "new" / "mine.rpp"
    daw.write("reaper", stem_folder.find(folder), path, MUSIC)
    shutil.move(tmp_path, moved := tmp_path.with_name("moved"))
    files = {
        Path(os.path.normpath(moved / "sessions" / "new" / file))
        for *_, file in placed(moved / path.relative_to(tmp_path)).values()
    }
    assert files == set((moved / "stems" / "a song").glob("*.wav"))


@pytest.mark.parametrize("kind", daw.SUFFIXES)
def test_a_session_that_is_there_is_only_replaced_by_force(tmp_path, kind):
    path = write_stems(tmp_path) / f"session{daw.SUFFIXES[kind]}"
    path.write_text("mine")
    with pytest.raises(OutputExists):
        write(kind, tmp_path)
    assert path.read_text() == "mine"
    assert len(placed(write(kind, tmp_path, force=True))) == 4


def test_nothing_half_written_stays(tmp_path, monkeypatch):
    path = write_stems(tmp_path, "bass", "vocals.ogg") / "session.dawproject"
    path.write_text("mine")
    monkeypatch.setattr(
        Writer, "write", lambda self, block: (_ for _ in ()).throw(OSError(28, "No space left"))
    )
    with pytest.raises(EncodeError, match=r"session\.dawproject.*the disk is full"):
        write("dawproject", tmp_path, force=True)
    assert path.read_text() == "mine"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["bass.wav", path.name, "vocals.ogg"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", daw.SUFFIXES)
def test_memory_does_not_grow_with_the_stems(tmp_path, kind):
    with soundfile.SoundFile(tmp_path / "long.wav", "w", 44_100, 2) as file:
        for _ in range(40):
            file.write(np.zeros((250_000, 2), np.float32))
    found = stem_folder.find(tmp_path)
    tracemalloc.start()
    path = daw.write(kind, found, tmp_path / f"x{daw.SUFFIXES[kind]}", MUSIC)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000 < (tmp_path / "long.wav").stat().st_size / 10
    assert placed(path)["long"][1] * 44_100 == pytest.approx(10_000_000)


# The command


def run(*words: str | Path):
    return CliRunner().invoke(app, ["daw", *map(str, words)])


def clicks(folder: Path, bpm: float) -> Path:
    """Ten seconds of a stem that ticks, and of one that hums."""
    folder.mkdir(parents=True)
    time = np.arange(10 * 22_050) / 22_050
    since = time % (60 / bpm)
    soundfile.write(folder / "drums.wav", np.exp(-40 * since) * np.sin(9000 * since), 22_050)
    soundfile.write(folder / "bass.wav", 0.1 * np.sin(2 * np.pi * 110 * time), 22_050)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", daw.SUFFIXES)
def test_the_session_lies_beside_the_stems_at_their_tempo(tmp_path, kind):
    folder = clicks(tmp_path / "song", 100)
    path = folder / f"song{daw.SUFFIXES[kind]}"
    result = run(folder, "--format", kind)
    assert (result.exit_code, result.stdout) == (0, f"{path}\n")
    assert float(tempo(path)[0]) == pytest.approx(100, abs=1)
    assert tempo(path)[3] == result.stderr.strip()
    again = run(folder, "-f", kind)
    assert (again.exit_code, again.stdout) == (1, "")
    assert "--force" in again.stderr
    quiet = run(folder, "-f", kind, "--force", "-q")
    assert (quiet.exit_code, quiet.stdout, quiet.stderr) == (0, f"{path}\n", "")


@pytest.mark.slow
def test_the_tempo_is_the_mixtures_where_it_lies_there(tmp_path):
    folder = clicks(tmp_path / "song", 100)
    ticks, rate = soundfile.read(folder / "drums.wav")
    (folder / "drums.wav").unlink()
    soundfile.write(folder / "mixture.wav", ticks.repeat(2), 2 * rate)
    assert analyse_stems(replace(stem_folder.find(folder), mixture=None)).bpm != pytest.approx(100, abs=5)
    assert run(folder).exit_code == 0
    assert float(tempo(folder / "song.dawproject")[0]) == pytest.approx(100, abs=1)
    assert set(placed(folder / "song.dawproject")) == {"bass"}


@pytest.mark.slow
def test_what_cannot_be_done_is_said_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr("stemsplit.analysis.music.analyse_stems", None)
    folder = write_stems(tmp_path / "song")
    (tmp_path / "taken.dawproject").mkdir()
    for words, said in [
        ([tmp_path / "nowhere"], "No folder"),
        ([tmp_path], "No stems"),
        ([folder, "-o", folder / "vocals.wav", "--force"], ".dawproject"),
        ([folder, "-o", tmp_path / "taken.dawproject", "--force"], "is a folder"),
    ]:
        result = run(*words)
        assert (result.exit_code, result.stdout) == (1, "")
        assert said in result.stderr
    assert run(folder, "--format", "logic").exit_code == 2


def test_a_stem_that_is_no_sound_is_said_so(tmp_path):
    (write_stems(tmp_path, "bass") / "vocals.wav").write_text("no sound")
    with pytest.raises(DecodeError):
        stem_folder.find(tmp_path)
    assert run(tmp_path).exit_code == 1
