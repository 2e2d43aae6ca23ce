"""Table 2 of Chen et al. 2018: latent ODE, RNN and Δt-RNN predict spirals beyond the window that was observed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from odenet_cli.markdown import MISSING, markdown_table, mean_count, three_digits
from odenet_cli.report import scales, selection, style
from odenet_cli.report.result import Entry, Facts, Result
from odenet_cli.report.runs import Run, finite
from odenet_cli.report.selection import Choice
from odenet_cli.report.statistics import over_seeds
from odenet_cli.report.table import interval, parameters, plus_minus, runs_and_seeds
from odenet_cli.report.text import bullets, compact

TITLE = "Table 2, latent ODE against RNNs on spirals"
ODE, FURTHER, VALID = "latent ODE", "rmse_further_clean", "rmse_further_noisy"
LABELS = {
    "rmse": "RMSE of {}, {} points",
    "rmse_ratio": f"RMSE of {ODE} over that of the better RNN, {{}} points",
    "rmse_familiar": f"RMSE of {ODE} where training windows reach, {{}} points",
    "validation_fall": "largest fall of a validation error over the last tenth of training (%)",
}
FROM_ROWS, CHOSEN_BY = ("scores",), VALID  # figures that need the rows of the CSV alone, in which it is `validation`
MEASURED = {f"{FURTHER}_pace_time": FURTHER}  # column of the CSV: what is measured on the networks
CONFIG_KEYS = {"observed": "data.observed", "lr": "optim.lr", "kl_weight": "model.kl"}
BASELINES = {"last value": "rmse_last_value", "constant velocity": "rmse_velocity"}
NUMBERS = (
    *("rmse_further_clean", "rmse_further_noisy", "relative_further", "rmse_familiar_clean", "rmse_familiar_noisy"),
    *("rmse_window_clean", "rmse_window_noisy", *BASELINES.values(), "loss", "parameters"),
    *("nfe_forward", "nfe_backward", "saved_mib", "best_epoch", "time_s"),
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
    "RMSE after the window on validation trajectories (noisy targets) over training; the mean over the seeds named, "
    "thick at the setting that was chosen, thin at others that are drawn; the range over seeds is shaded."
)

Cells = Mapping[tuple[str, int], Sequence[Entry]]  # (model, points observed) -> all its cells
Choices = Mapping[tuple[str, int], Choice]
Paper = Mapping[str, Mapping[int, str]]  # model -> points observed -> the paper's RMSE


def select(entries: Iterable[Entry]) -> tuple[Cells, Choices]:
    """Return the cells of each model and number of points, and the choice among them."""
    return selection.select(entries, lambda e: (e.row, int(e.run.config["data.observed"])), score, setting)


def score(run: Run) -> float | None:
    """Return the validation error by which a setting is chosen."""
    return selection.at_best_epoch(run, VALID)


def setting(run: Run) -> str:
    """Return the learning rate and, where it is not 1, the weight of the KL divergence."""
    weight = float(run.config.get("model.kl", 1))
    rate = selection.learning_rate(run)
    return rate if weight == 1 else f"{rate} · {compact(weight)} KL"


def result(entries: Sequence[Entry], rest: dict[str, Any]) -> Result:
    """Return the report; `rest["paper"]` holds the paper's RMSE by model and points, `rest["notes"]` free choices."""
    cells, chosen = select(entries)
    models = list(dict.fromkeys(entry.row for entry in entries))
    sizes = sorted({size for _, size in cells})
    keys = [(model, size) for model in models for size in sizes]
    choices = {key: chosen[key] for key in keys if key in chosen}
    body = [CLEAN, errors(choices, models, sizes, rest["paper"], FURTHER)]
    body += [NOISY, errors(choices, models, sizes, {}, VALID), "![scores]", SCORES, bullets(rest["notes"])]
    if choices:
        tried = {(model, str(size)): choice for (model, size), choice in choices.items()}
        body += ["## In detail", DETAILS, details(choices), TRIED]
        body += [selection.settings_table(tried, ["", "points"], left=1)]
        body += [PACE, table] if (table := paces(choices, models, sizes)) else []
        body += ["## Training", CURVES, "![curves]"]
    rows = selection.csv_rows(entries, choices, score, NUMBERS, CONFIG_KEYS)
    for row, entry in zip(rows, entries):
        row |= {column: pace[name] for pace in entry.measured for column, name in MEASURED.items() if name in pace}
    return Result(
        body=body,
        rows=rows,
        figures={"scores": scores(choices, models, sizes, rest["paper"]), "curves": curves(cells, choices, sizes)},
        facts=facts(choices, models, sizes),
    )


