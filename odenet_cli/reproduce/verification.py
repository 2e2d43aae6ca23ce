"""Verify a committed page: compute its numbers again from the kept cells, and count what is equal and what differs."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shlex
import shutil
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from odenet_cli import threads
from odenet_cli.config.check import leaves
from odenet_cli.config.saved import load
from odenet_cli.config.schema import Config
from odenet_cli.errors import RequestError, RunFailed
from odenet_cli.markdown import markdown_table
from odenet_cli.report.runs import read_run
from odenet_cli.reproduce import kept_cells, processes, recompute
from odenet_cli.reproduce.plan import Cell, Plan, ReproduceRequest, digest, plan
from odenet_cli.reproduce.recompute import DIFFERS, EQUAL, TIMES, UNCHECKED, Check, compare, is_close
from odenet_cli.reproduce.side_by_side import side_by_side
from odenet_cli.reproduce.stages import measurement, report
from odenet_cli.rundir import read_record
from odenet_cli.terminal import duration
from odenet_cli.training import device

PARTS = {"rows": list, "facts": dict, "expected": list}  # of a page's JSON: what follows from the records
RECORDS_RTOL = 1e-9  # of sums, logarithms and square roots of the same numbers by another library of mathematics
MIN_CELLS = 8  # for each process: to start one takes some 4 s
MAX_CELL_BYTES = 3 * 2**30  # memory of a process; an RK-Net at 1e-6 keeps 1 GiB for its backward pass
NUMBER = re.compile(r"-?\d+(?:[.,]\d+)*(?:e[+-]?\d+)?")


@dataclass
class Tally:
    """Count how many numbers of each kind are equal, differ, and cannot be checked; list the differences in words."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)

    def add(self, kind: str, verdict: str, count: int = 1) -> None:
        self.counts.setdefault(kind, Counter())[verdict] += count

    def check(self, where: str, check: Check, kind: str | None = None) -> str:
        """Count a check, under its name or as another `kind`, and return it in words."""
        self.add(kind or check.name, check.verdict)
        reason = f" ({check.reason})" if check.reason else ""
        if check.verdict == DIFFERS:
            self.differences.append(f"{where}: {check.name}: {check.committed} committed, {check.here} here{reason}")
        here = check.here
        number = f"{here:.6g}" if isinstance(here, float) else f"{here:,}" if isinstance(here, int) else here or ""
        return f"{check.name} {number} {check.verdict}{reason}"

    def table(self) -> str:
        verdicts = (EQUAL, DIFFERS, UNCHECKED)
        rows = [[kind, *(str(counts[v] or "") for v in verdicts)] for kind, counts in self.counts.items()]
        return markdown_table(["", *verdicts], rows, left=1)


def load_page(item: str, preset: str) -> dict[str, Any]:
    """Return the committed page of an item: `json` as it was parsed, `md` and `csv` as texts; refused if damaged."""
    folder = Path("results") / item
    try:
        texts = {kind: (folder / f"{preset}.{kind}").read_text(encoding="utf-8") for kind in ("json", "md", "csv")}
        content = json.loads(texts["json"])
        shlex.split(content["source"]["command"])
        assert all(isinstance(content[name], kind) for name, kind in PARTS.items())
    except OSError as error:
        presets = ", ".join(sorted(path.stem for path in folder.glob("*.json"))) or "none"
        raise RequestError(f"{error.filename}: {error.strerror}.\n  Presets with a table here: {presets}.") from error
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        raise RequestError(f"{folder / preset}.json is not a table of a report: {error}.") from error
    return {**texts, "json": content}


