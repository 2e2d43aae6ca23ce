"""The folder of one run: its lock, `run.json` and `metrics.jsonl`."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from odenet_cli.errors import RequestError

MOMENT_S = 0.5  # in which who only asks whether a folder is held has let go of it


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; another holder is refused. The kernel lets go when the process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
    limit = time.monotonic() + MOMENT_S
    try:
        while not taken(handle):
            if time.monotonic() > limit:
                raise RequestError(f"{folder} is in use by another odenet process; choose another hydra.run.dir.")
            time.sleep(0.01)
        yield
    finally:
        os.close(handle)


def taken(handle: int) -> bool:
    """Take the lock on an open file, unless it is held."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def read_record(folder: Path) -> dict[str, Any]:
    """`run.json`, or nothing where there is none."""
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RequestError(f"{folder / 'run.json'} cannot be read: {error}") from error
    return dict(record)


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Replace `run.json` in one move."""
    replace(folder / "run.json", json.dumps(plain(record), indent=2, ensure_ascii=False) + "\n")


def replace(path: Path, text: str) -> None:
    """Put `text` in the place of `path` in one move; where it was a link, only the link goes."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def append(path: Path, record: dict[str, Any]) -> None:
    """One record more, as a line of JSON; a link to another file is not followed."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    with open(handle, "a", encoding="utf-8") as file:
        file.write(json.dumps(plain(record)) + "\n")


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
