"""The folders that a request writes to: their names, checks that they are free, and cleaning up after a refusal."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from odenet_cli.errors import RequestError
from odenet_cli.files import write
from odenet_cli.lock import is_locked, lock_holder, locked, locked_here
from odenet_cli.rundir import OURS, holds_run, read_record

MAX_NAME_BYTES = 100
NOTES = ("config.yaml", "hydra.yaml", "overrides.yaml", "*.log")  # wherever `hydra.output_subdir` has them


def folder_name(number: int, overrides: str = "") -> str:
    """Return the folder of a sweep's job, `<number>-<overrides>`: without paths, safe characters, not too long."""
    parts = [part for part in str(overrides).split(",") if part and "/" not in part and "\\" not in part]
    text = re.sub(r"[^\w.,=+-]+", "_", ",".join(parts))
    if len(text.encode()) > MAX_NAME_BYTES:
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        text = text.encode()[: MAX_NAME_BYTES - 9].decode(errors="ignore") + "-" + digest
    return f"{number}-{text}" if text else f"{number}"


def _check_links(key: str, folder: Path) -> None:
    """Refuse a folder that contains links, since a run would overwrite their targets."""
    for here, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(here) / name
            if path.is_symlink():
                raise RequestError(
                    f"{key}={folder}: {path.relative_to(folder)} is a link to {os.readlink(path)}, which a run would "
                    f"overwrite.\n  Replace the link by the file; only the folder itself may be a link."
                )


def check_run_folder(folder: Path, resume: str) -> None:
    """Refuse a folder with another run or foreign files, unless `resume=auto` continues the run."""
    if not _occupied("hydra.run.dir", folder):
        return
    status = read_record(folder).get("status")  # a damaged one is refused
    ours = ("events.out.", ".lock", ".run.json", ".config.yaml")
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in OURS and not path.name.startswith(ours))
    if status is None and foreign:
        raise RequestError(
            f"hydra.run.dir={folder} is not empty and does not contain a run (it contains {foreign[0]}). Choose a new "
            "folder."
        )
    _check_links("hydra.run.dir", folder)
    if resume == "auto":
        return
    if status == "done":
        raise RequestError(f"hydra.run.dir={folder} contains a finished run. Choose a new folder.")
    raise RequestError(
        f"hydra.run.dir={folder} holds an unfinished run. Continue it with resume=auto, or choose a new folder."
    )


def check_sweep_folder(folder: Path, resume: str) -> None:
    """Refuse a folder with another sweep or foreign files, unless `resume=auto` continues the sweep."""
    if not _occupied("hydra.sweep.dir", folder):
        return
    if not (folder / "multirun.yaml").exists() and not (folder / "summary.json").exists():
        raise RequestError(f"hydra.sweep.dir={folder} is not empty and does not contain a sweep. Choose a new folder.")
    _check_links("hydra.sweep.dir", folder)
    if resume != "auto":
        raise RequestError(
            f"hydra.sweep.dir={folder} holds a sweep. Continue it with resume=auto, or choose a new folder."
        )


def remove_run(folder: Path, jobs: Iterable[Path] = ()) -> None:
    """Delete the folder of a refused run, or of a refused sweep's `jobs`, unless it contains anything else.

    Only for the process that created the folder and holds its lock.
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
        raise RequestError(f"{key}={folder} cannot be created: {nearest} is not a folder.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise RequestError(f"{key}={folder} is not writable: no permission in {nearest}.")
    occupied = nearest == folder and any(path.name != ".lock" for path in folder.iterdir())
    if occupied and is_locked(folder) and not locked_here(folder):
        raise RequestError(
            f"{key}={folder} is in use by {lock_holder(folder)}; wait for it to finish, or choose another folder."
        )
    return occupied


@contextmanager
def restore_on_refusal(folders: Iterable[Path]) -> Iterator[None]:
    """Restore the notes of those runs in `folders` that were not continued inside, byte for byte.

    Hydra writes the overrides and starts a log before a job can check the checkpoint.
    """
    before = {folder: _notes(folder) for folder in folders if holds_run(folder)}
    try:
        yield
    finally:
        for folder, notes in before.items():
            # On a full disk, or where another process has the run now, they stay; what is raised says why.
            with suppress(OSError, RequestError), locked(folder):
                now, record = _notes(folder), folder / "run.json"
                if now.get(record) == notes.get(record):
                    _put_back(notes, now)


def _notes(folder: Path) -> dict[Path, bytes]:
    """Return the contents of the record and the notes in `folder`, as far as they can be read."""
    contents = {}
    for path in (path for name in ("run.json", *NOTES) for path in folder.rglob(name)):
        with suppress(OSError):
            if path.is_file() and not path.is_symlink():
                contents[path] = path.read_bytes()
    return contents


def _put_back(notes: dict[Path, bytes], now: dict[Path, bytes]) -> None:
    for path in now.keys() - notes.keys():
        path.unlink()
        with suppress(OSError):  # something else is in there
            path.parent.rmdir()
    for path, content in notes.items():
        if now.get(path) != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, content)
