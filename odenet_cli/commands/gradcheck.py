"""Measure the error of a run's gradient on its own data: odenet gradcheck RUN gradient.norm=relative,absolute

Computes the relative error |g - g_exact| / |g_exact| of the gradient that the run trains with, at the weights of its
best checkpoint, on the first batches of its training data, without shuffling or cropping. The network is in training
mode: batch norm uses the batch, and dropout draws the same numbers for everything that is compared. There are two exact
gradients:

  steps      of the steps that the run's forward solve takes, by plain autograd in float64, without re-evaluation
  reference  of the differential equation: float64, dopri5 at the tolerance reference=1e-10

Each error is given for all parameters, and for those of the field alone. The gradient of the steps is itself compared
with finite differences of the loss along a few directions of all parameters. Exit code 1 if

  the median error against the reference is above threshold=0.5, or is NaN;
  backprop or replay differs from its own steps by more than rounding=1e-4 and, repeated in float64, than 1e-8;
  reversible, whose backward steps amplify rounding, by more than 100 times these limits;
  autograd differs from the finite differences by more than difference=1e-3: a detach, or a wrong custom backward.

A loss that jumps, as with a straight-through estimator, is not judged by finite differences.

  odenet gradcheck RUN gradient.norm=relative,absolute solver.rtol=1e-2,1e-3
  odenet gradcheck RUN gradient.method=replay

  gradient.{method,norm,control_parameters,coupling},
  {solver,gradient.solver}.{method,rtol,atol,steps,max_steps,controller,first_step,min_step,max_step,jumps}
                      settings to try, in every combination; default: those of the run

The gradient of a ReLU field is discontinuous, so the reference converges slowly: 1e-10 gives an accuracy of about 1e-3,
and 1e-6 gives 1e-2 in a thirtieth of the time. The rows are also appended to RUN/gradcheck.jsonl."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

from odenet_cli.commands import _common
from odenet_cli.commands._common import describe_solver
from odenet_cli.config import resolve
from odenet_cli.config.presets import preset
from odenet_cli.config.resolve import gradient_solver
from odenet_cli.config.schema import Config, GradientConfig, SolverChange
from odenet_cli.terminal import Table, say_text
from odenet_cli.training.progress import Parts

SOLVER_KEYS = tuple(f"solver.{name}" for name in _common.SOLVER_FIELDS)
BACKWARD_KEYS = tuple(f"gradient.{key}" for key in SOLVER_KEYS)
OPTIONS = {f"gradient.{f.name}": f.default for f in fields(GradientConfig) if f.name not in ("method", "solver")}
KEYS = ("gradient.method", *OPTIONS, *BACKWARD_KEYS, *SOLVER_KEYS)
PARSER = _common.Parser(__name__, __doc__, run=True, keys=KEYS, several=["solver.*", "gradient.*"])
add = PARSER.add_argument
add("--threshold", metavar="X", type=_common.positive, default=0.5, help="largest median error; default: 0.5")
add("--rounding", metavar="X", type=_common.positive, help="largest error against its own steps; default: 1e-4")
add("--difference", metavar="X", type=_common.positive, default=1e-3, help="largest error of autograd; default: 1e-3")
add("--batches", metavar="N", type=_common.whole(1), help="number of training batches; default: 3, or all of fewer")
add(
    "--reference",
    metavar="TOL",
    type=_common.positive,
    default=1e-10,
    help="its tolerance; default: 1e-10",
)
_common.add_checkpoint(PARSER)

COLUMNS = {  # key of a record: the head of the column, its width
    "batch": ("batch", 6),
    "loss": ("loss", 7),
    "gradient_norm": ("norm", 7),
    "error_steps": ("steps", 7),
    "error_steps_field": ("field", 7),
    "error": ("reference", 9),
    "error_field": ("field", 7),
    "nfe_forward": ("NFE", 3),
    "nfe_backward": ("back", 4),
}


@PARSER.command
def main(request: Namespace) -> int:
    """Check all points, then their gradients one after the other."""
    folder, run = request.folder, request.config
    points = [changed(run, point) for point in _common.combinations(request.overrides)]
    from odenet_cli.analysis.gradcheck import Gradcheck, Limits, judge, medians
    from odenet_cli.analysis.trained import needs_float64, needs_solver, trained

    for config in points:
        needs_float64("gradcheck", config)
        needs_solver(folder, config)
    size = run.trainer.batch_size or 1
    net = trained(folder, points[0], request.checkpoint, size)
    check = Gradcheck(net, size, request.batches, request.reference)
    say_text(f"{folder}: {net.weights}, {size} training samples of {run.data['name']} per batch, {run.dtype}")
    say_text(f"reference: the differential equation in float64, dopri5 at {request.reference:g}")
    labels = [describe(config) for config in points]
    heads = ("gradient", "backward", "forward")
    widths = [max(map(len, column)) for column in zip(heads, *labels)]
    table = Table([*zip(heads, widths), *COLUMNS.values()], left=3)
    limits, outcomes = Limits(request.threshold, request.rounding, request.difference), []
    batches = range(len(check.objectives))
    parts = Parts(len(points) * len(batches))
    with _common.journal(folder / "gradcheck.jsonl") as append, parts:
        for config, label in zip(points, labels):
            records: list[dict[str, Any]] = []
            for n in batches:
                parts.begin(f"batch {n + 1}: {', '.join(label)}")
                records.append(check.row(config, n))
                append(records[-1])
                table.row(*label, *cells(records[-1]))
                if "failed" in records[-1]:
                    break
            table.row(*label, *cells({"batch": "median", **medians(records)}))
            outcomes.append(judge(records, limits))
            for note in notes(records, outcomes[-1], alone=len(points) == 1):
                say_text(note)
    say_text(summarise(outcomes, request.threshold))
    return 0 if all(outcome.passed for outcome in outcomes) else 1


def changed(run: Config, changes: dict[str, Any]) -> Config:
    """Return the run's config with these keys set.

    As in a request, a method brings its preset and an rtol its atol; and another gradient, norm or solver starts
    without the run's settings of the gradient, or of its backward solve.
    """
    from odenet_cli.request.overrides import altered

    implied: dict[str, Any] = dict.fromkeys(f"eval.{key}" for key in SOLVER_KEYS)
    own = {key.removeprefix("solver."): value for key, value in changes.items() if key.startswith("solver.")}
    solver = resolve.changed(run.solver, SolverChange(**own))
    implied |= {f"solver.{name}": value for name, value in vars(solver).items()}
    if solver.method != run.solver.method:
        implied |= dict.fromkeys(BACKWARD_KEYS)
    if changes.get("gradient.method", run.gradient.method) != run.gradient.method:
        implied |= {**OPTIONS, **dict.fromkeys(BACKWARD_KEYS)}
    if "gradient.solver.method" in changes or changes.get("gradient.norm", run.gradient.norm) != run.gradient.norm:
        implied |= dict.fromkeys(BACKWARD_KEYS)
    return altered(run, {**changes, **implied, **resolve.tied(changes)})


def describe(config: Config) -> tuple[str, str, str]:
    """Return the gradient, its own solve where it has one, and the forward solve as a table names them."""
    gradient, known = config.gradient, preset("gradient", config.gradient.method)
    options = [str(getattr(gradient, key)) for key in ("norm", "coupling") if key in known]
    options += ["parameters controlled"] * gradient.control_parameters
    backward = describe_solver(gradient_solver(config)) if "solver" in known else "-"
    return " ".join([gradient.method, *options]), backward, describe_solver(config.solver)


def cells(record: dict[str, Any]) -> list[str]:
    if "failed" in record:
        return [str(record["batch"]), f"failed: {record['failed']}"]
    values = [record.get(key, "") for key in COLUMNS]
    return [f"{value:.1e}" if isinstance(value, float) else str(value) for value in values]


def notes(records: Sequence[dict[str, Any]], outcome: Any, alone: bool) -> Iterator[str]:
    """Yield what the table does not show of a gradient; why it failed, unless it is `alone` and in the last line."""
    reasons = [record["no_reference"] for record in records if "no_reference" in record]
    if reasons:
        yield f"no reference: {reasons[0]}"
    if jumps := [record["error_difference"] for record in records if "jumps" in record]:
        yield (
            f"autograd differs from finite differences of the loss by {max(jumps):.1e}, but this is not counted: the "
            "loss is discontinuous, as with a straight-through estimator, y + (round(y) - y).detach(), whose gradient "
            "differs on purpose; this is no error of the solver"
        )
    rounded = [record["error_float32"] for record in records if "error_float32" in record]
    if rounded:
        yield f"in float64; in float32 it is {max(rounded, key=abs):.1e} off that of its own steps"
    if not (alone or outcome.passed or outcome.by_reference):
        yield f"failed: {outcome.reason}"


def summarise(outcomes: Sequence[Any], threshold: float) -> str:
    """Return the last line, from how the gradients fared."""
    passed = sum(outcome.passed for outcome in outcomes)
    verdict = "passed" if passed == len(outcomes) else "failed"
    if len(outcomes) == 1:
        return f"{verdict}: {outcomes[0].reason}"
    if not all(outcome.passed or outcome.by_reference for outcome in outcomes):
        return f"{verdict}: {passed} of {len(outcomes)}"
    return f"{verdict}: {passed} of {len(outcomes)} have a median error of at most {threshold:g} against the reference"
