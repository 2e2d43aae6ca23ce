"""Table 2 of Chen et al. 2018: latent ODE, RNN and Δt-RNN predict spirals beyond the window that was observed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from odenet_cli.report import style
from odenet_cli.report._rates import Choice, at_best, chosen, last_tenths, rate, settings_tried
from odenet_cli.report.result import Entry, Result, row_of
from odenet_cli.report.runs import Run, number
from odenet_cli.report.spread import over_seeds
from odenet_cli.report.table import aligned, interval, parameters, plus_minus, runs
from odenet_cli.report.words import NONE, count, digits, plain

ODE, FURTHER, VALID = "latent ODE", "rmse_further_clean", "rmse_further_noisy"
KEYS = {"observed": "data.observed", "lr": "optim.lr", "kl_weight": "model.kl"}
SIMPLE = {"last value": "rmse_last_value", "constant velocity": "rmse_velocity"}
NUMBERS = (
    *("rmse_further_clean", "rmse_further_noisy", "relative_further", "rmse_familiar_clean", "rmse_familiar_noisy"),
    *("rmse_window_clean", "rmse_window_noisy", *SIMPLE.values(), "loss", "parameters", "nfe_forward", "nfe_backward"),
    *("saved_mib", "best_epoch", "time_s"),
)
LOOKS: dict[str, style.Look] = {
    ODE: {"color": style.CYCLE[0], "marker": "o"},
    "RNN": {"color": style.CYCLE[1], "marker": "s"},
    "Δt-RNN": {"color": style.CYCLE[2], "marker": "^"},
}
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

Choices = Mapping[tuple[str, int], Choice]


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


def setting(run: Run) -> str:
    """The learning rate and, where it is not 1, the weight of the divergence."""
    weight = float(run.config.get("model.kl", 1))
    return rate(run) if weight == 1 else f"{rate(run)} · {plain(weight)} KL"


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


@style.styled
def scores(
    found: Choices, models: Sequence[str], sizes: Sequence[int], paper: Mapping[str, Mapping[int, str]]
) -> Figure | None:
    """Error by points observed, against clean and noisy targets; crosses are the paper's."""
    if not found:
        return None
    figure = Figure(figsize=(style.WIDTH, style.HEIGHT + 0.2))
    panels = figure.subplots(1, 3, sharey=True)
    titles = {"after the window, clean": FURTHER, "after the window, noisy": VALID}
    titles |= {"clean, at familiar states": "rmse_familiar_clean"}
    for axes, (title, name) in zip(panels, titles.items()):
        for place, model in enumerate(models):
            shift = 1 + 0.03 * (place - (len(models) - 1) / 2)  # so that bars do not cover each other
            look = LOOKS[model]
            line = []
            for size in sizes:
                spread = found[model, size].group.spread(name) if (model, size) in found else None
                if spread:
                    style.point(
                        axes,
                        (size * shift, spread.mean),
                        (0, spread.sd or 0),
                        color=look["color"],
                        marker=look["marker"],
                    )
                    line.append((size * shift, spread.mean))
                if name == FURTHER and size in paper.get(model, {}):
                    at = (size * shift, float(paper[model][size]))
                    axes.plot(*at, "x", color=look["color"], markersize=5, markeredgewidth=1.1)
            axes.plot([x for x, _ in line], [y for _, y in line], color=look["color"], linewidth=0.9)
        axes.set(title=title, xlabel="points observed of 100", xscale="log")
        style.ticked(axes.xaxis, [float(size) for size in sizes])
    panels[0].set_ylabel("RMSE")
    panels[0].set_ylim(bottom=0)
    handles: list[Any] = [Line2D([], [], linewidth=0.9, label=model, **LOOKS[model]) for model in models]
    handles.append(Line2D([], [], color=style.GREY, marker="x", linestyle="", label="the paper"))
    style.legend(figure, handles)
    return figure


@style.styled
def curves(cells: Mapping[tuple[str, int], Sequence[Entry]], found: Choices, sizes: Sequence[int]) -> Figure | None:
    """Validation error over training, a panel for each number of points."""
    if not found:
        return None
    figure = Figure(figsize=(style.WIDTH, style.HEIGHT + 0.2))
    heights: list[float] = []
    for axes, size in zip(figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0], sizes):
        for model, look in LOOKS.items():
            choice = found.get((model, size))
            if choice is None:
                continue
            for name in choice.tried:
                best = name == choice.setting
                mine = [e.run for e in cells[model, size] if e.run.done and setting(e.run) == name]
                steps, middle, low, high = bundle(mine)
                axes.plot(
                    steps,
                    middle,
                    color=look["color"],
                    linewidth=1.4 if best else 0.6,
                    alpha=1 if best else 0.45,
                    zorder=3 if best else 2,
                )
                if best and len(mine) > 1:
                    axes.fill_between(steps, low, high, color=look["color"], alpha=0.18, linewidth=0)
                heights += middle
        axes.set(title=f"{size} of 100 points", xlabel="update", xlim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        if size == sizes[0]:
            axes.set_ylabel("validation RMSE after the window")
    if heights:
        style.fitted(figure.axes[0], heights)
    shown = dict.fromkeys(model for model, _ in found)
    style.legend(figure, [Line2D([], [], color=LOOKS[m]["color"], linewidth=1.4, label=m) for m in shown])
    return figure


def bundle(mine: Sequence[Run]) -> tuple[list[int], list[float], list[float], list[float]]:
    """Steps, and the mean, least and largest validation error of runs at each of them."""
    values: dict[int, list[float]] = {}
    for run in mine:
        for record in run.of("valid"):
            if (value := number(record.get(VALID))) is not None:
                values.setdefault(record["step"], []).append(value)
    steps = sorted(values)
    each = [values[step] for step in steps]
    return steps, [statistics.fmean(v) for v in each], [min(v) for v in each], [max(v) for v in each]
