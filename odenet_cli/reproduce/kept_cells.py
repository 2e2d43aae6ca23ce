"""Keep finished cells with the results: config, record, log, weights, and the SHA-256 of each file.

`results/cells/HASH/` is made from a run, and contains no name or path of the machine that trained it. On other machines
`unpack` turns it into a finished run, which has no `last.pt` and cannot be continued.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from odenet_cli.config.check import leaves
from odenet_cli.config.saved import load
from odenet_cli.errors import RequestError
from odenet_cli.files import file_sha256, write, write_json
from odenet_cli.lock import locked
from odenet_cli.registry import names
from odenet_cli.rundir import WEIGHTS, holds_run, names_place, read_record, without_places

FOLDER = Path("results/cells")
SUMS = "SHA256SUMS"
REQUIRED = ("config.yaml", "run.json", "metrics.jsonl")
# Of flows: score in the record -> what the figures are drawn from, a megabyte, which follows from the weights.
FROM_WEIGHTS = {"kl": "figures/density.npz", "nll": "figures/likelihood.npz"}
ABSOLUTE_PATH = re.compile(r"(?:^|[\s='\"])(?:/[^\s/]|~/)")


def is_kept(cell: Path) -> bool:
    """Return whether the cell of this name is kept; its files are checked when they are used."""
    return (FOLDER / cell.name / SUMS).is_file()


def only_times_steps(cell: Path) -> bool:
    """Return whether a cell only measured some training steps: no number is of its weights, and none are kept."""
    return load(cell).trainer.max_steps is not None


def keep(run: Path) -> bool:
    """Keep the finished `run` and return True, or False where the same is kept already.

    Raises `RequestError` if the run is not done, names a place on this machine, or has other weights than were scored.
    """
    record = read_record(run)
    if record.get("status") != "done":
        raise RequestError(f"not done: {record.get('status', 'not started')}")
    kept, part = FOLDER / run.name, FOLDER / f".{run.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        _fill(part, run, record)
        if is_kept(run) and (kept / SUMS).read_bytes() == (part / SUMS).read_bytes() and not _damage(kept):
            return False
        if kept.exists():
            shutil.rmtree(kept)
        part.rename(kept)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return True


def _fill(part: Path, run: Path, record: dict[str, Any]) -> None:
    """Write the files of a kept cell into the folder `part`, the list of their SHA-256 last."""
    from odenet_cli.analysis.trained import weights_of_run
    from odenet_cli.training import weights

    config = load(run)
    write(part / "config.yaml", _portable_config((run / "config.yaml").read_text(encoding="utf-8")))
    write_json(part / "run.json", _portable_record(record))
    if not only_times_steps(run) and not (run / WEIGHTS).exists():
        state = weights_of_run(run, config, "best")
        best = (record.get("final") or {}).get("best_epoch")
        if state["epoch"] != best:
            raise RequestError(f"{state.path} is of epoch {state['epoch']}, and the test score of epoch {best}.")
        weights.save(part / WEIGHTS, state, config, run.name)
    # Byte for byte: the log, answers to the test samples, measurements, what figures are drawn from; of a run that came
    # from a kept cell the weights too.
    copied = ["metrics.jsonl", "predictions.npz", WEIGHTS]
    copied += [f"{name}.jsonl" for name in names("odenet_cli.analysis.measures")]
    copied += [path.relative_to(run).as_posix() for path in (run / "figures").glob("*.npz")]
    for name in copied:
        if (run / name).is_file() and name not in FROM_WEIGHTS.values():
            (part / name).parent.mkdir(exist_ok=True)
            write(part / name, (run / name).read_bytes())
    files = sorted(path.relative_to(part).as_posix() for path in part.rglob("*") if path.is_file())
    write(part / SUMS, "".join(f"{file_sha256(part / name)}  {name}\n" for name in files))


def _portable_config(text: str) -> str:
    """Return a config.yaml without the folder of the data."""
    content = OmegaConf.create(text)
    if OmegaConf.select(content, "data.root") is not None:
        content.data.root = None
    _check_portable("config.yaml", OmegaConf.to_container(content))
    return OmegaConf.to_yaml(content)


def _portable_record(record: dict[str, Any]) -> dict[str, Any]:
    """Return a run.json without the folder of the data, as a value and in the commands."""
    overrides = [word for word in record.get("overrides") or [] if not names_place(word)]
    portable = {**record, "command": without_places(record.get("command")), "overrides": overrides}
    if record.get("data"):
        portable["data"] = {**record["data"], "root": None}
    _check_portable("run.json", portable)
    return portable


def _check_portable(name: str, content: Any) -> None:
    """Raise if a value still holds an absolute path."""
    for key, value in leaves(content):
        if isinstance(value, str) and ABSOLUTE_PATH.search(value):
            raise RequestError(f"{name}, {key} names a place on this machine: {value:.200}")


def check(kept: Path) -> None:
    """Raise with the name of the first file of a kept cell that is not as its SHA256SUMS says."""
    if damage := _damage(kept):
        raise RequestError(f"{damage}.\n  Restore the committed file: git checkout -- {kept}")


def _damage(kept: Path) -> str | None:
    """Return what is wrong with the files of a kept cell."""
    try:
        sums = read_sums(kept)
    except (OSError, ValueError) as error:
        return f"{kept / SUMS} is not a list of SHA-256 sums and file names: {error}"
    for name in REQUIRED:
        if name not in sums:
            return f"{kept / SUMS} does not list {name}"
    for name, expected in sums.items():
        if not (kept / name).is_file():
            return f"{kept / name} is missing"
        if file_sha256(kept / name) != expected:
            return f"{kept / name} is damaged: it does not have the SHA-256 that {SUMS} says"
    if not only_times_steps(kept) and WEIGHTS not in sums:
        return f"{kept / SUMS} does not list {WEIGHTS}"
    return None


def read_sums(kept: Path) -> dict[str, str]:
    """Return file name -> SHA-256 from SHA256SUMS, which has the format of `sha256sum`; ValueError if not."""
    text = (kept / SUMS).read_bytes().decode()
    sums = {name: digest for digest, name in re.findall(r"^([0-9a-f]{64})  ([\w-][\w./-]*)$", text, re.MULTILINE)}
    if text != "".join(f"{digest}  {name}\n" for name, digest in sums.items()) or ".." in text:
        raise ValueError("a line is malformed, or the last one is incomplete")
    return sums


def unpack(run: Path) -> None:
    """Make the finished `run` from the kept cell of its name, unless there is a run already."""
    kept = FOLDER / run.name
    check(kept)
    with locked(run):
        if holds_run(run):
            return
        for name in sorted(read_sums(kept), key=lambda name: name == "run.json"):  # last: it makes the run finished
            (run / name).parent.mkdir(exist_ok=True)
            write(run / name, (kept / name).read_bytes())


def size_bytes(kept: Path) -> int:
    return sum(path.stat().st_size for path in kept.rglob("*") if path.is_file())
