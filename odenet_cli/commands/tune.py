"""Find the cheapest solver, gradient and tolerance that are accurate enough: odenet tune RUN

Measures solvers, gradients and tolerances on the run's network and training data, at its initial and at its best
weights. Prints the settings that no other setting beats, the cheapest one within the limits, and the command that
trains with it. The limits must hold at both sets of weights:

  want="gradient<=10%"                 the default
  want="gradient<=5% memory<=1GiB"     also time<=200ms, nfe<=60, state<=1%

  gradient      relative error against the gradient of the differential equation in float64, in training mode
  state         relative error of the states at the ends of the solves
  time, memory  of an eager training step on a whole batch
  nfe           function evaluations of that step, forward and backward

The errors are measured on a batch, or on its first samples where a batch takes long. The reference is refined until its
own error is far below the limits.

  odenet tune last metric=memory              minimise time (the default), nfe or memory
  odenet tune last methods=dopri5,rk4,rk38    methods of conf/solver; fixed-step methods are tried only if named
  odenet tune last all=true                   then measure every other promising setting too, to check the search

The search starts from loose tolerances; settings within the limits are then compared on growing parts of a batch, for
seconds=60 (CPU time if one thread computes). Ctrl-C stops it and prints what is known by then. Writes RUN/tune.json and
the figure RUN/figures/tune.png. Exit code 1 if no setting is within the limits."""

from __future__ import annotations

import math
import shlex
import time
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odenet_cli.commands import _common, gradcheck
from odenet_cli.config.check import leaves
from odenet_cli.config.presets import options
from odenet_cli.config.saved import load
from odenet_cli.config.schema import Config
from odenet_cli.files import write_json
from odenet_cli.registry import require
from odenet_cli.terminal import Table, say, say_text
from odenet_cli.training.progress import Parts

if TYPE_CHECKING:
    from odenet_cli.analysis.tuned_settings import Measured
    from odenet_cli.analysis.tuning import Tuner

MAX_ROWS = 24  # of the table
COLUMNS = (("ms", 8), ("NFE", 7), ("MiB", 6), ("gradient", 8), ("state", 8))
PARSER = _common.Parser(__name__, __doc__, run=True)
add = PARSER.add_argument
add("--want", metavar="LIMITS", type=_common.word, default="gradient<=10%", help="limits that a setting must meet")
add(
    "--metric",
    metavar="time|nfe|memory",
    type=_common.one_of("time", "nfe", "memory"),
    default="time",
    help="to minimise",
)
add("--methods", metavar="A,B", type=_common.several(str), help="default: the adaptive ones")
add("--seconds", metavar="N", type=_common.positive, default=60.0, help="time limit of the search; default: 60")
add(
    "--samples",
    metavar="N",
    type=_common.whole(1),
    help="number of samples for the errors; default: a batch, or 8",
)
add("--all", action="store_true", help="also measure what the search skips")
_common.add_checkpoint(PARSER)


@PARSER.command
def main(request: Namespace) -> int:
    """Measure the settings, and print the cheapest one within the limits."""
    from odenet_cli.analysis.tuned_settings import parse_want

    limits = parse_want(request.want)
    for method in request.methods or ():
        require("methods", method, [name for name in options("solver") if name != "adams"])
    wall, cpu, stopped, search = time.perf_counter(), time.process_time(), False, None
    with Parts(1) as parts:
        tuner = assemble(request, limits, parts)
        try:
            best = tuner.tune()
            if request.all:
                found, seconds, count = best, tuner.spent, len(tuner.rows)
                best = tuner.check(found)
                search = {**searched(tuner, found, best), "seconds": seconds, "settings": count, "of": len(tuner.rows)}
        except KeyboardInterrupt:
            best, stopped = tuner.best(), True
            if not tuner.whole_rows():
                raise
    spent = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    rows = marked(tuner, best)
    words = [] if best is None else train_words(request.folder, load(request.folder), best.config)
    say_text(f"{request.folder}: {tuner.net.weights}, and the initial ones; want {request.want}")
    say_text(describe_reference(tuner))
    say("")
    print_table(rows)
    print_verdict(tuner, best, words, spent["seconds"])
    print_search(search)
    content = {
        **{"step": tuner.net.step, "want": limits, "metric": request.metric, "stopped": stopped, **spent},
        **{"samples": tuner.few, "batch_size": tuner.batch_size, "reference_rtol": tuner.reference_rtol},
        **{"reference_error": tuner.reference_error, "command": words, "search": search, "rows": rows},
    }
    with _common.journal(request.folder / "tune.json", write_json) as put:
        put({key: None if value == math.inf else value for key, value in content.items()})
    draw(request.folder, rows, limits)
    return 130 if stopped else int(best is None)


def assemble(request: Namespace, limits: Mapping[str, float], parts: Parts) -> Tuner:
    """Return the tuners of a run, at its trained and at its initial weights."""
    from odenet_cli.analysis.trained import needs_float64, needs_solver, starting_state, trained
    from odenet_cli.analysis.tuning import FEW, METHODS, Tuner

    run = _common.overridden(request.config, request.overrides)
    run = replace(run, solver=replace(run.solver, budget=None))  # which would steer what is tried
    needs_float64("tune", run)
    needs_solver(request.folder, run)
    parts.begin("tune")
    net = trained(request.folder, run, request.checkpoint, request.samples or FEW)
    now = {name: value.clone() for name, value in net.model.state_dict().items()}
    return Tuner(
        net=net,
        run=run,
        weights=[now, starting_state(run, net)],
        change=gradcheck.changed,
        limits=limits,
        metric=request.metric,
        seconds=request.seconds,
        methods=request.methods or METHODS,
        samples=request.samples,
        note=parts.note,
    )


