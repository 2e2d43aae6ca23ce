"""The lock of a run's folder: one process at a time writes there. The kernel releases it when the process ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from odenet_cli.errors import RequestError

WAIT_S = 0.5  # within this, whoever only asks whether a folder is locked has let go of it
_LOCKED: set[tuple[int, Path]] = set()  # (thread, folder)


@contextlib.contextmanager
def locked(folder: Path, key: str = "hydra.run.dir") -> Iterator[bool]:
    """Hold the folder's lock for this thread, which may take it again; raise `RequestError` if another holds it.

    The kernel releases it when the process ends. Yields whether the folder was made here and nobody has written in it
    since: only then may its holder remove it.
    """
    if locked_here(folder):
        yield False
        return
    mine = threading.get_ident(), folder.resolve()
    limit, new = time.monotonic() + WAIT_S, _make(folder)
    while (handle := _acquire(folder / ".lock")) is None:
        if time.monotonic() > limit:
            raise RequestError(f"{folder} is in use by {lock_holder(folder)}; wait for it, or choose another {key}.")
        time.sleep(0.01)
        new |= _make(folder)
    _LOCKED.add(mine)
    try:
        yield new and all(path.name == ".lock" for path in folder.iterdir())  # another may have had the lock first
    finally:
        _LOCKED.remove(mine)
        with contextlib.suppress(OSError):
            os.ftruncate(handle, 0)  # it names its holder, and now there is none
        os.close(handle)


def locked_here(folder: Path) -> bool:
    return (threading.get_ident(), folder.resolve()) in _LOCKED


def is_locked(folder: Path) -> bool:
    """Return whether anybody holds the folder's lock; a shared one asks, so that two who ask agree."""
    try:
        handle = os.open(folder / ".lock", os.O_RDONLY)
    except FileNotFoundError:
        return False
    except PermissionError:  # somebody else's, and not to be asked
        return True
    try:
        return not try_lock(handle, fcntl.LOCK_SH)
    finally:
        os.close(handle)


def lock_holder(folder: Path) -> str:
    """Return who holds the folder's lock, as it wrote there: the process, and the machine."""
    with contextlib.suppress(OSError):
        return (folder / ".lock").read_text(encoding="utf-8", errors="replace")[:200] or "another odenet process"
    return "another odenet process"


def held_elsewhere(folder: Path) -> bool:
    """Return whether the lock names a process of another machine as its holder; one that let go has named none."""
    host = lock_holder(folder).partition(" on ")[2]
    return bool(host) and host != socket.gethostname()


def try_lock(handle: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Lock an open file and return True, unless it is locked."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _make(folder: Path) -> bool:
    """Make the folder; return whether there was none."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


def _acquire(lock: Path) -> int | None:
    """Return the lock's open file; None where another process has it, or removed it with its folder."""
    try:
        handle = os.open(lock, os.O_CREAT | os.O_RDWR, 0o644)
    except FileNotFoundError:
        return None
    with contextlib.suppress(FileNotFoundError):
        if try_lock(handle) and os.path.samestat(os.fstat(handle), os.stat(lock)):
            with contextlib.suppress(OSError):  # on a full disk nobody learns who holds it
                os.ftruncate(handle, 0)
                os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
            return handle
    os.close(handle)
    return None
