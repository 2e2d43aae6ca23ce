"""Score a checkpoint under other solvers and tolerances: odenet eval RUN eval.solver.rtol=1e-1,1e-3,1e-6"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from odenet_cli.commands._points import choice, own_class, product, read
from odenet_cli.config import Config, eval_solver, load

HELP = """usage: odenet eval RUN [key=value ...]

Scores the run's best checkpoint once for every combination of the values given, and prints one row each.

  odenet eval RUN eval.solver.rtol=1e-1,1e-3,1e-6             tolerances (atol follows)
  odenet eval RUN eval.solver.method=dopri5,bosh3,rk4         solvers, each with its preset

  eval.solver.{method,rtol,atol,steps,max_steps}   what to try; left out: as the run was scored
  eval.batch_size, eval.dtype, data.root, data.download, device, trainer.limit_batches
  split=test|valid|train   checkpoint=best|last
  model.target=package.module:Class   to be said again where the run has a class of your own

The rows are also appended to RUN/eval.jsonl."""
KEYS = (
    "eval.batch_size",
    "eval.dtype",
    "data.root",
    "data.download",
    "device",
    "trainer.limit_batches",
    "model.target",
)
MINOR = re.compile("_sd$|_se$|^relative_|^rmse_last_value$|^rmse_velocity$")
PARTS = ("method", "rtol", "atol", "steps", "max_steps")
SOLVER = tuple(f"eval.solver.{key}" for key in PARTS)
OWN = {"split": ("test", "valid", "train"), "checkpoint": ("best", "last")}


def main(argv: list[str]) -> int:
    """Check all points, then score them one after the other."""
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP)
        return 0 if argv else 2
    folder = Path(argv[0]).expanduser()
    run = load(folder)
    said = read(argv[1:], (*SOLVER, *KEYS, *OWN), several=("eval.solver.*",))
    choices = {key: choice(said, key, known) for key, known in OWN.items()}
    own_class(run, said)
    points = [changed(run, point) for point in product(said)]
    from odenet_cli.training.folder import append

    for record in score(folder, points, **choices):
        append(folder / "eval.jsonl", record)
    return 0


def changed(run: Config, changes: dict[str, Any]) -> Config:
    """The run's config with these keys set.

    What the run itself was scored with gives way as in a request: a method brings its preset, an rtol its atol.
    """
    from odenet_cli.request.points import altered

    stale = ["atol"] if "eval.solver.rtol" in changes else []
    stale = ["rtol", "atol", "steps"] if "eval.solver.method" in changes else stale
    return altered(run, {**dict.fromkeys(f"eval.solver.{name}" for name in stale), **changes})


def score(folder: Path, points: list[Config], split: str, checkpoint: str) -> Any:
    """Print a row for each point as soon as it is there, and yield it as a record."""
    from odenet_cli.training.scoring import Scorer

    scorer = Scorer(folder, points[0], split, checkpoint)
    print(scorer.title)
    for n, config in enumerate(points):
        solver = eval_solver(config)
        record = scorer.row(config)
        shown = metrics(record)
        wide = [max(10, len(name) + 2) for name in shown]
        if n == 0:
            names = "".join(f"{name:>{width}}" for name, width in zip(shown, wide))
            print(f"{'method':<10}{'rtol':>10}{'atol':>10}{'steps':>7}{names}{'NFE':>8}{'rejected':>10}{'time':>10}")
        steps = solver.steps if solver.rtol is None else None
        cells = [f"{solver.method:<10}", *(f"{_cell(value):>10}" for value in (solver.rtol, solver.atol))]
        cells += [f"{_cell(steps):>7}", *(f"{cell:>{width}}" for cell, width in zip(shown.values(), wide))]
        cells += [f"{record['nfe_forward']:>8.1f}", f"{record['rejected']:>10.1f}", f"{record['time_s']:>8.2f} s"]
        print("".join(cells), flush=True)
        yield record


def metrics(record: dict[str, Any]) -> dict[str, str]:
    """What of a record is shown: the error of a classifier, else the metrics of its task.

    The file has them all; spreads, and what would be the same for another model, are not worth a column.
    """
    if "error" in record:
        return {"error": f"{record['error']:.2%}"}
    names = [name for name in list(record)[: list(record).index("nfe_forward")] if name not in ("split", *PARTS)]
    named = [name for name in names if name == "loss" or not MINOR.search(name)]
    twice = any(record[name] == record["loss"] for name in named if name != "loss")
    return {name: f"{record[name]:.5f}" for name in named if not (twice and name == "loss")}


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"