def marked(tuner: Tuner, best: Measured | None) -> list[dict[str, Any]]:
    """Return the rows as records, the fastest first: which is `best`, which the run's `own`, which are the `front`."""
    from odenet_cli.analysis.tuned_settings import front

    whole, own, key = tuner.whole_rows(), tuner.whole(tuner.own), None if best is None else best.name
    beyond = front(whole, lambda row: (row.time, row.memory, row.gradient))
    ahead = {row.name for row in beyond}
    records = [
        {**row.record(), "name": row.name, "front": row.name in ahead, "best": row.name == key, "own": row == own}
        for row in whole
    ]
    return sorted(records, key=lambda record: record["time"])


def describe_reference(tuner: Tuner) -> str:
    """Describe the reference of the errors, and what the costs are of."""
    change = (
        ""
        if tuner.reference_error == math.inf
        else f", which differs by {tuner.reference_error:.1e} from a reference ten times coarser"
    )
    return (
        f"errors: {tuner.few} training samples, against dopri5 at {tuner.reference_rtol:g} in float64{change}\n"
        f"costs: a training step on {tuner.batch_size} samples, eager"
    )


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the settings that no other beats, the best, and the run's own."""
    shown = [row for row in rows if row["front"] or row["best"] or row["own"]]
    if len(shown) > MAX_ROWS:
        kept = shown[:: -(-len(shown) // MAX_ROWS)]
        shown = [row for row in shown if row in kept or row["best"] or row["own"]]
    widths = [max(map(len, names)) for names in zip(*(row["name"] for row in shown), ("forward", "gradient"))]
    table = Table([("", 2), *zip(("forward", "gradient"), widths), *COLUMNS], left=3)
    for row in shown:
        about = "~" * row["estimate"]
        evaluations = f"{row['nfe_forward']:.0f}/{row['nfe_backward']:.0f}"
        errors = [f"{100 * row[name]:.2g} %" for name in ("gradient", "state")]
        costs = [f"{about}{row['time']:.3g}", evaluations, f"{about}{row['memory']:.3g}"]
        table.row(">" * row["best"] + "o" * row["own"], *row["name"], *costs, *errors)
    say("> cheapest within the limits   o as trained   ~ scaled up from fewer samples")
    left = sum(row not in shown for row in rows)
    if left:
        say(f"{left} more, worse than another in time, memory and gradient error, are in tune.json")


def print_verdict(tuner: Tuner, best: Measured | None, words: list[str], seconds: float) -> None:
    """Print the cheapest setting, how it compares with the run's own, and the command that trains with it."""
    own, cost = tuner.whole(tuner.own), {"time": "the time", "nfe": "the evaluations", "memory": "the memory"}
    fits = "fits" if own.fits(tuner.limits) else "does not meet the limits"
    say("")
    if best is None:
        say_text("no setting that was tried meets the limits: relax want=, raise seconds=, or name other methods=")
    elif best.name == own.name:
        say(
            f"the setting as trained is the cheapest within the limits, of {len(tuner.rows)} settings in {seconds:.0f} "
            "s"
        )
    else:
        share = getattr(best, tuner.metric) / getattr(own, tuner.metric)
        say_text(
            f"{', '.join(best.name)}: {share:.2f} of {cost[tuner.metric]} of the run's own setting, which {fits} "
            f"({len(tuner.rows)} settings, {seconds:.0f} s)"
        )
        say(f"  odenet {shlex.join(words)}")


def searched(tuner: Tuner, found: Measured | None, best: Measured | None) -> dict[str, Any]:
    """Return what the search had found, and its cost over that of the best, both timed in turn; None: it found none."""
    if found is None or best is None:
        return {"name": None, "share": None if best else 1.0}
    again = next(row for row in tuner.whole_rows() if row.name == found.name)
    return {"name": found.name, "share": getattr(again, tuner.metric) / getattr(best, tuner.metric)}


def print_search(search: dict[str, Any] | None) -> None:
    """Print how good the search was, where all else was measured too."""
    if search is not None:
        name = ", ".join(search["name"]) if search["name"] else "nothing"
        cost = "" if search["share"] is None else f": {search['share']:.3f} of the cost of the cheapest one"
        say_text(f"the search found {name} in {search['seconds']:.0f} s, among {search['settings']} settings{cost}")


def train_words(folder: Path, run: Config, config: Config) -> list[str]:
    """Return the words of a command that trains the run anew under a config that differs in solver and gradient.

    run  the config as the run began
    """
    names = ("solver", "gradient")
    before, after = (
        {key: value for name in names for key, value in leaves(getattr(c, name), name, lists=False)}
        for c in (run, config)
    )
    tied = run.solver.atol == run.solver.rtol is not None  # then config.yaml says so; of fixed steps it says neither
    differing = [key for key in after if after[key] != before[key] and not (tied and key == "solver.atol")]
    words = [f"{key}={'null' if after[key] is None else after[key]}" for key in differing]
    if run.solver.method != config.solver.method and run.name.endswith(f"-{run.solver.method}"):
        words.append(f"name={run.name.removesuffix(run.solver.method)}{config.solver.method}")
    own = [f"{key}={target}" for key, target in run.named_code().items()]  # named anew by each command
    return ["train", "--config-dir", str(folder), "--config-name", "config", *own, *words]


def draw(folder: Path, rows: list[dict[str, Any]], limits: Mapping[str, float]) -> None:
    """Draw the settings in the run's figures; where that takes no file, say so."""
    from odenet_cli.report import tuning
    from odenet_cli.rundir import short

    try:
        paths = tuning.write(folder / "figures", rows, limits, f"odenet tune {short(folder)}")
    except OSError as error:
        say(f"the figure was not drawn: {error}")
    else:
        say(f"figure: {short(paths[-1])}")
