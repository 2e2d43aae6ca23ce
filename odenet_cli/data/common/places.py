"""Find a user's data on disk."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from odenet_cli.errors import RequestError

EXCEL = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods")


def absolute(path: object) -> Path:
    """Return an absolute path, with `~` expanded, for a path as written by the user."""
    return Path(os.path.abspath(os.path.expanduser(str(path))))


def find(path: object) -> list[Path]:
    """Return the file at `path`, or those matching a pattern, sorted by name; raise RequestError if there is none."""
    whole = str(absolute(path))
    files = [whole] if os.path.exists(whole) or not glob.has_magic(whole) else sorted(glob.glob(whole))
    if not files:
        raise RequestError(f"data.path={whole}: no such file.")
    for file in files:
        if os.path.exists(file) and not os.path.isfile(file):  # a pipe or a device may be endless
            raise RequestError(
                f"data.path={file} is not a file but a folder, a pipe or a device. Name a file, or FOLDER/*.csv."
            )
    return [Path(file) for file in files]


def sheet_for(path: str | None, sheet: str | None) -> str | None:
    """Return the sheet named by a run, if another file for it is also an Excel file; text files have none."""
    return sheet if Path(path or "").suffix.lower() in EXCEL else None


def state(path: Path) -> tuple[tuple[int, int], ...]:
    """Return the time of modification and the size of each file; empty if there is none."""
    try:
        return tuple((stat.st_mtime_ns, stat.st_size) for stat in map(os.stat, find(path)))
    except (OSError, RequestError):
        return ()
