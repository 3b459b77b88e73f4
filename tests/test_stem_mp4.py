"""Stem files: what players find in them, what comes out again, and what becomes of damaged ones."""

from __future__ import annotations

import importlib.util
import itertools
import json
import shutil
import struct
import subprocess
import tracemalloc
from pathlib import Path
from random import Random
from typing import Any

import mutagen.mp4
import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from stemsplit.audio import ffmpeg
from stemsplit.audio.reader import Reader, Signal
from stemsplit.audio.stem_boxes import read_stem_names
from stemsplit.audio.stem_labels import COLOURS, ORDER, Label, label_stems
from stemsplit.audio.stem_mp4 import StemFile
from stemsplit.audio.writer import Encoding, Writer, together
from stemsplit.cli import app
from stemsplit.datasets.songs import MUSDB18, find_songs
from stemsplit.errors import DecodeError, EncodeError, OutputExists, UsageError
from stemsplit.export.unpack import unpack
from stemsplit.options import OutputOptions
from stemsplit.output.template import file_names
from stemsplit.pipeline import split_file
from tests.conftest import events, quick_separator
from tests.test_formats import lag, noise, run_ffmpeg

pytestmark = pytest.mark.subprocess  # most of these start ffmpeg

NAMES = ("vocals", "drums", "bass", "other")  # not as the file has them
TRACKS = ("mixture", *ORDER)
RATE, FRAMES = 44_100, 60_001  # no multiple of AAC's frame
LABELS = tuple(map(Label, ORDER, COLOURS))
CODEC_DB = -28.0
"""Error of the codec at 256k on this song, over the song's level: measured at -31 to -36 dB."""


def song(channels: int = 2) -> np.ndarray:
    """Four different stems, `(stem, channel, time)`: chords, for codecs change noise."""
    rng, time = np.random.default_rng(440), np.arange(FRAMES) / RATE
    hz, phase = rng.uniform(80, 3000, (4, channels, 6, 1)), rng.uniform(0, 6, (4, channels, 6, 1))
    chords = np.sin(2 * np.pi * hz * time + phase).sum(axis=2)
    swells = 1 + np.sin(2 * np.pi * np.arange(1, 5)[:, None, None] * time)
    return (0.03 * chords * swells).astype(np.float32)


def write(path: Path, stems: np.ndarray, names: tuple[str, ...] = NAMES, **options: Any) -> StemFile:
    file = StemFile(path, label_stems(names), Signal(RATE, stems.shape[1]), **options)
    with together([file]):
        for start in range(0, stems.shape[-1], 10_000):
            block = stems[..., start : start + 10_000]
            file.write_tracks(block.sum(axis=0), block)
    return file


def read(path: Path, track: int = 0) -> np.ndarray:
    return np.concatenate(list(Reader(path, track=track)), axis=1)


def error_db(estimate: np.ndarray, reference: np.ndarray) -> float:
    return float(10 * np.log10(np.sum((estimate - reference) ** 2) / np.sum(reference**2) + 1e-12))


def boxes(data: bytes) -> list[tuple[bytes, bytes]]:
    """Kinds and contents of boxes that fill `data` exactly; read apart from the program's own reader."""
    found = []
    while data:
        size, kind = struct.unpack(">I4s", data[:8])
        assert 8 <= size <= len(data)
        found.append((kind, data[8:size]))
        data = data[size:]
    return found


def box(kind: bytes, *contents: bytes, size: int | None = None) -> bytes:
    content = b"".join(contents)
    return struct.pack(">I4s", len(content) + 8 if size is None else size, kind) + content


FTYP = box(b"ftyp", b"M4A \0\0\0\0")


def with_text(text: bytes) -> bytes:
    return FTYP + box(b"moov", box(b"udta", box(b"stem", text)))


@pytest.fixture(scope="module")
def stem_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("stems") / "song.stem.mp4"
    write(path, song())
    return path


# Writing


@pytest.mark.slow
def test_all_tracks_are_there_in_the_usual_order_and_in_place(stem_file):
    stems = dict(zip(NAMES, song(), strict=True))
    for track, name in enumerate(TRACKS):
        wanted = stems[name] if track else sum(stems.values())
        decoded = read(stem_file, track)
        assert decoded.shape == (2, FRAMES)
        assert lag(decoded, wanted) == 0
        assert error_db(decoded, wanted) < CODEC_DB
    with pytest.raises(DecodeError, match="fewer than 6"):
        Reader(stem_file, track=5)


