"""The folder of one run: its lock, `run.json`, `metrics.jsonl` and its names; nobody else parses them. No torch."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shlex
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from odenet_cli.errors import RequestError, name_file
from odenet_cli.files import sync, to_json, write_json

FORMAT = 2  # of a run's folder, in `run.json`; none stands for 1, in which paths are as they were typed
WEIGHTS = "model.safetensors"  # of a run that came from a kept cell, in the place of checkpoints
RUN_FILES = {"run.json", "metrics.jsonl"}  # only the folder of a run holds one of these
OURS = {"config.yaml", "run.json", "metrics.jsonl", "checkpoints", "train.log", "figures", ".hydra"}
OURS |= {"wandb", "predictions.npz", "eval.jsonl", "gradcheck.jsonl", "audit.json", "verify.jsonl", "tune.json"}
# What a job of a sweep raised, which may be in no record: its process leaves it to the command that sums up.
FAILED = ".failed"
OURS.add(FAILED)

# What `run.json` and a line of `metrics.jsonl` must have, and of which type.
RECORD: dict[str, Any] = {
    "status": str,
    **dict.fromkeys(("reason", "command", "git", "device", "started", "finished"), str | None),
    **dict.fromkeys(("final", "data", "versions", "failed"), dict | None),
    "resumed": list | None,
}
METRICS: dict[str, Any] = {"step": int, "epoch": int | float, "split": str}
NFE = ("nfe_forward", "nfe_backward")  # of a training step

PARENTS_TO_SYNC = 2  # folders above a run's that may be as new: runs/DATE, sweeps/DATE/TIME
LOCK_WAIT_S = 0.5  # within this, whoever only asks whether a folder is locked has let go of it
_LOCKED: set[tuple[int, Path]] = set()  # (thread, folder)


# --- the lock


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
    limit, new = time.monotonic() + LOCK_WAIT_S, _make(folder)
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


def _held_elsewhere(folder: Path) -> bool:
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


# --- run.json


def holds_run(folder: Path) -> bool:
    """Return whether there is a run in `folder` to go on with."""
    return any((folder / name).exists() for name in ("run.json", "checkpoints"))


def runs_below(folder: Path) -> list[Path]:
    """Return the folders of runs in `folder`, at any depth, job 10 behind job 2; links are followed."""
    runs, visited = list[Path](), set[Path]()
    for name, folders, files in os.walk(folder, followlinks=True):
        here, real = Path(name), Path(name).resolve()
        is_run, looped = not RUN_FILES.isdisjoint(files), real in visited
        visited.add(real)
        folders[:] = [] if is_run or looped else [inner for inner in folders if not inner.startswith(".")]
        runs += [here] * (is_run and not looped)
    return sorted(
        runs, key=lambda run: [(int(x), "") if x.isdecimal() else (-1, x) for x in re.split(r"(\d+)", str(run))]
    )


def where_one_is(folder: Path) -> str:
    """Return what leads from a folder that is no run's to one: what it is in, or has, or what lists all."""
    above = [place for place in folder.parents[:2] if (place / "config.yaml").is_file()]
    if above:
        return f"It is a part of one: {above[0]}."
    depths = ("*/", "*/*/", "*/*/*/")  # of a sweep, of runs, of sweeps; / has no end
    below = sorted(path.parent for depth in depths for path in folder.glob(f"{depth}run.json"))
    if below:
        return f"It has {len(below)} below it, such as {shlex.quote(str(below[0]))}."
    return "`odenet runs` lists those here; last is the newest, last~1 the one before it."


def recent_runs() -> list[Path]:
    """Return the runs in `runs` and `sweeps` here, newest first, without the cells of `odenet reproduce`."""
    found = (folder for kind in ("runs", "sweeps") for folder in runs_below(Path(kind)))
    own = [folder for folder in found if folder.parent != Path("runs/cells")]
    return sorted(own, key=lambda folder: (str(record_or_reason(folder).get("started") or ""), folder), reverse=True)


def named_run(word: str) -> Path:
    """Return the folder that a RUN names: `last` is the newest run here, `last~1` the one before it."""
    back = re.fullmatch(r"last(?:~(\d{1,9}))?", word)
    if back is None or os.path.exists(word):
        return Path(os.path.expanduser(word))
    recent = recent_runs()
    if int(back[1] or 0) >= len(recent):
        raise RequestError(
            f"{word} is no run: runs/ and sweeps/ of this folder hold {len(recent)}. `odenet runs` lists them."
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
            f"{path} cannot be read: {error}\n  Put back what the run wrote there, or take the file away: the run "
            "then goes on from its checkpoints, and whether its data are still the same is not asked."
        ) from error


