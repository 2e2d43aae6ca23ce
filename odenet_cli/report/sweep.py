"""Error, evaluations and memory against a key that was swept, and error against evaluations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from odenet_cli.report import scales, style
from odenet_cli.report.groups import Comparison, Group, telling
from odenet_cli.report.text import label, title

OPEN: style.Look = {"mfc": "white", "linestyle": (0, (3, 1.5))}  # backward
Measure = tuple[str, float, style.Look]  # name, factor, and how it looks


@dataclass(frozen=True)
class Line:
    """Groups along the swept key that share the values of the other keys."""

    label: str
    look: style.Look
    groups: list[Group]


@style.styled
def sweep(comparison: Comparison, key: str) -> Figure:
    """The score, evaluations forward (filled) and backward (open), and the memory saved for backward, against `key`.

    One line for each setting of the other keys; bars are the standard deviation over seeds.
    """
    found, axis, heading = lines(comparison, key)
    groups = [group for line in found for group in line.groups]
    score, name, factor = judged(groups)
    panels: dict[str, list[Measure]] = {score: [(name, factor, {})]}
    if any(group.mean("nfe_forward") for group in groups):
        panels["field evaluations (NFE)"] = [("nfe_forward", 1, {}), ("nfe_backward", 1, OPEN)]
    panels["saved for backward (MiB)"] = [("saved_mib", 1, {})]

    figure = Figure(figsize=(style.WIDTH * len(panels) / 3, style.HEIGHT + 0.1))
    for axes, (panel, measures) in zip(figure.subplots(1, len(panels)), panels.items()):
        axes.set(title=panel, xlabel=axis)
        scales.swept(axes, [group.values[key] for group in groups])
        heights: list[float] = []
        for measure in measures:
            for place, line in enumerate(found):
                aside = 1.8 * (place - (len(found) - 1) / 2) if panel == score else 0.0
                heights += _draw(axes, line, key, measure, aside)
        if panel != score:
            scales.from_zero(axes, heights)

    handles = [style.handle(line.label, **line.look) for line in found if line.label]
    if any(group.mean("nfe_backward") for group in groups):
        handles.append(style.handle("NFE forward", color=style.GREY, marker="o"))
        handles.append(style.handle("NFE backward", color=style.GREY, marker="o", **OPEN))
    if handles:
        style.legend(figure, handles, heading)
    return figure


@style.styled
def tradeoff(comparison: Comparison, key: str) -> Figure | None:
    """The score against the evaluations of the solve that is scored; colour is `key`. None without a solver."""
    found, axis, heading = lines(comparison, key)
    groups = [group for line in found for group in line.groups]
    if not any(group.mean("nfe_test") for group in groups):
        return None
    score, name, factor = judged(groups)
    values = sorted({group.values[key] for group in groups})
    scale = scales.norm(values)
    figure = Figure(figsize=(style.WIDTH / 2, style.HEIGHT + 0.5))
    axes = figure.subplots()
    for line in found:
        spreads = [(group, group.spread("nfe_test"), group.spread(name)) for group in line.groups]
        points = [(group.values[key], x, y) for group, x, y in spreads if x and x.mean and y]
        trail = [[x.mean for _, x, _ in points], [factor * y.mean for _, _, y in points]]
        axes.plot(*trail, color=style.PALE, linewidth=0.8, zorder=1)
        for value, x, y in points:
            style.point(
                axes,
                (x.mean, factor * y.mean),
                (x.sd or 0.0, factor * (y.sd or 0.0)),
                color=style.SHADES(scale(value)),
                marker=line.look["marker"],
            )
    scales.counted(axes.xaxis)
    axes.set(xlabel="NFE of a test solve", ylabel=score)
    bar = style.colorbar(figure, axes, ScalarMappable(scale, style.SHADES), axis, aspect=28, pad=0.03)
    scales.ticked(bar.ax.yaxis, values)
    handles = [
        style.handle(line.label, color=style.GREY, linestyle="", marker=line.look["marker"])
        for line in found
        if line.label
    ]
    if len(handles) > 1:
        style.legend(figure, handles, heading)
    return figure


def lines(comparison: Comparison, key: str) -> tuple[list[Line], str, str]:
    """The groups that have a finished run and the key, by the values of the other keys, along the key.

    Also what heads the axis, which names the keys that change only with this one, and what heads the legend.
    """
    groups = [group for group in comparison.groups if group.done and group.values[key] is not None]
    told, following = telling(groups, comparison.keys, [key])
    others = [other for other in told if other != key]
    rows: dict[tuple[Any, ...], list[Group]] = {}
    for group in sorted(groups, key=lambda group: float(group.values[key])):
        rows.setdefault(tuple(group.values[other] for other in others), []).append(group)
    found = [
        Line(label(same[0].values, others), look | {"marker": style.MARKERS[place % len(style.MARKERS)]}, same)
        for place, (look, same) in enumerate(
            zip(style.looks([dict(zip(others, values)) for values in rows]), rows.values())
        )
    ]
    return found, title([key], following), title(others)


def judged(groups: list[Group]) -> tuple[str, str, float]:
    """Title, name and factor of what the runs are judged by."""
    return (
        ("test error (%)", "error", 100) if any(group.spread("error") for group in groups) else ("test loss", "loss", 1)
    )


def _draw(axes: Axes, line: Line, key: str, measure: Measure, aside: float) -> list[float]:
    """One line with its bars, `aside` so many points from its place; returns how high they reach.

    No evaluations make no point: a gradient that evaluates nothing again.
    """
    name, factor, way = measure
    spreads = [(group.values[key], found) for group in line.groups if (found := group.spread(name))]
    points = [(x, found) for x, found in spreads if found.mean or not name.startswith("nfe")]
    if not points:
        return []
    heights = [factor * found.mean for _, found in points]
    bars = [factor * (found.sd or 0.0) for _, found in points]
    drawn = axes.errorbar(
        [x for x, _ in points], heights, yerr=bars if any(bars) else None, elinewidth=0.7, **{**line.look, **way}
    )
    for artist in drawn.get_children():  # moved only now, so that the axes know where the points are
        artist.set_transform(artist.get_transform() + ScaledTranslation(aside / 72, 0, axes.figure.dpi_scale_trans))
    return [height + bar for height, bar in zip(heights, bars)]
