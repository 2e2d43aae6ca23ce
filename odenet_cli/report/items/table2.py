"""Table 2 of Chen et al. 2018: latent ODE, RNN and Δt-RNN predict spirals beyond the window that was observed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from odenet_cli.report import selection, spirals, validation
from odenet_cli.report.items._table2 import curves, scores
from odenet_cli.report.result import Entry, Result
from odenet_cli.report.runs import number
from odenet_cli.report.spirals import FURTHER, ODE, VALID, Choices
from odenet_cli.report.spread import over_seeds
from odenet_cli.report.table import aligned, interval, parameters, plus_minus, runs
from odenet_cli.report.text import NONE, bullets, count, digits

KEYS = {"observed": "data.observed", "lr": "optim.lr", "kl_weight": "model.kl"}
SIMPLE = {"last value": "rmse_last_value", "constant velocity": "rmse_velocity"}
NUMBERS = (
    *("rmse_further_clean", "rmse_further_noisy", "relative_further", "rmse_familiar_clean", "rmse_familiar_noisy"),
    *("rmse_window_clean", "rmse_window_noisy", *SIMPLE.values(), "loss", "parameters", "nfe_forward", "nfe_backward"),
    *("saved_mib", "best_epoch", "time_s"),
)
CLEAN = (
    "RMSE of the 100 times after the window against the true path (clean), mean ± standard deviation over seeds; by "
    "how many of the 100 points in the window were seen. Beside it the paper's number, where it has one. Last value "
    "and constant velocity (a straight line through the last quarter of the window) know no model."
)
NOISY = "The same against noisy targets."
DETAILS = (
    "Of the setting shown. / sd: the RMSE (clean) over the standard deviation of the targets. Familiar: after "
    "the window, but at states that lie in windows of training trajectories; elsewhere the prediction is an "
    "extrapolation in space too. Window: inside the window. NFE: field evaluations of a training step."
)
TRIED = (
    "Settings (the learning rate; the weight of the KL divergence where it is not 1), by the RMSE on the validation "
    "trajectories (noisy targets, after the window, mean over seeds):"
)
PACE = "The same weights, when a step of the free run is one time to predict (`model.pace=time`):"
SCORES = "Mean and standard deviation over seeds; crosses are the paper's numbers, whose targets it does not describe."
CURVES = (
    "RMSE after the window on validation trajectories (noisy targets) over training; the mean over seeds, thick at the "
    "setting that was chosen, thin at the others; the range over seeds is shaded."
)


def result(entries: Sequence[Entry], rest: dict[str, Any]) -> Result:
    """`rest["paper"]` holds the paper's numbers by model and points, `rest["notes"]` the free choices."""
    cells, chosen = spirals.sorted_out(entries)
    models = list(dict.fromkeys(entry.row for entry in entries))
    sizes = sorted({size for _, size in cells})
    keys = [(model, size) for model in models for size in sizes]
    found = {key: chosen[key] for key in keys if key in chosen}
    body = [CLEAN, errors(found, models, sizes, rest["paper"], FURTHER), NOISY, errors(found, models, sizes, {}, VALID)]
    body += ["![scores]", SCORES, bullets(rest["notes"])]
    if found:
        tried = {(model, str(size)): choice for (model, size), choice in found.items()}
        body += ["## In detail", DETAILS, details(found), TRIED, selection.tried(tried, ["", "points"], left=1)]
        body += [PACE, paced] if (paced := paces(found, models, sizes)) else []
        body += ["## Training", CURVES, "![curves]"]
    rows = selection.rows(entries, found, spirals.valid, NUMBERS, KEYS)
    for row, entry in zip(rows, entries):
        row |= {f"{FURTHER}_pace_time": pace[FURTHER] for pace in entry.measured if FURTHER in pace}
    return Result(
        title="Table 2, latent ODE against RNNs on spirals",
        body=body,
        rows=rows,
        figures={"scores": scores(found, models, sizes, rest["paper"]), "curves": curves(cells, found, sizes)},
        facts=facts(found, models, sizes),
    )


