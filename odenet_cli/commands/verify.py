"""Compute a committed table again from the kept weights: odenet verify table1 [--preset day]"""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odenet_cli.commands.reproduce import parsed as reproduce_request
from odenet_cli.config.check import leaves
from odenet_cli.config.saved import load
from odenet_cli.config.schema import Config
from odenet_cli.errors import RequestError, RunFailed
from odenet_cli.registry import nearest
from odenet_cli.reproduce.comparison import TIMES, UNCHECKED, Tally

if TYPE_CHECKING:
    from odenet_cli.reproduce.plan import Cell, Plan

HELP = """usage: odenet verify ITEM [--preset quick|cpu|day|paper] [--retrain HASH] [data.root=FOLDER] [device=cpu]

Computes the numbers of results/ITEM/PRESET.* again from the cells in results/cells, and says which are equal, which
differ, and which cannot be checked here (times). Nothing is trained, and nothing is written.

  odenet verify table1 --preset day                     minutes on two cores
  odenet verify table1 --preset day --retrain 5bd2a77d  train one cell again as well, in runs/retrained

From the weights: test and validation error, parameters, function evaluations, memory saved for a backward pass. From
the first steps, taken again: those of cells that only measure steps. From the records: means, intervals, verdicts.
Equal is the same number, or one that rounding on another CPU explains; what rounding can do is measured where a number
is not the same: predictions may differ of digits whose two largest logits are nearer than 8 times the error of float32;
evaluations as they do for a tolerance changed by 0.1 %, and by one step of one batch. A cell trained again on the same
machine and versions has the same bits; on others its test error may differ as those of two networks that err
independently: by 1.96 times the root of their wrong answers. Of a GPU the rounding is that of TF32. Figures are not
compared.

Exit code 1 where a number differs, 2 where a kept file is damaged or there is nothing to verify."""
FLAGS = ("--preset", "--retrain")
KEYS = ("data.root=", "device=")
PARTS = {"rows": list, "facts": dict, "expected": list}  # of a table's JSON, what the records make
MOST = 20  # differences that are listed
NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:e[+-]?\d+)?")


def main(argv: list[str]) -> int:
    """Verify one item."""
    from odenet_cli.reproduce.plan import experiments

    if not argv or any(word in ("-h", "--help") for word in argv):
        print(HELP)
        return 0 if argv else 2
    item, preset, retrain, words = parsed(argv, experiments())
    committed = table(item, preset)
    plan = plan_of(item, preset, committed)
    chosen = drawn(plan, retrain) if retrain else None

    tally, begun = Tally(), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="odenet-verify-") as scratch:
        folders = unpacked(plan, Path(scratch))
        print(f"{item}, {preset} preset: {len(folders)} kept cells, every file as its SHA-256 says", flush=True)
        from_records(plan, committed, folders, tally)
        for folder, cell in {folders[cell.folder]: cell for cell in plan.cells if cell.folder in folders}.items():
            check_cell(folder, cell, words, tally)
        if "measure" in plan.rest:
            measured_again(plan, folders, tally)
    print(f"\n{tally.table()}\n\n{time.perf_counter() - begun:.0f} s", flush=True)
    if chosen is not None:
        retrained(chosen, words, tally)
    for line in tally.differences[:MOST]:
        print(f"differs: {line}")
    if len(tally.differences) > MOST:
        print(f"and {len(tally.differences) - MOST} more")
    return int(bool(tally.differences))


def parsed(argv: Sequence[str], known: Sequence[str]) -> tuple[str, str, str | None, list[str]]:
    """Return item, preset, the hash to train again, and the words for all cells; what means nothing is refused."""
    items, flags, words, rest = [], {"--preset": "quick"}, [], list(argv)
    while rest:
        word = rest.pop(0)
        flag, equals, value = word.partition("=")
        if flag in FLAGS:
            flags[flag] = value if equals else rest.pop(0) if rest else ""
            if not flags[flag]:
                raise RequestError(f"{flag} needs a value.")
        elif word.startswith(KEYS):
            words.append(word)
        elif word.startswith("-") or equals:
            raise RequestError(
                f"{flag} is not an option here.{nearest(flag, FLAGS)}\n  There are: {', '.join([*FLAGS, *KEYS])}."
            )
        else:
            items.append(word)
    for item in items:
        if item not in known:
            raise RequestError(f"{item} cannot be verified.{nearest(item, known)}\n  There are: {', '.join(known)}.")
    if len(items) != 1:
        raise RequestError(f"say one item: {', '.join(known)}.")
    return items[0], flags["--preset"], flags.get("--retrain"), words


