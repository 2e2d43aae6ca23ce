"""The figures of table 2: errors by points observed, and validation errors over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from odenet_cli.report import scales, style, validation
from odenet_cli.report.spirals import FURTHER, ODE, VALID, Cells, Choices, setting

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
def scores(
    found: Choices, models: Sequence[str], sizes: Sequence[int], paper: Mapping[str, Mapping[int, str]]
) -> Figure | None:
    """Error by points observed, against clean and noisy targets; crosses are the paper's."""
    if not found:
        return None
    figure = Figure(figsize=(style.WIDTH, style.HEIGHT + 0.2))
    panels = figure.subplots(1, len(PANELS), sharey=True)
    for axes, (title, name) in zip(panels, PANELS.items()):
        for place, model in enumerate(models):
            shift = 1 + 0.03 * (place - (len(models) - 1) / 2)  # so that bars do not cover each other
            look = LOOKS[model]
            line = []
            for size in sizes:
                spread = found[model, size].group.spread(name) if (model, size) in found else None
                if spread:
                    line.append((size * shift, spread.mean))
                    style.point(axes, line[-1], (0, spread.sd or 0), **look)
                if name == FURTHER and size in paper.get(model, {}):
                    at = (size * shift, float(paper[model][size]))
                    axes.plot(*at, "x", color=look["color"], markersize=5, markeredgewidth=1.1)
            axes.plot([x for x, _ in line], [y for _, y in line], color=look["color"], linewidth=0.9)
        axes.set(title=title, xlabel="points observed of 100", xscale="log")
        scales.ticked(axes.xaxis, [float(size) for size in sizes])
    panels[0].set_ylabel("RMSE")
    panels[0].set_ylim(bottom=0)
    handles = [style.handle(model, linewidth=0.9, **LOOKS[model]) for model in models]
    handles.append(style.handle("the paper", color=style.GREY, marker="x", linestyle=""))
    style.legend(figure, handles)
    return figure


@style.styled
def curves(cells: Cells, found: Choices, sizes: Sequence[int]) -> Figure | None:
    """Validation error over training, a panel for each number of points."""
    if not found:
        return None
    figure = Figure(figsize=(style.WIDTH, style.HEIGHT + 0.2))
    panels = figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
    heights: list[float] = []
    for axes, size in zip(panels, sizes):
        for model, look in LOOKS.items():
            choice = found.get((model, size))
            for name in choice.tried if choice else ():
                best, color = choice is not None and name == choice.setting, look["color"]
                over = validation.course(cells[model, size], VALID, name, setting)
                width, alpha = (1.4, 1.0) if best else (0.6, 0.45)
                axes.plot(over.steps, over.mean, color=color, linewidth=width, alpha=alpha, zorder=2 + best)
                if best and over.runs > 1:
                    axes.fill_between(over.steps, over.low, over.high, color=color, alpha=0.18, linewidth=0)
                heights += over.mean
        axes.set(title=f"{size} of 100 points", xlabel="update", xlim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    panels[0].set_ylabel("validation RMSE after the window")
    if heights:
        scales.fitted(panels[0], heights)
    shown = dict.fromkeys(model for model, _ in found)
    style.legend(figure, [style.handle(model, color=LOOKS[model]["color"], linewidth=1.4) for model in shown])
    return figure
