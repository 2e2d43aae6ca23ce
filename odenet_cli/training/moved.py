"""Find the data of a run that were moved since, alone or together with the run, by their SHA-256."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from odenet_cli.config.schema import DATA_PLACES, Config
from odenet_cli.errors import RequestError
from odenet_cli.rundir import read_record


def moved(folder: Path, config: Config) -> dict[str, str]:
    """Return {`data.path` or `data.root`: where the data of the run in `folder` are now}; empty where they were.

    Looked at, in this order: the path as it is saved; in a run of format 1, which has it as it was typed, where
    `run.json` says they were; and the end of the path below each folder above the run, nearest first. What is there
    counts if its SHA-256 is that of the run's data. Raises `RequestError` if they are nowhere.
    """
    key = next((key for key in DATA_PLACES if config.data.get(key.partition(".")[2])), None)
    if key is None:
        return {}
    place = Path(os.path.expanduser(config.data[key.partition(".")[2]]))
    if place.is_absolute() and place.exists():
        return {}
    record = read_record(folder).get("data") or {}
    for candidate in dict.fromkeys(_candidates(folder, place, record.get("root"))):
        if record.get("sha256") is not None and _digest(config, key, candidate) == record["sha256"]:
            return {key: str(candidate)}
    if place.exists():  # under a relative path, but something else: it is for others to judge
        return {}
    digest = f" (SHA-256 {record['sha256']})" if isinstance(record.get("sha256"), str) else ""
    raise RequestError(
        f"{key}={place}: there is nothing, and the run's data are not beside {folder} either.\n"
        f"  Say where they are now: {key}={'FILE' if key == 'data.path' else 'FOLDER'}{digest}."
    )


def _candidates(folder: Path, place: Path, root: str | None) -> Iterator[Path]:
    """Yield what exists of the places where the data may be."""
    before = Path(os.path.abspath(place))
    above = [folder.absolute(), *folder.absolute().parents]
    tails = [Path(*before.parts[n:]) for n in range(1, len(before.parts))]
    for candidate in (before, *([Path(root)] if root else []), *(top / tail for top in above for tail in tails)):
        if candidate.exists():
            yield candidate


def _digest(config: Config, key: str, place: Path) -> object:
    """Return the SHA-256 of the data at `place`; None where there are none. Nothing is downloaded."""
    from odenet_cli import data as sets

    name, options = config.source()
    options |= {key.partition(".")[2]: str(place)} | ({"download": False} if "download" in options else {})
    try:
        return sets.prepare(name, options).get("sha256")
    except RequestError:
        return None