def test_the_stems_add_up_to_the_mixture(stem_file):
    total = sum(read(stem_file, track) for track in (1, 2, 3, 4))
    assert error_db(total, read(stem_file)) < CODEC_DB
    assert error_db(total, song().sum(axis=0)) < CODEC_DB


def test_a_deck_finds_what_it_looks_for(stem_file):
    top = boxes(stem_file.read_bytes())
    assert top[0][1][:4] == b"M4A "
    assert [kind for kind, _ in top][-1] == b"moov", "the index comes last: nothing before it was moved"
    moov = boxes(top[-1][1])
    headers = [dict(boxes(content))[b"tkhd"] for kind, content in moov if kind == b"trak"]
    assert [header[:4] for header in headers] == [b"\0\0\0\1"] + 4 * [b"\0\0\0\0"], (
        "only the mixture is enabled"
    )
    assert [header[34:36] for header in headers] == 5 * [b"\0\0"], "none plays instead of another"
    assert moov[-1][0] == b"udta"
    facts = json.loads(dict(boxes(moov[-1][1]))[b"stem"])
    assert facts["version"] == 1
    assert facts["stems"] == [
        {"name": name, "color": colour} for name, colour in zip(ORDER, COLOURS, strict=True)
    ]
    assert set(facts["mastering_dsp"]) == {"compressor", "limiter"}
    assert not any(part["enabled"] for part in facts["mastering_dsp"].values())


def test_other_names_come_last_in_their_own_order(tmp_path):
    write(tmp_path / "a.stem.mp4", song(), ("piano", "vocals", "lead ä", "drums"))
    assert [label.name for label in read_stem_names(tmp_path / "a.stem.mp4")] == [
        *("drums", "vocals", "piano", "lead ä")
    ]
    assert error_db(read(tmp_path / "a.stem.mp4", 3), song()[0]) < CODEC_DB


@pytest.mark.slow
def test_a_mono_song_has_two_equal_channels(tmp_path):
    file = write(tmp_path / "a.stem.mp4", song(1))
    assert set(file.peaks) == {"mixture", *NAMES}
    for track, wanted in ((0, song(1).sum(axis=0)), (4, song(1)[0])):
        decoded = read(tmp_path / "a.stem.mp4", track)
        assert decoded.shape == (2, FRAMES)
        assert error_db(decoded, np.repeat(wanted, 2, axis=0)) < CODEC_DB


def test_peaks_are_told_and_clipped(tmp_path):
    stems = song() * np.array([1, 1, 8, 1], np.float32)[:, None, None]
    file = write(tmp_path / "a.stem.mp4", stems)
    wanted = {"mixture": stems.sum(axis=0)} | dict(zip(NAMES, stems, strict=True))
    assert file.peaks == {name: pytest.approx(np.abs(sound).max()) for name, sound in wanted.items()}
    assert file.peaks["bass"] > 1
    assert file.clips
    # Clipping makes noise, which the codec changes; what is above full scale it makes far worse.
    assert error_db(read(tmp_path / "a.stem.mp4", 2), stems[2].clip(-1, 1)) < -20


def test_a_lower_bitrate_makes_a_smaller_file(stem_file, tmp_path):
    write(tmp_path / "a.stem.mp4", song(), encoding=Encoding(bitrate="64k"))
    assert (tmp_path / "a.stem.mp4").stat().st_size < stem_file.stat().st_size / 2


@pytest.mark.parametrize("rate", [RATE, 96_000])
@pytest.mark.parametrize("depth", ["16", "24"])
@pytest.mark.parametrize("codec", ["alac", "flac"])
def test_lossless_codecs_keep_every_sample(codec, depth, rate, tmp_path):
    stems = song() * np.array([1, 1, 12, 1], np.float32)[:, None, None]  # the third is clipped
    path = tmp_path / "a.stem.mp4"
    file = StemFile(path, label_stems(NAMES), Signal(rate, 2), Encoding(depth, codec=codec))
    with together([file]):
        file.write_tracks(stems.sum(axis=0), stems)
    assert file.clips
    scale = 2.0 ** (int(depth) - 1)
    for track, name in enumerate(TRACKS[1:], 1):
        wanted = np.rint(stems[NAMES.index(name)] * np.float32(scale)).clip(-scale, scale - 1) / scale
        assert np.array_equal(read(path, track), wanted.astype(np.float32))
    assert Reader(path, track=1).sample_rate == rate


