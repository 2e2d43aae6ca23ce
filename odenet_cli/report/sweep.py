"""Draw error, evaluations and memory against a key that was swept, and error against evaluations."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from odenet_cli.report import scales, style
from odenet_cli.report.compare import Comparison, Group, distinguishing_keys
from odenet_cli.report.statistics import grouped
from odenet_cli.report.text import group_label, keys_title
from odenet_cli.scores import Score, scores_of

BACKWARD: style.Look = {"mfc": "white", "linestyle": (0, (3, 1.5))}
LOSS = Score("loss", "loss", 4)
Measure = tuple[str, float, style.Look]  # name, factor, and how it looks


@dataclass(frozen=True)
class Line:
    """Hold groups along the swept key that share the values of the other keys."""

    label: str
    look: style.Look
    groups: list[Group]


@style.styled
def sweep(comparison: Comparison, key: str) -> Figure:
    """Draw the score, evaluations forward (filled) and backward (open), and memory saved for backward, against `key`.

    One line for each setting of the other keys; bars are the standard deviation over seeds.
    """
    lines, axis_title, legend_title = _lines(comparison, key)
    groups = [group for line in lines for group in line.groups]
    score, name, factor = _score(groups)
    panels: dict[str, list[Measure]] = {score: [(name, factor, {})]}
    if any(group.mean("nfe_forward") for group in groups):
        panels["field evaluations (NFE)"] = [("nfe_forward", 1, {}), ("nfe_backward", 1, BACKWARD)]
    panels["saved for backward (MiB)"] = [("saved_mib", 1, {})]

    values = sorted({group.values[key] for group in groups})
    figure = Figure(figsize=(style.WIDTH * len(panels) / 3, style.HEIGHT + 0.1))
    for axes, (panel, measures) in zip(figure.subplots(1, len(panels)), panels.items()):
        axes.set(title=panel, xlabel=axis_title, xscale="log" if scales.spans(values) else "linear")
        scales.ticks_at(axes.xaxis, values)
        heights: list[float] = []
        for measure in measures:
            for place, line in enumerate(lines):
                shift_pt = 1.8 * (place - (len(lines) - 1) / 2) if panel == score else 0.0
                heights += _draw_line(axes, line, key, measure, shift_pt)
        if panel != score:
            scales.cost_limits(axes, heights)

    entries = [(line.label, line.look) for line in lines if line.label]
    if any(group.mean("nfe_backward") for group in groups):
        grey: style.Look = {"color": style.GREY, "marker": "o"}
        entries += [("NFE forward", grey), ("NFE backward", grey | BACKWARD)]
    if entries:
        style.legend(figure, entries, legend_title)
    return figure


@style.styled
def tradeoff(comparison: Comparison, key: str) -> Figure | None:
    """Draw the score against the evaluations of the test solve; colour is `key`. None without a solver."""
    lines, axis_title, legend_title = _lines(comparison, key)
    groups = [group for line in lines for group in line.groups]
    if not any(group.mean("nfe_test") for group in groups):
        return None
    score, name, factor = _score(groups)
    values = sorted({group.values[key] for group in groups})
    norm = (LogNorm if scales.spans(values) else Normalize)(values[0], values[-1])
    figure = Figure(figsize=(style.WIDTH / 2, style.HEIGHT + 0.5))
    axes = figure.subplots()
    for line in lines:
        spreads = [(group, group.spread("nfe_test"), group.spread(name)) for group in line.groups]
        points = [(group.values[key], x, y) for group, x, y in spreads if x and x.mean and y]
        path = [[x.mean for _, x, _ in points], [factor * y.mean for _, _, y in points]]
        axes.plot(*path, color=style.PALE, linewidth=0.8, zorder=1)
        for value, x, y in points:
            at, bars = (x.mean, factor * y.mean), (x.sd or 0.0, factor * (y.sd or 0.0))
            style.point(axes, at, bars, color=style.SHADES(norm(value)), marker=line.look["marker"])
    scales.integer_ticks(axes.xaxis)
    axes.set(xlabel="NFE of a test solve", ylabel=score)
    bar = style.colorbar(figure, axes, ScalarMappable(norm, style.SHADES), axis_title, aspect=28, pad=0.03)
    scales.ticks_at(bar.ax.yaxis, values)
    grey: style.Look = {"color": style.GREY, "linestyle": ""}
    entries = [(line.label, grey | {"marker": line.look["marker"]}) for line in lines if line.label]
    if len(entries) > 1:
        style.legend(figure, entries, legend_title)
    return figure


def _lines(comparison: Comparison, key: str) -> tuple[list[Line], str, str]:
    """Return the groups that have a finished run and the key, by the values of the other keys, along the key.

    Also the title of the axis, which names the keys that change only with this one, and the title of the legend.
    """
    groups = [group for group in comparison.groups if group.done and group.values[key] is not None]
    distinguishing, following = distinguishing_keys(groups, comparison.keys, [key])
    others = [other for other in distinguishing if other != key]
    along = sorted(groups, key=lambda group: float(group.values[key]))
    rows = grouped((tuple(group.values[other] for other in others), group) for group in along)
    looks = style.group_looks([dict(zip(others, values)) for values in rows])
    lines = [
        Line(group_label(row[0].values, others), look | {"marker": style.MARKERS[place % len(style.MARKERS)]}, row)
        for place, (look, row) in enumerate(zip(looks, rows.values()))
    ]
    return lines, keys_title([key], following), keys_title(others)


def _score(groups: list[Group]) -> tuple[str, str, float]:
    """Return title, name and factor of the test score: the error where any group has one, else the main score of all
    groups, else the loss."""
    if any(group.spread("error") for group in groups):
        return "test error (%)", "error", 100
    main = {next(iter(scores_of(run.final)), LOSS) for group in groups for run in group.done}
    score = main.pop() if len(main) == 1 else LOSS
    return f"test {score.title}", score.name, score.factor


def _draw_line(axes: Axes, line: Line, key: str, measure: Measure, shift_pt: float) -> list[float]:
    """Draw one line with its bars, `shift_pt` points aside, and return how high they reach.

    Where nothing is evaluated there is no point: a gradient without re-evaluation.
    """
    name, factor, look = measure
    spreads = [(group.values[key], spread) for group in line.groups if (spread := group.spread(name))]
    points = [(x, spread) for x, spread in spreads if spread.mean or not name.startswith("nfe")]
    if not points:
        return []
    heights = [factor * spread.mean for _, spread in points]
    bars = [factor * (spread.sd or 0.0) for _, spread in points]
    container = axes.errorbar(
        [x for x, _ in points], heights, yerr=bars if any(bars) else None, elinewidth=0.7, **{**line.look, **look}
    )
    for artist in container.get_children():  # moved only now, so that the axes know where the points are
        artist.set_transform(artist.get_transform() + ScaledTranslation(shift_pt / 72, 0, axes.figure.dpi_scale_trans))
    return [height + bar for height, bar in zip(heights, bars)]