def record_or_reason(folder: Path) -> dict[str, Any]:
    """Return `run.json`, empty if there is none, as `as_it_is` sees it; status `unreadable` and the reason where it
    cannot be read."""
    try:
        return as_it_is(folder, read_record(folder))
    except RequestError as error:
        return {"status": "unreadable", "reason": str(error)}


def as_it_is(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Return a run's record with status `killed`, and the reason, where it says `running` and nobody holds the lock.

    What a signal 9 or a power cut ended could not write so itself. A lock need not be seen on another machine of a
    cluster: what a process there held last is left as the record says.
    """
    if record.get("status") != "running" or is_locked(folder) or _held_elsewhere(folder):
        return record
    record = read_record(folder)  # again: it may have ended between the two looks
    if record.get("status") != "running":
        return record
    reason = f"it ended without a word (killed, or a power cut). Go on: {resume_command(short(folder))}"
    return {**record, "status": "killed", "reason": reason}


def resume_command(run: str) -> str:
    """Return the command that goes on with a run, by its folder or a name such as `last`."""
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
            f"{folder / 'run.json'} is of a newer version of odenet: it has format {version}, and this one reads up to "
            f"{FORMAT}.\n  Install that version to go on with this run."
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
        raise ValueError(f"{path.name} is no file")
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
            raise ValueError(f"{name}: {key} is {value!r:.40}" if key in section else f"{name}: there is no {key}")


# --- metrics.jsonl


class MetricsFile:
    """Hold `metrics.jsonl` open for writing, one record a line, cut back to its first `size` bytes."""

    def __init__(self, folder: Path, size: int = 0) -> None:
        self.folder, self.path = folder, folder / "metrics.jsonl"
        self._file = open(self.path, "ab")  # noqa: SIM115 - open as long as the run
        self._file.truncate(min(size, os.path.getsize(self.path)))

    @property
    def size(self) -> int:
        """Bytes written so far, all of them handed to the system."""
        self._file.flush()
        return os.path.getsize(self.path)

    def write(self, record: dict[str, Any]) -> None:
        with name_file(self.path):
            self._file.write((to_json(record) + "\n").encode())
            self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the records of `metrics.jsonl`, one per (step, split); raise `ValueError` naming a line that is none.

    What stands after the last line break is still being written.
    """
    path = folder / "metrics.jsonl"
    text = read_text(path) if path.exists() else ""
    return _parse_metrics(text[: text.rfind("\n") + 1])


def latest_metrics(folder: Path) -> dict[str, Any] | None:
    """Return the last whole record of `metrics.jsonl`; None before the first."""
    try:
        return dict(json.loads((folder / "metrics.jsonl").read_bytes().split(b"\n")[-2]))
    except (OSError, ValueError, IndexError):
        return None


def steps_of(train: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return how many optimiser steps each record of training holds the means of: those since the one before it."""
    steps = [record["step"] for record in train]
    return [now - before for before, now in zip([0, *steps], steps)]


def mean_nfe(train: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the function evaluations of a training step, forward and backward, as means over the last epoch.

    A record holds the mean over 50 steps or over one, by `trainer.log_every`. Of an epoch that was cut short, as far as
    it came.
    """
    before = [0, *(record["epoch"] for record in train)][: len(train)]  # epochs finished when each record began
    last = [(count, record) for count, record, epoch in zip(steps_of(train), train, before) if epoch == before[-1]]
    steps = sum(count for count, _ in last)
    means = {name: sum(count * record[name] for count, record in last) / steps for name in NFE}
    return {name: int(mean) if mean.is_integer() else mean for name, mean in means.items()}


def check_metrics(folder: Path, size: int) -> None:
    """Raise `RequestError` if the first `size` bytes of the log, those a checkpoint knew, are not whole records."""
    path = folder / "metrics.jsonl"
    try:
        with open(path, "rb") as file:
            text = file.read(size)
        if len(text) < size or text[-1:] not in (b"", b"\n"):
            raise ValueError
        _parse_metrics(text.decode())
        return
    except OSError as error:
        reason = str(error.strerror)
    except ValueError:
        reason = f"its first {size:,} bytes are not the records that the checkpoint was written after"
    raise RequestError(f"{path} is damaged: {reason}.\n  Put it back, or start a new run in another folder.")


def _parse_metrics(text: str) -> list[dict[str, Any]]:
    records = []
    for number, line in enumerate(text.split("\n")[:-1], 1):
        where = f"line {number} of metrics.jsonl"
        try:
            records.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where}: {getattr(error, 'msg', error)}: {line[:40]!r}") from error
        check_types(records[-1], METRICS, where)
    return records
