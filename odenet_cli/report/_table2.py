"""The figures of table 2: errors by points observed, and validation errors over training."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from odenet_cli.report import style
from odenet_cli.report._rates import Choice, rate
from odenet_cli.report.result import Entry
from odenet_cli.report.runs import Run, number
from odenet_cli.report.words import plain

ODE, FURTHER, VALID = "latent ODE", "rmse_further_clean", "rmse_further_noisy"
LOOKS: dict[str, style.Look] = {
    ODE: {"color": style.CYCLE[0], "marker": "o"},
    "RNN": {"color": style.CYCLE[1], "marker": "s"},
    "Δt-RNN": {"color": style.CYCLE[2], "marker": "^"},
}

Choices = Mapping[tuple[str, int], Choice]


def setting(run: Run) -> str:
    """The learning rate and, where it is not 1, the weight of the divergence."""
    weight = float(run.config.get("model.kl", 1))
    return rate(run) if weight == 1 else f"{rate(run)} · {plain(weight)} KL"


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
