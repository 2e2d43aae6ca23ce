"""Make the page of an item again from its committed rows, if the runs behind it are not available.

The rows have the numbers of every cell, but neither its log nor its arrays. So tables are made again, and those figures
that need no more, which an item names in FROM_ROWS. The other figures are drawn from the kept cells, if these contain
everything that is shown of a seed; otherwise they stay unchanged, as do the CSV and the JSON. A kept cell may come from
a second training: then its test loss must be that of its row within MAX_OFF, and the page states the difference.

An item may also name the validation number by which it chooses (CHOSEN_BY, else the loss), and the columns measured on
the networks (MEASURED).
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from odenet_cli.errors import RequestError
from odenet_cli.files import write_output
from odenet_cli.report import result as results
from odenet_cli.report.provenance import Provenance
from odenet_cli.report.runs import Run, flatten, read_run
from odenet_cli.report.text import bullets
from odenet_cli.reproduce import kept_cells
from odenet_cli.reproduce.plan import Cell, Plan
from odenet_cli.reproduce.stages import unpack_kept

# Relative, of a test loss. Seen of flows trained again where compiled kernels round otherwise: 0.4 % and less by those
# that came out alike, 1.4 to 2.5 % by those that a reader would see to be others (a KL of 0.06 where it was 0.01).
MAX_OFF = 0.01


def redraw(plan: Plan, out: Path) -> list[Path]:
    """Write the Markdown and the figures again, those that neither rows nor kept cells tell left out; return the files.

    Raises if the item needs more than rows, or if the rows are of other cells than the plan's.
    """
    module = importlib.import_module(f"odenet_cli.report.items.{plan.item}")
    if not hasattr(module, "FROM_ROWS"):
        raise RequestError(f"{plan.item} cannot be redrawn: its tables need the runs, not only their numbers.")
    path = out / plan.item / f"{plan.preset}.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = {row["cell"]: row for row in content["rows"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(f"{path} is not a page that can be redrawn: {type(error).__name__}: {error}.") from error
    if rows.keys() != {cell.folder.name for cell in plan.cells}:
        raise RequestError(
            f"{path} has other cells than this version plans.\n  To run them:  {content['source']['command']}"
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
    from_rows = {name: result.figures.get(name) for name in module.FROM_ROWS}
    files = replace(page, result=replace(result, figures=from_rows, films={})).draw(path.parent)
    notes = [f"drawn from {path.name}: odenet reproduce {plan.item} --preset {plan.preset} --redraw"]
    if kept := _kept_of_shown(plan, rows):
        off = _check_scores(kept, entries)
        of_kept = results.result_of(plan.item, kept, plan.settings)
        figures = {name: figure for name, figure in of_kept.figures.items() if name not in from_rows}
        files += replace(page, result=replace(of_kept, figures=figures)).draw(path.parent)
        notes.append(f"of kept cells, with their numbers and times: {', '.join([*figures, *of_kept.films])}; {off}")
    there = {file.name for file in path.parent.iterdir()}
    return [write_output(path.with_suffix(".md"), page.markdown(there) + bullets(notes) + "\n"), *files]


def _kept_of_shown(plan: Plan, rows: Mapping[str, Mapping[str, Any]]) -> list[results.Entry]:
    """Return the kept cells of the settings that are shown, of those seeds of which all are kept."""
    shown = [cell for cell in plan.cells if rows[cell.folder.name].get("shown")]
    absent = {cell.seed for cell in shown if not cell.kept}
    whole = [cell for cell in shown if cell.seed not in absent]
    unpack_kept(whole)
    return [results.Entry(cell.part, cell.row, read_run(cell.folder)) for cell in whole]


def _check_scores(kept: Sequence[results.Entry], entries: Sequence[results.Entry]) -> str:
    """Return how far the test losses of kept cells are from those of their rows; raise where that is too far."""
    of_rows = {entry.run.folder.name: entry.run for entry in entries}
    most = 0.0
    for entry in kept:
        name = entry.run.folder.name
        committed, here = of_rows[name].value("loss") or 0.0, entry.run.value("loss") or 0.0
        if abs(here - committed) > MAX_OFF * abs(committed):
            raise RequestError(
                f"{kept_cells.FOLDER / name} ({entry.row}) is not the network of its row: its test loss is {here:.6g}, "
                f"and {committed:.6g} in the row; trained again they may differ by {MAX_OFF:.0%}."
            )
        most = max(most, abs(here - committed) / abs(committed or 1.0))
    return f"test losses within {100 * most:.2g} % of the rows'" if most else "test losses equal to the rows'"


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
