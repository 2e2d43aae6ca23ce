"""`run.json` as it is read back: by who goes on with a run, who lists it, and who reports on it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from odenet_cli.errors import RequestError

FORMAT = 2  # of a run's folder, in `run.json`; none stands for 1, in which paths are as they were typed
# What must be there, and of which kind.
WORD, TABLE = str | None, dict | None
RECORD: dict[str, Any] = {
    **{"status": str, "reason": WORD, "final": TABLE, "data": TABLE, "versions": TABLE, "resumed": list | None},
    **dict.fromkeys(("command", "git", "device", "started", "finished"), WORD),
}

WEIGHTS = "model.safetensors"  # of a run that came from a kept cell, in the place of checkpoints


def without_places(command: str | None) -> str | None:
    """Return a command without the words that name a place on the machine: they change no number."""
    if not command or "data.root=" not in command:
        return command
    return shlex.join(word for word in shlex.split(command) if not names_place(word))


def names_place(word: str) -> bool:
    """Tell whether a word of a command says where the data are."""
    return word.lstrip("+").startswith("data.root=")


def holds_run(folder: Path) -> bool:
    """Return whether there is a run in `folder` to go on with."""
    return any((folder / name).exists() for name in ("run.json", "checkpoints"))


def read_record(folder: Path) -> dict[str, Any]:
    """`run.json`, or nothing where there is none; refused by name where a run would not have written it so."""
    try:
        return parsed(folder)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        path = folder / "run.json"
        raise RequestError(
            f"{path} cannot be read: {error}\n  Put back what the run wrote there, or take the file away: the run "
            "then goes on from its checkpoints, and whether its data are still the same is not asked."
        ) from error


def parsed(folder: Path) -> dict[str, Any]:
    """`run.json`; whatever a damaged file makes a parser raise, or a `ValueError` that names what no run would say."""
    text = read_text(folder / "run.json")
    if not text.strip("\0 \n"):
        raise ValueError("run.json: it is empty")
    try:
        record: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno} of run.json: {error.msg}") from error
    check(record, {}, "run.json")
    form = record.get("format", 1)
    if type(form) is int and form > FORMAT:
        raise RequestError(
            f"{folder / 'run.json'} is of a newer version of odenet: it has format {form}, and this one reads up to "
            f"{FORMAT}.\n  Install that version to go on with this run."
        )
    check(record, {**RECORD, "format": int} if "format" in record else RECORD, "run.json")
    for stop in record.get("resumed") or []:
        check(stop, {"step": int}, "a resume in run.json")
    return dict(record)


def read_text(path: Path) -> str:
    """What `path` holds."""
    if path.exists() and not path.is_file():  # to read a pipe would wait for ever
        raise ValueError(f"{path.name} is no file")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not text: {error}") from error


def check(found: Any, kinds: Mapping[str, Any], what: str) -> None:
    """Refuse what has something of another kind under one of these keys."""
    if not isinstance(found, dict):
        raise ValueError(f"{what} has no keys")
    for key, kind in kinds.items():
        value = found.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{what}: {key} is {value!r:.40}" if key in found else f"{what}: there is no {key}")
