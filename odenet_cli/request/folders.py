"""The folders a request writes to: their names, and whether they are free."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from odenet_cli.errors import RequestError
from odenet_cli.lock import is_locked, lock_holder, locked_here
from odenet_cli.rundir import OURS, read_record

MAX_NAME_BYTES = 100


def folder_name(number: int, overrides: str = "") -> str:
    """Return the folder of a sweep's job, `<number>-<overrides>`: without paths, safe characters, not too long."""
    parts = [part for part in str(overrides).split(",") if part and "/" not in part and "\\" not in part]
    text = re.sub(r"[^\w.,=+-]+", "_", ",".join(parts))
    if len(text.encode()) > MAX_NAME_BYTES:
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        text = text.encode()[: MAX_NAME_BYTES - 9].decode(errors="ignore") + "-" + digest
    return f"{number}-{text}" if text else f"{number}"


def _check_links(key: str, folder: Path) -> None:
    """Refuse a folder with links in it: a run would write, or overwrite, what they lead to."""
    for here, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(here) / name
            if path.is_symlink():
                raise RequestError(
                    f"{key}={folder}: {path.relative_to(folder)} is a link to {os.readlink(path)}, which a run would "
                    f"overwrite.\n  Put the file itself in its place; the folder as a whole may be a link."
                )


def check_run_folder(folder: Path, resume: str) -> None:
    """Refuse a folder that holds another run or foreign files, unless `resume=auto` goes on with it."""
    if not _occupied("hydra.run.dir", folder):
        return
    status = read_record(folder).get("status")  # a damaged one is refused
    ours = ("events.out.", ".lock", ".run.json", ".config.yaml")
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in OURS and not path.name.startswith(ours))
    if status is None and foreign:
        raise RequestError(
            f"hydra.run.dir={folder} is not empty and holds no run (there is {foreign[0]}). Choose a new folder."
        )
    _check_links("hydra.run.dir", folder)
    if resume == "auto":
        return
    if status == "done":
        raise RequestError(f"hydra.run.dir={folder} holds a finished run. Choose a new folder.")
    raise RequestError(
        f"hydra.run.dir={folder} holds an unfinished run. Go on with it by resume=auto, or choose a new folder."
    )


def check_sweep_folder(folder: Path, resume: str) -> None:
    """Refuse a folder that holds another sweep or foreign files, unless `resume=auto` goes on with it."""
    if not _occupied("hydra.sweep.dir", folder):
        return
    if not (folder / "multirun.yaml").exists() and not (folder / "summary.json").exists():
        raise RequestError(f"hydra.sweep.dir={folder} is not empty and holds no sweep. Choose a new folder.")
    _check_links("hydra.sweep.dir", folder)
    if resume != "auto":
        raise RequestError(
            f"hydra.sweep.dir={folder} holds a sweep. Go on with it by resume=auto, or choose a new folder."
        )


def remove_run(folder: Path, jobs: Iterable[Path] = ()) -> None:
    """Delete the folder of a run, or of a sweep's `jobs`, that was then refused, unless something else is in it.

    Only for whoever made the folder and holds it.
    """
    ours = {*OURS, ".lock", "multirun.yaml"}
    ours |= {job.relative_to(folder).parts[0] for job in jobs if job != folder and job.is_relative_to(folder)}
    if all(path.name in ours for path in folder.iterdir()):
        shutil.rmtree(folder)


def _occupied(key: str, folder: Path) -> bool:
    """Return whether there is something in `folder`; refuse one that cannot be made or written, or that another process
    is at work in: whether its run is finished, nobody knows yet."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists() or path.is_symlink())
    if not nearest.is_dir():
        raise RequestError(f"{key}={folder} cannot be made: {nearest} is not a folder.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise RequestError(f"{key}={folder} cannot be written: no permission in {nearest}.")
    occupied = nearest == folder and any(path.name != ".lock" for path in folder.iterdir())
    if occupied and is_locked(folder) and not locked_here(folder):
        raise RequestError(f"{key}={folder} is in use by {lock_holder(folder)}; wait for it, or choose another.")
    return occupied
