"""The folder of one run: its lock, `run.json` and `metrics.jsonl`."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from odenet_cli.errors import RequestError, naming
from odenet_cli.files import replace, sync

ABOVE = 2  # folders above a run's that may be as new: runs/DATE, sweeps/DATE/TIME
MOMENT_S = 0.5  # in which who only asks whether a folder is held has let go of it
_HOLDS: set[tuple[int, Path]] = set()


@contextlib.contextmanager
def locked(folder: Path, key: str = "hydra.run.dir") -> Iterator[bool]:
    """Hold the folder for this thread, which may take it again; another holder is refused. The kernel lets go when the
    process ends.

    Yields whether the folder was made here: only who made it, and still holds it, may take it away.
    """
    if holds(folder):
        yield False
        return
    mine = threading.get_ident(), folder.resolve()
    limit, made = time.monotonic() + MOMENT_S, _made(folder)
    while (handle := _held(folder / ".lock")) is None:
        if time.monotonic() > limit:
            raise RequestError(f"{folder} is in use by {user(folder)}; wait for it, or choose another {key}.")
        time.sleep(0.01)
        made |= _made(folder)
    _HOLDS.add(mine)
    try:
        yield made
    finally:
        _HOLDS.remove(mine)
        with contextlib.suppress(OSError):
            os.ftruncate(handle, 0)  # it names its holder, and now there is none
        os.close(handle)


def holds(folder: Path) -> bool:
    """Has this thread the folder's lock?"""
    return (threading.get_ident(), folder.resolve()) in _HOLDS


def _made(folder: Path) -> bool:
    """See that there is the folder; was there none?"""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


def _held(lock: Path) -> int | None:
    """The lock's file once it is held; None where another has it, or took it away with its folder."""
    try:
        handle = os.open(lock, os.O_CREAT | os.O_RDWR, 0o644)
    except FileNotFoundError:
        return None
    with contextlib.suppress(FileNotFoundError):
        if taken(handle) and os.path.samestat(os.fstat(handle), os.stat(lock)):
            with contextlib.suppress(OSError):  # on a full disk nobody learns who holds it
                os.ftruncate(handle, 0)
                os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
            return handle
    os.close(handle)
    return None


def user(folder: Path) -> str:
    """Return who holds the folder's lock, as it wrote there: the process, and the machine."""
    with contextlib.suppress(OSError):
        return (folder / ".lock").read_text(encoding="utf-8", errors="replace")[:200] or "another odenet process"
    return "another odenet process"


def held(folder: Path) -> bool:
    """Has another process the folder's lock?"""
    try:
        handle = os.open(folder / ".lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return not taken(handle)
    finally:
        os.close(handle)


def taken(handle: int) -> bool:
    """Take the lock on an open file, unless it is held."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Replace `run.json` in one move, the folder's own name on the disk before it."""
    sync(folder, above=ABOVE)
    replace(folder / "run.json", json.dumps(plain(record), indent=2, ensure_ascii=False) + "\n")


def append(path: Path, record: dict[str, Any]) -> None:
    """One record more, as a line of JSON, in the place of half a line that a kill left; no link is followed."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    with naming(path), open(handle, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # two may write at once
        text = file.read()
        whole = text.rfind(b"\n") + 1
        if _is_json(text[whole:]):  # an editor left the last line break out
            whole = file.write(b"\n") + len(text)
        file.seek(whole)
        file.write((json.dumps(plain(record)) + "\n").encode())
        file.truncate()


def check_metrics(path: Path, size: int) -> None:
    """Refuse to go on with a log whose first `size` bytes, those the checkpoint knew, are not whole records."""
    try:
        with open(path, "rb") as file:
            text = file.read(size)
        whole = len(text) == size and text[-1:] in (b"", b"\n") and all(map(_is_record, text.splitlines()))
        wrong = "" if whole else f"its first {size:,} bytes are not the records that the checkpoint was written after"
    except OSError as error:
        wrong = str(error.strerror)
    if wrong:
        raise RequestError(f"{path} is damaged: {wrong}.\n  Put it back, or start a new run in another folder.")


def _is_record(line: bytes) -> bool:
    return _is_json(line) and {"step", "split"} <= json.loads(line).keys()


def _is_json(line: bytes) -> bool:
    """Is the line a whole record?"""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


class MetricsFile:
    """`metrics.jsonl`, one record a line, read back up to `size` bytes where a run goes on."""

    def __init__(self, path: Path, size: int = 0) -> None:
        self.path = path
        self._file = open(path, "ab")  # noqa: SIM115 - open as long as the run
        self._file.truncate(min(size, os.path.getsize(path)))

    def read(self) -> list[dict[str, Any]]:
        """The records so far."""
        return [json.loads(line) for line in self.path.read_bytes().splitlines()]

    @property
    def size(self) -> int:
        """Bytes written so far, all of them handed to the system."""
        self._file.flush()
        return os.path.getsize(self.path)

    def write(self, record: dict[str, Any]) -> None:
        with naming(self.path):
            self._file.write((json.dumps(plain(record)) + "\n").encode())
            self._file.flush()

    def close(self) -> None:
        self._file.close()


def plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become text."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