def plan_page(item: str, preset: str, page: Mapping[str, Any], request: ReproduceRequest) -> Plan:
    """Return the plan of the `request` that made a page; raise where its cells are not kept."""
    rows = [row for row in page["json"]["rows"] if row.get("cell")]
    if rows and not any(kept_cells.is_kept(Path(row["cell"])) for row in rows):
        raise RequestError(
            f"no kept cells: results/{item}/{preset}.json was made without kept cells, so no number of it can be "
            "computed again.\n"
            f"  To train them here: {page['json']['source']['command']}"
        )
    planned = plan(item, preset, request.seeds, request.rows, request.overrides)
    undone = {row["cell"] for row in rows if row.get("status", "done") != "done"}
    missing = [cell for cell in planned.by_folder.values() if not cell.kept and cell.folder.name not in undone]
    if missing:
        listed = ", ".join(f"{cell.folder.name} ({cell.title})" for cell in missing[:4])
        more = f", and {len(missing) - 4} more" if len(missing) > 4 else ""
        raise RequestError(f"not in {kept_cells.FOLDER}, so they cannot be verified: {listed}{more}.")
    return planned


def choose_cell(planned: Plan, prefix: str) -> Cell:
    """Return the kept cell whose hash begins with `prefix`; for `any`, a random one."""
    cells = {folder.name: cell for folder, cell in planned.by_folder.items() if cell.kept}
    matches = [random.choice(list(cells))] if prefix == "any" else [name for name in cells if name.startswith(prefix)]
    if len(matches) != 1:
        what = f"{len(matches)} cells begin" if matches else "no cell begins"
        listed = ", ".join(f"{name} ({cells[name].title})" for name in (matches or list(cells))[:6])
        raise RequestError(f"--retrain {prefix}: {what} with that.\n  Available: {listed}, …")
    return cells[matches[0]]


def unpack(planned: Plan, scratch: Path) -> dict[Path, Path]:
    """Copy the kept cells into `scratch` and return folder -> copy; a damaged one is refused by its file's name."""
    copies = {folder: scratch / folder.name for folder, cell in planned.by_folder.items() if cell.kept}
    for copy in copies.values():
        kept_cells.unpack(copy)
        if (name := digest(load(copy))) != copy.name:
            raise RequestError(f"{kept_cells.FOLDER / copy.name}/config.yaml is that of another cell, {name}.")
    return copies


def verify_records(planned: Plan, page: Mapping[str, Any], copies: dict[Path, Path]) -> Tally:
    """Make the page again from the kept records and compare; compare each record with its log."""
    tally, committed, task = Tally(), page["json"], measurement(planned)
    measured = {cell: task.measure(copies[cell], task.options, print) for cell in task.folders if cell in copies}
    failed = {cell.folder: "not done" for cell in planned.cells if cell.folder not in copies}
    command = committed["source"]["command"]
    texts = report(planned, copies, failed, measured, command).texts()
    here, name = json.loads(texts["json"]), f"results/{planned.item}/{planned.preset}"

    pairs: list[tuple[str, str, Any, Any]] = []
    for part in PARTS:
        a, b = dict(leaves(committed[part], part)), dict(leaves(here[part], part))
        pairs += [("json", key, a.get(key), b.get(key)) for key in a.keys() | b.keys()]
    verdicts = [NUMBER.findall(content.get("verdict", "")) for content in (committed, here)]
    numbers = {"json": verdicts, "csv": [csv_values(content["csv"]) for content in (page, texts)]}
    numbers |= {"md": [NUMBER.findall(content["md"]) for content in (page, texts)]}
    for kind, columns in numbers.items():
        pairs += [(kind, f"number {place}", *pair) for place, pair in enumerate(zip_longest(*columns), 1)]
    for kind, key, before, after in pairs:
        check = compare(key, before, after, is_close(before, after, RECORDS_RTOL))
        tally.check(f"{name}.{kind}", check, kind=f"{name}.{kind}, from the records")
    for copy in copies.values():
        for check in recompute.from_log(read_run(copy)):
            tally.check(f"{copy.name}: run.json, by the log", check, kind="run.json, by the log")
    times = [key for key, value in leaves(committed["rows"]) if key.rpartition(".")[2] in TIMES and value is not None]
    tally.add("times, and a GPU's peak memory", UNCHECKED, len(times))
    return tally