@pytest.mark.parametrize(
    ("codec", "kind", "delay"), [("aac", b"mp4a", 1024), ("alac", b"alac", 0), ("flac", b"fLaC", 0)]
)
def test_boxes_give_the_exact_length(codec, kind, delay, tmp_path):
    write(tmp_path / "a.stem.mp4", song(), encoding=Encoding("16", codec=codec))
    moov = boxes(dict(boxes((tmp_path / "a.stem.mp4").read_bytes()))[b"moov"])
    assert struct.unpack(">II", dict(moov)[b"mvhd"][12:20]) == (RATE, FRAMES)
    tracks = [dict(boxes(content)) for name, content in moov if name == b"trak"]
    assert len(tracks) == 5
    for track in tracks:
        edits = dict(boxes(track[b"edts"]))[b"elst"]
        assert struct.unpack(">IIi", edits[4:16]) == (1, FRAMES, delay), "one edit: play this long, from here"
        media = dict(boxes(track[b"mdia"]))
        assert struct.unpack(">I", media[b"mdhd"][12:16]) == (RATE,)
        table = dict(boxes(dict(boxes(media[b"minf"]))[b"stbl"]))
        assert table[b"stsd"][12:16] == kind
        assert struct.unpack(">H", table[b"stsd"][32:34]) == (2,), "channels"
    facts = json.loads(dict(boxes(dict(moov)[b"udta"]))[b"stem"])
    assert [stem["name"] for stem in facts["stems"]] == list(ORDER)
    for track in range(5):
        assert read(tmp_path / "a.stem.mp4", track).shape == (2, FRAMES)


def test_names_and_colours_are_as_given(tmp_path):
    labels = label_stems(NAMES, ("Kit", "Sub", "Keys ä", "Vox"), ("#111111", "#222222", "#333333", "#444444"))
    assert labels["vocals"] == Label("Vox", "#444444")
    file = StemFile(tmp_path / "a.stem.mp4", labels, Signal(RATE, 2))
    with together([file]):
        file.write_tracks(song().sum(axis=0), song())
    assert set(file.peaks) == {"mixture", *NAMES}
    assert read_stem_names(tmp_path / "a.stem.mp4") == tuple(labels[name] for name in ORDER)
    assert error_db(read(tmp_path / "a.stem.mp4", 4), song()[0]) < CODEC_DB


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stem_names": ["Kit", "Bass", "Vox"]}, "names for four stems, not 3: Kit, Bass, Vox"),
        ({"stem_names": ["Kit", "Bass", " ", "Vox"]}, "1 to 100 printable characters, not ''"),
        ({"stem_names": ["Kit", "Bass", "a\nb", "Vox"]}, "printable characters"),
        ({"stem_names": ["Kit", "Bass", "x" * 101, "Vox"]}, "1 to 100"),
        ({"stem_names": ["Kit", "Bass", "kit", "Vox"]}, "must differ: Kit, Bass, kit, Vox"),
        ({"stem_colors": ["009E73"]}, "colors for four stems, not 1: 009E73"),
        ({"stem_colors": ["009E73", "red", "CC79A7", "56B4E9"]}, "six hexadecimal digits, not `red`"),
        ({"codec": "opus"}, "No codec `opus`"),
    ],
)
def test_options_that_make_no_sense_are_refused_at_once(options, words):
    with pytest.raises(UsageError, match=words) as caught:
        OutputOptions(format="stem.mp4", **options)
    assert caught.value.hint
    with pytest.raises(UsageError, match="are for format stem.mp4"):
        OutputOptions(format="wav", **options)


def test_options_of_stem_files_are_kept_in_one_form():
    options = OutputOptions(format="stem.mp4", stem_names=["A ", "B", "C", "D"], stem_colors=["#aabbcc"] * 4)
    assert options.stem_names == ("A", "B", "C", "D")
    assert options.stem_colors == 4 * ("#AABBCC",)
    assert options.of_stem_files == {"stem_names": ["A", "B", "C", "D"], "stem_colors": 4 * ["#AABBCC"]}
    assert OutputOptions().of_stem_files == {}


