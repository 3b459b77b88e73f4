"""Several programs that would write the same files: one does, the others are told."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stemsplit.audio.reader import Signal
from stemsplit.audio.writer import Encoding, Writer, together
from stemsplit.errors import EncodeError, OutputBusy, OutputExists
from stemsplit.files import claims, parts
from stemsplit.files.claims import claim, tidy, writing

RATE = 44_100
HOLD = """
import sys, time
from pathlib import Path
from stemsplit.files.claims import claim
from stemsplit.files.parts import part_of
with claim(map(Path, sys.argv[1:])):
    for name in sys.argv[1:]:
        part_of(Path(name)).write_text("half")
    print("held", flush=True)
    time.sleep(60)
"""


def hold(*paths: Path) -> subprocess.Popen:
    """Start a program that claims files and has written half of each."""
    command = [sys.executable, "-c", HOLD, *map(str, paths)]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert program.stdout
    assert program.stdout.readline() == "held\n"
    return program


def end(program: subprocess.Popen) -> None:
    program.kill()
    program.communicate()


def noise(seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal((2, 4096)).astype(np.float32)


def write(path: Path, **options: Any) -> None:
    with Writer(path, Signal(RATE, 2), **options) as writer:
        writer.write(noise())


@pytest.mark.subprocess
@pytest.mark.parametrize("force", [False, True])
def test_a_file_that_another_program_writes_is_refused(tmp_path, force):
    path = tmp_path / "a.wav"
    program = hold(path)
    with pytest.raises(OutputBusy, match=r"Another stemsplit is writing `.*a\.wav`"):
        write(path, force=force)
    write(tmp_path / "b.wav")  # a claim is per file, not per folder
    end(program)
    write(path)
    assert sorted(os.listdir(tmp_path)) == ["a.wav", "b.wav"]


@pytest.mark.subprocess
def test_what_a_killed_program_left_is_removed(tmp_path):
    name = "x" * 246 + ".wav"  # too long for another file to repeat it
    for path in (tmp_path / "a.wav", tmp_path / name):
        others = {"mine.part", parts.part_of(tmp_path / "b.wav").name}
        for other in others:
            path.with_name(other).touch()
        end(hold(path))
        assert len(os.listdir(tmp_path)) == 4
        tidy([path])
        assert set(os.listdir(tmp_path)) == others
        for other in others:
            path.with_name(other).unlink()


def test_tidying_touches_nothing_where_nothing_is_left(tmp_path):
    before = tmp_path.stat().st_mtime_ns
    tidy([tmp_path / "a.wav", tmp_path / "new" / "a.wav"])
    assert tmp_path.stat().st_mtime_ns == before


def test_a_claim_ends_for_its_own_thread_too(tmp_path):
    path = tmp_path / "a.wav"
    with claim([path]):
        pass
    program = hold(path)
    with pytest.raises(OutputBusy), claim([path]):
        pass
    end(program)


def test_claims_of_the_same_files_meet_at_the_same_one(tmp_path, monkeypatch):
    opened, really = [], claims._open
    monkeypatch.setattr(claims, "_open", lambda lock: opened.append(lock.name) or really(lock))
    for names in ("ab", "ba"):
        with claim(tmp_path / name for name in names):
            pass
    assert opened == [".a.lock", ".b.lock"] * 2


def test_hidden_names_are_equal_where_a_file_system_takes_long_names_for_one():
    names = ["É" + "X" * 250, "é" + "x" * 250, "e\u0301" + "x" * 250]
    assert len({parts.beside(Path(name), ".lock") for name in names}) == 1


@pytest.mark.subprocess
def test_tidying_leaves_a_running_program_alone(tmp_path):
    path = tmp_path / "a.wav"
    program = hold(path)
    before = sorted(os.listdir(tmp_path))
    tidy([path])
    assert sorted(os.listdir(tmp_path)) == before
    end(program)


@pytest.mark.subprocess
def test_all_files_are_claimed_or_none(tmp_path):
    paths = [tmp_path / "new" / name for name in ("a.wav", "b.wav", "c.wav")]
    program = hold(paths[1])
    with pytest.raises(OutputBusy), claim(paths):
        pass
    with claim([paths[0], paths[2]]):  # they are free
        pass
    end(program)


def test_a_thread_may_not_write_what_another_one_does(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    path = tmp_path / "a.wav"
    with claim([path]), claim([path]), ThreadPoolExecutor(1) as pool:  # but may nest its own claims
        writing_too = pool.submit(write, path)
        with pytest.raises(OutputBusy):
            writing_too.result()


def test_a_file_that_appeared_meanwhile_is_not_replaced(tmp_path):
    path = tmp_path / "a.wav"
    with pytest.raises(OutputExists), Writer(path, Signal(RATE, 2)) as writer:  # noqa: PT012
        writer.write(noise())
        path.write_text("precious")
    assert path.read_text() == "precious"
    assert os.listdir(tmp_path) == ["a.wav"]


@pytest.mark.parametrize("missing", [[], ["renameat2"], ["link"], ["renameat2", "link"]])
def test_publishing_replaces_nothing(tmp_path, monkeypatch, missing):
    if "renameat2" in missing:
        monkeypatch.setattr(parts.ctypes, "CDLL", lambda *_, **__: object())
    if "link" in missing:

        def refuse(*_):
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
    part, path = tmp_path / "part", tmp_path / "a.wav"
    part.write_text("first")
    parts.publish(part, path, force=False)
    part.write_text("second")
    with pytest.raises(OutputExists):
        parts.publish(part, path, force=False)
    assert path.read_text() == "first"
    if len(missing) < 2:  # even if it has appeared since one looked
        with pytest.raises(FileExistsError):
            parts._rename(part, path)
    parts.publish(part, path, force=True)
    assert path.read_text() == "second"
    assert os.listdir(tmp_path) == ["a.wav"]


def test_a_file_that_appears_while_one_renames_is_not_replaced(tmp_path, monkeypatch):
    part, path, really = tmp_path / "part", tmp_path / "a.wav", parts._rename

    def rename(*paths):
        path.write_text("precious")
        really(*paths)

    monkeypatch.setattr(parts, "_rename", rename)
    part.touch()
    with pytest.raises(OutputExists):
        parts.publish(part, path, force=False)
    assert path.read_text() == "precious"


def test_a_link_to_nothing_is_replaced(tmp_path):
    (tmp_path / "a.wav").symlink_to("nowhere")
    write(tmp_path / "a.wav")
    assert (tmp_path / "a.wav").is_file()
    assert not (tmp_path / "a.wav").is_symlink()


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    path, target = tmp_path / "a.wav", tmp_path / "target"
    target.touch()
    parts.beside(path, ".lock").symlink_to(target)
    with pytest.raises(EncodeError, match="Cannot write"), claim([path]):
        pass
    assert len(os.listdir(tmp_path)) == 2


def test_a_lock_that_another_user_left_is_taken(tmp_path, monkeypatch):
    path, really = tmp_path / "a.wav", os.open

    def closed(name, flags, *mode):
        if str(name).endswith(".lock") and flags & os.O_RDWR and not flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "Permission denied")
        return really(name, flags, *mode)

    monkeypatch.setattr(os, "open", closed)
    parts.beside(path, ".lock").touch()
    write(path)
    assert os.listdir(tmp_path) == ["a.wav"]


@pytest.mark.parametrize("reason", [errno.EACCES, errno.EAGAIN, errno.EDEADLK])
def test_every_refusal_of_a_lock_is_a_busy_file(tmp_path, monkeypatch, reason):
    import fcntl

    def refuse(*_):
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OutputBusy), claim([tmp_path / "a.wav"]):
        pass


def test_without_locks_the_lock_file_is_the_claim(tmp_path, monkeypatch):
    import fcntl

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    path = tmp_path / "a.wav"
    with claim([path]):
        monkeypatch.setattr(claims._here, "held", set())
        with pytest.raises(OutputBusy) as busy:
            write(path)
    assert f"if none is running, delete `{parts.beside(path, '.lock')}`" in busy.value.hint
    write(path)
    assert os.listdir(tmp_path) == ["a.wav"]


@pytest.mark.parametrize("fault", [KeyboardInterrupt, ValueError, OSError])
def test_folders_that_a_failure_leaves_empty_are_removed(tmp_path, fault):
    (tmp_path / "old").mkdir()
    files = [Writer(tmp_path / folder / "new" / "a.wav", Signal(RATE, 2)) for folder in ("old", "b")]
    with pytest.raises(fault), together(files):  # noqa: PT012
        assert (tmp_path / "b" / "new").is_dir()
        raise fault
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["old"]


def test_a_folder_that_another_program_makes_is_not_ours(tmp_path, monkeypatch):
    really = Path.mkdir

    def mkdir(folder, *options, **more):
        really(folder)
        really(folder, *options, **more)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with claim([tmp_path / "song" / "a.wav"]):
        pass
    assert (tmp_path / "song").is_dir()


def test_a_folder_that_another_program_removes_is_made_again(tmp_path, monkeypatch):
    path, made = tmp_path / "song" / "a.wav", []
    really = claims._make

    def make(folder, noted):
        really(folder, noted)
        if folder.name == "song":
            made.append(folder)
            if len(made) == 1:
                folder.rmdir()

    monkeypatch.setattr(claims, "_make", make)
    write(path)
    assert path.exists()
    assert len(made) == 2


def test_a_lock_that_is_removed_while_one_waits_for_it_is_not_held(tmp_path, monkeypatch):
    path, tries = tmp_path / "a.wav", []
    really = claims._try_lock

    def lock(descriptor):
        if not tries:
            parts.beside(path, ".lock").unlink()  # its holder has ended meanwhile
        tries.append(descriptor)
        return really(descriptor)

    monkeypatch.setattr(claims, "_try_lock", lock)
    with claim([path]):
        assert len(tries) == 2
        assert parts.beside(path, ".lock").exists()
    assert not os.listdir(tmp_path)


def test_a_small_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.csv"
    with writing(path) as part:
        part.write_text("whole")
    with pytest.raises(ValueError, match="no"), writing(path) as part:  # noqa: PT012
        part.write_text("half")
        raise ValueError("no")
    with pytest.raises(EncodeError, match="Cannot write"), writing(tmp_path / "b.csv"):
        raise OSError(errno.EIO, "Input/output error")
    with pytest.raises(OutputExists), writing(path, force=False) as part:
        part.write_text("another")
    assert path.read_text() == "whole"
    assert os.listdir(tmp_path) == ["a.csv"]


def test_a_device_is_written_as_it_is_and_never_replaced(tmp_path):
    reading, sending = os.pipe()
    with writing(Path(f"/dev/fd/{sending}")) as part:
        part.write_text("whole")
    os.close(sending)
    with os.fdopen(reading) as file:
        assert file.read() == "whole"
    with pytest.raises(EncodeError, match="is a device"):
        Writer(Path("/dev/null"), Signal(RATE, 2), Encoding(format="wav"), force=True)


@pytest.fixture(params=["links", "no links"])
def links(request, monkeypatch):
    """A file system with links, or without."""

    def refuse(*_, **__):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if request.param == "no links":
        monkeypatch.setattr(os, "link", refuse)


def fail_at(monkeypatch, name: str, error: BaseException) -> None:
    """Let the first rename to a name fail."""
    really, failed = os.replace, list[str]()

    def replace(source, target):
        if Path(target).name == name and not failed:
            failed.append(target)
            raise error
        really(source, target)

    monkeypatch.setattr(os, "replace", replace)


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("fault", [FULL, KeyboardInterrupt()], ids=["disk", "signal"])
def test_what_force_replaces_is_put_back_if_a_later_file_fails(tmp_path, monkeypatch, links, fault):
    for name in ("a.wav", "c.wav"):
        (tmp_path / name).write_text(f"earlier {name}")
    (tmp_path / "b.wav").symlink_to("c.wav")
    names = ("0.wav", "a.wav", "b.wav", "c.wav")
    writers = [Writer(tmp_path / name, Signal(RATE, 2), force=True) for name in names]
    fail_at(monkeypatch, "c.wav", fault)
    with pytest.raises((EncodeError, KeyboardInterrupt)), together(writers):  # noqa: PT012
        for writer in writers:
            writer.write(noise())
    assert sorted(os.listdir(tmp_path)) == ["a.wav", "b.wav", "c.wav"]
    assert (tmp_path / "a.wav").read_text() == "earlier a.wav"
    assert (tmp_path / "c.wav").read_text() == "earlier c.wav"
    assert (tmp_path / "b.wav").is_symlink()


@pytest.mark.slow
def test_a_run_that_fails_to_replace_stems_keeps_the_record_of_those_there(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from stemsplit.cli import app

    monkeypatch.chdir(tmp_path)
    write(Path("a.wav"))

    def split(*options: str):
        return CliRunner().invoke(app, ["a.wav", "--model", "binary-mask-cnn", "--fast", *options])

    fail_at(monkeypatch, "vocals.wav", FULL)
    assert split("--force").exit_code == 1
    assert os.listdir(tmp_path) == ["a.wav"], "no record of stems that are not there"
    assert split().exit_code == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    fail_at(monkeypatch, "vocals.wav", FULL)
    assert "the disk is full" in split("--force", "--gain", "-6").stderr
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert "already done" in split("--skip-existing").stderr


@pytest.mark.slow
def test_stems_of_another_song_of_that_name_are_not_replaced_by_skip_existing(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from stemsplit.cli import app

    monkeypatch.chdir(tmp_path)

    def split(song: str, *options: str):
        command = [song, "--model", "binary-mask-cnn", "--fast", "--skip-existing", *options]
        return CliRunner().invoke(app, command)

    def song(path: str, seed: int) -> None:
        with Writer(Path(path), Signal(RATE, 2), force=True) as writer:
            writer.write(noise(seed))

    def stems() -> dict[Path, str]:
        return {path: sha256(path) for path in Path("stems").rglob("*") if path.is_file()}

    song("1/song.wav", 1)
    song("2/song.wav", 2)
    assert split("1/song.wav").exit_code == 0
    of_first = stems()
    refused = split("2/song.wav")
    assert refused.exit_code == 1
    assert f"already exists, from another file: `{tmp_path}/1/song.wav`" in refused.stderr
    assert "--force" in refused.stderr
    assert stems() == of_first
    song("1/song.wav", 3)
    assert split("1/song.wav").exit_code == 0, "an edited song is split again"
    assert stems() != of_first
    Path("1").rename("moved")
    assert "already done" in split("moved/song.wav").stderr
    assert split("moved/song.wav", "--gain", "-1").exit_code == 0
    assert split("2/song.wav", "--force").exit_code == 0


@pytest.mark.parametrize("where", ["{}", "memory://{}"])
def test_copies_replace_all_files_or_none(tmp_path, monkeypatch, where):
    from stemsplit.files import remote

    out, really = remote.path_of(where.format(tmp_path / "out")), remote.publish
    pairs = {tmp_path / name: out / name for name in ("a", "b")}

    def copy(content: str) -> None:
        for source in pairs:
            source.write_text(content)
        parts.copy_together(pairs)

    def publish(part, target):
        if part.name.endswith(".part") and target.name == "b":
            raise OSError(errno.EIO, "Input/output error")
        really(part, target)

    copy("earlier")
    monkeypatch.setattr(remote, "publish", publish)
    with pytest.raises(EncodeError, match="Input/output error"):
        copy("new")
    assert [path.read_text() for path in pairs.values()] == ["earlier", "earlier"]
    assert sorted(path.name for path in out.iterdir()) == ["a", "b"]


def test_a_success_leaves_nothing_of_what_it_replaced(tmp_path, links):
    for number in range(2):
        writers = [Writer(tmp_path / name, Signal(RATE, 2), force=True) for name in ("a.wav", "b.wav")]
        with together(writers):
            for writer in writers:
                writer.write(noise(number))
    assert sorted(os.listdir(tmp_path)) == ["a.wav", "b.wav"]


def test_a_program_killed_while_it_replaces_files_loses_none(tmp_path, links):
    """The next program that claims them finds each of them whole."""
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_text("earlier")
        (tmp_path / f"{name}.part").write_text("new")
    child = os.fork()
    if not child:
        really = os.replace

        def replace(source, target):
            if Path(target).name == "b.wav":
                os.kill(os.getpid(), signal.SIGKILL)
            really(source, target)

        os.replace = replace
        paths = [tmp_path / name for name in ("a.wav", "b.wav")]
        with claim(paths):
            parts.publish_together([(Path(f"{path}.part"), path) for path in paths], force=True)
    os.waitpid(child, 0)
    assert len(list(tmp_path.glob(".*.old"))) == 2
    tidy([tmp_path / "a.wav", tmp_path / "b.wav"])
    assert (tmp_path / "a.wav").read_text() == "new"
    assert (tmp_path / "b.wav").read_text() == "earlier"
    assert sorted(os.listdir(tmp_path)) == ["a.wav", "b.wav", "b.wav.part"]


def sha256(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@pytest.mark.subprocess
@pytest.mark.parametrize("option", [[], ["--skip-existing"], ["--force"]])
def test_of_two_programs_one_wins_whole(tmp_path, option):
    """Two songs of one name into one folder at once: what is there is all of one of them, as it said."""
    for number in (1, 2):
        song = tmp_path / str(number) / "song.wav"
        with Writer(song, Signal(RATE, 2)) as writer:
            for _ in range(40):
                writer.write(noise(number))
    program = str(Path(sys.executable).with_name("stemsplit"))
    command = [program, "--model", "binary-mask-cnn", "--fast", "--json", "-o", "out", "--threads", "1"]
    runs = [
        subprocess.Popen(
            [*command, *option, f"{number}/song.wav"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"STEMSPLIT_CONFIG": os.devnull},
            text=True,
        )
        for number in (1, 2)
    ]
    said = [run.communicate()[0] for run in runs]
    events = [json.loads(line) for each in said for line in each.splitlines()]
    tracks = [event for event in events if event["event"] == "track"]
    done = [
        {each["path"]: each["sha256"] for each in t["outputs"].values()} for t in tracks if "peak" in str(t)
    ]
    there = {path: sha256(tmp_path / path) for path in done[0]}
    assert there in done
    assert {run.returncode for run in runs} <= {0, 1}
    if not option:
        assert len(done) == 1
        assert {t["code"] for t in tracks if t["status"] == "error"} <= {"busy", "exists"}
    left = [path for path in (tmp_path / "out").rglob("*") if path.suffix in (".lock", ".part")]
    assert not left


@pytest.mark.subprocess
def test_a_killed_run_leaves_nothing_that_the_next_one_does_not_remove(tmp_path):
    song, out = tmp_path / "song.wav", tmp_path / "out"
    with Writer(song, Signal(RATE, 2)) as writer:
        for _ in range(400):
            writer.write(noise())
    program = str(Path(sys.executable).with_name("stemsplit"))
    command = [program, str(song), "--model", "binary-mask-cnn", "--fast", "-o", str(out), "--threads", "1"]
    command += ["--skip-existing"]
    environment = os.environ | {"STEMSPLIT_CONFIG": os.devnull}
    run = subprocess.Popen(command, env=environment)
    while run.poll() is None and len(list(out.rglob("*.part"))) < 4:
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    assert list(out.rglob("*.part"))
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    names = sorted(path.name for path in out.rglob("*") if path.is_file() and path.suffix != ".json")
    assert names == ["bass.wav", "drums.wav", "other.wav", "vocals.wav"]


def test_a_remix_on_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    from stemsplit.remix import remix, song

    for name in ("vocals", "drums"):
        write(tmp_path / "song" / f"{name}.wav")

    class Full(io.BytesIO):
        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(song, "TemporaryFile", lambda **_: Full())
    with pytest.raises(EncodeError, match=r"Cannot write `.*remix\.wav`: the disk is full"):
        remix.remix(tmp_path / "song", "vocals=0", tmp_path / "new" / "remix.wav")
    assert not (tmp_path / "new").exists()


def test_a_user_without_a_home_needs_none(tmp_path, monkeypatch):
    from stemsplit.files.scratch import librosa_caches
    from stemsplit.runtime import cache

    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert cache.kept("name", lambda: b"made") == b"made"
    librosa_caches.cache_clear()
    folder = librosa_caches()
    assert os.environ["NUMBA_CACHE_DIR"] == folder.name
    folder.cleanup()
    librosa_caches.cache_clear()
    assert not os.listdir(tmp_path), "a folder called `~` above all"


@pytest.mark.slow
@pytest.mark.parametrize("words", [["-"], ["a.wav", "--stdout", "vocals"], ["a.wav"]])
def test_without_a_temporary_folder_it_works_or_says_which_variable_helps(tmp_path, words, monkeypatch):
    import tempfile

    from typer.testing import CliRunner

    from stemsplit.cli import app

    monkeypatch.chdir(tmp_path)
    write(Path("a.wav"))

    def refuse():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "_get_default_tempdir", refuse)
    monkeypatch.setattr(tempfile, "tempdir", None)
    options = ["--model", "binary-mask-cnn", "--fast", "--format", "m4a"]
    result = CliRunner().invoke(app, [*words, *options], input=Path("a.wav").read_bytes())
    if words == ["a.wav"]:
        assert result.exit_code == 0, result.stderr
    else:
        assert result.exit_code == 1
        assert "Cannot create a temporary folder" in result.stderr
        assert "TMPDIR" in result.stderr
