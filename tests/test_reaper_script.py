"""The script for REAPER, run by a Lua interpreter against a model of the functions of REAPER it calls."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

lupa = pytest.importorskip("lupa", reason="no Lua interpreter")

SCRIPT = Path(__file__).parents[1] / "examples" / "reaper" / "Split items into stems.lua"
STEMS = ("vocals", "drums", "bass", "other")
RATE = 44_100


def as_program(command: str) -> list[str]:
    """Take a command line apart as ExecProcess does: quotation marks of either kind, and no escapes."""
    return [
        first or second or bare
        for first, second, bare in re.findall(r"\"([^\"]*)\"|'([^']*)'|(\S+)", command)
    ]


class Reaper:
    """A project, and what the script calls. Handles are texts; numbers come as Lua has them."""

    def __init__(self, folder: Path, execute: Callable[[list[str]], tuple[int, str] | None]) -> None:
        self.folder, self.execute = folder, execute
        self.tracks: list[str] = []
        self.things: dict[str, dict[str, Any]] = {}
        self.selected: list[str] = []
        self.messages: list[str] = []
        self.commands: list[list[str]] = []
        self.states: dict[tuple[str, str], str] = {}
        self.options: str | None = ""
        self.program = ""
        self.later: list[Callable[[], None]] = []
        self.undo: list[str] = []
        self._number = itertools.count()

    def add(self, kind: str, **values: Any) -> str:
        handle = f"{kind} {next(self._number)}"
        self.things[handle] = values
        return handle

    def track(self, name: str = "", depth: int = 0, at: int | None = None) -> str:
        handle = self.add("track", name=name, I_FOLDERDEPTH=depth, items=[])
        self.tracks.insert(len(self.tracks) if at is None else at, handle)
        return handle

    def item(self, track: str, path: Path | str, take: dict[str, Any] | None = None, **values: Any) -> str:
        source = self.add("source", path=str(path), type="WAVE")
        defaults = {"D_PLAYRATE": 1.0, "D_VOL": 1.0, "name": Path(path).name, "markers": []}
        own = self.add("take", source=source, **{**defaults, **(take or {})})
        handle = self.add("item", track=track, take=own, **{"D_POSITION": 0.0, "D_LENGTH": 1.0, **values})
        self.things[track]["items"].append(handle)
        self.selected.append(handle)
        return handle

    def run(self) -> None:
        """Run the script, and what it defers."""
        lua = lupa.LuaRuntime(unpack_returned_tuples=True)
        lua.globals().reaper = self
        lua.execute(SCRIPT.read_text(encoding="utf-8"))
        while self.later:
            self.later.pop(0)()

    # What the script sees

    def CountSelectedMediaItems(self, project):
        return len(self.selected)

    def GetSelectedMediaItem(self, project, index):
        return self.selected[int(index)]

    def GetActiveTake(self, item):
        return self.things[item]["take"]

    def GetTakeName(self, take):
        return self.things[take]["name"]

    def TakeIsMIDI(self, take):
        return self.things[self.things[take]["source"]]["type"] == "MIDI"

    def GetMediaItemTake_Source(self, take):
        return self.things[take]["source"]

    def GetMediaSourceFileName(self, source, buffer):
        return self.things[source]["path"]

    def GetMediaSourceType(self, source, buffer):
        return self.things[source]["type"]

    def GetMediaSourceLength(self, source):
        about = soundfile.info(self.things[source]["path"])
        return about.frames / about.samplerate, False

    def PCM_Source_CreateFromFile(self, path):
        return self.add("source", path=path, type="WAVE") if Path(path).is_file() else None

    def file_exists(self, path):
        return Path(path).is_file()

    def GetMediaItem_Track(self, item):
        return self.things[item]["track"]

    def GetTrack(self, project, index):
        return self.tracks[int(index)]

    def InsertTrackAtIndex(self, index, defaults):
        assert index == int(index)
        self.track(at=int(index))

    def GetMediaTrackInfo_Value(self, track, name):
        return float(self.tracks.index(track) + 1 if name == "IP_TRACKNUMBER" else self.things[track][name])

    def _get(self, thing, name):
        return float(self.things[thing].get(name, 0))

    def _set(self, thing, name, value):
        self.things[thing][name] = value
        return True

    GetMediaItemInfo_Value = GetMediaItemTakeInfo_Value = _get
    SetMediaItemInfo_Value = SetMediaItemTakeInfo_Value = SetMediaTrackInfo_Value = _set

    def _text(self, thing, name, value, new):
        assert (name, new) == ("P_NAME", True)
        self.things[thing]["name"] = value
        return True, value

    GetSetMediaTrackInfo_String = GetSetMediaItemTakeInfo_String = _text

    def AddMediaItemToTrack(self, track):
        handle = self.add("item", track=track, take=None)
        self.things[track]["items"].append(handle)
        return handle

    def AddTakeToMediaItem(self, item):
        self.things[item]["take"] = self.add("take", markers=[])
        return self.things[item]["take"]

    def SetMediaItemTake_Source(self, take, source):
        self.things[take]["source"] = source
        return True

    def GetTakeNumStretchMarkers(self, take):
        return len(self.things[take]["markers"])

    def GetTakeStretchMarker(self, take, index):
        position, in_source, _ = self.things[take]["markers"][int(index)]
        return index, position, in_source

    def SetTakeStretchMarker(self, take, index, position, in_source):
        assert index == -1
        self.things[take]["markers"].append((position, in_source, 0.0))
        return len(self.things[take]["markers"]) - 1

    def GetTakeStretchMarkerSlope(self, take, index):
        return self.things[take]["markers"][int(index)][2]

    def SetTakeStretchMarkerSlope(self, take, index, slope):
        position, in_source, _ = self.things[take]["markers"][int(index)]
        self.things[take]["markers"][int(index)] = (position, in_source, slope)
        return True

    def GetProjectPath(self, buffer):
        return str(self.folder)

    def GetExtState(self, section, key):
        return self.states.get((section, key), "")

    def SetExtState(self, section, key, value, persist):
        self.states[section, key] = value

    def GetUserInputs(self, title, count, captions, known):
        return self.options is not None, self.options or ""

    def GetUserFileNameForRead(self, name, title, extension):
        return bool(self.program), self.program

    def ExecProcess(self, command, timeout):
        assert timeout == 0, "wait until it ends"
        self.commands.append(as_program(command))
        done = self.execute(self.commands[-1])
        return None if done is None else f"{done[0]}\n{done[1]}"

    def MB(self, text, title, kind):
        self.messages.append(text)
        return 1

    def defer(self, function):
        self.later.append(function)

    def ShowConsoleMsg(self, text):
        assert text.endswith("\n")

    def ClearConsole(self):
        pass

    def Undo_BeginBlock(self):
        self.undo.append("begin")

    def Undo_EndBlock(self, title, flags):
        self.undo.append(title)

    def PreventUIRefresh(self, count):
        pass

    def UpdateArrange(self):
        pass


def write(path: Path, seconds: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(1).uniform(-0.3, 0.3, (round(seconds * RATE), 2))
    soundfile.write(path, noise, RATE)
    return path


def split_quickly(words: list[str]) -> tuple[int, str]:
    """Do as the program does for a track: write its stems, and print events."""
    track, template, out = (
        Path(words[-1]),
        words[words.index("--template") + 1],
        words[words.index("--out") + 1],
    )
    outputs = {}
    for stem in STEMS:
        path = Path(out, template.format(track=track.stem, stem=stem, ext="wav"))
        write(path, soundfile.info(track).duration)
        outputs[stem] = str(path)
    found = [
        {"event": "start"},
        {"event": "plan", "outputs": outputs},
        {"event": "track", "status": "ok", "warnings": [], "hint": None},
    ]
    return 0, "".join(json.dumps(event) + "\n" for event in found)


@pytest.fixture
def reaper(tmp_path):
    return Reaper(tmp_path / 'a "project" ä𝄞', split_quickly)


def test_stems_are_in_place_and_in_time(reaper, tmp_path):
    path = write(tmp_path / "media" / "song.wav")
    track = reaper.track("Band")
    below = reaper.track("Vocal")
    item_values = {"D_POSITION": 12.5, "D_LENGTH": 0.4, "B_LOOPSRC": 1.0, "D_FADEINLEN": 0.01, "D_VOL": 0.5}
    take_values = {"D_STARTOFFS": 0.25, "D_PLAYRATE": 1.25, "B_PPITCH": 1.0, "D_PITCH": -2.0, "D_PAN": 0.3}
    markers = [(0.0, 0.25, 0.0), (0.2, 0.5, 0.1)]
    item = reaper.item(track, path, {**take_values, "markers": markers}, **item_values)
    reaper.run()
    assert reaper.messages == []
    assert [reaper.things[each]["name"] for each in reaper.tracks] == ["Band", *STEMS, "Vocal"]
    assert reaper.tracks[-1] == below
    for handle, stem in zip(reaper.tracks[1:5], STEMS, strict=True):
        (new,) = reaper.things[handle]["items"]
        take = reaper.things[new]["take"]
        assert {name: reaper.things[new][name] for name in item_values} == item_values
        assert {name: reaper.things[take][name] for name in take_values} == take_values
        assert reaper.things[take]["markers"] == markers
        assert reaper.things[take]["name"] == f"song.wav - {stem}"
        sound = Path(reaper.things[reaper.things[take]["source"]]["path"])
        assert sound.is_file()
        assert (sound.stem, sound.parents[1]) == (stem, reaper.folder / "stems")
    assert reaper.things[item]["B_MUTE"] == 1
    assert reaper.undo == ["begin", "Split items into stems"]


def test_items_of_one_track_share_tracks_and_files_are_split_once(reaper, tmp_path):
    one, two = write(tmp_path / "a" / "song.wav"), write(tmp_path / "b" / "song.wav", 2)
    track = reaper.track("Band")
    for path, position in ((one, 0.0), (one, 4.0), (two, 8.0)):
        reaper.item(track, path, D_POSITION=position)
    reaper.options = "--two-stems vocals"
    reaper.run()
    assert [command[-1] for command in reaper.commands] == [str(one), str(two)]
    assert all("--two-stems" in command for command in reaper.commands)
    assert len({command[command.index("--template") + 1] for command in reaper.commands}) == 2, (
        "songs of one name have folders of their own"
    )
    assert len(reaper.tracks) == 5
    for handle in reaper.tracks[1:]:
        positions = [reaper.things[item]["D_POSITION"] for item in reaper.things[handle]["items"]]
        assert positions == [0.0, 4.0, 8.0]
    assert reaper.states["stemsplit", "options"] == "--two-stems vocals"


def test_the_last_track_of_a_folder_stays_in_it_with_its_stems(reaper, tmp_path):
    reaper.track("Folder", depth=1)
    track = reaper.track("Band", depth=-1)
    reaper.track("Outside")
    reaper.item(track, write(tmp_path / "song.wav"))
    reaper.run()
    depths = [reaper.things[handle]["I_FOLDERDEPTH"] for handle in reaper.tracks]
    assert depths == [1, 0, 0, 0, 0, -1, 0]


def change(reaper: Reaper, item: str, **values: Any) -> None:
    take = reaper.things[item]["take"]
    reaper.things[reaper.things[take]["source"]].update(values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"type": "MIDI"}, "`song.wav` is MIDI"),
        ({"type": "SECTION", "path": ""}, "reversed, or a section of a file: glue"),
        ({"path": "/nowhere/song.wav"}, "is missing"),
    ],
)
def test_what_has_no_file_of_sound_is_refused(values, words, reaper, tmp_path):
    track = reaper.track("Band")
    reaper.item(track, write(tmp_path / "good.wav"))
    change(reaper, reaper.item(track, write(tmp_path / "song.wav")), **values)
    reaper.run()
    assert words in reaper.messages[0]
    assert reaper.commands == []
    assert len(reaper.tracks) == 1


def test_nothing_selected_no_take_and_no_options(reaper, tmp_path):
    reaper.run()
    assert "Select one or more items" in reaper.messages.pop()
    item = reaper.item(reaper.track("Band"), write(tmp_path / "song.wav"))
    reaper.options = None
    reaper.run()
    assert reaper.messages == reaper.commands == []
    reaper.things[item]["take"] = None
    reaper.run()
    assert "without a take" in reaper.messages.pop()


def test_a_failure_is_shown_in_the_program_s_words(reaper, tmp_path):
    error = {
        "event": "track",
        "status": "error",
        "message": 'Cannot read `ä\n"x"`: 𝄞',
        "hint": "get it again",
    }
    reaper.execute = lambda words: (1, json.dumps(error) + "\n")
    reaper.item(reaper.track("Band"), write(tmp_path / "song.wav"))
    reaper.run()
    assert reaper.messages == ['Cannot read `ä\n"x"`: 𝄞\nget it again']
    reaper.execute = lambda words: (3, "broken {")
    reaper.run()
    assert reaper.messages[1] == "stemsplit failed:\nbroken {"
    assert len(reaper.tracks) == 1


def test_stems_of_another_length_are_refused(reaper, tmp_path):
    def shortened(words):
        done = split_quickly(words)
        for path in Path(words[words.index("--out") + 1]).rglob("*.wav"):
            write(path, 0.5)
        return done

    reaper.execute = shortened
    item = reaper.item(reaper.track("Band"), write(tmp_path / "song.wav"))
    reaper.run()
    assert "The stems last 0.500 s, but REAPER plays 1.000 s" in reaper.messages[0]
    assert len(reaper.tracks) == 1
    assert "B_MUTE" not in reaper.things[item]


@pytest.mark.parametrize("missing", [None, (127, "")])
def test_it_asks_where_the_program_is_and_remembers_it(missing, reaper, tmp_path):
    there = str(tmp_path / "my programs" / "stemsplit")
    reaper.execute = lambda words: split_quickly(words) if words[0] == there else missing
    reaper.item(reaper.track("Band"), write(tmp_path / "song.wav"))
    reaper.run()
    assert reaper.messages == ["REAPER does not find the program stemsplit."]
    reaper.program = there
    reaper.run()
    reaper.run()
    assert [command[0] for command in reaper.commands] == ["stemsplit", "stemsplit", there, there]
    assert len(reaper.messages) == 1


def test_a_path_that_cannot_be_passed_on_is_refused(reaper, tmp_path):
    reaper.item(reaper.track("Band"), write(tmp_path / "a'b\"c.wav"))
    reaper.run()
    assert "both kinds of quotation marks" in reaper.messages[0]


@pytest.mark.slow
@pytest.mark.subprocess
def test_it_runs_the_real_program(reaper, tmp_path):
    def execute(words):
        command = [sys.executable, "-m", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    reaper.execute, reaper.options = execute, "--model binary-mask-cnn --fast --stems drums,vocals"
    path = write(tmp_path / "a song.wav", 1.5)
    track = reaper.track("Band")
    reaper.item(track, path, {"D_STARTOFFS": 0.5}, D_POSITION=3.0)
    reaper.run()
    assert reaper.messages == []
    assert sorted(reaper.things[each]["name"] for each in reaper.tracks[1:]) == ["drums", "vocals"]
    for handle in reaper.tracks[1:]:
        (item,) = reaper.things[handle]["items"]
        take = reaper.things[reaper.things[item]["take"]]
        assert (reaper.things[item]["D_POSITION"], take["D_STARTOFFS"]) == (3.0, 0.5)
        assert soundfile.info(reaper.things[take["source"]]["path"]).frames == 1.5 * RATE
    reaper.options += " --model nonsense"
    reaper.run()
    assert "nonsense" in reaper.messages[0]
