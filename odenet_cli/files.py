"""Write a file in one move, so that neither a kill nor a loss of power leaves half of one.

Logs that grow are appended to instead: `append_json`, `metrics.MetricsFile`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from odenet_cli.errors import RequestError, is_disk_full, name_file

Content = str | bytes | memoryview | Callable[[Path], object]


def write(path: Path, content: Content, previous: Path | None = None, part: str = ".{}.part") -> Path:
    """Put `content` in the place of `path`, on the disk when this returns; of a link only the link goes.

    content   text (UTF-8), bytes, or a function that writes a file at the path it is given
    previous  where the file that was at `path` goes, if there was one
    part      the name that it has until it is whole
    """
    temporary = path.with_name(part.format(path.name))
    try:
        temporary.unlink(missing_ok=True)
        with name_file(path):
            if callable(content):
                content(temporary)
            else:
                with open(temporary, "xb") as file:
                    file.write(content.encode() if isinstance(content, str) else content)
            _fsync(temporary)
        if previous is not None and path.exists():
            os.replace(path, previous)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    sync(path.parent)
    return path


def write_json(path: Path, value: Any) -> Path:
    """Write `value` as indented JSON, as `write` does."""
    return write(path, to_json(value, indent=2) + "\n")


def write_output(path: Path, content: Content) -> Path:
    """Write a file to a place of the user's choice; raise `RequestError` where that takes none."""
    try:
        return write(path, content, part=".part-{}")  # a function that saves a figure goes by the ending
    except OSError as error:
        if is_disk_full(error):
            raise
        raise RequestError(f"{path} cannot be written: {error.strerror or error}.") from error


def append_json(path: Path, value: dict[str, Any]) -> None:
    """Append `value` as a line of JSON, in the place of half a line that a kill left; follow no link."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    with name_file(path), open(handle, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # two processes may append at once
        text = file.read()
        end = text.rfind(b"\n") + 1
        if _is_json_object(text[end:]):  # an editor left the last line break out
            end = file.write(b"\n") + len(text)
        file.seek(end)
        file.write((to_json(value) + "\n").encode())
        file.truncate()


def to_json(value: Any, indent: int | None = None) -> str:
    """Return `value` as JSON, which has neither NaN nor infinity: they become text. ASCII where on one line."""
    return json.dumps(without_nan(value), indent=indent, ensure_ascii=indent is None)


def without_nan(value: Any) -> Any:
    """Return `value`, nested as it may be, with NaN and infinities as text."""
    if isinstance(value, dict):
        return {key: without_nan(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _is_json_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, read piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def sync(folder: Path, above: int = 0) -> None:
    """Write the names in `folder`, and in so many folders `above` it, to the disk: a file without its name is lost."""
    for place in (folder, *folder.absolute().parents[:above]):
        with contextlib.suppress(OSError):  # a folder of others, or a file system without fsync for folders
            _fsync(place)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
