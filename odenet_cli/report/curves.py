"""Draw training curves: one line per run, with one colour for the seeds of a group."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from odenet_cli.report import scales, style
from odenet_cli.report.compare import Comparison, compare, distinguishing_keys
from odenet_cli.report.runs import Run, finite
from odenet_cli.report.text import group_label, keys_title

Curve = list[tuple[int, float]]  # (step, value)


class Panel(NamedTuple):
    """Name one number of one split over training."""

    title: str
    split: str
    name: str
    factor: float = 1


LOSS = Panel("training loss", "train", "loss")
SCORES = (  # the first that the runs have is drawn
    Panel("validation error (%)", "valid", "error", 100),
    Panel("training error (%)", "train", "error", 100),
    Panel("validation RMSE", "valid", "rmse"),
    Panel("validation loss", "valid", "loss"),
)
COSTS = (
    Panel("NFE forward", "train", "nfe_forward"),
    Panel("NFE backward", "train", "nfe_backward"),
    Panel("saved memory (MiB)", "train", "saved_mib"),
)
MAX_POINTS = 200  # of a line
MOSAIC = {1: "A", 2: "AB", 3: "ABC", 4: "AB\nCD", 5: "AAABBB\nCCDDEE"}
NARROW = {1: "A", 2: "AB", 3: "AB\nCC", 4: "AB\nCD"}  # in one column of text


@style.styled
def training(
    comparison: Comparison, numbers: Sequence[Panel] = (LOSS, *SCORES, *COSTS), narrow: bool = False
) -> Figure | None:
    """Draw these numbers, of `SCORES` one, against epoch, or step where a run has no epochs; None without records.

    A run that is not done ends in a cross; one that failed does not stretch the axes of the others.
    """
    groups = [group for group in comparison.groups if any(run.records("train") for run in group.runs)]
    keys, following = distinguishing_keys(groups, comparison.keys)
    looks = style.group_looks([{key: group.values[key] for key in keys} for group in groups])
    runs = [(run, look) for group, look in zip(groups, looks) for run in group.runs if run.records("train")]
    if not runs:
        return None
    panels = [panel for panel in numbers if any(_curve(run, panel) for run, _ in runs)]
    panels = [panel for panel in panels if panel not in SCORES or panel == next(p for p in panels if p in SCORES)]
    epochs = all(run.steps_per_epoch and run.config.get("trainer.epochs") for run, _ in runs)

    mosaic = (NARROW if narrow else MOSAIC)[len(panels)]
    width, height = (style.COLUMN, style.COLUMN_HEIGHT) if narrow else (style.WIDTH, style.HEIGHT)
    figure = Figure(figsize=(width, height * (1 + mosaic.count("\n"))))
    for axes, panel in zip(figure.subplot_mosaic(mosaic).values(), panels):
        smooth = any(len(_curve(run, panel)) > MAX_POINTS for run, _ in runs)
        axes.set_title(f"{panel.title}, smoothed" if smooth else panel.title)
        axes.set_xlabel("epoch" if epochs else "optimiser step")
        scales.integer_ticks(axes.xaxis)
        _draw_panel(axes, panel, runs, epochs)
        axes.set_xlim(left=0)

    labels = [group_label(group.values, keys) or group.runs[0].config.get("name", "") for group in groups]
    entries = list(zip(labels, looks))
    if not all(run.done for run, _ in runs):
        entries.append(("not done", {"color": style.GREY, "marker": "x", "linestyle": ""}))
    if len(entries) > 1:
        style.legend(figure, entries, keys_title(keys, following))
    return figure


def while_training(run: Run) -> dict[str, Figure]:
    """Draw `training`, how a single run went, where it left records of that."""
    figure = training(compare([run]), (LOSS, *SCORES, *COSTS[:2]), narrow=True)
    return {} if figure is None else {"training": figure}


def _smooth(points: Curve) -> Curve:
    """Average as many neighbours as leave no more than MAX_POINTS."""
    width = -(-len(points) // MAX_POINTS)
    blocks = [points[i : i + width] for i in range(0, len(points), width)] if width > 1 else []
    return [(block[-1][0], statistics.fmean(value for _, value in block)) for block in blocks] or points


def _draw_panel(axes: Axes, panel: Panel, runs: list[tuple[Run, style.Look]], epochs: bool) -> None:
    """Draw one number: a line for each run."""
    heights: dict[bool, list[float]] = {True: [], False: []}  # of runs that failed, and of others
    for run, look in runs:
        points = _smooth(_curve(run, panel))
        if points:
            x = [step / (run.steps_per_epoch or 1) if epochs else step for step, _ in points]
            y = [value for _, value in points]
            marker = "." if len(points) == 1 or (panel in SCORES and len(points) <= 15) else ""
            axes.plot(x, y, linewidth=0.9, alpha=0.85, marker=marker, **look)
            if not run.done:
                axes.plot(x[-1], y[-1], "x", color=look["color"], markersize=5, zorder=5)
            heights[run.status == "failed"] += y
    set_limits = scales.cost_limits if panel in COSTS else scales.score_limits
    set_limits(axes, heights[False] or heights[True])


def _curve(run: Run, panel: Panel) -> Curve:
    """Return the records that have this number; none where nothing was evaluated."""
    points = [(record["step"], finite(record.get(panel.name))) for record in run.records(panel.split)]
    curve = [(step, panel.factor * value) for step, value in points if value is not None]
    return curve if any(value for _, value in curve) or not panel.name.startswith("nfe") else []
