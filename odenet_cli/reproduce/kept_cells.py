"""Finished cells kept with the results: config, record, log, weights, and the SHA-256 of each.

`results/cells/HASH/` is made from a run, holds no name or place of the machine that trained it, and stands for that run
on every other machine: `unpack` makes a finished run of it, which has no `last.pt` and cannot go on.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from omegaconf import OmegaConf

from odenet_cli.config.check import leaves
from odenet_cli.config.saved import load
from odenet_cli.errors import RequestError
from odenet_cli.files import write, write_json
from odenet_cli.registry import names
from odenet_cli.rundir import WEIGHTS, holds_run, locked, names_place, read_record, without_places

FOLDER = Path("results/cells")
SUMS = "SHA256SUMS"
NEEDED = ("config.yaml", "run.json", "metrics.jsonl")
PLACE = re.compile(r"(?:^|[\s='\"])(?:/[^\s/]|~/)")  # an absolute path in a text


def is_kept(cell: Path) -> bool:
    """Tell whether the cell of this name is kept; what it holds is checked when it is used."""
    return (FOLDER / cell.name / SUMS).is_file()


def is_measurement(cell: Path) -> bool:
    """Tell whether a cell was stopped after some steps to measure them: no number is of its weights."""
    return load(cell).trainer.max_steps is not None


def keep(run: Path) -> bool:
    """Keep the finished `run`; False where the same is kept already. A `RequestError` says why it cannot be."""
    record = read_record(run)
    if record.get("status") != "done":
        raise RequestError(f"not done: {record.get('status', 'not started')}")
    kept, part = FOLDER / run.name, FOLDER / f".{run.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        _fill(part, run, record)
        if is_kept(run) and (kept / SUMS).read_bytes() == (part / SUMS).read_bytes() and not _wrong(kept):
            return False
        if kept.exists():
            shutil.rmtree(kept)
        part.rename(kept)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return True


def _fill(part: Path, run: Path, record: dict[str, Any]) -> None:
    from odenet_cli.analysis.trained import weights_of_run
    from odenet_cli.training import weights

    config = load(run)
    write(part / "config.yaml", _anywhere_config((run / "config.yaml").read_text(encoding="utf-8")))
    write_json(part / "run.json", _anywhere_record(record))
    if not is_measurement(run) and not (run / WEIGHTS).exists():
        state = weights_of_run(run, config, "best")
        scored = (record.get("final") or {}).get("best_epoch")
        if state["epoch"] != scored:
            raise RequestError(f"{state.path} is of epoch {state['epoch']}, and the test score of epoch {scored}.")
        weights.save(part / WEIGHTS, state, config, run.name)
    for name in _as_they_are(run):
        (part / name).parent.mkdir(exist_ok=True)
        write(part / name, (run / name).read_bytes())
    files = sorted(path.relative_to(part).as_posix() for path in part.rglob("*") if path.is_file())
    write(part / SUMS, "".join(f"{_sha256(part / name)}  {name}\n" for name in files))


def _as_they_are(run: Path) -> Iterator[str]:
    """The files that are kept byte for byte: the log, answers to the test samples, what figures are drawn from; of a
    run that came from a kept cell the weights too."""
    measured = [f"{name}.jsonl" for name in names("odenet_cli.analysis.measures")]
    drawn = [path.relative_to(run).as_posix() for path in sorted((run / "figures").glob("*.npz"))]
    files = ("metrics.jsonl", "predictions.npz", WEIGHTS, *measured, *drawn)
    yield from (name for name in files if (run / name).is_file())


def _anywhere_config(text: str) -> str:
    content = OmegaConf.create(text)
    if OmegaConf.select(content, "data.root") is not None:
        content.data.root = None
    for key, value in leaves(OmegaConf.to_container(content)):
        _refuse_place(f"config.yaml, {key}", value)
    return OmegaConf.to_yaml(content)


def _anywhere_record(record: dict[str, Any]) -> dict[str, Any]:
    """The record without the folder of the data, where it stands and where it was said."""
    overrides = [word for word in record.get("overrides") or [] if not names_place(word)]
    scrubbed = {**record, "command": without_places(record.get("command")), "overrides": overrides}
    if record.get("data"):
        scrubbed["data"] = {**record["data"], "root": None}
    for key, value in leaves(scrubbed):
        _refuse_place(f"run.json, {key}", value)
    return scrubbed


def _refuse_place(where: str, value: Any) -> None:
    if isinstance(value, str) and PLACE.search(value):
        raise RequestError(f"{where} names a place on this machine: {value:.200}")


def check(kept: Path) -> None:
    """Refuse a kept cell by the name of the first file that is not as its SHA256SUMS says."""
    if wrong := _wrong(kept):
        raise RequestError(f"{wrong}.\n  Put it back as it was committed: git checkout -- {kept}")


def _wrong(kept: Path) -> str | None:
    """What is wrong with the files of a kept cell."""
    try:
        sums = listed(kept)
    except (OSError, ValueError) as error:
        return f"{kept / SUMS} is no list of SHA-256 and file name: {error}"
    for name in NEEDED:
        if name not in sums:
            return f"{kept / SUMS} does not list {name}"
    for name, said in sums.items():
        if not (kept / name).is_file():
            return f"{kept / name} is missing"
        if _sha256(kept / name) != said:
            return f"{kept / name} is damaged: it does not have the SHA-256 that {SUMS} says"
    if not is_measurement(kept) and WEIGHTS not in sums:
        return f"{kept / SUMS} does not list {WEIGHTS}"
    return None


def listed(kept: Path) -> dict[str, str]:
    """Return file name -> SHA-256 as SHA256SUMS says, in the format of `sha256sum`."""
    sums: dict[str, str] = {}
    *lines, rest = (kept / SUMS).read_bytes().decode().split("\n")
    if rest:
        raise ValueError(f"it ends with {rest[:80]!r}")
    for line in lines:
        match = re.fullmatch(r"([0-9a-f]{64})  ([\w./-]+)", line)
        name = PurePosixPath(match[2]) if match else None
        if match is None or name is None or name.is_absolute() or ".." in name.parts:
            raise ValueError(f"{line[:80]!r}")
        sums[match[2]] = match[1]
    return sums


def unpack(run: Path) -> None:
    """Make the finished `run` of the kept cell of its name, unless there is a run already."""
    kept = FOLDER / run.name
    check(kept)
    with locked(run):
        if holds_run(run):
            return
        for name in sorted(listed(kept), key=lambda name: name == "run.json"):  # which makes it a finished run, last
            (run / name).parent.mkdir(exist_ok=True)
            write(run / name, (kept / name).read_bytes())


def size(kept: Path) -> int:
    """Return the bytes of a kept cell."""
    return sum(path.stat().st_size for path in kept.rglob("*") if path.is_file())


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
