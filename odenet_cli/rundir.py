"""The folder of one run: its place, its name, and its `run.json`. Without torch."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from odenet_cli.errors import RequestError
from odenet_cli.files import sync, write_json
from odenet_cli.lock import held_elsewhere, is_locked

FORMAT = 2  # of a run's folder, in `run.json`; none stands for 1, in which paths are as they were typed
WEIGHTS = "model.safetensors"  # of a run that came from a kept cell, in the place of checkpoints
RUN_FILES = {"run.json", "metrics.jsonl"}  # only the folder of a run holds one of these
OURS = {"config.yaml", "run.json", "metrics.jsonl", "checkpoints", "train.log", "figures", ".hydra"}
OURS |= {"wandb", "predictions.npz", "eval.jsonl", "gradcheck.jsonl", "audit.json", "verify.jsonl", "tune.json"}
# What a job of a sweep raised, which may be in no record: its process leaves it to the command that sums up.
FAILED = ".failed"
OURS.add(FAILED)

# What `run.json` must have, and of which type.
RECORD: dict[str, Any] = {
    "status": str,
    **dict.fromkeys(("reason", "command", "git", "device", "started", "finished"), str | None),
    **dict.fromkeys(("final", "data", "versions", "failed"), dict | None),
    "resumed": list | None,
}

PARENTS_TO_SYNC = 2  # folders above a run's that may be as new: runs/DATE, sweeps/DATE/TIME


def holds_run(folder: Path) -> bool:
    """Return whether `folder` contains a run that can be continued."""
    return any(os.path.exists(folder / name) for name in ("run.json", "checkpoints"))  # Path's raises at a long name


def runs_below(folder: Path) -> list[Path]:
    """Return the folders of runs in `folder`, at any depth, job 10 behind job 2; links are followed.

    One that may not be entered is among them, for it may hold a run.
    """
    runs, visited = list[Path](), set[Path]()

    def closed(error: OSError) -> None:
        if isinstance(error, PermissionError):
            runs.append(Path(error.filename))

    for name, folders, files in os.walk(folder, onerror=closed, followlinks=True):
        here, real = Path(name), Path(name).resolve()
        is_run, looped = not RUN_FILES.isdisjoint(files), real in visited
        visited.add(real)
        folders[:] = [] if is_run or looped else [inner for inner in folders if not inner.startswith(".")]
        runs += [here] * (is_run and not looped)
    return sorted(
        runs, key=lambda run: [(int(x), "") if x.isdecimal() else (-1, x) for x in re.split(r"(\d+)", str(run))]
    )


def where_one_is(folder: Path) -> str:
    """Return a hint for a folder that is not a run's: a run above or below it, or how to list runs."""
    above = [place for place in folder.parents[:2] if (place / "config.yaml").is_file()]
    if above:
        return f"It is part of the run {above[0]}."
    depths = ("*/", "*/*/", "*/*/*/")  # of a sweep, of runs, of sweeps; / has no end
    below = sorted(path.parent for depth in depths for path in folder.glob(f"{depth}run.json"))
    if below:
        return f"It contains {len(below)} run{'s' * (len(below) != 1)}, such as {shlex.quote(str(below[0]))}."
    return "`odenet runs` lists the runs of this folder; last is the newest, last~1 the one before it."


def recent_runs() -> list[Path]:
    """Return the runs in `runs` and `sweeps` here, newest first, without the cells of `odenet reproduce`."""
    found = (folder for kind in ("runs", "sweeps") for folder in runs_below(Path(kind)))
    own = [folder for folder in found if folder.parent != Path("runs/cells")]
    return sorted(own, key=lambda folder: (started_s(record_or_reason(folder)) or 0.0, folder), reverse=True)


def started_s(record: Mapping[str, Any]) -> float | None:
    """Return when a run was started, in seconds since 1970, whatever its time zone; None if it does not say."""
    try:
        return datetime.strptime(str(record.get("started")), "%Y-%m-%dT%H:%M:%S%z").timestamp()
    except ValueError:
        return None


