from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from stemsplit.errors import TemplateError
from stemsplit.output.template import DEFAULT_TEMPLATE, LONGEST_BYTES, check, fill, key, outputs, track_name

KNOWN = {"track": "song", "folder": "", "stem": "vocals", "ext": "wav", "model": "small", "number": "07"}


def filled(template, **more):
    check(template, "wav")
    return str(fill(template, KNOWN | more))


def test_the_default_is_a_folder_a_track():
    assert filled(DEFAULT_TEMPLATE) == "song/vocals.wav"
    assert filled(DEFAULT_TEMPLATE, folder="live/1977") == "live/1977/song/vocals.wav"


def test_tags_make_names():
    name = filled("{artist} - {title}/{number} {stem}.{ext}", artist="Zoé", title="Azul")
    assert name == "Zoé - Azul/07 vocals.wav"


def test_tags_that_are_missing_have_a_substitute():
    assert filled("{artist}/{album}/{title} {stem}.{ext}") == "unknown artist/unknown album/song vocals.wav"


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("AC/DC", "AC_DC"),
        ("../../etc/passwd", ".._.._etc_passwd"),
        ("..", "_.."),
        ("what?\n*", "what___"),
        ("a\\b:c", "a_b_c"),
        ("con", "_con"),
        ("LPT1.live", "_LPT1.live"),
        ("e\N{COMBINING ACUTE ACCENT}", "\N{LATIN SMALL LETTER E WITH ACUTE}"),
        ("\N{PILE OF POO}", "\N{PILE OF POO}"),
        ("$(rm -rf)", "$(rm -rf)"),
    ],
)
def test_a_tag_cannot_lead_anywhere(title, name):
    assert filled("{title}/{stem}.{ext}", title=title) == f"{name}/vocals.wav"


def test_a_track_s_own_name_stays_as_it_is():
    odd = "a: \udce9?"
    assert filled("{track}/{stem}.{ext}", track=odd) == f"{odd}/vocals.wav"


@pytest.mark.parametrize("letter", ["x", "\N{LATIN SMALL LETTER E WITH ACUTE}", "\N{PILE OF POO}"])
def test_long_names_are_cut_at_a_letter_and_keep_their_kind(letter):
    folder, file = Path(filled("{title}/{title} {stem}.{ext}", title=300 * letter)).parts
    for name in (folder, file):
        assert 240 < len(name.encode()) <= LONGEST_BYTES
    assert file.endswith(".wav")
    assert set(folder) == {letter}


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{track}.{ext}", "same name"),
        ("{track}/{stem}", "has no suffix"),
        ("{track}/{stem}.wav", "has no suffix"),
        ("/tmp/{stem}.{ext}", "leads out"),
        ("../{stem}.{ext}", "leads out"),
        ("{track}/../{stem}.{ext}", "leads out"),
        ("{colour}/{stem}.{ext}", "colour"),
        ("{stem.__class__}.{ext}", "stem.__class__"),
        ("{stem!r}.{ext}", "stem!r"),
        ("{{stem}.{ext}", "brace"),
    ],
)
def test_templates_that_cannot_be_are_refused(template, words):
    with pytest.raises(TemplateError, match=words):
        check(template, "wav")


def test_what_other_systems_take_for_the_same_is_the_same():
    composed = "\N{LATIN SMALL LETTER E WITH ACUTE}"
    assert key(Path(composed)) == key(Path(unicodedata.normalize("NFD", composed).upper()))
    assert key(Path("a")) != key(Path("b"))


def test_a_stem_file_has_a_name_without_a_stem():
    names = outputs(Path("a.mp3"), ["vocals", "drums"], None, "stem.mp4")
    assert set(names.values()) == {Path("a.stem.mp4")}
    with pytest.raises(TemplateError, match="contains all stems"):
        outputs(Path("a.mp3"), ["vocals"], DEFAULT_TEMPLATE, "stem.mp4")
    long = outputs(Path("a" * 300), ["vocals"], None, "stem.mp4")["vocals"].name
    assert long.endswith("a.stem.mp4")
    assert len(long) == LONGEST_BYTES


@pytest.mark.parametrize(
    ("file", "name"),
    [("a.b.mp3", "a.b"), ("a.stem.mp4", "a"), ("a.stem.m4a", "a"), (".stem.mp4", ".stem"), (".wav", ".wav")],
)
def test_what_a_track_is_called(file, name):
    assert track_name(Path(file)) == name
