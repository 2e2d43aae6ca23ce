"""The ODE-Net trained at one tolerance and evaluated at another: is it enough to do one of the two accurately?

Chen et al. 2018, section 3, think of training at a high accuracy and evaluating at a lower one; the reverse saves more.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from odenet_cli.report.items._tolerance import draw
from odenet_cli.report.mcnemar import LEVEL, Discordant, holm, p_of
from odenet_cli.report.result import Entry, Result, row_of
from odenet_cli.report.runs import Run, number
from odenet_cli.report.table import aligned
from odenet_cli.report.text import NONE, bullets, count, digits, plain

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
    "data, forward, backward and update, whatever else ran on the machine. NFE: of a training step at the end, forward "
    "/ backward. Gradient error: the median over batches. Own : tightest: test samples that only the evaluation at the "
    "training's own tolerance has wrong, and those that only that at {tightest} has (McNemar's exact p)."
)

Cells = dict[tuple[float, float], dict[int, dict[str, Any]]]  # (training, evaluation) -> seed -> its row


class Training(NamedTuple):
    """The networks of one training tolerance: their runs, and the rows on their gradients."""

    runs: list[Run]
    gradients: list[dict[str, Any]]

    @property
    def gradient_error(self) -> float | None:
        """Median over batches and seeds; None where a solve failed, or none is done."""
        errors = [number(row.get("error")) for row in self.gradients]
        known = [error for error in errors if error is not None]
        return statistics.median(known) if known and len(known) == len(errors) else None

    def mean(self, name: str) -> float | None:
        """Over the seeds, of a number of the run or of its `step_ms`."""
        values = [run.step_ms if name == "step_ms" else run.value(name) for run in self.runs]
        known = [value for value in values if value is not None]
        return statistics.fmean(known) if known else None


def result(entries: Sequence[Entry], rest: dict[str, Any]) -> Result:
    """`entries` are the trained networks, with what was measured on them."""
    done = [entry for entry in entries if entry.run.done and entry.of("score")]
    title = "Training and evaluating an ODE-Net at different tolerances"
    if not done:
        return Result(title=title, body=["Nothing could be measured: no network is trained."], rows=[])
    cells, trainings = matrix(done), by_tolerance(done)
    first = next(iter(next(iter(cells.values())).values()))
    about = {"samples": first["samples"], "one": 100 / first["samples"]}
    share = statistics.fmean(row["error"] for same in cells.values() for row in same.values())
    about["error"] = 100 * (share * (1 - share) / first["samples"]) ** 0.5
    gradient = next((row for entry in done for row in entry.of("gradient")), {"samples": 0, "reference": 0.0})
    panels = PANELS.format(reference=plain(gradient["reference"]), count=gradient["samples"])
    tightest = min(evaluation for _, evaluation in cells)
    body = [table(cells, "error"), table(cells, "nfe_forward"), ABOUT.format(**about), "![tolerances]", panels]
    body += [details(cells, trainings), TRAININGS.format(tightest=plain(tightest)), bullets(rest["notes"])]
    rows = [
        {**row_of(entry, ()), "trained_at": entry.run.config["solver.rtol"]}
        | {name: value for name, value in row.items() if name != "wrong"}
        for entry in done
        for row in entry.measured
    ]
    return Result(
        title=title,
        body=body,
        rows=rows,
        figures={"tolerances": draw(errors(cells, "error"), errors(cells, "nfe_forward"), costs(trainings), about)},
        facts=facts(cells),
        verdict=verdict(cells, trainings),
    )


def matrix(entries: Sequence[Entry]) -> Cells:
    """Return the scores by tolerance of the training and of the evaluation, both falling."""
    cells: Cells = {}
    for entry in sorted(entries, key=lambda entry: -entry.run.config["solver.rtol"]):
        for row in sorted(entry.of("score"), key=lambda row: -row["rtol"]):
            cells.setdefault((entry.run.config["solver.rtol"], row["rtol"]), {})[entry.run.seed] = row
    return cells


def by_tolerance(entries: Sequence[Entry]) -> dict[float, Training]:
    """Return the networks by the tolerance of their training, falling."""
    found: dict[float, Training] = {}
    for entry in sorted(entries, key=lambda entry: -entry.run.config["solver.rtol"]):
        training = found.setdefault(entry.run.config["solver.rtol"], Training([], []))
        training.runs.append(entry.run)
        training.gradients.extend(entry.of("gradient"))
    return found


def errors(cells: Cells, name: str) -> dict[tuple[float, float], float]:
    """Return the mean over seeds of one number, by both tolerances."""
    return {key: statistics.fmean(row[name] for row in seeds.values()) for key, seeds in cells.items()}


def costs(trainings: Mapping[float, Training]) -> dict[float, tuple[float, float]]:
    """Return seconds a step and the error of the gradient, by tolerance of the training; where both are known."""
    known = {tol: (one.mean("step_ms"), one.gradient_error) for tol, one in trainings.items()}
    return {tol: (ms / 1000, error) for tol, (ms, error) in known.items() if ms is not None and error is not None}


def table(cells: Cells, name: str) -> str:
    """Return the matrix of one number: a row a training, a column an evaluation."""
    means = errors(cells, name)
    columns = sorted({evaluation for _, evaluation in cells}, reverse=True)
    said = {"error": lambda value: f"{100 * value:.2f}", "nfe_forward": count}[name]
    head = [{"error": "test error %", "nfe_forward": "NFE"}[name], *(f"at {plain(tol)}" for tol in columns)]
    rows = []
    for trained in dict.fromkeys(trained for trained, _ in cells):
        values = [means.get((trained, tol)) for tol in columns]
        rows.append([f"trained at {plain(trained)}", *(NONE if value is None else said(value) for value in values)])
    return aligned([*head, ""], [[*row, ""] for row in rows], left=1)


def details(cells: Cells, trainings: Mapping[float, Training]) -> str:
    """Return what each training cost, what its gradient was worth, and what its own tolerance does to its answers."""
    tightest, rows = min(evaluation for _, evaluation in cells), []
    for tol, one in trainings.items():
        seconds, error = one.mean("step_ms"), one.gradient_error
        nfe = " / ".join(count(one.mean(f"nfe_{way}")) for way in ("forward", "backward"))
        valid, apart = one.mean("valid_error"), discordant(cells, (tol, tol), (tol, tightest))
        compared = ", ".join(f"{seed.first} : {seed.second} ({seed.p:.2g})" for seed in apart) or NONE
        cost = [NONE if seconds is None else digits(seconds / 1000), nfe]
        worth = [NONE if value is None else f"{100 * value:.2g}" for value in (error, valid)]
        rows.append([plain(tol), *cost, *worth, compared])
    head = ["trained at", "s / step", "NFE", "gradient error %", "validation error %", "own : tightest (p)"]
    return aligned(head, rows, left=1)


def discordant(cells: Cells, first: tuple[float, float], second: tuple[float, float]) -> list[Discordant]:
    """Return how many test samples only the first, and only the second of two cells has wrong, seed by seed."""
    mine, theirs = cells.get(first, {}), cells.get(second, {})
    wrong = [(set(mine[seed]["wrong"]), set(theirs[seed]["wrong"])) for seed in mine if seed in theirs]
    return [Discordant(len(a - b), len(b - a)) for a, b in wrong]


def facts(cells: Cells) -> dict[str, float | None]:
    """Return what was found, in numbers."""
    error, nfe = errors(cells, "error"), errors(cells, "nfe_forward")
    own = [100 * error[key] for key in cells if key[0] == key[1]]
    rises = all(
        nfe[trained, tighter] >= nfe[trained, looser]
        for trained, looser in cells
        for tighter in [max((tol for row, tol in cells if row == trained and tol < looser), default=looser)]
    )
    found: dict[str, float | None] = {
        "NFE of an evaluation never falls with a tighter tolerance (1: yes)": float(rises),
        "largest test error of a network at its own tolerance (%)": max(own, default=None),
    }
    for (trained, evaluated), value in error.items():
        found[f"test error, trained at {plain(trained)}, evaluated at {plain(evaluated)} (%)"] = 100 * value
    return found


def verdict(cells: Cells, trainings: Mapping[float, Training]) -> str:
    """Return, in two sentences, whether accurate training is enough, and whether accurate evaluation is."""
    cheap, dear = max(trainings), min(trainings)
    loose, tight = max(evaluation for _, evaluation in cells), min(evaluation for _, evaluation in cells)
    best = (dear, tight)
    if cheap == dear or not {(dear, loose), (cheap, tight), best} <= cells.keys():
        return ""
    error, nfe = errors(cells, "error"), errors(cells, "nfe_forward")
    p = holm([p_of(discordant(cells, other, best)) for other in ((dear, loose), (cheap, tight))])

    def differs(other: tuple[float, float], p: float) -> str:
        told = f"McNemar's p = {p:.2g}"
        if p > LEVEL:
            return f"no difference that the test samples show ({told})"
        return f"{'more' if error[other] > error[best] else 'fewer'} errors than by both accurately ({told})"

    ratio = [one.mean("step_ms") for one in (trainings[cheap], trainings[dear])]
    time = f" for {ratio[0] / ratio[1]:.2g} of the time of a step" if ratio[0] and ratio[1] else ""
    return (
        f"Trained at {plain(dear)} and evaluated at {plain(loose)}, the ODE-Net has {100 * error[dear, loose]:.2f} % "
        f"instead of {100 * error[best]:.2f} % at {plain(tight)}, for {count(nfe[dear, loose])} instead of "
        f"{count(nfe[best])} function evaluations: {differs((dear, loose), p[0])}. "
        f"Trained at {plain(cheap)} and evaluated at {plain(tight)} it has {100 * error[cheap, tight]:.2f} %{time}: "
        f"{differs((cheap, tight), p[1])}."
    )