def errors(
    found: Choices, models: Sequence[str], sizes: Sequence[int], paper: Mapping[str, Mapping[int, str]], name: str
) -> str:
    """The error `name`, a model a row as in the paper, whose numbers stand beside it."""
    quoted = [model for model in models if paper.get(model)]
    head = [""]
    for size in sizes:
        head += [f"{size}/100", *["paper"] * bool(quoted)]
    rows = []
    for model in models:
        cells = [model]
        for size in sizes:
            choice = found.get((model, size))
            cells.append(plus_minus(choice.group.spread(name), 3) if choice else "not done")
            cells += [paper.get(model, {}).get(size, NONE)] * bool(quoted)
        rows.append([*cells, seeds(found, model)])
    if name == FURTHER:
        for title, simple in SIMPLE.items():
            cells = [title]
            for size in sizes:
                known = [choice.group.mean(simple) for key, choice in found.items() if key[1] == size]
                cells += [f"{known[0]:.3f}" if known and known[0] else NONE, *[NONE] * bool(quoted)]
            rows.append([*cells, ""])
    return aligned([*head, "runs (seeds)"], rows, left=1)


def seeds(found: Choices, model: str) -> str:
    """How many runs each number of this model is of."""
    return "; ".join(dict.fromkeys(runs(choice.group) for key, choice in found.items() if key[0] == model)) or "0"


def details(found: Choices) -> str:
    head = ["", "points", "clean", "95 % interval", "/ sd", "familiar", "window", "parameters", "NFE", "min", "setting"]
    rows = []
    for (model, size), choice in found.items():
        group = choice.group
        cells = [model, str(size), plus_minus(group.spread(FURTHER), 3), interval(group.spread(FURTHER), 3)]
        names = ("relative_further", "rmse_familiar_clean", "rmse_window_clean")
        cells += [plus_minus(group.spread(name), 3) for name in names]
        cells += [parameters(group), count(group.mean("nfe_forward") or None)]
        seconds = group.mean("time_s")
        rows.append([*cells, digits(seconds / 60 if seconds else None), choice.setting])
    return aligned(head, rows, left=1)


def paces(found: Choices, models: Sequence[str], sizes: Sequence[int]) -> str:
    """The error of the free run at another pace beside that of the table; empty where it was not measured."""
    rows = []
    for model in models:
        cells = [model]
        for size in sizes:
            choice = found.get((model, size))
            measured = [(cell.run.seed, row) for cell in choice.entries for row in cell.measured] if choice else []
            values = [(seed, number(row.get(FURTHER))) for seed, row in measured]
            cells.append(plus_minus(over_seeds(values, FURTHER), 3))
        if set(cells[1:]) != {NONE}:
            rows.append([*cells, "clean"])
    return aligned(["", *(f"{size}/100" for size in sizes), "targets"], rows, left=1) if rows else ""


def facts(found: Choices, models: Sequence[str], sizes: Sequence[int]) -> dict[str, float | None]:
    """What was found, in numbers."""
    made: dict[str, float | None] = {}
    mean = {key: choice.group.mean(FURTHER) for key, choice in found.items()}
    for size in sizes:
        for model in models:
            made[f"RMSE of {model}, {size} points"] = mean.get((model, size))
        ours, rivals = mean.get((ODE, size)), [mean.get((model, size)) for model in models if model != ODE]
        known = [rival for rival in rivals if rival]
        better = ours / min(known) if ours and known and len(known) == len(rivals) else None
        made[f"RMSE of {ODE} over that of the better RNN, {size} points"] = better
        near = found[ODE, size].group.mean("rmse_familiar_clean") if (ODE, size) in found else None
        made[f"RMSE of {ODE} where training windows reach, {size} points"] = near
    fall = validation.largest_fall(found.values(), VALID, lambda before, after: 100 * (1 - after / before))
    return {**made, "largest fall of a validation error over the last tenth of training (%)": fall}
