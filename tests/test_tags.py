"""Tags and covers: each field in each container's own frames, whatever a file holds."""

from __future__ import annotations

import base64
import io
import shutil
import struct
import tracemalloc
import wave
import zlib
from pathlib import Path
from random import Random

import mutagen
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mutagen import aiff, flac, id3, mp3, mp4, oggopus, oggvorbis
from mutagen import wave as mutagen_wave

from stemsplit.audio import tag_fields, tags
from stemsplit.audio.formats import FORMATS
from stemsplit.audio.reader import Reader, Signal
from stemsplit.audio.stem_boxes import read_stem_names
from stemsplit.audio.stem_labels import label_stems
from stemsplit.audio.stem_mp4 import StemFile
from stemsplit.audio.tags import Tags, read_tags, write_tags
from stemsplit.audio.writer import Writer
from tests.mutate import run_ffmpeg

pytestmark = pytest.mark.subprocess  # most of these start ffmpeg

RATE, FRAMES = 44_100, 4_410
SOURCES = ("mp3", "wav", "aiff", "flac", "ogg", "opus", "m4a", "mka")
OUTPUTS = (*FORMATS, "stem.mp4")
SONG = {
    "title": "Ärger = ; # \\\n[STREAM]",
    "artist": "Ünï 🎵",
    "album": "Dreams",
    "albumartist": "Various",
    "date": "2001-02-03",
    "tracknumber": "3/9",
    "discnumber": "1/2",
    "genre": "House",
    "bpm": "128",
    "initialkey": "Am",
    "comment": "one\ntwo",
    "isrc": "USRC17607839",
    "remixer": "Somebody",
    "composer": "Me",
    "label": "Records",
}
ID3 = {
    "title": "TIT2",
    "artist": "TPE1",
    "album": "TALB",
    "albumartist": "TPE2",
    "date": "TDRC",
    "tracknumber": "TRCK",
    "discnumber": "TPOS",
    "genre": "TCON",
    "bpm": "TBPM",
    "initialkey": "TKEY",
    "comment": "COMM",
    "isrc": "TSRC",
    "remixer": "TPE4",
    "composer": "TCOM",
    "label": "TPUB",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures, and a bare file of each format."""
    folder = tmp_path_factory.mktemp("tags")
    run_ffmpeg("-f", "lavfi", "-i", "color=red:s=64x64", "-frames:v", "1", folder / "front.jpg")
    run_ffmpeg("-f", "lavfi", "-i", "color=blue:s=32x32", "-frames:v", "1", folder / "back.png")
    sound = 0.1 * np.random.default_rng(1).standard_normal((FRAMES, 2))
    soundfile.write(folder / "bare.wav", sound, RATE)
    for kind in {*SOURCES, *FORMATS} - {"wav"}:
        run_ffmpeg("-i", folder / "bare.wav", "-fflags", "+bitexact", folder / f"bare.{kind}")
    write(folder / "bare.stem.mp4", None)
    return folder


def write(path: Path, source: Path | None) -> None:
    """Write a stem, or a stem file, with the tags of a source."""
    sound = 0.1 * np.random.default_rng(2).standard_normal((2, FRAMES)).astype(np.float32)
    signal = Signal(RATE, 2)
    if path.name.endswith(".stem.mp4"):
        names = ("vocals", "drums", "bass", "other")
        with StemFile(path, label_stems(names), signal, tags_from=source, force=True) as stem_file:
            stem_file.write_tracks(sound, np.stack([sound / 4] * 4))
    else:
        with Writer(path, signal, tags_from=source, force=True) as file:
            file.write(sound)


def block(kind: int, picture: Path) -> flac.Picture:
    made = flac.Picture()
    made.type, made.data = kind, picture.read_bytes()
    made.mime = "image/png" if picture.suffix == ".png" else "image/jpeg"
    return made


def tagged(folder: Path, kind: str, order: tuple[str, str] = ("back.png", "front.jpg")) -> Path:
    """Return a song as other programs tag it, the back cover and the front cover in the order given."""
    path = folder / f"{'-'.join(order)}.{kind}"
    shutil.copy(folder / f"bare.{kind}", path)
    pictures = [block(3 if name.startswith("front") else 4, folder / name) for name in order]
    if kind in ("mp3", "wav", "aiff"):
        file = {"mp3": mp3.MP3, "wav": mutagen_wave.WAVE, "aiff": aiff.AIFF}[kind](path)
        if file.tags is None:
            file.add_tags()
        for name, frame in ID3.items():
            more = {"lang": "eng", "desc": ""} if frame == "COMM" else {}
            file.tags.add(getattr(id3, frame)(encoding=3, text=[SONG[name]], **more))
        file.tags.add(id3.COMM(encoding=3, lang="eng", desc="iTunNORM", text=[" 0000"]))
        for picture in pictures:
            file.tags.add(
                id3.APIC(3, picture.mime, picture.type, "front" if picture.type == 3 else "", picture.data)
            )
    elif kind == "m4a":
        file = mp4.MP4(path)
        atoms = {"title": "\xa9nam", "artist": "\xa9ART", "album": "\xa9alb", "albumartist": "aART"}
        atoms |= {"date": "\xa9day", "genre": "\xa9gen", "comment": "\xa9cmt", "composer": "\xa9wrt"}
        for name, atom in atoms.items():
            file[atom] = [SONG[name]]
        for name, key in (("initialkey", "initialkey"), ("isrc", "ISRC"), ("remixer", "REMIXER")):
            file[f"----:com.apple.iTunes:{key}"] = [SONG[name].encode()]
        file["----:com.apple.iTunes:LABEL"] = [SONG["label"].encode()]
        file["----:com.apple.iTunes:iTunSMPB"] = [b" 00000000 00000840"]
        file["trkn"], file["disk"], file["tmpo"] = [(3, 9)], [(1, 2)], [128]
        file["covr"] = [mp4.MP4Cover((folder / "front.jpg").read_bytes(), 13)]  # it knows no kinds
    elif kind == "mka":
        words = [word for pair in SONG.items() for word in ("-metadata", "=".join(pair))]
        attach: list[str | Path] = [
            "-attach",
            folder / order[0],
            "-metadata:s:t:0",
            f"mimetype={pictures[0].mime}",
        ]
        attach += ["-metadata:s:t:0", f"filename={'cover.jpg' if order[0] == 'front.jpg' else 'x.png'}"]
        attach += ["-attach", folder / order[1], "-metadata:s:t:1", f"mimetype={pictures[1].mime}"]
        attach += ["-metadata:s:t:1", f"filename={'cover.jpg' if order[1] == 'front.jpg' else 'x.png'}"]
        run_ffmpeg("-i", folder / "bare.mka", *attach, *words, path)
        return path
    else:
        file = {"flac": flac.FLAC, "ogg": oggvorbis.OggVorbis, "opus": oggopus.OggOpus}[kind](path)
        parts = {"tracknumber": "3", "tracktotal": "9", "discnumber": "1", "disctotal": "2"}
        file.update(SONG | parts | {"replaygain_track_gain": "-3 dB", "encoder": "Some program"})
        if kind == "flac":
            for picture in pictures:
                file.add_picture(picture)
        else:
            texts = [base64.b64encode(picture.write()).decode() for picture in pictures]
            file["metadata_block_picture"] = texts
    file.save()
    return path


def id3_of(path: Path) -> id3.ID3:
    return mutagen_wave.WAVE(path).tags if path.suffix == ".wav" else id3.ID3(path)


def check(path: Path, cover: bytes) -> None:
    """Look for each field where the container's programs look for it."""
    kind = path.name.partition(".")[2]
    if kind in ("wav", "mp3"):
        frames = id3_of(path)
        for name, frame in ID3.items():
            assert [str(text) for text in frames.getall(frame)[0].text] == [SONG[name]], name
        (picture,) = frames.getall("APIC")
        assert (picture.type, picture.mime, picture.data) == (3, "image/jpeg", cover)
        assert set(frames) == {*map(frames_key, ID3.values()), "APIC:"}
    elif kind in ("flac", "ogg"):
        file = mutagen.File(path)
        parts = {"tracknumber": "3", "tracktotal": "9", "discnumber": "1", "disctotal": "2"}
        found = dict(file.tags.as_dict())
        texts = found.pop("metadata_block_picture", [])
        (picture,) = file.pictures if kind == "flac" else [flac.Picture(base64.b64decode(t)) for t in texts]
        assert (picture.type, picture.mime, picture.data) == (3, "image/jpeg", cover)
        assert found == {name: [text] for name, text in (SONG | parts).items()}
    else:
        file = mp4.MP4(path)
        assert (file["trkn"], file["disk"], file["tmpo"]) == ([(3, 9)], [(1, 2)], [128])
        assert (file["\xa9nam"], file["\xa9cmt"]) == ([SONG["title"]], [SONG["comment"]])
        for name, key in (("initialkey", "initialkey"), ("isrc", "ISRC"), ("remixer", "REMIXER")):
            assert file[f"----:com.apple.iTunes:{key}"] == [SONG[name].encode()]
        assert [bytes(picture) for picture in file["covr"]] == [cover]
        assert "\xa9too" not in file


def frames_key(frame: str) -> str:
    return "COMM::eng" if frame == "COMM" else frame


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("source", SOURCES)
def test_each_field_is_carried_from_each_container_to_each(source, output, folder, tmp_path):
    song = tagged(folder, source)
    cover = (folder / "front.jpg").read_bytes()
    assert read_tags(song) == Tags({name: [text] for name, text in SONG.items()}, cover)
    path = tmp_path / f"vocals.{output}"
    write(path, song)
    check(path, cover)
    assert read_tags(path) == read_tags(song)
    assert Reader(path).channels == 2
    assert sum(block.shape[1] for block in Reader(path)) == FRAMES


@pytest.mark.parametrize("order", [("back.png", "front.jpg"), ("front.jpg", "back.png")])
@pytest.mark.parametrize("kind", [kind for kind in SOURCES if kind != "m4a"])
def test_of_several_pictures_the_front_cover_is_taken(kind, order, folder):
    assert read_tags(tagged(folder, kind, order)).cover == (folder / "front.jpg").read_bytes()


def test_without_a_front_cover_the_first_picture_is_taken(folder, tmp_path):
    file = flac.FLAC(shutil.copy(folder / "bare.flac", tmp_path))
    for name in ("back.png", "front.jpg"):
        file.add_picture(block(0, folder / name))
    file.save()
    assert read_tags(tmp_path / "bare.flac").cover == (folder / "back.png").read_bytes()


def test_several_texts_of_a_field_stay_several(folder, tmp_path):
    several = Tags({"artist": ["A", "B"]})
    for kind in ("flac", "ogg", "m4a", "stem.mp4"):
        path = Path(shutil.copy(folder / f"bare.{kind}", tmp_path))
        write_tags(path, "m4a" if kind == "stem.mp4" else kind, several)
        assert read_tags(path) == several
    assert several.text("artist") == "A, B"


def test_a_tempo_with_decimals_is_kept_beside_the_rounded_one(folder, tmp_path):
    path = Path(shutil.copy(folder / "bare.m4a", tmp_path))
    write_tags(path, "m4a", Tags({"bpm": ["127.6"]}))
    assert mp4.MP4(path)["tmpo"] == [128]
    assert read_tags(path).fields == {"bpm": ["127.6"]}


def test_fields_that_no_standard_has_keep_their_names(folder, tmp_path):
    own = Tags({"MusicBrainz Album Id": ["1b022e01"], "artistsort": ["Ü, N"], "lyrics": ["la\nla"]})
    for kind in OUTPUTS:
        path = Path(shutil.copy(folder / f"bare.{kind}", tmp_path))
        write_tags(path, "m4a" if kind == "stem.mp4" else kind, own)
        assert read_tags(path) == own


def test_a_wav_is_read_by_those_who_know_no_id3(folder, tmp_path):
    song = tagged(folder, "flac")
    write(tmp_path / "a.wav", song)
    with soundfile.SoundFile(tmp_path / "a.wav") as file:
        assert (file.title, file.artist, file.frames) == (SONG["title"], SONG["artist"], FRAMES)
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert file.getnframes() == FRAMES
    data = (tmp_path / "a.wav").read_bytes()
    assert struct.unpack_from("<I", data, 4)[0] == len(data) - 8


def test_an_rf64_has_tags_too(tmp_path, folder):
    with Writer(tmp_path / "a.wav", Signal(RATE, 2, 1 << 30), tags_from=tagged(folder, "mp3")) as file:
        file.write(np.zeros((2, FRAMES), np.float32))
    data = (tmp_path / "a.wav").read_bytes()
    assert (data[:4], struct.unpack_from("<Q", data, 20)[0]) == (b"RF64", len(data) - 8)
    assert soundfile.info(tmp_path / "a.wav").frames == FRAMES
    assert b"id3 " in data


@pytest.mark.parametrize("output", OUTPUTS)
def test_the_same_tags_make_the_same_file(output, folder, tmp_path):
    song = tagged(folder, "mp3")
    for name in ("a", "b"):
        write(tmp_path / f"{name}.{output}", song)
        tags._read_tags.cache_clear()
    assert (tmp_path / f"a.{output}").read_bytes() == (tmp_path / f"b.{output}").read_bytes()


# Whatever a tag holds


TEXTS = st.one_of(
    st.text(max_size=40),
    st.text(st.characters(codec=None, categories=["Cs", "Cc", "So"]), max_size=10),
    st.sampled_from(["", " ", "\0", "a\0b", "\ud800", "\x1b[31m", "=", "\n", "1/0"]),
    st.sampled_from(["-1/9", "999999/3", "128.5"]),
    st.sampled_from(["0", "1e9", "٣", "²", "2001-13-45", "(17)", "(", "((x)", "🎵" * 50, "x" * 100_000]),
)
NAMES = st.one_of(
    st.sampled_from([*SONG, "compilation", "lyrics", "mood", "originaldate", "artistsort"]),
    st.sampled_from(["a=b", "a\nb", "", "ключ", "~", ":", "a:b:c", "metadata_block_picture", "Title"]),
    st.sampled_from(["TRACKTOTAL", "year", "\ud800", "----"]),
    st.text(max_size=20),
)


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(NAMES, st.lists(TEXTS, max_size=3)), max_size=8), st.booleans())
@example([("title", [""]), ("artist", ["\0"]), ("lyrics", ["é" * 2_000_000])], True)
@example([(f"name {number}", ["x"]) for number in range(30_000)], False)
def test_any_text_can_be_written_to_any_format(folder, tmp_path_factory, pairs, covered):
    fields = tag_fields.collect(pairs)
    cover = (folder / "front.jpg").read_bytes() if covered else None
    for kind in OUTPUTS:
        path = tmp_path_factory.getbasetemp() / f"any.{kind}"
        shutil.copy(folder / f"bare.{kind}", path)
        write_tags(path, "m4a" if kind == "stem.mp4" else kind, Tags(fields, cover))
        again, found = tags._through_mutagen(path)
        assert [picture for _, picture in found] == [cover] * covered
        for name in ("title", "album", "comment"):
            apart = ", " if kind in ("wav", "mp3") else "\0"  # ID3v2.3 has one text in a frame
            assert apart.join(again.get(name, [])) == apart.join(fields.get(name, []))
        if kind == "stem.mp4":
            assert read_stem_names(path) is not None
        elif kind in ("wav", "flac", "ogg"):
            assert soundfile.info(path).frames == FRAMES