def errors(choices: Choices, models: Sequence[str], sizes: Sequence[int], paper: Paper, name: str) -> str:
    """Return the table of the error `name`, a model a row as in the paper, whose numbers stand beside it."""
    quoted = any(paper.get(model) for model in models)
    head = [""]
    for size in sizes:
        head += [f"{size}/100", *["paper"] * quoted]
    rows = []
    for model in models:
        cells = [model]
        for size in sizes:
            choice = choices.get((model, size))
            cells.append(plus_minus(choice.group.spread(name), 3) if choice else "not done")
            cells += [paper.get(model, {}).get(size, MISSING)] * quoted
        seeds = dict.fromkeys(runs_and_seeds(choice.group) for key, choice in choices.items() if key[0] == model)
        rows.append([*cells, "; ".join(seeds) or "0"])
    for title, baseline in BASELINES.items() if name == FURTHER else ():
        cells = [title]
        for size in sizes:
            known = [choice.group.mean(baseline) for key, choice in choices.items() if key[1] == size]
            cells += [f"{known[0]:.3f}" if known and known[0] else MISSING, *[MISSING] * quoted]
        rows.append([*cells, ""])
    return markdown_table([*head, "runs (seeds)"], rows, left=1)


def details(choices: Choices) -> str:
    """Return errors of other kinds, and costs, of the chosen settings."""
    head = ["", "points", "clean", "95 % interval", "/ sd", "familiar", "window", "parameters", "NFE", "min", "setting"]
    rows = []
    for (model, size), choice in choices.items():
        group = choice.group
        cells = [model, str(size), plus_minus(group.spread(FURTHER), 3), interval(group.spread(FURTHER), 3)]
        names = ("relative_further", "rmse_familiar_clean", "rmse_window_clean")
        cells += [plus_minus(group.spread(name), 3) for name in names]
        cells += [parameters(group), mean_count(group.mean("nfe_forward") or None)]
        seconds = group.mean("time_s")
        rows.append([*cells, three_digits(seconds / 60 if seconds else None), choice.setting])
    return markdown_table(head, rows, left=1)


def paces(choices: Choices, models: Sequence[str], sizes: Sequence[int]) -> str:
    """Return the error of the free run at another pace than that of the table; empty where it was not measured."""

    def cell(choice: Choice | None) -> str:
        entries = choice.entries if choice else ()
        values = [(entry.run.seed, finite(row.get(FURTHER))) for entry in entries for row in entry.measured]
        return plus_minus(over_seeds(values, FURTHER), 3)

    rows = [[model, *(cell(choices.get((model, size))) for size in sizes), "clean"] for model in models]
    rows = [row for row in rows if set(row[1:-1]) != {MISSING}]
    return markdown_table(["", *(f"{size}/100" for size in sizes), "targets"], rows, left=1) if rows else ""


