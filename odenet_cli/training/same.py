"""When is a run the same run? Where what it computes is settled alike, and its data have the same content.

Where it happens, what it is called and how often it reports may change, and an unfinished run may be made longer.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from odenet_cli.config.saved import load
from odenet_cli.config.schema import INCIDENTAL, Config
from odenet_cli.errors import RequestError
from odenet_cli.rundir import holds_run, read_record

LINES = 8


def settings(section: Mapping[str, Any], free: Collection[str] = INCIDENTAL, prefix: str = "") -> Iterator[Any]:
    """Yield (full key, value) of everything below `section` but what is `free`; a list is a value."""
    for name, value in section.items():
        key = f"{prefix}{name}"
        if key in free:
            continue
        if isinstance(value, dict):
            yield from settings(value, free, f"{key}.")
        else:
            yield key, value


def identity(config: Config) -> frozenset[tuple[str, Any]]:
    """Return what makes a run this run, to look it up by: two of them are equal where nothing differs."""
    return frozenset((key, _frozen(value)) for key, value in settings(asdict(config), INCIDENTAL | {"reproduce"}))


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):  # within a list
        return tuple((key, _frozen(part)) for key, part in value.items())
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value


def differences(there: Config, here: Config) -> dict[str, str]:
    """Return key -> 'there → here' for the settings that differ; where the names of two models do, their own options
    are not gone into."""
    old, new = (dict(settings(asdict(config), INCIDENTAL | {"reproduce"})) for config in (there, here))
    differ = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    named = [key for key in differ if key in old and key in new]
    return {key: f"{_spelled(old.get(key))} → {_spelled(new.get(key))}" for key in named or differ}


def _spelled(value: Any) -> str:
    return "null" if value is None else str(value)


def same_run(folder: Path, config: Config) -> dict[str, str]:
    """Refuse to go on as `config` with another run that is in `folder`, naming what differs.

    Returns what may: the keys `trainer.*` that say how long it goes on, which a finished run has to be asked about.
    """
    if not holds_run(folder):
        return {}
    record = read_record(folder)
    if not any((folder / name).exists() for name in ("config.yaml", "checkpoints")) and record["status"] != "done":
        return {}  # it failed before it began
    differ = differences(load(folder), config)
    if "checkpoint" in differ and config.checkpoint is not None and origin(config.checkpoint) == record.get("origin"):
        del differ["checkpoint"]  # the file has moved
    length = {key: differ.pop(key) for key in list(differ) if key.startswith("trainer.") and "batch_size" not in key}
    if differ:
        raise another(folder, differ)
    return length


def another(folder: Path, differ: Mapping[str, str]) -> RequestError:
    """Return the error for a run that is not the one that was asked for."""
    listed = [f"{key}: {change}" for key, change in differ.items()]
    more = [f"and {len(listed) - LINES} more"] if len(listed) > LINES else []
    listing = "\n  ".join([*listed[:LINES], *more])
    return RequestError(
        f"{folder} holds another run than this one (there → here):\n  {listing}\n"
        "  Say what it was made with to go on with it, or choose another folder: hydra.run.dir, hydra.sweep.dir."
    )


def same_data(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Refuse to go on with a run on other data than it began with; both are records of a data set."""
    known, found = before.get("sha256"), now.get("sha256")
    if known is not None and known != found:
        names = [name for name in known if known[name] != (found or {}).get(name)] if isinstance(known, dict) else []
        raise RequestError(
            f"the data are not those that the run in {folder} began with: the SHA-256 of "
            f"{', '.join(names) or now.get('root') or now.get('used')} differs.\n"
            "  Put them back, say where they are now (data.path, data.root), or start a new run."
        )


def origin(checkpoint: str | None) -> str | None:
    """Return the SHA-256 of the file that a run's first weights come from."""
    if checkpoint is None or not os.path.isfile(checkpoint):
        return None
    return hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()
