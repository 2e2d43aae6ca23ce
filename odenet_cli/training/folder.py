"""The folder of one run: its lock, `run.json` and `metrics.jsonl`."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from odenet_cli.errors import RequestError
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
    mine = threading.get_ident(), folder.resolve()
    if mine in _HOLDS:
        yield False
        return
    limit, made = time.monotonic() + MOMENT_S, _made(folder)
    while (handle := _held(folder / ".lock")) is None:
        if time.monotonic() > limit:
            raise RequestError(f"{folder} is in use by another odenet process; choose another {key}.")
        time.sleep(0.01)
        made |= _made(folder)
    _HOLDS.add(mine)
    try:
        yield made
    finally:
        _HOLDS.remove(mine)
        os.close(handle)


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
            return handle
    os.close(handle)
    return None


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
    """One record more, as a line of JSON; a link to another file is not followed."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    with open(handle, "a", encoding="utf-8") as file:
        file.write(json.dumps(plain(record)) + "\n")


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
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and {"step", "split"} <= record.keys()


class MetricsFile:
    """`metrics.jsonl`, one record a line, read back up to `size` bytes where a run goes on."""

    def __init__(self, path: Path, size: int = 0) -> None:
        self.path = path
        self._file = open(path, "ab")  # noqa: SIM115 - open as long as the run
        self._file.truncate(min(size, os.path.getsize(path)))

    @property
    def size(self) -> int:
        """Bytes written so far, all of them handed to the system."""
        self._file.flush()
        return os.path.getsize(self.path)

    def write(self, record: dict[str, Any]) -> None:
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