def test_tags_and_cover_are_carried_over(tmp_path):
    run_ffmpeg("-f", "lavfi", "-i", "color=red:s=16x16", "-frames:v", "1", tmp_path / "cover.png")
    soundfile.write(tmp_path / "bare.wav", noise().T, RATE)
    tags = ["-metadata", "title=A; song=\n#1", "-metadata", "artist=Ärzte"]
    picture = ["-i", tmp_path / "cover.png", "-map", "0:a", "-map", "1:v", "-disposition:v", "attached_pic"]
    run_ffmpeg("-i", tmp_path / "bare.wav", *picture, *tags, tmp_path / "a.mp3")
    write(tmp_path / "a.stem.mp4", song(), tags_from=tmp_path / "a.mp3")
    found = mutagen.mp4.MP4(tmp_path / "a.stem.mp4").tags
    assert (found["\xa9nam"], found["\xa9ART"]) == (["A; song=\n#1"], ["Ärzte"])
    assert len(found["covr"]) == 1
    assert read_stem_names(tmp_path / "a.stem.mp4") == LABELS
    assert read(tmp_path / "a.stem.mp4", 4).shape == (2, FRAMES)


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        (NAMES[:3], {}, "four stems, not vocals, drums, bass"),
        (("vocals",) * 4, {}, "four stems"),
        (NAMES, {"encoding": Encoding(bitrate="loud")}, "not a bitrate"),
        (NAMES, {"encoding": Encoding("32f", codec="alac")}, "ALAC cannot store float samples"),
        (NAMES, {"encoding": Encoding(bitrate="64k", codec="flac")}, "A bitrate does not apply to flac"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(names, options, words, tmp_path):
    with pytest.raises(EncodeError, match=words) as caught:
        StemFile(tmp_path / "a.stem.mp4", label_stems(names), Signal(RATE, 2), **options)
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_without_ffmpeg_it_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(ffmpeg, "executable", lambda: None)
    with pytest.raises(EncodeError, match="without ffmpeg"):
        StemFile(tmp_path / "a.stem.mp4", label_stems(NAMES), Signal(RATE, 2))


def test_a_file_that_is_there_is_kept_unless_forced(tmp_path):
    path = tmp_path / "a.stem.mp4"
    path.write_bytes(b"mine")
    with pytest.raises(OutputExists):
        write(path, song())
    assert path.read_bytes() == b"mine"
    write(path, song(), force=True)
    assert read_stem_names(path) == LABELS
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, ValueError])
def test_an_interrupted_write_leaves_nothing(interruption, tmp_path):
    file = StemFile(tmp_path / "new" / "a.stem.mp4", label_stems(NAMES), Signal(RATE, 2))
    with pytest.raises(interruption), together([file]):  # noqa: PT012
        file.write_tracks(song().sum(axis=0), song())
        raise interruption
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_dies_is_an_error_and_leaves_nothing(tmp_path):
    file = StemFile(tmp_path / "a.stem.mp4", label_stems(NAMES), Signal(RATE, 2))
    with pytest.raises(EncodeError, match="Cannot write"), together([file]):  # noqa: PT012
        file._file._process.popen.kill()
        file._file._process.popen.wait()
        file.write_tracks(song().sum(axis=0), song())
    assert list(tmp_path.iterdir()) == []


def test_a_block_of_another_shape_is_a_bug_of_the_caller(tmp_path):
    file = StemFile(tmp_path / "a.stem.mp4", label_stems(NAMES), Signal(RATE, 2))
    with pytest.raises(ValueError, match="4 of the mixture's shape"), together([file]):
        file.write_tracks(song().sum(axis=0), song()[:3])


# Reading names


def test_other_files_name_no_stems(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise().T, RATE)
    with Writer(tmp_path / "a.m4a", Signal(RATE, 2)) as writer:
        writer.write(noise())
    (tmp_path / "empty").touch()
    for name in ("a.wav", "a.m4a", "empty"):
        assert read_stem_names(tmp_path / name) is None


@pytest.mark.skipif(importlib.util.find_spec("stempeg") is None, reason="stempeg brings a file of NI's")
def test_a_file_of_native_instruments_is_read(tmp_path):
    (path,) = Path(importlib.util.find_spec("stempeg").origin).parent.glob("data/*.stem.mp4")
    labels = read_stem_names(path)
    assert labels is not None
    assert [label.name for label in labels] == ["Drums", "Bass", "Other", "Vox"]
    assert [label.colour for label in labels] == list(COLOURS)
    result = unpack(path, tmp_path)
    assert list(result.outputs) == ["mixture", "Drums", "Bass", "Other", "Vox"]
    assert len({soundfile.info(output).frames for output in result.outputs.values()}) == 1
    assert result.frames > 100_000


