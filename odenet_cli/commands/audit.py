"""Is a trained net still an ODE under finer solvers? odenet audit RUN"""

from __future__ import annotations

from typing import Any

from odenet_cli.commands._journal import Journal
from odenet_cli.commands._points import choice, numbers, open_run, own_class, read, spelled
from odenet_cli.config.schema import SolverConfig
from odenet_cli.errors import RequestError
from odenet_cli.precision import EPS
from odenet_cli.training.progress import say

HELP = """usage: odenet audit RUN [key=value ...]

The accuracy of the run's best checkpoint under many solvers, each held against the solver it was trained with, on the
same samples: the test samples or, where those are fewer than 1,000, all there are. By default euler, midpoint and rk4
in 1, 2, 4, 8 and 16 steps, dopri5 at 1e-1 to 1e-5, the training method and what lies beyond its setting.

The net is not an ODE any more where a finer solver loses more than 0.2 points of accuracy with p < 0.01 (McNemar's
exact test). Finer than the solver trained with is one with a tighter tolerance or, where one of the two has no
tolerance, one that takes more steps with a method of the same or a higher order.

  odenet audit RUN
  odenet audit RUN steps=1,3,9 rtol=1e-3,1e-6

  rtol=1e-1,1e-3   steps=1,2,4   checkpoint=best|last
  strict=true      exit code 1 where it is not an ODE
  eval.batch_size, data.root, data.path, data.download, device
  model.target=package.module:Class   to be said again where the run has a class of your own

RUN/audit.json holds the table and the verdict."""
KEYS = ("eval.batch_size", "data.root", "data.path", "data.download", "device", "model.target")
OWN = ("rtol", "steps", "checkpoint", "strict")
MOST = 100_000  # steps
COLUMNS = {"steps": 8, "NFE": 8, "error": 10, "lost": 7, "gained": 8, "p": 10}


def main(argv: list[str]) -> int:
    """Try every solver, then say what they tell."""
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP)
        return 0 if argv else 2
    folder, run = open_run(argv)
    words = read(argv[1:], (*OWN, *KEYS), several=("rtol", "steps"))
    which, strict = choice(words, "checkpoint", ("best", "last")), choice(words, "strict", ("false", "true"))
    tolerances, steps = numbers(words, "rtol", ()), numbers(words, "steps", (), whole=True, most=MOST)
    for value in tolerances:
        if value < EPS[run.dtype] / 100:
            raise RequestError(f"rtol={value:g} is far below the resolution of {run.dtype}, the run's dtype.")
    own_class(run, words)
    from odenet_cli.analysis.audit import Audit
    from odenet_cli.analysis.sanity_check import judged, matrix
    from odenet_cli.analysis.trained import eval_batch, needs_solver, trained
    from odenet_cli.files import write_json
    from odenet_cli.request.points import altered

    config = altered(run, {key: values[0] for key, values in words.items()})
    solvers = matrix(config.solver, config.dtype, tolerances, steps)
    needs_solver(folder, config)
    net = trained(folder, config, which, eval_batch(config))
    audit = Audit(net, config.solver, eval_batch(config))
    width = max(len(spelled(one)) for one in (config.solver, *solvers))
    say(f"{folder}: {net.weights}, {audit.about(config.data['name'])}")
    say(f"{'solver':<{width}}" + "".join(f"{head:>{size}}" for head, size in COLUMNS.items()))
    say(f"{spelled(config.solver):<{width}}{cells(audit.first)}  trained with")
    rows = [audit.first]
    for solver in solvers:
        rows.append(audit.row(solver))
        say(f"{spelled(solver):<{width}}{cells(rows[-1])}{'  finer' * rows[-1]['finer']}")
    verdict, worst = judged(rows)
    sentence = told(verdict, rows[0], worst)
    content = {"step": net.step, "samples": audit.samples, "verdict": verdict, "sentence": sentence, "rows": rows}
    with Journal(folder / "audit.json") as journal:
        journal.keep(write_json, content)
        say(sentence)
    return 1 if verdict == "not an ode" and strict == "true" else 0


def cells(row: dict[str, Any]) -> str:
    """The numbers of a row."""
    if "failed" in row:
        return f"  failed: {row['failed']}"
    made = [f"{row['accepted']:g}", f"{row['nfe_forward']:.1f}", f"{row['error']:.2%}"]
    made += [str(row["lost"]), str(row["gained"]), chance(row["p"]).removeprefix("= ")]
    return "".join(f"{cell:>{size}}" for cell, size in zip(made, COLUMNS.values()))


def told(verdict: str, own: dict[str, Any], worst: dict[str, Any] | None) -> str:
    """The verdict in words."""
    from odenet_cli.analysis.sanity_check import LOSS, SIGNIFICANT

    base = named(own)
    if worst is None:
        return f"cannot be told: no solver here is finer than {base}, which it was trained with; say steps= or rtol="
    lost, p = 100 * (worst["error"] - own["error"]), chance(worst["p"])
    if verdict == "not an ode":
        return f"not an ODE: {named(worst)}, a finer solver than {base}, loses {lost:.2f} points of accuracy (p {p})"
    none = f"no finer solver than {base} loses more than {100 * LOSS:g} points of accuracy with p < {SIGNIFICANT:g}"
    return f"still an ODE: {none} (nearest to it {named(worst)}, {lost:+.2f} points of error, p {p})"


def chance(p: float) -> str:
    """`= 0.002`, and `< 1e-99` where there is no more to say."""
    return f"= {p:.2g}" if p >= 1e-99 else "< 1e-99"


def named(row: dict[str, Any]) -> str:
    """The solver of a row."""
    return spelled(SolverConfig(**{key: row[key] for key in ("method", "rtol", "atol", "steps")}))
