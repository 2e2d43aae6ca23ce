"""Compare runs in tables and figures: odenet report PATH ... [--out FOLDER] [by=key,key] [x=key]

Prints one row for each setting of the keys in which the runs differ: mean ± standard deviation over seeds. Unfinished
runs are listed but enter no mean. Means are never taken over different data, models, presets or lengths of training.

  odenet report sweeps/2026-11-23/171403-482113
  odenet report runs --out results/mine          also table.md, table.csv, table.json, and figures as SVG and PNG
  odenet report runs by=model.name,solver.rtol   the keys that make a row; default: those that differ
  odenet report runs --columns rtol,error,nfe    only the columns whose titles contain one of these words

On a terminal only the columns that fit are shown; --all shows every column, and every folder of a row."""

from __future__ import annotations

import os
import shlex
from argparse import Namespace
from pathlib import Path

from odenet_cli.commands import _common, _completion
from odenet_cli.errors import RequestError
from odenet_cli.registry import nearest
from odenet_cli.rundir import named_run
from odenet_cli.terminal import columns, on_terminal

PARSER = _common.Parser(__name__, __doc__)
add = PARSER.add_argument
add("paths", metavar="PATH", nargs="+", type=_common.word, help="folder of a run or a sweep, or one that contains some")
add("--out", metavar="FOLDER", type=_common.path, help="also write table and figures there")
add(
    "--by",
    metavar="key,key",
    type=_common.several(str),
    help="group by these keys and by data, model, presets and length; average over the rest",
)
add("--columns", metavar="A,B", type=_common.several(str), default=[], help="print only these columns")
add("--all", action="store_true", help="print every column and folder, whatever the terminal's width")
add("--x", metavar="key", type=_common.word, help="key on the axis of the figures; default: every number that differs")
PARSER.offers = _completion.runs


@PARSER.command
def main(request: Namespace) -> int:
    check(request)
    from odenet_cli.report import export
    from odenet_cli.report.compare import compare
    from odenet_cli.report.provenance import Provenance
    from odenet_cli.report.runs import find_runs, read_run
    from odenet_cli.report.table import comparison_text

    runs = [read_run(folder) for folder in find_runs([named_run(path) for path in request.paths])]
    comparison = compare(runs, request.by)
    provenance = Provenance.of(shlex.join(["odenet", "report", *request.argv]), runs)
    axes = [require_axis(request.x, comparison.numeric)] if request.x else comparison.axes
    width = columns() if on_terminal() and not request.all else None
    text = comparison_text(comparison, provenance, width, request.columns, request.all)
    folder = make_folder(request.out) if request.out else None
    print(text, flush=True)
    if folder:
        files = export.write_table(folder, comparison, provenance)
        files += export.write_figures(folder, comparison, provenance, axes)
        print(f"\n{len(files)} files in {folder}: {', '.join(path.name for path in files)}")
    return 0


def check(request: Namespace) -> None:
    """Raise for a path that is a slip in an option: one may hold `=`, as the folders of a sweep do."""
    for path in request.paths:
        if "=" in path and "/" not in path and not os.path.exists(path):
            PARSER.refuse(path)
    if request.x and not request.out:
        raise RequestError(
            f"x={request.x} sets the axis of the figures; give the folder to write them to: --out FOLDER."
        )


def require_axis(key: str, numeric: list[str]) -> str:
    """Return `key` if figures can have it as their axis, else raise RequestError."""
    if key not in numeric:
        known = f"Available: {', '.join(numeric)}." if numeric else "No number differs between the rows."
        raise RequestError(f"x={key} is not a number that differs between the rows.{nearest(key, numeric)}\n  {known}")
    return key


def make_folder(folder: Path, option: str = "--out ") -> Path:
    """Make `folder` if it is not there; raise RequestError, which names it behind `option`, where it cannot be used."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"{option}{folder} cannot be created: {error.strerror}. Name another folder.") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RequestError(f"{option}{folder} is not writable: no permission. Name another folder.")
    return folder