def table(item: str, preset: str) -> dict[str, Any]:
    """Return the committed files of a table: what its JSON holds, and the texts of Markdown and CSV."""
    folder = Path("results") / item
    try:
        texts = {kind: (folder / f"{preset}.{kind}").read_text(encoding="utf-8") for kind in ("json", "md", "csv")}
        whole = json.loads(texts["json"])
        shlex.split(whole["source"]["command"])
        assert all(isinstance(whole[name], kind) for name, kind in PARTS.items())
    except OSError as error:
        there = ", ".join(sorted(path.stem for path in folder.glob("*.json"))) or "none"
        raise RequestError(f"{error.filename}: {error.strerror}.\n  Presets with a table here: {there}.") from error
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        raise RequestError(f"{folder / preset}.json is not the table of a report: {error}.") from error
    return {**texts, "json": whole}


def plan_of(item: str, preset: str, committed: Mapping[str, Any]) -> Plan:
    """Return the plan of the command that made a table; refused where its cells are not kept."""
    from odenet_cli.reproduce import kept_cells
    from odenet_cli.reproduce.plan import plan

    rows = [row for row in committed["json"]["rows"] if row.get("cell")]
    if rows and not any(kept_cells.is_kept(Path(row["cell"])) for row in rows):
        raise RequestError(
            f"no kept cells: results/{item}/{preset}.json was made before cells were kept, or they were not kept, and "
            "no number of it can be computed again.\n"
            f"  To train them here: {committed['json']['source']['command']}"
        )
    request = reproduce_request(shlex.split(committed["json"]["source"]["command"])[2:])
    made = plan(item, preset, request.seeds, request.rows, request.words)
    undone = {row["cell"] for row in rows if row.get("status", "done") != "done"}
    missing = {cell.folder.name: cell.title for cell in made.cells if not cell.kept}
    missing = {name: title for name, title in missing.items() if name not in undone}
    if missing:
        named = [f"{name} ({title})" for name, title in missing.items()]
        more = f", and {len(named) - 4} more" if len(named) > 4 else ""
        raise RequestError(f"not kept in {kept_cells.FOLDER}, so not to be verified: {', '.join(named[:4])}{more}.")
    return made


def drawn(plan: Plan, prefix: str) -> Cell:
    """Return the kept cell whose hash begins with `prefix`; of `any`, one by lot."""
    cells = {cell.folder.name: cell for cell in plan.cells if cell.kept}
    found = [random.choice(list(cells))] if prefix == "any" else [name for name in cells if name.startswith(prefix)]
    if len(found) != 1:
        what = f"{len(found)} cells begin" if found else "no cell begins"
        listed = ", ".join(f"{name} ({cells[name].title})" for name in (found or list(cells))[:6])
        raise RequestError(f"--retrain {prefix}: {what} with that.\n  There are: {listed}, …")
    return cells[found[0]]


def unpacked(plan: Plan, scratch: Path) -> dict[Path, Path]:
    """Return where copies of the kept cells are, by their folders; a damaged one is refused by the name of the file."""
    from odenet_cli.reproduce import kept_cells
    from odenet_cli.reproduce.plan import digest

    folders = {cell.folder: scratch / cell.folder.name for cell in plan.cells if cell.kept}
    for folder in folders.values():
        kept_cells.unpack(folder)
        if (name := digest(load(folder))) != folder.name:
            raise RequestError(f"{kept_cells.FOLDER / folder.name}/config.yaml is that of another cell, {name}.")
    return folders


def from_records(plan: Plan, committed: Mapping[str, Any], folders: Mapping[Path, Path], tally: Tally) -> None:
    """Make the report again from the kept records, and compare it with the committed one."""
    from odenet_cli.report import result as results
    from odenet_cli.report.runs import read_run
    from odenet_cli.reproduce import stages as reproduction
    from odenet_cli.reproduce.verification import from_log

    whole, measured = committed["json"], {}
    if "measure" in plan.rest:
        asked = reproduction.measurement(plan)
        measured = {one: asked.measure(folders[one], asked.options, print) for one in asked.folders if one in folders}
    failed = {cell.folder: "not done" for cell in plan.cells if cell.folder not in folders}
    rows = reproduce_request(shlex.split(whole["source"]["command"])[2:]).rows
    made = results.texts(*reproduction.report(plan, folders, rows, failed, measured, whole["source"]["command"]))
    again, name = json.loads(made["json"]), f"results/{plan.item}/{plan.preset}"
    for part in PARTS:
        before, after = dict(leaves(whole[part], part)), dict(leaves(again[part], part))
        for key in before.keys() | after.keys():
            tally.compare(f"{name}.json", key, before.get(key), after.get(key))
    for kind, numbers in {"csv": cells_of, "md": numbers_of}.items():
        for place, (one, other) in enumerate(zip_longest(numbers(committed[kind]), numbers(made[kind]))):
            tally.compare(f"{name}.{kind}", f"number {place + 1}", one, other)
    for folder in folders.values():
        for check in from_log(read_run(folder)):
            tally.note(folder.name, check._replace(what="run.json, by the log", why=check.what))
    times = [key for key, value in leaves(whole["rows"]) if key.rpartition(".")[2] in TIMES and value is not None]
    tally.add("times, and a GPU's peak memory", UNCHECKED, len(times))


