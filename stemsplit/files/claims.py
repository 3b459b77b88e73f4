"""Claims on output files: if several programs want to write a file, one succeeds and the others fail.

A claim is a lock on a hidden file next to the output, `.vocals.wav.lock`. It is acquired before the part
files are created, and removed after them. However a program ends, the system releases its lock. The lock file
of a killed program is therefore unlocked, and shows that there may be part files to remove.

On file systems without locks, the lock file itself is the claim. Where locks do not work across machines
(sshfs, some NFS mounts) or do not exist (object stores), each file still appears whole, but two programs can
overwrite each other's files.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from stemsplit.errors import EncodeError, OutputBusy
from stemsplit.files.parts import beside, cannot_write, part_of, publish, sweep
from stemsplit.files.remote import is_remote

_ATTEMPTS = 100
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
_here = threading.local()


@contextlib.contextmanager
def claim(paths: Iterable[Path]) -> Iterator[None]:
    """Prevent other programs and threads from writing some files; remove leftovers of killed ones.

    Creates missing folders, and removes those that are empty at the end. Claims can be nested.

    Raises:
        OutputBusy: another program or thread is writing one of them.
        EncodeError: a folder cannot be created, or is not writable.
    """
    held: set[str] = _here.__dict__.setdefault("held", set())
    local = {os.path.abspath(path): path for path in paths if not is_remote(path)}
    with contextlib.ExitStack() as stack:
        for name, path in sorted(local.items()):
            if name not in held:
                try:
                    stack.enter_context(_locked(path))
                except OSError as error:
                    raise cannot_write(path, error) from error
                held.add(name)
                stack.callback(held.remove, name)
        yield


def tidy(paths: Iterable[Path]) -> None:
    """Remove leftovers of killed programs, for files that no program is writing."""
    left = [path for path in paths if not is_remote(path) and os.path.lexists(beside(path, ".lock"))]
    with contextlib.suppress(EncodeError), claim(left):
        pass


@contextlib.contextmanager
def writing(path: Path, *, force: bool = True) -> Iterator[Path]:
    """Yield a path to write a file to; it is renamed to its path on success, and removed on failure.

    A path that is not a file, such as `/dev/stdout`, is written directly.

    Raises:
        OutputBusy: another program is writing it.
        OutputExists: it already exists, and `force` is not given.
        EncodeError: it cannot be written.
    """
    direct = os.path.exists(path) and not os.path.isfile(path)
    part = path if direct else part_of(path)
    with claim([] if direct else [path]):
        try:
            yield part
            if not direct:
                publish(part, path, force=force)
        except OSError as error:
            raise cannot_write(path, error) from error
        finally:
            if not direct:
                with contextlib.suppress(OSError):
                    part.unlink()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file. Raises OutputBusy, or OSError if the lock file cannot be created."""
    lock, made = beside(path, ".lock"), list[Path]()
    try:
        descriptor = _acquire(lock, path, made)
        try:
            yield
        finally:
            _release(descriptor, lock)
    finally:
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()


def _acquire(lock: Path, path: Path, made: list[Path]) -> int:
    for _ in range(_ATTEMPTS):
        try:
            _make(lock.parent, made)
            descriptor, new = _open(lock)
        except FileNotFoundError:  # another program has just removed it or its folder
            continue
        try:
            locks = _try_lock(descriptor)
            if not locks and not new:
                raise BlockingIOError
        except BlockingIOError:
            os.close(descriptor)
            hint = "wait until it has ended, or choose another folder with --out; if none is running, "
            hint += f"delete `{lock}`"
            raise OutputBusy(f"Another stemsplit is writing `{path}`", hint) from None
        except BaseException:
            os.close(descriptor)
            raise
        if _is(descriptor, lock):
            if not new:
                sweep(path)
            return descriptor
        os.close(descriptor)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(lock))


def _make(folder: Path, made: list[Path]) -> None:
    """Create a folder and its parents; append those that did not exist to `made`."""
    if os.path.isdir(folder):
        return
    if folder.parent != folder:
        _make(folder.parent, made)
    with contextlib.suppress(FileExistsError):  # another program has just created it
        folder.mkdir()
        made.append(folder)


def _open(lock: Path) -> tuple[int, bool]:
    """Open a lock file, and return whether it is new."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    with contextlib.suppress(FileExistsError):
        return os.open(lock, flags | os.O_EXCL, 0o666), True
    try:
        return os.open(lock, flags & ~os.O_CREAT), False
    except PermissionError:  # owned by another user
        return os.open(lock, os.O_RDONLY), False


def _try_lock(descriptor: int) -> bool:
    """Lock a file; return False if the file system has no locks. Raises BlockingIOError if it is locked."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            raise BlockingIOError from None
        raise
    return True


def _is(descriptor: int, lock: Path) -> bool:
    """Whether an open file still exists under its name: a lock on a removed file has no effect."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(lock))
    except FileNotFoundError:
        return False


def _release(descriptor: int, lock: Path) -> None:
    if sys.platform == "win32":  # Windows cannot remove a file that is open, here or in another program
        os.close(descriptor)
    with contextlib.suppress(OSError):
        lock.unlink()
    if sys.platform != "win32":
        os.close(descriptor)