def test_names_are_found_behind_more_sound_than_fits_in_memory(tmp_path):
    path = tmp_path / "long.stem.mp4"
    size = 5 << 30
    with path.open("wb") as file:
        file.write(FTYP + struct.pack(">I4sQ", 1, b"mdat", size))
        file.seek(len(FTYP) + size)
        file.write(with_text(b'{"stems": [{"name": "drums", "color": "#009E73"}]}\0\0')[len(FTYP) :])
    assert read_stem_names(path) == LABELS[:1]


def test_what_is_missing_in_the_list_is_made_up(tmp_path):
    path = tmp_path / "a.stem.mp4"
    path.write_bytes(
        with_text(b'{"stems": [{}, {"name": 3, "color": []}, {"name": " ", "color": "#000000"}]}')
    )
    assert read_stem_names(path) == (Label("stem 1", ""), Label("stem 2", ""), Label("stem 3", "#000000"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (with_text(b"{"), "no JSON"),
        (with_text(b""), "no JSON"),
        (with_text(b"\xff\xfe"), "no JSON"),
        (with_text(b"[" * 100_000), "no JSON"),
        (with_text(b"[]"), "lists no stems"),
        (with_text(b"{}"), "lists no stems"),
        (with_text(b'{"stems": []}'), "lists no stems"),
        (with_text(b'{"stems": ["drums"]}'), "lists no stems"),
        (with_text(b'{"stems": {"name": "drums"}}'), "lists no stems"),
        (FTYP + box(b"moov", box(b"udta", box(b"stem", b"{}", size=1 << 31))), "does not fit"),
        (FTYP + box(b"moov", box(b"udta", size=7)), "does not fit"),
        (FTYP + box(b"moov", size=0xFFFF_FFFF), "does not fit"),
        (FTYP + struct.pack(">I4sQ", 1, b"mdat", 15), "does not fit"),
        (FTYP + struct.pack(">I4sQ", 1, b"mdat", (1 << 64) - 1), "does not fit"),
        (FTYP + struct.pack(">I4s", 1, b"mdat"), "does not fit"),
        (FTYP + 100_001 * box(b"free"), "too many parts"),
    ],
)
def test_a_damaged_list_is_told_in_one_sentence(data, words, tmp_path):
    path = tmp_path / "a.stem.mp4"
    path.write_bytes(data)
    with pytest.raises(DecodeError, match=words) as caught:
        read_stem_names(path)
    assert "a.stem.mp4` is damaged: " in caught.value.message
    assert caught.value.hint


