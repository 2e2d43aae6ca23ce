"""Table 2 of Chen et al. 2018: latent ODE, RNN and Δt-RNN predict spirals beyond the window that was observed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from odenet_cli.report._rates import Choice, at_best, chosen, last_tenths, settings_tried
from odenet_cli.report._table2 import FURTHER, ODE, VALID, Choices, curves, scores, setting
from odenet_cli.report.result import Entry, Result, row_of
from odenet_cli.report.runs import Run, number
from odenet_cli.report.spread import over_seeds
from odenet_cli.report.table import aligned, interval, parameters, plus_minus, runs
from odenet_cli.report.words import NONE, count, digits

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
    readable = [entry for entry in entries if entry.run.config]
    cells: dict[tuple[str, int], list[Entry]] = {}
    for entry in readable:
        cells.setdefault((entry.row, points(entry.run)), []).append(entry)
    found = {key: choice for key, mine in cells.items() if (choice := chosen(mine, valid, setting))}
    models = list(dict.fromkeys(entry.row for entry in entries))
    sizes = sorted({size for _, size in cells})
    body = [CLEAN, main(found, models, sizes, rest["paper"], FURTHER), NOISY]
    body += [
        main(found, models, sizes, {}, VALID),
        "![scores]",
        SCORES,
        "\n".join(f"- {line}" for line in rest["notes"]),
    ]
    if found:
        body += ["## In detail", DETAILS, details(found, models, sizes), TRIED, tuned(found, models, sizes)]
        body += [PACE, paced] if (paced := paces(found, models, sizes)) else []
        body += ["## Training", CURVES, "![curves]"]
    shown = {entry.run.folder for choice in found.values() for entry in choice.entries}
    rows = [
        {
            **row_of(entry, NUMBERS),
            **{name: entry.run.config.get(key) for name, key in KEYS.items()},
            **{"validation": valid(entry.run), "shown": entry.run.folder in shown},
            **{f"{name}_pace_time": row[name] for row in entry.measured for name in row if name == FURTHER},
        }
        for entry in entries
    ]
    return Result(
        title="Table 2, latent ODE against RNNs on spirals",
        body=body,
        rows=rows,
        figures={"scores": scores(found, models, sizes, rest["paper"]), "curves": curves(cells, found, sizes)},
        facts=facts(found, models, sizes),
    )


def points(run: Run) -> int:
    return int(run.config["data.observed"])


def valid(run: Run) -> float | None:
    return at_best(run, VALID)


def main(
    found: Choices, models: Sequence[str], sizes: Sequence[int], paper: Mapping[str, Mapping[int, str]], name: str
) -> str:
    """A model a row, as in the paper."""
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


def details(found: Choices, models: Sequence[str], sizes: Sequence[int]) -> str:
    head = ["", "points", "clean", "95 % interval", "/ sd", "familiar", "window", "parameters", "NFE", "min", "setting"]
    rows = []
    for model in models:
        for size in sizes:
            if choice := found.get((model, size)):
                group = choice.group
                cells = [model, str(size), plus_minus(group.spread(FURTHER), 3), interval(group.spread(FURTHER), 3)]
                cells += [plus_minus(group.spread("relative_further"), 3)]
                cells += [plus_minus(group.spread(f"rmse_{scope}_clean"), 3) for scope in ("familiar", "window")]
                minutes = group.mean("time_s")
                cells += [parameters(group), count(group.mean("nfe_forward") or None)]
                rows.append([*cells, digits(minutes / 60 if minutes else None), choice.setting])
    return aligned(head, rows, left=1)


def tuned(found: Choices, models: Sequence[str], sizes: Sequence[int]) -> str:
    """What was tried, and chosen."""
    every = settings_tried(found.values())
    rows = []
    for model in models:
        for size in sizes:
            if choice := found.get((model, size)):
                tried = [plus_minus(choice.tried.get(name), 3) for name in every]
                rows.append([model, str(size), *tried, choice.setting])
    return aligned(["", "points", *every, "chosen"], rows, left=1)


def paces(found: Choices, models: Sequence[str], sizes: Sequence[int]) -> str:
    """The error of the free run at another pace beside that of the table; empty where it was not measured."""
    rows = []
    for model in models:
        cells = [model]
        for size in sizes:
            choice = found.get((model, size))
            slow = (
                [(cell.run.seed, number(row.get(FURTHER))) for cell in choice.entries for row in cell.measured]
                if (choice)
                else []
            )
            cells.append(plus_minus(over_seeds(slow), 3))
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
    falls = [fall for choice in found.values() if (fall := last_fall(choice)) is not None]
    made["largest fall of a validation error over the last tenth of training (%)"] = max(falls, default=None)
    return made


def last_fall(choice: Choice) -> float | None:
    """By how many per cent the validation error fell over the last tenth of training, a mean over seeds; None where
    training was too short to say."""
    tenths = [found for run in choice.group.done if (found := last_tenths(run, VALID))]
    falls = [100 * (1 - after / before) for before, after in tenths]
    return statistics.fmean(falls) if falls else None
