"""Test whether a trained network is still an ODE under finer solvers: odenet audit RUN

Computes the accuracy of the run's best checkpoint under many solvers, and compares each with the solver that it was
trained with, on the same samples: the test samples or, if there are fewer than 1,000, all samples. By default these are
euler, midpoint and rk4 in 1, 2, 4, 8 and 16 steps, dopri5 at 1e-1 to 1e-5, and the training method at finer settings.

The network is no longer an ODE if a finer solver loses more than 0.2 points of accuracy with p < 0.01 (McNemar's exact
test). A solver is finer than the training solver if its tolerance is tighter or, if one of the two has no tolerance, if
it takes more steps with a method of the same or a higher order.

  odenet audit RUN
  odenet audit RUN steps=1,3,9 rtol=1e-3,1e-6

  eval.batch_size=N   samples at a time

Writes the table and the verdict to RUN/audit.json."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from odenet_cli.commands import _common
from odenet_cli.commands._common import describe_solver
from odenet_cli.config.schema import SolverConfig
from odenet_cli.errors import RequestError
from odenet_cli.precision import EPS
from odenet_cli.terminal import Table, say_text
from odenet_cli.training.progress import Parts

PARSER = _common.Parser(__name__, __doc__, run=True, keys=["eval.batch_size"])
add = PARSER.add_argument
add(
    "--rtol",
    metavar="A,B",
    type=_common.several(_common.positive),
    default=[],
    help="adaptive methods: tolerances",
)
add(
    "--steps",
    metavar="A,B",
    type=_common.several(_common.whole(1, 100_000)),
    default=[],
    help="fixed ones: steps",
)
add("--strict", metavar="true", type=_common.one_of("true", "false"), help="exit code 1 if it is not an ODE")
_common.add_checkpoint(PARSER)
COLUMNS = (("steps", 8), ("NFE", 6), ("error", 8), ("lost", 5), ("gained", 6), ("p", 8))


@PARSER.command
def main(request: Namespace) -> int:
    folder, run = request.folder, request.config
    for rtol in request.rtol:
        if rtol < EPS[run.dtype] / 100:
            raise RequestError(f"rtol={rtol:g} is far below the resolution of {run.dtype}, the run's dtype.")
    from odenet_cli.analysis.audit import Audit, conclude, solvers_to_try
    from odenet_cli.analysis.trained import needs_solver, trained
    from odenet_cli.config.resolve import eval_batch
    from odenet_cli.files import write_json

    config = _common.overridden(run, request.overrides)
    solvers = solvers_to_try(config.solver, config.dtype, request.rtol, request.steps)
    needs_solver(folder, config)
    net = trained(folder, config, request.checkpoint, eval_batch(config))
    names = [describe_solver(solver) for solver in (config.solver, *solvers)]
    with Parts(len(names)) as parts:
        parts.begin(names[0])
        audit = Audit(net, config.solver, eval_batch(config), parts.over)
        say_text(f"{folder}: {net.weights}, {audit.about(config.data['name'])}")
        table = Table([("solver", max(map(len, names))), *COLUMNS])
        table.row(names[0], *cells(audit.baseline), "trained with")
        rows = [audit.baseline]
        for name, solver in zip(names[1:], solvers):
            parts.begin(name)
            rows.append(audit.row(solver))
            table.row(name, *cells(rows[-1]), "finer" * rows[-1]["finer"])
    verdict, worst = conclude(rows)
    sentence = explain(verdict, rows[0], worst)
    content = {"step": net.step, "samples": audit.samples, "verdict": verdict, "sentence": sentence, "rows": rows}
    with _common.journal(folder / "audit.json", write_json) as put:
        put(content)
        say_text(sentence)
    return 1 if verdict == "not an ode" and request.strict == "true" else 0


def cells(row: dict[str, Any]) -> list[str]:
    if "failed" in row:
        return [f"failed: {row['failed']}"]
    numbers = [f"{row['accepted']:g}", f"{row['nfe_forward']:.1f}", f"{row['error']:.2%}"]
    return [*numbers, str(row["lost"]), str(row["gained"]), p_value(row["p"]).removeprefix("= ")]


def explain(verdict: str, own: dict[str, Any], worst: dict[str, Any] | None) -> str:
    """Return the verdict as a sentence."""
    from odenet_cli.analysis.audit import MAX_LOSS, SIGNIFICANT

    base = solver_of(own)
    if worst is None:
        return f"undecided: no solver here is finer than {base}, with which it was trained; set steps= or rtol="
    solver, lost, p = solver_of(worst), 100 * (worst["error"] - own["error"]), p_value(worst["p"])
    if verdict == "not an ode":
        return f"not an ODE: {solver}, which is finer than {base}, loses {lost:.2f} points of accuracy (p {p})"
    none = f"no finer solver than {base} loses more than {100 * MAX_LOSS:g} points of accuracy with p < {SIGNIFICANT:g}"
    return f"still an ODE: {none} (closest: {solver}, {lost:+.2f} points of error, p {p})"


def p_value(p: float) -> str:
    """Return `= 0.002`, or `< 1e-99` below what is worth telling."""
    return f"= {p:.2g}" if p >= 1e-99 else "< 1e-99"


def solver_of(row: dict[str, Any]) -> str:
    return describe_solver(SolverConfig(**{key: row[key] for key in ("method", "rtol", "atol", "steps")}))
