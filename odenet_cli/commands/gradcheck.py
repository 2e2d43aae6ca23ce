"""How wrong a run's gradient is, on its own data: odenet gradcheck RUN gradient.norm=relative,absolute"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from odenet_cli.commands._gradtable import Limits, beginnings, cells, described, head, judged, median, notes, verdict
from odenet_cli.commands._journal import Journal
from odenet_cli.commands._points import choice, number, open_run, own_class, product, read
from odenet_cli.config.presets import preset
from odenet_cli.config.schema import STEP_CONTROL, Config, GradientConfig
from odenet_cli.training.progress import say

HELP = """usage: odenet gradcheck RUN [key=value ...]

The relative error |g - g_exact| / |g_exact| of the gradient that the run trains with, at the weights of its best
checkpoint, on the first batches of its training data, neither shuffled nor cropped. The network is as it trains: batch
norm looks at the batch, and dropout draws, the same numbers for all that is compared. There are two exact gradients:

  steps      of the very steps that the run's forward solve takes, by plain autograd in float64, nothing evaluated again
  reference  of the differential equation: float64, dopri5 at the tolerance reference=1e-10

Each error is over all parameters, and over those of the field alone. The gradient of the steps is itself held against
finite differences of the loss, along a few directions of all parameters. Exit code 1 if

  the median error against the reference is above threshold=0.5, or not a number;
  backprop, replay or reversible is off its own steps: above rounding=1e-4, or 1e-8 in float64, which is asked where
    float32 is above its own; reversible 100 times that, as its way back magnifies rounding;
  autograd is off the finite differences, above difference=1e-3: a detach, or a backward of one's own that is wrong.

  odenet gradcheck RUN gradient.norm=relative,absolute solver.rtol=1e-2,1e-3
  odenet gradcheck RUN gradient.method=replay

  gradient.{method,norm,control_parameters,coupling},
  {solver,gradient.solver}.{method,rtol,atol,steps,max_steps,controller,first_step,min_step,max_step,jumps}
                      what to try, every combination; left out: as the run was trained
  threshold=0.5   rounding=1e-4   difference=1e-3   batches=3   reference=1e-10   checkpoint=best|last
  data.root, data.path, data.download, device
  model.target=package.module:Class   to be said again where the run has a class of your own

Gradients of ReLU fields jump, and the reference comes slowly: at 1e-10 it is good to about 1e-3, at 1e-6 to 1e-2, in a
thirtieth of the time. The rows are also appended to RUN/gradcheck.jsonl."""
PARTS = ("method", "rtol", "atol", "steps", "max_steps", *STEP_CONTROL)
SOLVER = tuple(f"solver.{name}" for name in PARTS)
BACKWARD = tuple(f"gradient.solver.{name}" for name in PARTS)
OPTIONS = {f"gradient.{f.name}": f.default for f in fields(GradientConfig) if f.name not in ("method", "solver")}
KEYS = (
    "gradient.method",
    *OPTIONS,
    *BACKWARD,
    *SOLVER,
    "data.root",
    "data.path",
    "data.download",
    "device",
    "model.target",
)
OWN = ("threshold", "rounding", "difference", "batches", "reference", "checkpoint")


def main(argv: list[str]) -> int:
    """Check all points, then their gradients one after the other."""
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP)
        return 0 if argv else 2
    folder, run = open_run(argv)
    said = read(argv[1:], (*KEYS, *OWN), several=("solver.*", "gradient.*"))
    which = choice(said, "checkpoint", ("best", "last"))
    rounding = number(said, "rounding", 1.0) if "rounding" in said else None
    limits = Limits(number(said, "threshold", 0.5), rounding, number(said, "difference", 1e-3))
    tolerance = number(said, "reference", 1e-10)
    batches = number(said, "batches", 3, whole=True)
    own_class(run, said)
    points = [changed(run, point) for point in product(said)]
    from odenet_cli.analysis.gradcheck import Gradcheck
    from odenet_cli.analysis.trained import needs_solver, trained

    for config in points:
        needs_solver(folder, config)
    size = run.trainer.batch_size or 1
    net = trained(folder, points[0], which, size)
    check = Gradcheck(net, size, batches, tolerance)
    say(f"{folder}: {net.weights}, {size} training samples of {run.data['name']} a batch, {run.dtype}")
    say(f"reference: the differential equation in float64, dopri5 at {tolerance:g}")
    starts = beginnings([described(config) for config in points])
    say(next(starts) + head())
    outcomes = []
    with Journal(folder / "gradcheck.jsonl") as journal:
        for config, start in zip(points, starts):
            records: list[dict[str, Any]] = []
            for n in range(batches):
                records.append(check.row(config, n))
                journal.add(records[-1])
                say(start + cells(records[-1]))
                if "failed" in records[-1]:
                    break
            say(start + cells(median(records)))
            outcomes.append(judged(records, limits))
            for note in notes(records, outcomes[-1], alone=len(points) == 1):
                say(note)
    say(verdict(outcomes, limits.threshold))
    return 0 if all(well for _, well in outcomes) else 1


def changed(run: Config, changes: dict[str, Any]) -> Config:
    """The run's config with these keys set. As in a request, a method brings its preset and an rtol its atol; and
    another gradient, norm or solver starts without the run's settings of the gradient, or of its backward solve."""
    from odenet_cli.request.points import altered

    told: dict[str, Any] = dict.fromkeys(f"eval.solver.{name}" for name in PARTS)
    if changes.get("solver.method", run.solver.method) != run.solver.method:
        own = preset("solver", changes["solver.method"], "solver.method")
        lost = ("controller",) if "rtol" in own else STEP_CONTROL
        told |= {f"solver.{name}": own.get(name) for name in ("rtol", "atol", "steps", *lost)} | dict.fromkeys(BACKWARD)
    if "solver.rtol" in changes:
        told["solver.atol"] = changes["solver.rtol"]
    if changes.get("gradient.method", run.gradient.method) != run.gradient.method:
        told |= {**OPTIONS, **dict.fromkeys(BACKWARD)}
    if "gradient.solver.method" in changes or changes.get("gradient.norm", run.gradient.norm) != run.gradient.norm:
        told |= dict.fromkeys(BACKWARD)
    if "gradient.solver.rtol" in changes:
        told["gradient.solver.atol"] = None
    return altered(run, {**changes, **{key: value for key, value in told.items() if key not in changes}})