def cells_of(text: str) -> list[Any]:
    """Return the values of a CSV, numbers as numbers."""
    return [_number(cell) for row in csv.reader(io.StringIO(text)) for cell in row]


def numbers_of(text: str) -> list[Any]:
    """Return the numbers in a text."""
    return NUMBER.findall(text)


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def check_cell(folder: Path, cell: Cell, words: Sequence[str], tally: Tally) -> None:
    """Compute the numbers of a cell again, and say what they are."""
    from odenet_cli.report.runs import read_run
    from odenet_cli.reproduce.kept_cells import is_measurement
    from odenet_cli.reproduce.verification import from_steps, from_weights

    begun, run = time.perf_counter(), read_run(folder)
    config = here(load(folder), str(run.record.get("device")), words)
    checks = (from_steps if is_measurement(folder) else from_weights)(folder, config, run)
    said = [tally.note(f"{cell.part}, {cell.title} ({folder.name})", check) for check in checks]
    print(f"{cell.part}, {cell.title}: {'; '.join(said)}; {time.perf_counter() - begun:.0f} s", flush=True)


def measured_again(plan: Plan, folders: Mapping[Path, Path], tally: Tally) -> None:
    """Measure on the networks again what the experiment's `verify` asks for, and compare it with the kept rows."""
    from odenet_cli.reproduce.stages import measurement
    from odenet_cli.reproduce.verification import rows_of_measurement

    asked = measurement(plan)
    for cell in (one for one in asked.folders if one in folders):
        rows = asked.measure(folders[cell], asked.options, print)
        before = [] if asked.again is None else asked.measure(folders[cell], asked.again, print)
        if before:
            print(f"{asked.name} on {cell.name} again", flush=True)
            fresh = folders[cell].with_name(f"{cell.name}-again")
            shutil.copytree(folders[cell], fresh, ignore=shutil.ignore_patterns(f"{asked.name}.jsonl", ".lock"))
            for check in rows_of_measurement(before, asked.measure(fresh, asked.again, print)):
                tally.note(f"{asked.name} on {cell.name}", check)
        tally.add(f"rows of {asked.name} that take longer", UNCHECKED, len(rows) - len(before))


def here(config: Config, trained_on: str, words: Sequence[str]) -> Config:
    """Return the config for this machine: data and device as they were said, else the kind of device it had."""
    said = dict(word.partition("=")[::2] for word in words)
    data = config.data
    if "data.root" in said and "root" in data:
        data = {**data, "root": os.path.expanduser(said["data.root"])}
    return replace(config, data=data, device=said.get("device", "cpu" if trained_on.startswith("cpu") else "auto"))


def retrained(cell: Cell, words: Sequence[str], tally: Tally) -> None:
    """Train a cell again, in `runs/retrained`, and compare it with the kept one."""
    from odenet_cli.report.runs import read_run
    from odenet_cli.reproduce import kept_cells
    from odenet_cli.reproduce.processes import Job, launch
    from odenet_cli.reproduce.verification import trained_again
    from odenet_cli.training.progress import duration

    before = read_run(kept_cells.FOLDER / cell.folder.name)
    job = Job(Path("runs/retrained") / cell.folder.name, (*cell.words, *words))
    took = duration(before.value("time_s") or 0)
    print(f"\ntraining {cell.title} again in {job.folder}, log in {job.log}; the kept one took {took}", flush=True)
    failed = launch([job], 1, 0, lambda running: None)
    if failed:
        raise RunFailed(f"{job.folder}: {failed[job.folder]}")
    print(tally.note(cell.title, trained_again(before, read_run(job.folder))))
