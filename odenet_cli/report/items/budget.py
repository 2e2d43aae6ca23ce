"""Training under a budget of function evaluations beside fixed tolerances: is the budget met, and what does it cost?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from odenet_cli.markdown import MISSING, join_words, markdown_table
from odenet_cli.report import scales, style
from odenet_cli.report.compare import Group
from odenet_cli.report.result import Entry, Facts, Result, csv_row
from odenet_cli.report.runs import Run
from odenet_cli.report.statistics import Spread, grouped, over_seeds, spread
from odenet_cli.report.table import plus_minus
from odenet_cli.report.text import bullets, compact

TITLE = "Function evaluations as a budget, beside fixed tolerances"
LABELS = {
    "largest_miss": "largest distance of a seed's mean NFE from its budget",
    "least_excess": "test error above that of the best fixed tolerance near by, lower end of the interval (points)",
    "test_error": "test error, {} (%)",
    "mean_nfe": "mean NFE of a training step, {}",
}
SAME = 2.0  # evaluations: means so close are called the same; an attempted step of dopri5 takes 6
ABOUT = (
    "NFE: function evaluations of a forward solve, the mean over all steps of training, then over the seeds, with the "
    "least and the most of a seed. Beside each budget the fixed tolerance of the smallest test error among those whose "
    "mean NFE lies within {same:g} of its own: the choice is by test error, so it favours the fixed ones. Difference: "
    "test error above theirs in points, seed by seed, the mean and its 95 % interval by Student's t."
)
PANELS = (
    "a: test error against the mean NFE of training, budgets shifted to the left and tolerances to the right by a "
    "quarter; bars are standard deviations over the seeds, small marks the seeds. b, c: NFE and tolerance over the "
    "first seed's training, each point a mean over the steps between two records; for the tolerance the value at the "
    "record."
)
NUMBERS = ("error", "loss", "valid_error", "nfe_test", "time_s", "parameters")

Case = tuple[str, float]  # (key, value): of solver.budget or solver.rtol
Cases = Mapping[Case, list[Run]]


def result(entries: Sequence[Entry], rest: dict[str, Any]) -> Result:
    """Return the report; `entries` are trainings, one for each seed of a budget or a tolerance."""
    cases = dict(sorted(grouped((case_of(entry.run), entry.run) for entry in entries if entry.run.done).items()))
    if not cases:
        return Result(body=["Nothing could be measured: no network is trained."])
    body = [table(cases), ABOUT.format(same=SAME), "![budget]", PANELS, bullets(rest["notes"])]
    rows = [
        {**csv_row(e, NUMBERS), **(dict(zip(("key", "value"), case_of(e.run))) | {"mean_nfe": mean_nfe(e.run)})}
        if e.run.done
        else csv_row(e)
        for e in entries
    ]
    return Result(body=body, rows=rows, figures={"budget": draw(cases)}, facts=facts(cases), verdict=verdict(cases))


def case_of(run: Run) -> Case:
    """Return the run's budget or tolerance."""
    budget = run.config.get("solver.budget")
    return ("solver.rtol", float(run.config["solver.rtol"])) if budget is None else ("solver.budget", float(budget))


def mean_nfe(run: Run) -> float:
    """Return the evaluations of a forward solve, the mean over the steps of training."""
    return float(run.record["cost"]["evaluations"]["forward"] / run.final["step"])


def evaluations(runs: Sequence[Run]) -> Spread:
    means = over_seeds([(run.seed, mean_nfe(run)) for run in runs], "nfe_forward")
    assert means is not None
    return means


def errors(runs: Sequence[Run]) -> Spread | None:
    return Group(runs=list(runs)).spread("error")


def rival(cases: Cases, budget: Case) -> Case | None:
    """Return the fixed tolerance with the smallest test error among those of the same mean NFE; None without one."""
    mean = evaluations(cases[budget]).mean
    near = [
        (error.mean, case)
        for case, runs in cases.items()
        if case[0] == "solver.rtol" and abs(evaluations(runs).mean - mean) <= SAME and (error := errors(runs))
    ]
    return min(near)[1] if near else None


def excess(cases: Cases, budget: Case) -> Spread | None:
    """Return how far the test error of a budget is above its rival's, in points, seed by seed; None without a rival.

    Runs of one seed begin with the same weights and batches, and err alike.
    """
    other = rival(cases, budget)
    pairs = [(run, twin) for run in cases[budget] for twin in cases[other] if run.seed == twin.seed] if other else []
    known = [(run.value("error"), twin.value("error")) for run, twin in pairs]
    differences = [100 * (a - b) for a, b in known if a is not None and b is not None]
    return spread(differences) if differences else None


def lowest(difference: Spread) -> float:
    """Return the lower end of the interval; where all seeds are equal there is none, and it is the mean."""
    return difference.mean if difference.low is None else difference.low


def budgets(cases: Cases) -> list[Case]:
    return [case for case in cases if case[0] == "solver.budget"]


def label(case: Case) -> str:
    return f"{case[0]}={compact(case[1])}"