def id3_header(size: int) -> bytes:
    return b"ID3\3\0\0" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0))


def test_an_empty_frame_makes_no_stem_fail(folder, tmp_path):
    head = b"".join(name + b"\0\0\0\1\0\0\0" for name in (b"TIT2", b"TPE1", b"TALB", b"TCON"))
    head += b"COMM\0\0\0\5\0\0\0rus\0" + b"PRIV\0\0\0\0\0\0"
    tag = b"ID3\3\0\0" + bytes(
        [len(head) >> 21, len(head) >> 14 & 127, len(head) >> 7 & 127, len(head) & 127]
    )
    (tmp_path / "a.mp3").write_bytes(tag + head + (folder / "bare.mp3").read_bytes())
    for kind in OUTPUTS:
        write(tmp_path / f"out.{kind}", tmp_path / "a.mp3")
        assert read_tags(tmp_path / f"out.{kind}") == Tags()


def pictures(folder: Path) -> dict[str, bytes]:
    found = {}
    for kind in ("gif", "bmp", "webp", "tiff", "png", "jpg"):
        run_ffmpeg("-f", "lavfi", "-i", "testsrc=s=64x64:d=1", "-frames:v", "1", folder / f"made.{kind}")
        found[kind] = (folder / f"made.{kind}").read_bytes()
    noise = np.random.default_rng(3).integers(0, 256, (2400, 2400, 3), np.uint8)
    head = b"P6 2400 2400 255\n"
    (folder / "noise.ppm").write_bytes(head + noise.tobytes())
    run_ffmpeg("-i", folder / "noise.ppm", "-compression_level", "0", folder / "large.png")
    return found | {"large": (folder / "large.png").read_bytes()}