def named_run(word: str) -> Path:
    """Return the folder that a RUN names: `last` is the newest run here, `last~1` the one before it."""
    back = re.fullmatch(r"last(?:~(\d{1,9}))?", word)
    if back is None or os.path.exists(word):
        return Path(os.path.expanduser(word))
    recent = recent_runs()
    if int(back[1] or 0) >= len(recent):
        raise RequestError(
            f"{word} is not a run: runs/ and sweeps/ in this folder hold {len(recent)}. `odenet runs` lists them."
        )
    return recent[int(back[1] or 0)]


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write `run.json` in one move, the folder's own name on the disk before it."""
    sync(folder, above=PARENTS_TO_SYNC)
    write_json(folder / "run.json", record)


def read_record(folder: Path) -> dict[str, Any]:
    """Return `run.json`, empty if there is none; raise `RequestError` naming it where no run would have written it."""
    try:
        return parse_record(folder)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        path = folder / "run.json"
        raise RequestError(
            f"{path} cannot be read: {error}\n  Restore the file, or remove it: the run "
            "then continues from its checkpoints, without checking that its data are the same."
        ) from error


def record_or_reason(folder: Path) -> dict[str, Any]:
    """Return `run.json`, empty if there is none, as `as_it_is` sees it; status `unreadable` and the reason where it
    cannot be read."""
    try:
        return as_it_is(folder, read_record(folder))
    except RequestError as error:
        return {"status": "unreadable", "reason": str(error)}


def as_it_is(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Return a run's record, with status `killed` and a reason if it says `running` but no process holds the lock.

    What a signal 9 or a power cut ended could not write so itself. A lock need not be seen on another machine of a
    cluster: what a process there held last is left as the record says.
    """
    if record.get("status") != "running" or is_locked(folder) or held_elsewhere(folder):
        return record
    record = read_record(folder)  # again: it may have ended between the two looks
    if record.get("status") != "running":
        return record
    reason = f"it ended without a message (killed, or a power failure). Continue: {resume_command(short(folder))}"
    return {**record, "status": "killed", "reason": reason}


def resume_command(run: str) -> str:
    """Return the command that continues a run, given its folder or a name such as `last`."""
    return f"odenet train {shlex.quote(f'resume={run}')}"


def short(folder: Path) -> str:
    """Return the folder relative to the current one, if it is inside."""
    relative = os.path.relpath(folder)
    return str(folder) if relative.startswith("..") else relative


def parse_record(folder: Path) -> dict[str, Any]:
    """Return `run.json`; raise a `ValueError` that names what no run would write, or whatever the parser raises."""
    text = read_text(folder / "run.json")
    if not text.strip("\0 \n"):
        raise ValueError("run.json: it is empty")
    try:
        record: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno} of run.json: {error.msg}") from error
    check_types(record, {}, "run.json")
    version = record.get("format", 1)
    if type(version) is int and version > FORMAT:
        raise RequestError(
            f"{folder / 'run.json'} was written by a newer version of odenet: its format is {version}, and this "
            f"version reads up to {FORMAT}.\n"
            "  Install the newer version to continue this run."
        )
    check_types(record, {**RECORD, "format": int} if "format" in record else RECORD, "run.json")
    for stop in record.get("resumed") or []:
        check_types(stop, {"step": int}, "a resume in run.json")
    if record.get("failed") is not None:
        check_types(record["failed"], {"split": str, "step": int}, "failed in run.json")
    return dict(record)


def without_places(command: str | None) -> str | None:
    """Return a command without the words that name a place on the machine: they change no number."""
    if not command or "data.root=" not in command:
        return command
    return shlex.join(word for word in shlex.split(command) if not names_place(word))


def names_place(word: str) -> bool:
    """Return whether a word of a command says where the data are."""
    return word.lstrip("+").startswith("data.root=")


def read_text(path: Path) -> str:
    """Return the text of a file; a pipe or a device is refused, as reading it would wait for ever."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path.name} is not a file")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not text: {error}") from error


def check_types(section: Any, types: Mapping[str, Any], name: str) -> None:
    """Raise `ValueError` if `section` is no dictionary, or one of these keys has another type; a bool is no int."""
    if not isinstance(section, dict):
        raise ValueError(f"{name} has no keys")
    for key, kind in types.items():
        value = section.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{name}: {key} is {value!r:.40}" if key in section else f"{name}: {key} is missing")