def table(cases: Cases) -> str:
    """Return mean NFE and test error of each budget and tolerance, by the mean; beside a budget its rival."""
    rows = []
    for case, runs in sorted(cases.items(), key=lambda item: evaluations(item[1]).mean):
        means = [mean_nfe(run) for run in runs]
        other, more = (rival(cases, case), excess(cases, case)) if case[0] == "solver.budget" else (None, None)
        difference = ""
        if more is not None:
            difference = f"{more.mean:+.2f}" + ("" if more.low is None else f" ({more.low:+.2f} to {more.high:+.2f})")
        name = label(other) if other else MISSING if case in budgets(cases) else ""
        nfe = [f"{evaluations(runs).mean:.2f}", f"{min(means):.2f} to {max(means):.2f}"]
        rows.append([label(case), str(len(runs)), *nfe, plus_minus(errors(runs), 2, 100), name, difference])
    head = ["", "seeds", "mean NFE", "of a seed", "test error %", "best fixed near by", "difference"]
    return markdown_table(head, rows, left=1)


def facts(cases: Cases) -> Facts:
    steered = budgets(cases)
    lows = [lowest(more) for case in steered if (more := excess(cases, case)) and more.n > 1]
    numbers: Facts = {
        "largest_miss": max((abs(mean_nfe(run) - c[1]) for c in steered for run in cases[c]), default=None),
        "least_excess": max(lows) if len(lows) == len(steered) > 0 else None,
    }
    for case, runs in cases.items():
        error = errors(runs)
        numbers[f"test_error/{label(case)}"] = 100 * error.mean if error else None
        numbers[f"mean_nfe/{label(case)}"] = evaluations(runs).mean
    return numbers


def verdict(cases: Cases) -> str:
    """Return, in two sentences, whether the wishes are kept, and what steering costs in test error."""
    steered, numbers = budgets(cases), facts(cases)
    compared = [(case, more) for case in steered if (more := excess(cases, case)) is not None]
    if not steered or len(compared) < len(steered):
        return ""
    asked = ", ".join(compact(case[1]) for case in steered)
    means = ", ".join(f"{evaluations(cases[case]).mean:.2f}" for case in steered)
    points = ", ".join(f"{more.mean:+.2f}" for _, more in compared)
    apart = [label(case) for case, more in compared if lowest(more) > 0]
    known = ""
    if numbers["least_excess"] is not None:
        known = f": more than the seeds explain at {join_words(apart)}" if apart else ": no more than the seeds explain"
    return (
        f"Asked for {asked} evaluations a step, training took {means}; no seed was off by more than "
        f"{numbers['largest_miss']:.2f}. Its test error is {points} points above that of the best fixed tolerance of "
        f"the same mean{known}."
    )


# The drawing.

LOOKS: dict[str, style.Look] = {
    "solver.budget": {"color": style.CYCLE[0], "marker": "o"},
    "solver.rtol": {"color": style.CYCLE[1], "marker": "s"},
}
SHIFT = {"solver.budget": -0.25, "solver.rtol": 0.25}  # evaluations, that equal means stay apart


@style.styled
def draw(cases: Cases) -> Figure:
    """Draw test error against mean NFE, and NFE and tolerance over the training of the first seed."""
    figure, ((error_axes, nfe_axes, rtol_axes),) = style.panel_grid(3, 3, style.HEIGHT + 0.35)
    for case, runs in cases.items():
        look, error, nfe = LOOKS[case[0]], errors(runs), evaluations(runs)
        first = min(runs, key=lambda run: run.seed)
        if error is not None:
            shift = SHIFT[case[0]]
            style.point(error_axes, (nfe.mean + shift, 100 * error.mean), (0, 100 * (error.sd or 0)), **look)
            at = [mean_nfe(run) + shift for run in runs], [100 * (run.value("error") or 0) for run in runs]
            error_axes.plot(*at, **look | {"linestyle": "", "markersize": 2, "alpha": 0.5})
        draw_path(nfe_axes, first, "nfe_forward", look["color"])
        if case[0] == "solver.budget":
            draw_path(rtol_axes, first, "rtol", look["color"], compact(case[1]))
    error_axes.set(title="a   test error (%)", xlabel="mean NFE of a training step")
    error_axes.set_ylim(bottom=0)
    nfe_axes.set(title="b   NFE", xlabel="training step")
    rtol_axes.set(title="c   tolerance", xlabel="training step", yscale="log")
    scales.decade_ticks(rtol_axes.yaxis)
    used = dict.fromkeys(key for key, _ in cases)
    style.legend(figure, [(key, LOOKS[key] | {"linewidth": 1}) for key in used])
    return figure


def draw_path(axes: Axes, run: Run, name: str, color: str, text: str = "") -> None:
    """Draw a number of the training records, with a text at its end."""
    points = [(record["step"], record[name]) for record in run.records("train") if name in record]
    axes.plot(*zip(*points), color=color, linewidth=0.9)
    if text and points:
        axes.annotate(text, points[-1], xytext=(3, 0), textcoords="offset points", va="center", fontsize=6)
