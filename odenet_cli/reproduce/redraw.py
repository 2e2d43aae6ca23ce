"""Make the page of an item again from its committed rows, where the runs behind it are not at hand.

The rows hold the numbers of every cell, and neither its log nor its arrays. So tables are made again, and those figures
that need no more, which an item names in FROM_ROWS; the other figures, the CSV and the JSON stay as they are. An item
may also name the validation number that it chooses by (CHOSEN_BY, else the loss), and the columns that hold what was
measured on the networks (MEASURED).
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from odenet_cli.errors import RequestError
from odenet_cli.files import write_output
from odenet_cli.report import result as results
from odenet_cli.report.provenance import Provenance
from odenet_cli.report.runs import Run, flatten
from odenet_cli.reproduce.plan import Cell, Plan


def redraw(plan: Plan, out: Path) -> list[Path]:
    """Write the Markdown and the figures of FROM_ROWS again, and return the files.

    Raises if the item needs more than rows, or if the rows are of other cells than the plan's.
    """
    module = importlib.import_module(f"odenet_cli.report.items.{plan.item}")
    path = out / plan.item / f"{plan.preset}.json"
    if not hasattr(module, "FROM_ROWS"):
        raise RequestError(f"{plan.item} cannot be redrawn: its tables need the runs, not their numbers alone.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = {row["cell"]: row for row in content["rows"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(f"{path} is no page to redraw: {type(error).__name__}: {error}.") from error
    if rows.keys() != {cell.folder.name for cell in plan.cells}:
        raise RequestError(
            f"{path} has other cells than this version plans.\n  Run them: {content['source']['command']}"
        )
    entries = [_entry(cell, rows[cell.folder.name], module) for cell in plan.cells]
    result = results.result_of(plan.item, entries, plan.settings)

    labels = {result.label(name): name for name in result.facts}
    known = {labels[label]: value for label, value in content["facts"].items() if label in labels}
    result = replace(result, facts=result.facts | known)  # some are of the logs
    partial, missing = (tuple(content[name]) for name in ("partial", "missing"))
    page = results.Page(
        result=result,
        about=results.About(item=plan.item, preset=plan.preset, text=content["text"], partial=partial, missing=missing),
        checks=results.check_expectations(result, plan.expected),
        source=Provenance(**content["source"]),
    )
    there = [name for name in result.figures if path.with_name(f"{path.stem}-{name}.svg").exists()]
    note = f"drawn from {path.name}: odenet reproduce {plan.item} --preset {plan.preset} --redraw"
    drawn = replace(result, figures={name: result.figures.get(name) for name in module.FROM_ROWS}, films={})
    text = write_output(path.with_suffix(".md"), f"{page.markdown(there)}- {note}\n")
    return [text, *replace(page, result=drawn).draw(path.parent)]


def _entry(cell: Cell, row: Mapping[str, Any], module: ModuleType) -> results.Entry:
    """Return a cell and its run as far as its row tells: what was scored and measured, and the validation that chose
    the weights."""
    record = {"final": dict(row), "parameters": row.get("parameters"), "git": row.get("commit")}
    valid = {"split": "valid", "step": row.get("step", 0), "epoch": row.get("best_epoch")}
    valid[getattr(module, "CHOSEN_BY", "loss")] = row.get("validation")
    columns = getattr(module, "MEASURED", {})
    measured = [{name: row[column]} for column, name in columns.items() if column in row]
    config = dict(flatten(asdict(cell.config)))
    run = Run(folder=cell.folder, status=str(row["status"]), config=config, record=record, metrics=[valid])
    return results.Entry(cell.part, cell.row, run, measured)
