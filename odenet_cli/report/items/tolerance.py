"""The ODE-Net trained at one tolerance and evaluated at another: is it enough if one of the two is accurate?

Chen et al. 2018, section 3, suggest training at a high accuracy and evaluating at a lower one; the reverse saves more.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from odenet_cli.markdown import MISSING, markdown_table, mean_count, three_digits
from odenet_cli.report import scales, style
from odenet_cli.report.compare import Group
from odenet_cli.report.result import Entry, Facts, Result, csv_row
from odenet_cli.report.runs import finite
from odenet_cli.report.statistics import LEVEL, Discordant, combined_p, grouped, holm
from odenet_cli.report.text import bullets, compact

TITLE = "Training and evaluating an ODE-Net at different tolerances"
LABELS = {
    "nfe_rises": "NFE of an evaluation never falls with a tighter tolerance (1: yes)",
    "largest_own_error": "largest test error of a network at its own tolerance (%)",
    "test_error": "test error, trained at {}, evaluated at {} (%)",
}
ABOUT = (
    "A row for each tolerance of the training, a column for each of the evaluation. One test sample is {one:.2g} "
    "points; the standard error of the error of one network on {samples:,} of them is about {error:.2g} points. NFE: "
    "function evaluations of a solve, a mean over the batches of test samples."
)
PANELS = (
    "a, b: both tables, a colour for each tolerance of the training. c: what a training costs, and what its gradient "
    "is worth: relative error beside float64 at {reference}, on batches of {count} training samples, at the trained "
    "weights."
)
TRAININGS = (
    "Seconds a step: the median over the records of the training, each a mean over its steps, the first left out; of "
    "data, forward, backward and update, whatever else ran on the machine. NFE: of a training step, a mean over the "
    "last epoch, forward / backward. Gradient error: the median over batches. Own : tightest: test samples that only "
    "the evaluation at the training's own tolerance has wrong, and those that only that at {tightest} has (McNemar's "
    "exact p)."
)

Case = tuple[float, float]  # (tolerance of the training, of the evaluation)
Scores = dict[Case, dict[int, dict[str, Any]]]  # case -> seed -> its row
Matrix = Mapping[Case, float]


class Training(NamedTuple):
    """Hold the networks of one training tolerance, and the rows on their gradients."""

    networks: Group
    gradients: list[dict[str, Any]]

    @property
    def gradient_error(self) -> float | None:
        """Return the median over batches and seeds; None where a solve failed, or none is done."""
        errors = [finite(row.get("error")) for row in self.gradients]
        known = [error for error in errors if error is not None]
        return statistics.median(known) if known and len(known) == len(errors) else None


Trainings = Mapping[float, Training]  # by tolerance, falling


def result(entries: Sequence[Entry], rest: dict[str, Any]) -> Result:
    """Return the report; `entries` are the trained networks, with what was measured on them."""
    done = [entry for entry in entries if entry.run.done and entry.measurements("score")]
    if not done:
        return Result(body=["Nothing could be measured: no network is trained."])
    falling = sorted(done, key=lambda entry: -trained_at(entry))
    scores, trainings = scores_of(falling), trainings_of(falling)
    error, nfe = means(scores, "error"), means(scores, "nfe_forward")
    samples = next(iter(next(iter(scores.values())).values()))["samples"]
    share = statistics.fmean(row["error"] for seeds in scores.values() for row in seeds.values())
    standard_error = 100 * (share * (1 - share) / samples) ** 0.5
    gradient = next((row for entry in done for row in entry.measurements("gradient")), {"samples": 0, "reference": 0.0})
    panels = PANELS.format(reference=compact(gradient["reference"]), count=gradient["samples"])
    tightest = min(evaluation for _, evaluation in scores)
    body = [
        *(table(error, "test error %", lambda value: f"{100 * value:.2f}"), table(nfe, "NFE", mean_count)),
        *(ABOUT.format(samples=samples, one=100 / samples, error=standard_error), "![tolerances]", panels),
        *(details(scores, trainings), TRAININGS.format(tightest=compact(tightest)), bullets(rest["notes"])),
    ]
    rows = [
        {**csv_row(entry), "trained_at": trained_at(entry)}
        | {name: value for name, value in row.items() if name != "wrong"}
        for entry in done
        for row in entry.measured
    ]
    return Result(
        body=body,
        rows=rows,
        figures={"tolerances": draw(error, nfe, costs(trainings), standard_error)},
        facts=facts(error, nfe),
        verdict=verdict(scores, trainings),
    )


def trained_at(entry: Entry) -> float:
    return float(entry.run.config["solver.rtol"])


def scores_of(entries: Sequence[Entry]) -> Scores:
    """Return the scores by tolerance of the training and of the evaluation, both falling."""
    scores: Scores = {}
    for entry in entries:
        for row in sorted(entry.measurements("score"), key=lambda row: -row["rtol"]):
            scores.setdefault((trained_at(entry), row["rtol"]), {})[entry.run.seed] = row
    return scores


def trainings_of(entries: Sequence[Entry]) -> Trainings:
    """Return the networks by the tolerance of their training, falling."""
    by_tolerance = grouped((trained_at(entry), entry) for entry in entries)
    return {
        tol: Training(
            Group(runs=[entry.run for entry in same]),
            [row for entry in same for row in entry.measurements("gradient")],
        )
        for tol, same in by_tolerance.items()
    }


def means(scores: Scores, name: str) -> dict[Case, float]:
    """Return the mean over seeds of one number."""
    return {case: statistics.fmean(row[name] for row in seeds.values()) for case, seeds in scores.items()}


def costs(trainings: Trainings) -> dict[float, tuple[float, float]]:
    """Return seconds a step and the error of the gradient, by tolerance of the training; where both are known."""
    known = {tol: (training.networks.mean("step_ms"), training.gradient_error) for tol, training in trainings.items()}
    return {tol: (ms / 1000, error) for tol, (ms, error) in known.items() if ms is not None and error is not None}


def table(values: Matrix, title: str, text: Callable[[float], str]) -> str:
    """Return one number as a matrix: a row a training, a column an evaluation."""
    columns = sorted({evaluated for _, evaluated in values}, reverse=True)
    rows = [
        [f"trained at {compact(trained)}"]
        + [text(values[trained, tol]) if (trained, tol) in values else MISSING for tol in columns]
        for trained in dict.fromkeys(trained for trained, _ in values)
    ]
    return markdown_table([title, *(f"at {compact(tol)}" for tol in columns)], rows, left=1)


def details(scores: Scores, trainings: Trainings) -> str:
    """Return what each training cost, what its gradient was worth, and what its own tolerance does to its answers."""
    tightest, rows = min(evaluated for _, evaluated in scores), []
    for tol, training in trainings.items():
        mean, error = training.networks.mean, training.gradient_error
        nfe = " / ".join(mean_count(mean(name)) for name in ("nfe_forward", "nfe_backward"))
        counts = discordant(scores, (tol, tol), (tol, tightest))
        compared = ", ".join(f"{seed.first} : {seed.second} ({seed.p:.2g})" for seed in counts) or MISSING
        errors = [MISSING if value is None else f"{100 * value:.2g}" for value in (error, mean("valid_error"))]
        ms = mean("step_ms")
        step = MISSING if ms is None else three_digits(ms / 1000)
        rows.append([compact(tol), step, nfe, *errors, compared])
    head = ["trained at", "s / step", "NFE", "gradient error %", "validation error %", "own : tightest (p)"]
    return markdown_table(head, rows, left=1)


def discordant(scores: Scores, first: Case, second: Case) -> list[Discordant]:
    """Return how many test samples only the first, and only the second of two cases has wrong, seed by seed."""
    a, b = scores.get(first, {}), scores.get(second, {})
    wrong = [(set(a[seed]["wrong"]), set(b[seed]["wrong"])) for seed in a if seed in b]
    return [Discordant(len(x - y), len(y - x)) for x, y in wrong]


def facts(error: Matrix, nfe: Matrix) -> Facts:
    rises = all(
        nfe[tighter] >= nfe[looser]
        for looser, tighter in pairwise(sorted(nfe, reverse=True))
        if looser[0] == tighter[0]
    )
    own = [100 * value for (trained, evaluated), value in error.items() if trained == evaluated]
    numbers: Facts = {"nfe_rises": float(rises), "largest_own_error": max(own, default=None)}
    return numbers | {f"test_error/{compact(t)}/{compact(e)}": 100 * value for (t, e), value in error.items()}


def verdict(scores: Scores, trainings: Trainings) -> str:
    """Return, in two sentences, whether accurate training is enough, and whether accurate evaluation is."""
    cheap, dear = max(trainings), min(trainings)
    loose, tight = max(evaluated for _, evaluated in scores), min(evaluated for _, evaluated in scores)
    best = (dear, tight)
    if cheap == dear or not {(dear, loose), (cheap, tight), best} <= scores.keys():
        return ""
    error, nfe = means(scores, "error"), means(scores, "nfe_forward")
    p = holm([combined_p(discordant(scores, case, best)) for case in ((dear, loose), (cheap, tight))])
    seeds = len(scores[cheap, tight])

    def difference(case: Case, p: float) -> str:
        test = f"McNemar's p = {p:.2g}"
        if p > LEVEL:
            return f"no difference that the test samples show ({test})"
        # The samples tell these networks apart; only further seeds would tell the tolerance from chance.
        chance = ", of one training each, which another seed changes too" if case[0] != dear and seeds == 1 else ""
        return f"{'more' if error[case] > error[best] else 'fewer'} errors than by both accurately ({test}){chance}"

    ratio = [trainings[tol].networks.mean("step_ms") for tol in (cheap, dear)]
    time = f" for {ratio[0] / ratio[1]:.2g} of the time of a step" if ratio[0] and ratio[1] else ""
    return (
        f"Trained at {compact(dear)} and evaluated at {compact(loose)}, the ODE-Net has {100 * error[dear, loose]:.2f} "
        f"% instead of {100 * error[best]:.2f} % at {compact(tight)}, for {mean_count(nfe[dear, loose])} instead of "
        f"{mean_count(nfe[best])} function evaluations: {difference((dear, loose), p[0])}. "
        f"Trained at {compact(cheap)} and evaluated at {compact(tight)} it has {100 * error[cheap, tight]:.2f} %{time}"
        f": {difference((cheap, tight), p[1])}."
    )


# The drawing.

MAX_SHIFT = 0.16  # decades between the first and the last line, that points of equal value stay visible


@style.styled
def draw(
    error: Matrix, nfe: Matrix, costs: Mapping[float, tuple[float, float]], standard_error: float
) -> Figure | None:
    """Draw test error and evaluations against the tolerance of the evaluation, and what a training costs; colour is
    the tolerance of the training.

    error   as a share; `standard_error` in per cent
    costs   tolerance of the training -> (seconds a step, relative error of its gradient)
    """
    trained = list(dict.fromkeys(training for training, _ in error))
    if len(trained) < 2:
        return None
    figure, ((error_axes, nfe_axes, gradient_axes),) = style.panel_grid(3, 3, style.HEIGHT + 0.35)
    norm = LogNorm(min(trained), max(trained))
    looks = {
        tol: {"color": style.SHADES(1 - norm(tol)), "marker": mark} for tol, mark in zip(trained, style.MARKERS * 2)
    }
    draw_lines(error_axes, {case: 100 * value for case, value in error.items()}, looks)
    draw_lines(nfe_axes, nfe, looks)
    mean = 100 * sum(error.values()) / len(error)
    band: style.Look = {"color": style.PALE, "alpha": 0.35, "linewidth": 0, "zorder": 0}
    error_axes.axhspan(mean - standard_error, mean + standard_error, **band)
    error_axes.set(title="a   test error (%)")
    nfe_axes.set(title="b   NFE of an evaluation", yscale="log")
    scales.log_ticks(nfe_axes.yaxis, list(nfe.values()), 100)
    for tol, (seconds, value) in costs.items():
        gradient_axes.plot(seconds, 100 * value, linestyle="", markersize=4.5, **looks[tol])
    gradient_axes.set(title="c   gradient error (%)", xlabel="seconds a training step")
    scales.cost_limits(gradient_axes, [100 * value for _, value in costs.values()])
    gradient_axes.set_xlim(0, 1.12 * max((seconds for seconds, _ in costs.values()), default=1))
    entries = [(compact(tol), look | {"linewidth": 1}) for tol, look in looks.items()]
    style.legend(figure, entries, "trained at tolerance; the band in a is one standard error of a test error, each way")
    return figure


def draw_lines(axes: Axes, values: Matrix, looks: Mapping[float, style.Look]) -> None:
    """Draw a line for each training, each shifted a little, the tighter evaluation to the right."""
    for place, (trained, look) in enumerate(looks.items()):
        line = {tol: value for (training, tol), value in values.items() if training == trained}
        shift = 10 ** (MAX_SHIFT * (0.5 - place / max(1, len(looks) - 1)))
        axes.plot([tol * shift for tol in line], list(line.values()), linewidth=1, markersize=3.2, **look)
    axes.set(xscale="log", xlabel="tolerance of the evaluation")
    scales.decade_ticks(axes.xaxis)
    axes.minorticks_off()
    axes.invert_xaxis()