def test_a_list_of_two_gigabytes_is_not_read(tmp_path):
    path = tmp_path / "a.stem.mp4"
    size = 2 << 30
    with path.open("wb") as file:
        parts = [(b"moov", size + 24), (b"udta", size + 16), (b"stem", size + 8)]
        file.write(FTYP + b"".join(struct.pack(">I4s", length, kind) for kind, length in parts))
        file.truncate(len(FTYP) + size + 24)
    tracemalloc.start()
    with pytest.raises(DecodeError, match="too long"):
        read_stem_names(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_no_damage_does_more_than_raise_a_decode_error(stem_file, tmp_path):
    data, random = stem_file.read_bytes(), Random(1)
    index = data.rindex(b"moov") - 4
    path = tmp_path / "a.stem.mp4"
    outcomes = set()
    for number in range(300):
        if number % 3 == 0:
            damaged = data[: random.randrange(len(data))]
        else:
            damaged = bytearray(data)
            for _ in range(random.randrange(1, 200)):
                damaged[random.randrange(index if number % 3 == 1 else 0, len(data))] = random.randrange(256)
        path.write_bytes(damaged)
        try:
            outcomes.add(type(read_stem_names(path)))
        except DecodeError:
            outcomes.add(DecodeError)
    assert {tuple, DecodeError} <= outcomes


def test_a_folder_or_nothing_is_told(tmp_path):
    for path in (tmp_path, tmp_path / "gone"):
        with pytest.raises(DecodeError, match="Cannot read"):
            read_stem_names(path)


# Unpacking


@pytest.mark.parametrize(("format", "depth"), [("wav", "16"), ("wav", "32f"), ("flac", "24"), ("m4a", "16")])
def test_unpacked_tracks_are_whole(format, depth, stem_file, tmp_path):
    result = unpack(stem_file, tmp_path, format=format, depth="same" if format == "m4a" else depth)
    assert list(result.outputs) == list(TRACKS)
    assert (result.frames, result.sample_rate, result.channels) == (FRAMES, RATE, 2)
    assert result.warnings == []
    for track, (name, path) in enumerate(result.outputs.items()):
        assert path == tmp_path / "song" / f"{name}.{format}"
        decoded, wanted = read(path), read(stem_file, track)
        assert decoded.shape == wanted.shape
        assert error_db(decoded, wanted) < (CODEC_DB if format == "m4a" else -60)
        assert result.peaks[name] == pytest.approx(np.abs(wanted).max())


def test_the_command_prints_paths_or_json(stem_file, tmp_path):
    words = ["unpack", str(stem_file), "-o", str(tmp_path / "out")]
    plain = CliRunner().invoke(app, words)
    assert plain.exit_code == 0
    assert plain.stdout.splitlines() == [str(tmp_path / "out" / "song" / f"{name}.wav") for name in TRACKS]
    assert CliRunner().invoke(app, words).exit_code == 1, "they are there already"
    _, told, _ = events(CliRunner().invoke(app, [*words, "--force", "--json"]).stdout)
    assert (told["status"], told["frames"], list(told["outputs"])) == ("ok", FRAMES, list(TRACKS))


def test_one_bad_file_stops_no_other(stem_file, tmp_path):
    words = ["unpack", str(tmp_path / "gone.mp4"), str(stem_file), "-o", str(tmp_path)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 5
    assert "gone.mp4" in result.stderr
    assert CliRunner().invoke(app, ["unpack", "a/b.stem.mp4", "B.mp4", "-o", str(tmp_path)]).exit_code == 2


def test_stems_without_names_are_taken_in_the_usual_order(stem_file, tmp_path):
    run_ffmpeg("-i", stem_file, "-map", "0", "-c", "copy", tmp_path / "bare.mp4")
    assert read_stem_names(tmp_path / "bare.mp4") is None
    result = unpack(tmp_path / "bare.mp4", tmp_path)
    assert list(result.outputs) == list(TRACKS)
    assert result.warnings == [
        "`bare.mp4` does not name its stems; the usual order is assumed: drums, bass, other, vocals."
    ]


def test_a_song_is_no_stem_file(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise().T, RATE)
    with pytest.raises(DecodeError, match="not a stem file: it has fewer than 5 audio tracks"):
        unpack(tmp_path / "a.wav", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_clipping_is_told(tmp_path):
    write(tmp_path / "a.stem.mp4", 3.3 * song())
    assert (
        "avoid clipping with --format wav --depth 32f"
        in unpack(tmp_path / "a.stem.mp4", tmp_path).warnings[0]
    )
    whole = unpack(tmp_path / "a.stem.mp4", tmp_path, depth="32f", force=True)
    assert whole.warnings == []
    assert max(whole.peaks.values()) > 1


def test_the_stem_file_itself_is_never_replaced(stem_file, tmp_path):
    path = tmp_path / "mixture" / "mixture.m4a"
    path.parent.mkdir()
    shutil.copy(stem_file, path)
    with pytest.raises(EncodeError, match="overwrite the stem file itself"):
        unpack(path, tmp_path, format="m4a", force=True)
    assert path.read_bytes() == stem_file.read_bytes()


def test_names_of_files_lead_nowhere_else():
    evil = [
        "../../etc/passwd",
        "a/b",
        "C:\\x",
        "aux",
        "nul.x",
        "",
        "Mixture",
        "a\0b\n",
        "ä" * 300,
        "\ud800",
        "…",
    ]
    names = file_names(["mixture", *evil, "drums", "Drums", "drums"])
    assert names[0] == "mixture"
    assert names[-3:] == ["drums", "Drums 2", "drums 3"]
    assert names[7] == "Mixture 2"
    assert len({name.casefold() for name in names}) == len(names)
    for name in names:
        assert name == Path(name).name
        assert 0 < len(name.encode()) < 200
        assert name.partition(".")[0].lower() not in ("", "aux", "nul", "con")
        assert not set(name) & set('/\\:*?"<>|\0\n')


# Other programs


needs_ffprobe = pytest.mark.skipif(
    not all(map(shutil.which, ("ffmpeg", "ffprobe"))) or importlib.util.find_spec("stempeg") is None,
    reason="stempeg reads by ffmpeg and ffprobe on the PATH",
)


@needs_ffprobe
@pytest.mark.slow
@pytest.mark.parametrize("codec", ["alac", "flac"])
def test_stempeg_and_ffprobe_read_lossless_tracks(codec, tmp_path):
    import stempeg

    path = tmp_path / "a.stem.mp4"
    write(path, song(), encoding=Encoding("16", codec=codec))
    sound, rate = stempeg.read_stems(str(path))
    assert (rate, sound.shape) == (RATE, (5, FRAMES, 2))
    stems = dict(zip(NAMES, song(), strict=True))
    for name, decoded in zip(TRACKS[1:], sound[1:], strict=True):
        assert np.abs(decoded.T - stems[name]).max() <= 0.5001 / 2**15
    told = ["-show_entries", "stream=codec_name,duration_ts,start_pts,channels", "-of", "json"]
    found = json.loads(subprocess.check_output(["ffprobe", "-v", "error", *told, str(path)]))
    assert found["streams"] == 5 * [
        {"codec_name": codec, "channels": 2, "start_pts": 0, "duration_ts": FRAMES}
    ]


@needs_ffprobe
def test_stempeg_reads_the_tracks(stem_file):
    import stempeg

    sound, rate = stempeg.read_stems(str(stem_file))
    assert rate == RATE
    assert sound.shape[::2] == (5, 2)
    assert FRAMES <= sound.shape[1] < FRAMES + 1024  # ffmpeg 5 leaves the encoder's padding there
    assert stempeg.Info(str(stem_file)).title_streams == list(TRACKS)
    stems = dict(zip(NAMES, song(), strict=True))
    for name, decoded in zip(TRACKS[1:], sound[1:], strict=True):
        assert error_db(decoded[:FRAMES].T, stems[name]) < CODEC_DB
    assert error_db(sound[1:].sum(axis=0), sound[0]) < CODEC_DB


@needs_ffprobe
def test_musdb_and_our_own_data_reader_agree(stem_file, tmp_path):
    musdb = pytest.importorskip("musdb")
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        shutil.copy(stem_file, tmp_path / split / "A - B.stem.mp4")
    (theirs,) = musdb.DB(root=str(tmp_path), subsets="test")
    (ours,) = find_songs([f"{MUSDB18}{tmp_path}"], "test", NAMES)
    parts = dict(zip(NAMES, ours.load(RATE).parts, strict=False))
    for name in NAMES:
        decoded = theirs.targets[name].audio.T
        assert error_db(decoded[:, :FRAMES], parts[name]) < -60
    assert error_db(theirs.audio.T[:, :FRAMES], sum(parts.values())) < CODEC_DB


def test_our_own_data_reader_finds_the_stems(stem_file, tmp_path):
    (tmp_path / "test").mkdir()
    shutil.copy(stem_file, tmp_path / "test" / "A - B.stem.mp4")
    (source,) = find_songs([f"{MUSDB18}{tmp_path}"], "test", NAMES)
    loaded = source.load(RATE)
    assert loaded.length == FRAMES
    for stem, part in itertools.zip_longest(song(), loaded.parts[:-1]):
        assert error_db(part, stem) < CODEC_DB


@pytest.mark.slow
def test_a_split_takes_codec_names_and_colours(tmp_path):
    soundfile.write(tmp_path / "a.wav", song().sum(axis=0).T, RATE, subtype="FLOAT")
    result = split_file(
        tmp_path / "a.wav",
        tmp_path,
        separator=quick_separator(),
        format="stem.mp4",
        codec="flac",
        stem_names=["Kit", "Sub", "Keys", "Vox"],
        stem_colors=["111111", "222222", "333333", "444444"],
    )
    path = tmp_path / "a.stem.mp4"
    assert set(result.outputs.values()) == {path}
    assert [label.name for label in read_stem_names(path)] == ["Kit", "Sub", "Keys", "Vox"]
    assert [label.colour for label in read_stem_names(path)] == ["#111111", "#222222", "#333333", "#444444"]
    tracks = [read(path, track) for track in range(5)]
    assert tracks[0].shape == (2, FRAMES)
    assert np.abs(sum(tracks[1:]) - tracks[0]).max() < 5 / 2**24, "24 bits, of a float track"
