"""Choose the folder of an item's page: a partial page never replaces a fuller or committed one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from odenet_cli.report.result import About

PARTIAL = Path("runs/partial")  # beside the cells, and like them in no commit


def destination(out: Path, about: About, rows: Sequence[Mapping[str, Any]], overwrite: bool) -> tuple[Path, str]:
    """Return the folder for the page of an item, and why it is not `out`/ITEM (empty if it is).

    rows       those of the page, one a cell or more
    overwrite  the user wants the page in `out`, whatever is there
    """
    folder = out / about.item
    page = folder / f"{about.preset}.json"
    if overwrite or not about.partial or not page.exists():
        return folder, ""
    if _is_committed(page):
        reason = "is committed"
    elif _cells_of(page) - _cells(rows):
        reason = "has cells that this page lacks"
    else:
        return folder, ""
    return PARTIAL / about.item, (
        f"{page.with_suffix('.md')} {reason} and was not replaced: this page is {'; '.join(about.partial)}.\n"
        "  To replace it: --overwrite; to write elsewhere: --out FOLDER."
    )


def _cells_of(page: Path) -> set[str]:
    """Return the cells of the page in the JSON file `page`; of a file that cannot be read a name that no cell has."""
    try:
        return _cells(json.loads(page.read_text(encoding="utf-8"))["rows"])
    except (OSError, ValueError, KeyError, TypeError):
        return {"unreadable"}


def _cells(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the names of the finished cells among the rows."""
    return {str(row["cell"]) for row in rows if row.get("status", "done") == "done"}


def _is_committed(path: Path) -> bool:
    git = ["git", "-C", str(path.parent), "ls-files", "--error-unmatch", "--", path.name]
    try:
        return subprocess.run(git, capture_output=True, timeout=10).returncode == 0
    except (OSError, subprocess.SubprocessError):  # no git here, or one that hangs
        return False
