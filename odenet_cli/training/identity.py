"""Decide whether two configs describe the same run: everything that determines its results, and its data, agree.

Places, names and logging intervals may change, and an unfinished run may be made longer. Without torch.

The questions that are asked, and the keys that are compared:
    job.expand_resume      may this override stand beside `resume=RUN`? Keys that `may_change`, and those of Hydra
    check_same_run         may this run continue in that folder? All keys except those that `may_change`
    resume.fingerprint     does this checkpoint belong to this run? Of these, the keys that determine its weights
                           (`sets_weights`)
    identity               which folder of a sweep belongs to this job? All keys but INCIDENTAL, with all of `trainer.*`
    reproduce.digest       which cell is this? A hash of all that is not INCIDENTAL names its folder
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from odenet_cli.config.check import leaves
from odenet_cli.config.saved import load
from odenet_cli.config.schema import DATA_PLACES, INCIDENTAL, Config
from odenet_cli.errors import RequestError
from odenet_cli.files import file_sha256
from odenet_cli.rundir import holds_run, read_record

MAX_DIFFERENCES = 8  # lines of a message


def may_change(key: str) -> bool:
    """Return whether a run stays the same run with another value of `key`: INCIDENTAL keys, and its length."""
    return key in INCIDENTAL or (key.startswith("trainer.") and key != "trainer.batch_size")


def sets_weights(key: str) -> bool:
    """Return whether the weights of a checkpoint follow from `key`; which file the first ones came from is `origin`'s
    to say, in run.json, and the test scores come after them."""
    return not may_change(key) and key != "checkpoint" and not key.startswith("eval.")


def identity(config: Config) -> frozenset[tuple[str, Any]]:
    """Return a hashable identity of a run; two runs with equal identities are the same."""
    return frozenset((key, value) for key, value in leaves(config) if key not in INCIDENTAL)


def differences(old: Config, new: Config) -> dict[str, str]:
    """Return key -> 'old → new' for the settings that differ; for different models only keys that both have."""
    before, after = (dict(leaves(config, lists=False)) for config in (old, new))
    keys = [key for key in sorted({*before, *after} - INCIDENTAL) if before.get(key) != after.get(key)]
    common = [key for key in keys if key in before and key in after]
    return {key: f"{_text(before.get(key))} → {_text(after.get(key))}" for key in common or keys}


def _text(value: Any) -> str:
    return "null" if value is None else str(value)


def check_same_run(folder: Path, config: Config) -> dict[str, str]:
    """Raise `RequestError` with the differing keys if the run in `folder` is not that of `config`.

    Returns what may differ: the keys `trainer.*` that say how long it goes on, which matter to a finished run.
    """
    if not holds_run(folder):
        return {}
    record = read_record(folder)
    if not any((folder / name).exists() for name in ("config.yaml", "checkpoints")) and record["status"] != "done":
        return {}  # it failed before it began
    differing = differences(load(folder), config)
    if config.checkpoint is not None and origin_sha256(config.checkpoint) == record.get("origin"):
        differing.pop("checkpoint", None)  # the file has moved
    length = {key: differing.pop(key) for key in [*differing] if may_change(key)}
    if differing:
        raise other_run(folder, differing)
    return length


def other_run(folder: Path, differing: Mapping[str, str]) -> RequestError:
    """Return the error for a folder that holds another run than the one that was asked for."""
    return RequestError(
        f"{folder} contains a different run (there → here):{listed(differing)}\n"
        "  Use its settings to continue it, or choose another folder: hydra.run.dir, hydra.sweep.dir."
    )


def listed(differing: Mapping[str, str]) -> str:
    """Return how two configs differ as the first lines of a list."""
    lines = [f"{key}: {change}" for key, change in differing.items()]
    if len(lines) > MAX_DIFFERENCES:
        lines[MAX_DIFFERENCES:] = [f"and {len(lines) - MAX_DIFFERENCES} more"]
    return "".join(f"\n  {line}" for line in lines)


def check_same_data(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Raise `RequestError` if a run would continue with other data than it began with, given both records."""
    old, new = before.get("sha256"), now.get("sha256")
    if old is not None and old != new:
        names = [name for name in old if old[name] != (new or {}).get(name)] if isinstance(old, dict) else []
        raise RequestError(
            f"the data differ from those that the run in {folder} began with: the SHA-256 of "
            f"{', '.join(names) or now.get('root') or now.get('used')} differs.\n"
            "  Restore them, give their new place (data.path, data.root), or start a new run."
        )


def origin_sha256(path: str | None) -> str | None:
    """Return the SHA-256 of the file that a run's first weights come from; None if there is none."""
    if path is None or not os.path.isfile(path):
        return None
    return file_sha256(Path(path))


def find_moved_data(folder: Path, config: Config) -> dict[str, str]:
    """Return {`data.path` or `data.root`: where the data of the run in `folder` are now}; empty where they were.

    Looked at, in this order: the path as it is saved; in a run of format 1, which has it as it was typed, where
    `run.json` says they were; and the end of the path below each folder above the run, nearest first. What is there
    counts if its SHA-256 is that of the run's data. Raises `RequestError` if they are nowhere.
    """
    option = next((name for key in DATA_PLACES if config.data.get(name := key.partition(".")[2])), None)
    if option is None:
        return {}
    key, place = f"data.{option}", Path(os.path.expanduser(config.data[option]))
    if place.is_absolute() and (place.exists() or glob.glob(str(place))):
        return {}
    record = read_record(folder).get("data") or {}
    for candidate in dict.fromkeys(_candidates(folder, place, record.get("root"))):
        if record.get("sha256") is not None and _data_sha256(config, option, candidate) == record["sha256"]:
            return {key: str(candidate)}
    if place.exists():  # under a relative path, but something else: it is for others to judge
        return {}
    digest = f" (SHA-256 {record['sha256']})" if isinstance(record.get("sha256"), str) else ""
    raise RequestError(
        f"{key}={place} does not exist, and the run's data are not beside {folder} either.\n"
        f"  Give their new place: {key}={'FILE' if key == 'data.path' else 'FOLDER'}{digest}."
    )


def _candidates(folder: Path, place: Path, root: str | None) -> Iterator[Path]:
    """Yield those places of the data that exist."""
    before = Path(os.path.abspath(place))
    above = [folder.absolute(), *folder.absolute().parents]
    tails = [Path(*before.parts[n:]) for n in range(1, len(before.parts))]
    for candidate in (before, *([Path(root)] if root else []), *(top / tail for top in above for tail in tails)):
        if candidate.exists():
            yield candidate


def _data_sha256(config: Config, option: str, place: Path) -> object:
    """Return the SHA-256 of the data at `place`; None where there are none. Nothing is downloaded."""
    from odenet_cli import data as datasets

    name, options = config.source()
    options |= {option: str(place)} | ({"download": False} if "download" in options else {})
    try:
        return datasets.prepare(name, options).get("sha256")
    except RequestError:
        return None