@pytest.mark.slow
def test_any_picture_is_a_cover_or_none(folder, tmp_path):
    made = pictures(tmp_path)
    assert len(made["large"]) > 1 << 24
    cases = {"text": b"no picture", "empty": b"", "cut": made["png"][:60], "head": made["jpg"][:20]} | made
    for name, data in cases.items():
        file = id3.ID3()
        file.add(id3.APIC(3, "image/x-wrong", 3, "", data))
        file.save(shutil.copy(folder / "bare.mp3", tmp_path / f"{name}.mp3"))
        cover = read_tags(tmp_path / f"{name}.mp3").cover
        if name in ("png", "jpg"):
            assert cover == data
        elif name in made:
            assert cover is not None
            assert cover.startswith(b"\xff\xd8")
        else:
            assert cover is None
        for kind in OUTPUTS:
            write(tmp_path / f"out.{kind}", tmp_path / f"{name}.mp3")
            assert read_tags(tmp_path / f"out.{kind}").cover == cover


def test_a_compressed_frame_is_not_unpacked(folder, tmp_path):
    packed = zlib.compress(b"\0" + b"a" * 200_000_000, 9)
    frame = struct.pack(">4sIHI", b"TIT2", len(packed) + 4, 0x80, 200_000_001) + packed
    (tmp_path / "a.mp3").write_bytes(id3_header(len(frame)) + frame + (folder / "bare.mp3").read_bytes())
    tracemalloc.start()
    try:
        tags._through_mutagen(tmp_path / "a.mp3")
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", SOURCES)
def test_damaged_tags_never_fail(kind, folder, tmp_path):
    data, random = tagged(folder, kind).read_bytes(), Random(kind)
    # ID3 lies at the end of a WAV and an AIFF, and so does an MP4's index.
    start = max(0, len(data) - 4_000) if kind in ("wav", "aiff", "m4a") else 0
    for _ in range(200):
        damaged = bytearray(data)
        for _ in range(random.choice((1, 3, 20))):
            at = start + random.randrange(min(4_000, len(data)))
            damaged[at : at + random.choice((0, 1, 4))] = random.choice(
                (b"", b"\0", b"\xff\xff\xff\xff", b"\x7f")
            )
        (tmp_path / f"a.{kind}").write_bytes(damaged)
        fields, found = tags._through_mutagen(tmp_path / f"a.{kind}")
        write_tags(Path(shutil.copy(folder / "bare.mp3", tmp_path / "out.mp3")), "mp3", Tags(fields))
        assert all(isinstance(picture, bytes) for _, picture in found)


def test_a_full_disk_is_named_as_such(folder, tmp_path, monkeypatch):
    class Full(io.FileIO):
        def write(self, data):
            raise OSError(28, "No space left on device")

    path = Path(shutil.copy(folder / "bare.flac", tmp_path))
    monkeypatch.setattr("mutagen._util.open", lambda name, mode: Full(name, mode), raising=False)
    with pytest.raises(OSError, match="No space left"):
        write_tags(path, "flac", Tags({"title": ["x" * 100_000]}))
