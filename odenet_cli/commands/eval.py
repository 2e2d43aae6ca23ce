"""Score a checkpoint under other solvers and tolerances: odenet eval RUN eval.solver.rtol=1e-1,1e-3,1e-6

Scores the run's best checkpoint once for every combination of the values given, and prints one row for each.

  odenet eval RUN eval.solver.rtol=1e-1,1e-3,1e-6         tolerances (atol follows)
  odenet eval RUN eval.solver.method=dopri5,bosh3,rk4     methods, at the run's tolerance or with their preset's steps

  eval.solver.{method,rtol,atol,steps,max_steps,controller,first_step,min_step,max_step,jumps}
                      settings to try; default: those the run was scored with
  eval.batch_size, eval.dtype, trainer.limit_batches

The test samples of the run's data are scored, or those of split=. For a table of series, data.path=FILE scores another
file: all of it unless split= is given, in the units of the run's own table, with columns matched by name. Samples
without y are left out.

The rows are also appended to RUN/eval.jsonl."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from odenet_cli.commands import _common
from odenet_cli.config.presets import adaptive, preset
from odenet_cli.config.resolve import eval_solver, tied
from odenet_cli.config.schema import STEP_CONTROL, Config
from odenet_cli.scores import scores_of
from odenet_cli.terminal import Table, columns, on_terminal, say_text
from odenet_cli.training.progress import Parts

SOLVER_KEYS = tuple(f"eval.solver.{name}" for name in _common.SOLVER_FIELDS)
KEYS = (*SOLVER_KEYS, "eval.batch_size", "eval.dtype", "trainer.limit_batches")
SPLITS = ("test", "valid", "train", "all")
PARSER = _common.Parser(__name__, __doc__, run=True, keys=KEYS, several=["eval.solver.*"])
PARSER.add_argument("--split", metavar="|".join(SPLITS), type=_common.one_of(*SPLITS), help="default: test")
_common.add_checkpoint(PARSER)

SETTINGS = (("method", 10), ("rtol", 8), ("atol", 8), ("steps", 5))
COST = (("NFE", 6), ("rejected", 8), ("time", 8))
JOURNAL = "eval.jsonl"
Columns = list[tuple[str, int]]  # head and width of each
# Spreads, and what would be the same for another model, are in the file and not worth a column.
MINOR = re.compile("_sd$|_se$|^relative_|^rmse_last_value$|^rmse_velocity$")


@PARSER.command
def main(request: Namespace) -> int:
    """Check all points, then score them one after the other."""
    points = [changed(request.config, point) for point in _common.combinations(request.overrides)]
    if any(key in SOLVER_KEYS for key in request.overrides):
        from odenet_cli.analysis.trained import solving_network

        solving_network(request.folder, points[0])
    with _common.journal(request.folder / JOURNAL) as append, Parts(len(points)) as parts:
        for record in score(request.folder, points, request.split, request.checkpoint, parts):
            append(record)
    return 0


def changed(run: Config, changes: dict[str, Any]) -> Config:
    """Return the run's config with these keys set.

    An adaptive method keeps the tolerance the run was scored at; where that had fixed steps, the one it was trained at,
    else its data set's. Another method of fixed steps brings its preset, an rtol its atol.
    """
    from odenet_cli.request.overrides import altered

    implied: dict[str, Any] = {}
    if "eval.solver.method" in changes:
        implied = dict.fromkeys(("rtol", "atol", "steps"), None)
        implied.update(_inherited(run, changes["eval.solver.method"]))
        implied.update(dict.fromkeys(STEP_CONTROL if implied["rtol"] is None else ("controller",)))
    implied = {f"eval.solver.{name}": value for name, value in implied.items()}
    return altered(run, {**changes, **implied, **tied(changes)})


def _inherited(run: Config, method: Any) -> dict[str, Any]:
    """Return what `method` takes over from the run, of rtol, atol and steps."""
    scored = eval_solver(run)
    if method is None:  # training's
        return {}
    if not adaptive(method, "eval.solver.method"):
        return {"steps": scored.steps} if method == scored.method else {}
    for solver in (scored, run.solver):
        if solver.rtol is not None:
            return {"rtol": solver.rtol, "atol": solver.atol}
    return {"rtol": preset("solver", method, data=run.data["name"])["rtol"]}


def score(
    folder: Path, points: list[Config], split: str | None, checkpoint: str, parts: Parts
) -> Iterator[dict[str, Any]]:
    """Print a row for each point as soon as it is computed, and yield it as a record."""
    from odenet_cli.analysis.scoring import Scorer

    scorer = Scorer(folder, points[0], split, checkpoint, parts.over)
    say_text(scorer.title)
    solvers = [eval_solver(point) for point in points]
    swept = [name for name in STEP_CONTROL if len({str(getattr(solver, name)) for solver in solvers}) > 1]
    table = None
    for config, solver in zip(points, solvers):
        parts.begin(_common.describe_solver(solver))
        record = scorer.row(config)
        shown = metrics(record)
        if table is None:
            settled = [*SETTINGS, *((name, len(name) + 2) for name in swept)]
            scores = [(name, max(8, len(name), len(cell))) for name, cell in shown.items()]
            kept = fitting(scores, [width for _, width in (*settled[1:], *COST)])
            if len(kept) < len(scores):
                say_text(f"{', '.join(name for name, _ in scores if name not in dict(kept))}: in {folder / JOURNAL}")
            table = Table([*settled, *kept, *COST])
        steps = solver.steps if solver.rtol is None else None
        settings = [solver.rtol, solver.atol, steps, *(getattr(solver, name) for name in swept)]
        cost = [f"{record['nfe_forward']:.1f}", f"{record['rejected']:.1f}", f"{record['time_s']:.2f} s"]
        if not scorer.solves:
            settings = [None] * len(settings)
        scores_shown = [shown[name] for name, _ in kept]
        table.row(solver.method if scorer.solves else "-", *map(_cell, settings), *scores_shown, *cost)
        yield record


def fitting(scores: Columns, beside: Sequence[int]) -> Columns:
    """Return the columns of scores that a terminal has room for beside others of these widths; at least the main one.

    Elsewhere all of them are shown.
    """
    main = [score.name for score in scores_of(dict(scores))[:1]]
    kept = sorted(scores, key=lambda column: column[0] not in main)
    while on_terminal() and len(kept) > 1 and sum(beside) + sum(w + 2 for _, w in kept) + 2 * len(beside) > columns():
        kept.pop()
    return [column for column in scores if column in kept]


def metrics(record: dict[str, Any]) -> dict[str, str]:
    """Return the shown part of a record: the error of a classifier, else the metrics of its task; the file has all."""
    if "error" in record:
        return {"error": f"{record['error']:.2%}"}
    task = list(record)[: list(record).index("nfe_forward")]
    names = [name for name in task if name not in ("split", "data", *_common.SOLVER_FIELDS) and not MINOR.search(name)]
    if any(record[name] == record["loss"] for name in names if name != "loss"):
        names.remove("loss")
    return {name: f"{record[name]:.5f}" for name in names}


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, (int, float)) else str(value)
