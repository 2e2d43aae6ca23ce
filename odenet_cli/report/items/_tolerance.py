"""What training and evaluating at different tolerances comes to: three panels, colour is the training's tolerance."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from odenet_cli.report import scales, style
from odenet_cli.report.text import plain

Matrix = Mapping[tuple[float, float], float]  # (tolerance of the training, of the evaluation) -> a number
ASIDE = 0.16  # decades between the first and the last line, that points of equal value stay visible


@style.styled
def draw(
    error: Matrix, nfe: Matrix, costs: Mapping[float, tuple[float, float]], about: Mapping[str, float]
) -> Figure | None:
    """Draw test error and evaluations against the tolerance of the evaluation, and what a training costs.

    error   as a share; `about["error"]` is its standard error in per cent
    costs   tolerance of the training -> (seconds a step, relative error of its gradient)
    """
    trained = list(dict.fromkeys(training for training, _ in error))
    if len(trained) < 2:
        return None
    figure = Figure(figsize=(style.WIDTH, style.HEIGHT + 0.35))
    score, cost, worth = figure.subplots(1, 3)
    norm = LogNorm(min(trained), max(trained))
    looks = {
        tol: {"color": style.SHADES(1 - norm(tol)), "marker": mark} for tol, mark in zip(trained, style.MARKERS * 2)
    }
    lines(score, {key: 100 * value for key, value in error.items()}, looks)
    lines(cost, nfe, looks)
    middle, half = 100 * sum(error.values()) / len(error), about["error"]
    score.axhspan(middle - half, middle + half, color=style.PALE, alpha=0.35, linewidth=0, zorder=0)
    score.set(title="a   test error (%)")
    cost.set(title="b   NFE of an evaluation", yscale="log")
    scales.spanned(cost.yaxis, list(nfe.values()), 100)
    for tol, (seconds, value) in costs.items():
        worth.plot(seconds, 100 * value, linestyle="", markersize=4.5, **looks[tol])
    worth.set(title="c   gradient error (%)", xlabel="seconds a training step")
    scales.from_zero(worth, [100 * value for _, value in costs.values()])
    worth.set_xlim(0, 1.12 * max((seconds for seconds, _ in costs.values()), default=1))
    handles = [style.handle(f"{plain(tol)}", linewidth=1, **look) for tol, look in looks.items()]
    style.legend(figure, handles, "trained at tolerance; the band in a is one standard error of a test error, each way")
    return figure


def lines(axes: Axes, values: Matrix, looks: Mapping[float, style.Look]) -> None:
    """Draw a line for each training, a little aside of one another, the tighter evaluation to the right."""
    for place, (trained, look) in enumerate(looks.items()):
        mine = {tol: value for (training, tol), value in values.items() if training == trained}
        aside = 10 ** (ASIDE * (0.5 - place / max(1, len(looks) - 1)))
        axes.plot([tol * aside for tol in mine], list(mine.values()), linewidth=1, markersize=3.2, **look)
    axes.set(xscale="log", xlabel="tolerance of the evaluation")
    scales.tens(axes.xaxis)
    axes.minorticks_off()
    axes.invert_xaxis()
