"""Score a checkpoint under other solvers and tolerances: odenet eval RUN eval.solver.rtol=1e-1,1e-3,1e-6"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from odenet_cli.commands._journal import Journal
from odenet_cli.commands._points import choice, open_run, own_class, product, read
from odenet_cli.config.presets import adaptive, preset
from odenet_cli.config.resolve import eval_solver
from odenet_cli.config.schema import STEP_CONTROL, Config
from odenet_cli.training.progress import say

HELP = """usage: odenet eval RUN [key=value ...]

Scores the run's best checkpoint once for every combination of the values given, and prints one row each.

  odenet eval RUN eval.solver.rtol=1e-1,1e-3,1e-6             tolerances (atol follows)
  odenet eval RUN eval.solver.method=dopri5,bosh3,rk4         solvers, at the run's tolerance or in their preset's steps

  eval.solver.{method,rtol,atol,steps,max_steps,controller,first_step,min_step,max_step,jumps}
                      what to try; left out: as the run was scored
  eval.batch_size, eval.dtype, data.root, data.path, data.download, device, trainer.limit_batches
  split=test|valid|train|all   checkpoint=best|last
  model.target=package.module:Class   to be said again where the run has a class of your own

Another file of series, data.path=FILE, is measured in the units of the run's own, its columns taken by name, and all of
it is scored unless split= says otherwise. Of the run's own data the test samples are.

The rows are also appended to RUN/eval.jsonl."""
KEYS = (
    "eval.batch_size",
    "eval.dtype",
    "data.root",
    "data.path",
    "data.download",
    "device",
    "trainer.limit_batches",
    "model.target",
)
MINOR = re.compile("_sd$|_se$|^relative_|^rmse_last_value$|^rmse_velocity$")
PARTS = ("method", "rtol", "atol", "steps", "max_steps", *STEP_CONTROL)
SOLVER = tuple(f"eval.solver.{key}" for key in PARTS)
SPLITS = ("test", "valid", "train", "all")


def main(argv: list[str]) -> int:
    """Check all points, then score them one after the other."""
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP)
        return 0 if argv else 2
    folder, run = open_run(argv)
    said = read(argv[1:], (*SOLVER, *KEYS, "split", "checkpoint"), several=("eval.solver.*",))
    split = choice(said, "split", SPLITS) if "split" in said else None
    which = choice(said, "checkpoint", ("best", "last"))
    own_class(run, said)
    points = [changed(run, point) for point in product(said)]
    with Journal(folder / "eval.jsonl") as journal:
        for record in score(folder, points, split, which):
            journal.add(record)
    return 0


def changed(run: Config, changes: dict[str, Any]) -> Config:
    """The run's config with these keys set.

    An adaptive method keeps the tolerance the run was scored at; where that had fixed steps, the one it was trained at,
    else its data set's. Another method of fixed steps brings its preset, an rtol its atol.
    """
    from odenet_cli.request.points import altered

    kept: dict[str, Any] = {}
    if "eval.solver.method" in changes:
        kept = dict.fromkeys(("rtol", "atol", "steps"), None)
        kept.update(_kept(run, changes["eval.solver.method"]))
        lost = STEP_CONTROL if kept["rtol"] is None else ("controller",)
        kept.update(dict.fromkeys(lost))
    if "eval.solver.rtol" in changes:
        kept["atol"] = None
    return altered(run, {**{f"eval.solver.{name}": value for name, value in kept.items()}, **changes})


def _kept(run: Config, method: Any) -> dict[str, Any]:
    """What `method` takes over from the run, of rtol, atol and steps."""
    scored = eval_solver(run)
    if method is None:  # training's
        return {}
    if not adaptive(method, "eval.solver.method"):
        return {"steps": scored.steps} if method == scored.method else {}
    for one in (scored, run.solver):
        if one.rtol is not None:
            return {"rtol": one.rtol, "atol": one.atol}
    return {"rtol": preset("solver", method, data=run.data["name"])["rtol"]}


def score(folder: Path, points: list[Config], split: str | None, checkpoint: str) -> Any:
    """Print a row for each point as soon as it is there, and yield it as a record."""
    from odenet_cli.analysis.scoring import Scorer

    scorer = Scorer(folder, points[0], split, checkpoint)
    say(scorer.title)
    swept = [name for name in STEP_CONTROL if len({str(getattr(eval_solver(point), name)) for point in points}) > 1]
    for n, config in enumerate(points):
        solver = eval_solver(config)
        record = scorer.row(config)
        shown = metrics(record)
        if n == 0:
            wide = [max(10, len(name) + 2, len(cell) + 2) for name, cell in shown.items()]
            widths = [10, 10, 7, *[len(name) + 4 for name in swept], *wide, 8, 10, 10]
            say(_line(["method", "rtol", "atol", "steps", *swept, *shown, "NFE", "rejected", "time"], widths))
        steps = solver.steps if solver.rtol is None else None
        cells = [solver.method, *map(_cell, (solver.rtol, solver.atol, steps))]
        cells += ["-" if (value := getattr(solver, name)) is None else str(value) for name in swept]
        cells += [*shown.values()]
        cells += [f"{record['nfe_forward']:.1f}", f"{record['rejected']:.1f}", f"{record['time_s']:.2f} s"]
        say(_line(cells, widths))
        yield record


def metrics(record: dict[str, Any]) -> dict[str, str]:
    """What of a record is shown: the error of a classifier, else the metrics of its task.

    The file has them all; spreads, and what would be the same for another model, are not worth a column.
    """
    if "error" in record:
        return {"error": f"{record['error']:.2%}"}
    names = [
        name for name in list(record)[: list(record).index("nfe_forward")] if name not in ("split", "data", *PARTS)
    ]
    named = [name for name in names if name == "loss" or not MINOR.search(name)]
    twice = any(record[name] == record["loss"] for name in named if name != "loss")
    return {name: f"{record[name]:.5f}" for name in named if not (twice and name == "loss")}


def _line(cells: list[str], widths: list[int]) -> str:
    """Columns of these widths, wider where a cell is; two blanks or more lie between them."""
    first, *others = cells
    return f"{first:<10}" + "".join(f"  {cell:>{width - 2}}" for cell, width in zip(others, widths))


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"