def facts(choices: Choices, models: Sequence[str], sizes: Sequence[int]) -> Facts:
    numbers: Facts = {}
    mean = {key: choice.group.mean(FURTHER) for key, choice in choices.items()}
    for size in sizes:
        numbers |= {f"rmse/{model}/{size}": mean.get((model, size)) for model in models}
        ode, rnns = mean.get((ODE, size)), [mean.get((model, size)) for model in models if model != ODE]
        known = [error for error in rnns if error]
        ratio = ode / min(known) if ode and known and len(known) == len(rnns) else None
        familiar = choices[ODE, size].group.mean("rmse_familiar_clean") if (ODE, size) in choices else None
        numbers |= {f"rmse_ratio/{size}": ratio, f"rmse_familiar/{size}": familiar}
    fall = selection.largest_fall(choices.values(), VALID, lambda before, after: 100 * (1 - after / before))
    return {**numbers, "validation_fall": fall}


# The drawing.

LOOKS: dict[str, style.Look] = {
    ODE: {"color": style.CYCLE[0], "marker": "o"},
    "RNN": {"color": style.CYCLE[1], "marker": "s"},
    "Δt-RNN": {"color": style.CYCLE[2], "marker": "^"},
}
PANELS = {
    "after the window, clean": FURTHER,
    "after the window, noisy": VALID,
    "clean, at familiar states": "rmse_familiar_clean",
}


@style.styled
def scores(choices: Choices, models: Sequence[str], sizes: Sequence[int], paper: Paper) -> Figure | None:
    """Draw the error by points observed, against clean and noisy targets; crosses are the paper's."""
    if not choices:
        return None
    figure, (panels,) = style.panel_grid(len(PANELS), len(PANELS), style.HEIGHT + 0.2, sharey=True)
    for axes, (title, name) in zip(panels, PANELS.items()):
        for place, model in enumerate(models):
            shift = 1 + 0.03 * (place - (len(models) - 1) / 2)  # so that bars do not cover each other
            look, line = LOOKS[model], []
            for size in sizes:
                spread = choices[model, size].group.spread(name) if (model, size) in choices else None
                if spread:
                    line.append((size * shift, spread.mean))
                    style.point(axes, line[-1], (0, spread.sd or 0), **look)
                if name == FURTHER and size in paper.get(model, {}):
                    at = (size * shift, float(paper[model][size]))
                    axes.plot(*at, "x", color=look["color"], markersize=5, markeredgewidth=1.1)
            axes.plot([x for x, _ in line], [y for _, y in line], color=look["color"], linewidth=0.9)
        axes.set(title=title, xlabel="points observed of 100", xscale="log")
        scales.ticks_at(axes.xaxis, [float(size) for size in sizes])
    panels[0].set_ylabel("RMSE")
    panels[0].set_ylim(bottom=0)
    entries = [(model, LOOKS[model] | {"linewidth": 0.9}) for model in models]
    style.legend(figure, [*entries, ("the paper", {"color": style.GREY, "marker": "x", "linestyle": ""})])
    return figure


@style.styled
def curves(cells: Cells, choices: Choices, sizes: Sequence[int]) -> Figure | None:
    """Draw the validation error over training, a panel for each number of points."""
    if not choices:
        return None
    figure, (panels,) = style.panel_grid(len(sizes), len(sizes), style.HEIGHT + 0.2, sharey=True)
    heights: list[float] = []
    for axes, size in zip(panels, sizes):
        for model, look in LOOKS.items():
            key, color = (model, size), look["color"]
            for best, curve in selection.learning_curves(cells.get(key, ()), choices.get(key), VALID, setting):
                width, alpha = (1.4, 1.0) if best else (0.6, 0.45)
                axes.plot(curve.steps, curve.mean, color=color, linewidth=width, alpha=alpha, zorder=2 + best)
                if best and curve.runs > 1:
                    axes.fill_between(curve.steps, curve.low, curve.high, color=color, alpha=0.18, linewidth=0)
                heights += curve.mean
        axes.set(title=f"{size} of 100 points", xlabel="update", xlim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    panels[0].set_ylabel("validation RMSE after the window")
    if heights:
        scales.score_limits(panels[0], heights)
    models = dict.fromkeys(model for model, _ in choices)
    style.legend(figure, [(model, {"color": LOOKS[model]["color"], "linewidth": 1.4}) for model in models])
    return figure