def csv_values(text: str) -> list[Any]:
    """Return the values of a CSV, numbers as numbers."""
    return [_number(value) for row in csv.reader(text.splitlines()) for value in row]


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def verify_cells(planned: Plan, copies: Mapping[Path, Path], places: Mapping[str, str], tally: Tally) -> None:
    """Compute the numbers of the cells again, several cells at once on a CPU, and print them."""
    again = partial(check_cell, places=places)
    results = side_by_side(again, list(copies.values()), how_many_at_once(copies.values(), places))
    for (checks, time_s), (folder, copy) in zip(results, copies.items()):  # in this order, so that `results` ends
        cell = planned.by_folder[folder]
        texts = [tally.check(f"{cell.part}, {cell.title} ({copy.name})", check) for check in checks]
        print(f"{cell.part}, {cell.title}: {'; '.join(texts)}; {time_s:.0f} s", flush=True)


def check_cell(copy: Path, places: Mapping[str, str]) -> tuple[list[Check], float]:
    """Return the numbers of a cell, computed again and compared, and the seconds that it took."""
    started, run = time.perf_counter(), read_run(copy)
    again = recompute.from_steps if kept_cells.only_times_steps(copy) else recompute.from_weights
    return list(again(copy, config_here(load(copy), run.record, places), run)), time.perf_counter() - started


def how_many_at_once(copies: Collection[Path], places: Mapping[str, str]) -> int:
    """Return how many cells to compute side by side: 1 where any is for a GPU, or where they are too few."""
    names = {device_here(read_record(copy), places) for copy in copies}
    if any(device.choose(name).type != "cpu" for name in names):
        return 1
    most = (
        threads.cores() // (threads.chosen() or 1),
        len(copies) // MIN_CELLS,
        device.memory("cpu") // MAX_CELL_BYTES,
    )
    return max(1, min(most))


def config_here(config: Config, record: Mapping[str, Any], places: Mapping[str, str]) -> Config:
    """Return the config of a run for this machine, with `data.root` and `device` from `places`."""
    root = {"root": os.path.expanduser(places["data.root"])} if "data.root" in places and "root" in config.data else {}
    return replace(config, data={**config.data, **root}, device=device_here(record, places))


def device_here(record: Mapping[str, Any], places: Mapping[str, str]) -> str:
    """Return the name of the device to compute on: that of `places`, else of the kind that a run was trained on."""
    return places.get("device", "cpu" if str(record.get("device")).startswith("cpu") else "auto")


def verify_measurement(planned: Plan, copies: Mapping[Path, Path], tally: Tally) -> None:
    """Measure on the networks again what the experiment's `verify` asks for, and compare it with the kept rows."""
    task = measurement(planned)
    for cell in (cell for cell in task.folders if cell in copies):
        rows = task.measure(copies[cell], task.options, print)
        before = [] if task.verify_options is None else task.measure(copies[cell], task.verify_options, print)
        if before:
            print(f"{task.name} on {cell.name} again", flush=True)
            fresh = copies[cell].with_name(f"{cell.name}-again")
            shutil.copytree(copies[cell], fresh, ignore=shutil.ignore_patterns(f"{task.name}.jsonl", ".lock"))
            for check in recompute.measured_rows(before, task.measure(fresh, task.verify_options, print)):
                tally.check(f"{task.name} on {cell.name}", check)
        tally.add(f"rows of {task.name} that take longer", UNCHECKED, len(rows) - len(before))


def retrain(cell: Cell, places: Mapping[str, str], tally: Tally) -> None:
    """Train a cell again, in `runs/retrained`, on the kind of device that it had, and compare it with the kept one."""
    before = read_run(kept_cells.FOLDER / cell.folder.name)
    here = map("=".join, {**places, "device": device_here(before.record, places)}.items())
    words = {word.partition("=")[0]: word for word in (*cell.overrides, *here)}  # the last of each key
    job = processes.CellProcess(Path("runs/retrained") / cell.folder.name, tuple(words.values()))
    seconds = duration(before.value("time_s") or 0)
    print(f"\ntraining {cell.title} again in {job.folder}, log in {job.log}; the kept one took {seconds}", flush=True)
    if failed := processes.launch([job], 1, 0, lambda running: None):
        raise RunFailed(f"{job.folder}: {failed[job.folder]}")
    print(tally.check(cell.title, recompute.trained_again(before, read_run(job.folder))))
